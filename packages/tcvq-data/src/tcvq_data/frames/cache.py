"""Opening and reading of frame caches."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Int64, UInt8, UInt16

from tcvq_data.events import BinRule
from tcvq_data.frames.build import Progress, build_cache
from tcvq_data.frames.manifest import Manifest, array_names, cache_folder, cache_key, check_cache
from tcvq_data.frames.recordings import Recordings
from tcvq_data.interface import ArtifactError, EventOptions


class FrameCache:
    """Frames and labels of one split, memory-mapped; pickled as a path, and opened by whoever reads first.

    Attributes:
        folder: Where it is.
        manifest: What it holds.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Take a cache that `check_cache` has accepted."""
        self.folder, self.manifest = folder, manifest
        self._frames: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of recordings that could be read."""
        return self.manifest.shape[0]

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "T 2 H W"] | UInt16[np.ndarray, "T 2 H W"]:
        """Return a copy of the counts of one recording; raises IndexError beyond the end."""
        frames = self._frames if self._frames is not None else self._open()
        return frames[index].copy()

    def frames(self, index: list[int]) -> UInt8[np.ndarray, "B T 2 H W"] | UInt16[np.ndarray, "B T 2 H W"]:
        """Return the counts of some recordings, in the order asked for; they are read in the order of the file."""
        frames = self._frames if self._frames is not None else self._open()
        positions = np.asarray(index, np.int64)
        order = np.argsort(positions, kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return frames[positions[order]][back]

    def labels(self) -> Int64[np.ndarray, " N"]:
        """Return the class of every recording; frames are not touched."""
        return np.load(self.folder / array_names(self.manifest.split)[1], allow_pickle=False)

    def verify(self) -> None:
        """Hash all files.

        Raises:
            ArtifactError: A file is not as it was written.
        """
        check_cache(self.folder, key=self.manifest.key, deep=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return path and manifest, not the frames."""
        return self.__dict__ | {"_frames": None}

    def _open(self) -> np.ndarray:
        """Map the frames, whose type and shape were checked, into memory."""
        path = self.folder / array_names(self.manifest.split)[0]
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: vanished or damaged ({error}); open the dataset again") from None
        self._frames = np.asarray(mapped)  # a plain view: indexing a memmap costs more than the read
        return self._frames


def open_cache(
    recordings: Recordings,
    options: EventOptions,
    *,
    root: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    verify: bool = False,
) -> FrameCache:
    """Open the frames of some recordings; they are built first where no cache of the same content is there.

    Args:
        recordings: What to read.
        options: Steps, rule, filter and stabilisation; scale and size do not matter here.
        root: Folder of all datasets, see `tcvq_data.layout.data_root`.
        workers: Processes that build; None takes the usable CPUs, 1 builds in this process.
        progress: Called with the number of recordings done and of all.
        verify: Hash the files of an existing cache, and build it again if they differ.

    Raises:
        ValueError: The rule is unknown, or ``workers`` is not positive.
        ArtifactError: No recording could be read.
        OSError: Writing failed.
    """
    if options.rule not in get_args(BinRule):
        raise ValueError(f"rule {options.rule!r} of event data is unknown; rules: {', '.join(get_args(BinRule))}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be positive, or None for all usable CPUs")
    key = cache_key(recordings, options)
    folder = cache_folder(root, key)
    try:
        manifest = check_cache(folder, key=key, deep=verify)
    except ArtifactError:
        manifest = build_cache(folder, key, recordings, options, workers=workers, progress=progress)
    return FrameCache(folder, manifest)
