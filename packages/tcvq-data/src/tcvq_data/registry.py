"""Datasets by name: the one place where a new dataset is entered."""

from collections.abc import Callable
from difflib import get_close_matches

from tcvq_data.embedded import FashionMini
from tcvq_data.interface import ImageSource


def _fashion_mini(split: str, limit: int | None) -> ImageSource:
    return FashionMini(split, limit=limit)


_DATASETS: dict[str, Callable[[str, int | None], ImageSource]] = {"fashion-mini": _fashion_mini}


def dataset_names() -> tuple[str, ...]:
    """Return the names that `open_dataset` knows, sorted."""
    return tuple(sorted(_DATASETS))


def open_dataset(name: str, split: str, *, limit: int | None = None) -> ImageSource:
    """Open one split of a dataset.

    Args:
        name: One of `dataset_names`.
        split: ``"train"`` or ``"test"``.
        limit: Take at most the first ``limit`` samples.

    Returns:
        The samples in a fixed order.

    Raises:
        ValueError: The name or the split is unknown, or the limit is not positive.
        ArtifactError: The files are damaged.
    """
    if name not in _DATASETS:
        near = get_close_matches(name, _DATASETS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"dataset {name!r} is unknown; {hint}known datasets: {', '.join(dataset_names())}")
    return _DATASETS[name](split, limit)
