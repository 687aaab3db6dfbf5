"""``hf:NAME``: image datasets in the formats of Hugging Face's ``datasets``, from disk, or as a stream."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import IterableDataset

from tcvq_data.images.arrays import MAX_CLASSES
from tcvq_data.images.encoded import EncodedImages, check_split, hash_split
from tcvq_data.images.transforms import decode, to_floats
from tcvq_data.interface import ArtifactError, DataOptions, MissingDataError, Sample
from tcvq_data.layout import data_root

SIZE = 64
_SPLITS = {"train": ("train",), "test": ("test",), "val": ("validation", "val", "valid", "dev")}


def open_hub(name: str, split: str, options: DataOptions) -> "HubImages":
    """Open a dataset that is on disk; the network is never touched.

    Args:
        name: A dataset that ``tcvq data download hf:NAME`` fetched, ``NAME:CONFIG`` if it has several; or the path of
            a folder made by ``save_to_disk``, or of a folder of parquet files (``train*.parquet``, ``test*.parquet``).
        split: ``"train"``, ``"test"``, or ``"val"`` where there is one. Without a test split of its own one image of
            ten of the training split is in it, by a hash of the seed and its row.
        options: Images are cropped to ``size``, 64 unless given.

    Raises:
        ValueError: The split is unknown.
        MissingDataError: There is no such dataset on disk.
        ArtifactError: It is damaged, or has no column of images.
    """
    full = f"hf:{name}"
    splits = _on_disk(name, options)
    check_split(full, split, [key for key in _SPLITS if key == "test" or _own(splits, key)])
    own = _own(splits, split)
    dataset = splits[own or "train"]
    if own and (split != "train" or _own(splits, "test")):
        rows = list(range(len(dataset)))
    else:
        rows = hash_split([str(i) for i in range(len(dataset))], split, name=full, seed=options.seed)
    others = [other for other in splits.values() if other is not dataset]
    return HubImages(dataset, rows[: options.limit], options, name=full, others=others)


class HubImages(EncodedImages):
    """Rows of a ``datasets.Dataset`` that lies on disk, mapped into memory."""

    def __init__(
        self, dataset: Any, rows: list[int], options: DataOptions, *, name: str, others: Sequence[Any] = ()
    ) -> None:
        """Find the columns of images and labels; ``others`` are the other splits, whose labels count as classes too.

        Raises:
            ArtifactError: There is no column of images, or labels are no classes.
        """
        import datasets

        super().__init__(len(rows), options, size=SIZE)
        self._image, label = columns(dataset.features, name)
        if isinstance(dataset.features[self._image], datasets.Image):
            dataset = dataset.cast_column(self._image, datasets.Image(decode=False))
        self._dataset, self._rows, self._name = dataset.with_format(None), rows, name
        if label:
            numbers = _labels(dataset, label, name)
            names = getattr(dataset.features[label], "names", None)
            self.labels = torch.from_numpy(numbers[rows])
            most = max(int(part.max(initial=-1)) for part in (numbers, *(_labels(d, label, name) for d in others)))
            self.classes = tuple(names or (str(i) for i in range(most + 1)))

    def encoded(self, index: int) -> tuple[bytes | Path, str]:
        """Return one encoded image."""
        row = self._rows[index]
        return _bytes(self._dataset[row][self._image]), f"{self._name} row {row}"


class HubStream(IterableDataset[Sample]):
    """Samples read one after the other, from the network if need be, without a copy on disk.

    Not shuffled, so that ``state_dict`` and ``load_state_dict`` stop and go on exactly.
    """

    def __init__(self, name: str, split: str, options: DataOptions | None = None) -> None:
        """Open the stream.

        Args:
            name: A name on the hub, ``NAME:CONFIG`` if it has several, or a folder of parquet files.
            split: As the dataset calls it.
            options: ``size`` (64 unless given), ``channels`` and ``limit`` are followed.

        Raises:
            ValueError: There is no such dataset or split.
            ArtifactError: It has no column of images.
        """
        import datasets

        self._name, self._options = f"hf:{name}", options or DataOptions()
        with _quiet():
            stream = datasets.load_dataset(**_source(name), split=split, streaming=True)
        if stream.features is None:
            stream = stream._resolve_features()
        self._image, self._label = columns(stream.features, self._name)
        if isinstance(stream.features[self._image], datasets.Image):
            stream = stream.cast_column(self._image, datasets.Image(decode=False))
        self._stream = stream if self._options.limit is None else stream.take(self._options.limit)

    def __iter__(self) -> Iterator[Sample]:
        """Yield samples in the order of the files."""
        size, channels = self._options.size or SIZE, self._options.channels or 3
        for row in self._stream:
            pixels = decode(_bytes(row[self._image]), size=size, channels=channels, name=self._name)
            yield Sample(to_floats(pixels), torch.tensor(row[self._label] if self._label else -1))

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the stream."""
        return self._stream.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._stream.load_state_dict(state_dict)


def download_hub(name: str, root: Path | None = None) -> Path:
    """Fetch a dataset from the hub into the folder where `open_hub` looks for it; returns the folder.

    Args:
        name: A name on the hub, ``NAME:CONFIG`` if it has several configurations; or a folder of parquet files.
        root: Folder of all datasets.

    Raises:
        ValueError: There is no such dataset.
        OSError: The network failed, or the disk is full.
    """
    import datasets

    target = _folder(name, root)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        with _quiet():
            fetched = datasets.load_dataset(**_source(name), cache_dir=str(temporary / "cache"))
            fetched.save_to_disk(str(temporary / "dataset"))
        (temporary / "dataset").rename(target)
    except (FileNotFoundError, datasets.exceptions.DatasetNotFoundError) as error:
        raise ValueError(f"hf:{name}: {str(error).splitlines()[0]}; check the name") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def columns(features: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return the names of the columns of images and of labels, the latter empty if there is none.

    Raises:
        ArtifactError: There is no column of images.
    """
    import datasets

    images = [key for key, feature in features.items() if isinstance(feature, datasets.Image)]
    images += [key for key in ("image", "img") if key in features and key not in images]
    if not images:
        raise ArtifactError(f"{name}: has no column of images; its columns are {', '.join(features)}")
    labels = [key for key, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    labels += [
        key for key in ("label", "labels") if key in features and "int" in str(getattr(features[key], "dtype", ""))
    ]
    return images[0], labels[0] if labels else ""


def _labels(dataset: Any, column: str, name: str) -> Int64[np.ndarray, " N"]:
    """Return the labels of a split, -1 where one is missing; none at all if it lacks the column."""
    if column not in dataset.column_names or len(dataset) == 0:
        return np.empty(0, np.int64)
    stored = dataset.select_columns([column]).with_format("arrow")[:].column(column)
    numbers = stored.fill_null(-1).to_numpy().astype(np.int64)
    if numbers.min() < -1 or numbers.max() >= MAX_CLASSES:
        span = f"{numbers.min()} to {numbers.max()}"
        raise ArtifactError(f"{name}: column {column} spans {span}, not -1 (none) to {MAX_CLASSES - 1}")
    return numbers


def _bytes(image: Any) -> bytes | Path:
    """Return an image that was not decoded: its bytes, or the path of its file."""
    if isinstance(image, Mapping):
        return image["bytes"] if image["bytes"] is not None else Path(image["path"])
    return image


def _folder(name: str, root: Path | None) -> Path:
    """Return where a downloaded dataset lies."""
    return data_root(root) / "hf" / name.strip("/").replace("/", "--").replace(":", "--")


def _source(name: str) -> dict[str, Any]:
    """Return the arguments of ``load_dataset`` for a name or a folder of parquet files."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        files = {
            key: [str(f) for f in sorted(folder.glob(f"{key}*.parquet"))] for key in ("train", "test", "validation")
        }
        found = {key: paths for key, paths in files.items() if paths}
        return {"path": "parquet", "data_files": found or {"train": [str(f) for f in sorted(folder.glob("*.parquet"))]}}
    repository, _, config = name.partition(":")
    return {"path": repository, "name": config or None}


def _on_disk(name: str, options: DataOptions) -> Mapping[str, Any]:
    """Return the splits of a dataset that lies on disk."""
    import datasets

    given = Path(name).expanduser()
    folder = given if given.is_dir() else _folder(name, options.root)
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
            return found if isinstance(found, datasets.DatasetDict) else {"train": found}
        if any(folder.glob("*.parquet")):
            cache = data_root(options.root) / ".cache" / "hf"
            with _quiet():
                return datasets.load_dataset(**_source(str(folder)), cache_dir=str(cache))
    except Exception as error:  # damaged files raise whatever pyarrow and json make of them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArtifactError(f"hf:{name}: {folder} is damaged ({reason}); get it again") from None
    here = f"{folder} is no dataset of save_to_disk and holds no .parquet files" if folder.is_dir() else f"no {folder}"
    raise MissingDataError(f"hf:{name}: {here}; get it with: tcvq data download hf:{name}")


def _own(splits: Mapping[str, Any], split: str) -> str:
    """Return what the dataset calls a split, empty if it has none."""
    return next((key for key in _SPLITS.get(split, ()) if key in splits), "")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars of the library away."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    before = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    try:
        yield
    finally:
        if shown and before is None:
            datasets.enable_progress_bars()
