"""Event recordings: files, denoising, counts per step and back, and simulated saccades.

A recording is an `EventStream`. The way into a model is ``read_*`` → `denoise` → `bin_events` → `scale_counts` →
`resize_frames`; the way back is `restore_frames` → `unscale_counts` → `unbin_frames` → ``write_*``.
"""

from tcvq_data.events.aedat import read_aedat2, read_aedat4
from tcvq_data.events.archive import read_hdf5, read_npz, write_npz
from tcvq_data.events.binning import BinRule, bin_events, unbin_frames
from tcvq_data.events.denoise import denoise
from tcvq_data.events.nmnist import read_nmnist, write_nmnist
from tcvq_data.events.saccades import stabilise
from tcvq_data.events.scaling import (
    ResizeRule,
    resize_frames,
    restore_frames,
    sample_peaks,
    scale_counts,
    unscale_counts,
)
from tcvq_data.events.simulate import SIMULATED, SIMULATOR_VERSION, SaccadeConfig, simulate_saccades
from tcvq_data.events.statistics import NMNIST_RECORDING, EventStatistics, event_statistics
from tcvq_data.events.stream import EmptyRecordingError, EventStream

__all__ = [
    "NMNIST_RECORDING",
    "SIMULATED",
    "SIMULATOR_VERSION",
    "BinRule",
    "EmptyRecordingError",
    "EventStatistics",
    "EventStream",
    "ResizeRule",
    "SaccadeConfig",
    "bin_events",
    "denoise",
    "event_statistics",
    "read_aedat2",
    "read_aedat4",
    "read_hdf5",
    "read_nmnist",
    "read_npz",
    "resize_frames",
    "restore_frames",
    "sample_peaks",
    "scale_counts",
    "simulate_saccades",
    "stabilise",
    "unbin_frames",
    "unscale_counts",
    "write_nmnist",
    "write_npz",
]
