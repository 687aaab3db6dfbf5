"""Frames of events as model input, and generated frames back as event files."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_data.events import (
    EventStream,
    resize_frames,
    restore_frames,
    sample_peaks,
    scale_counts,
    unbin_frames,
    unscale_counts,
    write_nmnist,
    write_npz,
)
from tcvq_data.frames.cache import FrameCache
from tcvq_data.interface import EventOptions, Sample


class EventFrames:
    """An image source of event frames ``(T, 2, h, w)`` in [-1, 1]; channel 0 is OFF, channel 1 is ON.

    -1 is no event, +1 is the peak S or more. With the resize rule ``bilinear`` counts are scaled at the size of the
    sensor, then interpolated. With ``count`` they are spread over the new cells first and scaled by S·H·W/(h·w),
    rounded up, which no cell exceeds.

    Attributes:
        cache: The counts.
        classes: Names of the classes.
        labels: Class of each recording; recordings that could not be read are left out.
        size: Height and width h, w of the frames.
        sensor: Height and width H, W of the sensor.
        peak: S, the largest count of the training split; None where each recording has its own.
        skipped: Number of recordings left out; ``cache.manifest.skipped`` names them and the reasons.
        note: What a reader of results must know of the recordings' origin, such as that they are simulated.
    """

    classes: tuple[str, ...]
    labels: Int[Tensor, " N"]

    def __init__(self, cache: FrameCache, *, size: tuple[int, int], options: EventOptions, peak: int | None) -> None:
        """Make a source.

        Args:
            cache: The counts.
            size: Height and width of the frames.
            options: How to resize.
            peak: S; None takes each recording's largest count.

        Raises:
            ValueError: The peak is below 1.
        """
        if peak is not None and peak < 1:
            raise ValueError(f"peak={peak} of event frames must be at least 1")
        self.cache, self.size, self.peak, self._rule = cache, size, peak, options.resize
        self.classes, self.note = cache.manifest.classes, cache.manifest.note
        self.sensor = (cache.manifest.shape[3], cache.manifest.shape[4])
        self.skipped = len(cache.manifest.skipped)
        self.labels = torch.from_numpy(cache.labels())

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.cache)

    def __getitem__(self, index: int) -> Sample:
        """Return one recording ``(T, 2, h, w)`` and its label."""
        image, label = self.batch([index])
        return Sample(image[0], label[0])

    def batch(self, index: list[int]) -> Sample:
        """Return some recordings ``(B, T, 2, h, w)`` and their labels ``(B,)``."""
        counts = self.counts(index)
        peaks = sample_peaks(counts) if self.peak is None else torch.tensor(self.peak)
        if self._rule == "bilinear":
            image = resize_frames(scale_counts(counts, peaks), self.size, rule="bilinear")
        else:
            spread = resize_frames(counts.float(), self.size, rule="count")
            image = scale_counts(spread, self._spread_peak(peaks))
        return Sample(image, self.labels[index])

    def counts(self, index: list[int]) -> Int[Tensor, "B T C H W"]:
        """Return the counts of some recordings at the size of the sensor, not scaled."""
        return torch.from_numpy(self.cache.frames(index).astype(np.int32))

    @property
    def count_size(self) -> tuple[int, int]:
        """Height and width of what `to_counts` returns: the sensor's, or the frames' if they are smaller."""
        return self.sensor if self._enlarged else self.size

    def to_counts(self, x: Float[Tensor, "*B h w"], *, peak: int | Tensor | None = None) -> Int[Tensor, "*B H W"]:
        """Turn frames of this source, or generated ones, back into counts.

        Exact on frames that were enlarged, as long as no count exceeded the peak. What was shrunk cannot be restored
        and is counted at its own size, as a camera with fewer pixels would.

        Args:
            x: Frames in [-1, 1].
            peak: S; None takes the source's.

        Raises:
            ValueError: Recordings have peaks of their own, and none is given; or the frames have another size.
        """
        if tuple(x.shape[-2:]) != self.size:
            raise ValueError(f"frames of {tuple(x.shape[-2:])} are not of this source, whose frames have {self.size}")
        peak = self.peak if peak is None else peak
        if peak is None:
            raise ValueError("with scale='per_sample' every recording has its own peak; give one, such as peak=5")
        peaks = torch.as_tensor(peak)
        if self._rule == "bilinear":
            return unscale_counts(restore_frames(x, self.sensor, rule="bilinear") if self._enlarged else x, peaks)
        counts = (x.float() + 1) * self._spread_peak(peaks) / 2
        back = restore_frames(counts, self.sensor, rule="count") if self._enlarged else counts
        return back.round().clamp_min(0).long()

    def export_events(
        self, x: Float[Tensor, "T C h w"], path: str | Path, *, peak: int | None = None, seed: int = 0
    ) -> EventStream:
        """Write one recording's frames as an event file, and return what it holds.

        The recording lasts as long as those of the dataset do in the mean; within a step times are random, see
        `tcvq_data.events.unbin_frames`. With the rule ``count`` steps have no duration; equal ones are assumed.

        Args:
            x: Frames in [-1, 1].
            path: A file ending in ``.bin`` (N-MNIST's format) or ``.npz``.
            peak: As in `to_counts`.
            seed: Of the times.

        Raises:
            ValueError: The ending is another one, or as `to_counts`.
            OSError: Writing failed.
        """
        writers = {".bin": write_nmnist, ".npz": write_npz}
        write = writers.get(Path(path).suffix)
        if write is None:
            raise ValueError(f"{path}: events can be written to {' and '.join(writers)} files")
        counts = self.to_counts(x, peak=peak).cpu().numpy()
        events = unbin_frames(counts, seed=seed, span=(0, max(self.cache.manifest.duration_us, len(counts))))
        write(path, events)
        return events

    @property
    def _enlarged(self) -> bool:
        """Whether no axis was shrunk."""
        return self.size[0] >= self.sensor[0] and self.size[1] >= self.sensor[1]

    def _spread_peak(self, peaks: Tensor) -> Tensor:
        """Return S·H·W/(h·w), rounded up."""
        (height, width), (h, w) = self.sensor, self.size
        return -(-peaks * height * width // (h * w))
