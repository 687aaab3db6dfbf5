"""Datasets by name: the one place where a new dataset is entered."""

from collections.abc import Callable
from difflib import get_close_matches

from tcvq_data.embedded import open_fashion_mini
from tcvq_data.frames import open_dvs_cifar10, open_fashion_mini_events, open_nmnist
from tcvq_data.images.arrays import open_npz
from tcvq_data.images.celeba import open_celeba64, open_celeba_hq
from tcvq_data.images.cifar import open_cifar10
from tcvq_data.images.folder import open_image_folder, open_lsun_bedroom
from tcvq_data.images.hub import open_hub
from tcvq_data.images.lsun import open_lsun_church
from tcvq_data.images.mnist import open_fashion_mnist, open_mnist
from tcvq_data.interface import DataOptions, ImageSource

Progress = Callable[[int, int], None]

_EVENTS: dict[str, Callable[..., ImageSource]] = {
    "dvs-cifar10": open_dvs_cifar10,
    "fashion-mini-events": open_fashion_mini_events,
    "nmnist": open_nmnist,
}
_IMAGES: dict[str, Callable[[str, DataOptions], ImageSource]] = {
    "celeba-hq": open_celeba_hq,
    "celeba64": open_celeba64,
    "cifar10": open_cifar10,
    "fashion-mini": open_fashion_mini,
    "fashion-mnist": open_fashion_mnist,
    "lsun-bedroom-20": open_lsun_bedroom,
    "lsun-church": open_lsun_church,
    "mnist": open_mnist,
}
_PREFIXED: dict[str, Callable[[str, str, DataOptions], ImageSource]] = {
    "hf:": open_hub,
    "image-folder:": open_image_folder,
    "npz:": open_npz,
}
_MIRRORED = ("celeba64", "celeba-hq", "lsun-bedroom-20", "lsun-church")  # as the paper's training does


def dataset_names() -> tuple[str, ...]:
    """Return the names of the published datasets that `open_dataset` knows, sorted."""
    return tuple(sorted([*_IMAGES, *_EVENTS]))


def is_mirrored(name: str) -> bool:
    """Return whether the paper mirrors half of the training images of this dataset."""
    return name in _MIRRORED


def is_event_dataset(name: str) -> bool:
    """Return whether the samples of this dataset are recordings ``(T, 2, H, W)``."""
    return name in _EVENTS


def open_dataset(
    name: str, split: str, options: DataOptions | None = None, *, progress: Progress | None = None
) -> ImageSource:
    """Open one split of a dataset. Nothing is downloaded; event datasets build their cache on first use.

    Args:
        name: One of `dataset_names`; or data of your own as ``image-folder:PATH``, ``npz:PATH`` or ``hf:NAME``, a
            dataset in the format of Hugging Face's ``datasets``.
        split: ``"train"`` or ``"test"``; ``"val"`` where the dataset has one.
        options: How it is read; None takes what the paper does.
        progress: Called with the number of recordings done and of all while the cache of an event dataset is built.

    Returns:
        The samples in a fixed order.

    Raises:
        ValueError: The name or the split is unknown, or an option does not fit the dataset.
        MissingDataError: Files are not there; says which, and how to get them.
        ArtifactError: Files are damaged.
    """
    options = options or DataOptions()
    for prefix, open_own in _PREFIXED.items():
        if name.startswith(prefix):
            return open_own(name.removeprefix(prefix), split, options)
    if name in _EVENTS:
        return _EVENTS[name](split, options, progress=progress)
    if name in _IMAGES:
        return _IMAGES[name](split, options)
    near = get_close_matches(name, dataset_names(), 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    own = "; your own data: image-folder:PATH, npz:PATH or hf:NAME"
    raise ValueError(f"dataset {name!r} is unknown; {hint}known datasets: {', '.join(dataset_names())}{own}")
