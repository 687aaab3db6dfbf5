"""Event recordings as frames: a cache that is read at random, and the event datasets on top of it.

`open_nmnist`, `open_dvs_cifar10` and `open_fashion_mini_events` read, denoise and bin every recording once, with all
CPUs, into a `FrameCache`; `EventFrames` scales and resizes what is read from it, and turns generated frames back into
event files.
"""

from tcvq_data.frames.admin import CacheEntry, list_caches, prune_caches
from tcvq_data.frames.cache import FrameCache, open_cache
from tcvq_data.frames.datasets import open_dvs_cifar10, open_fashion_mini_events, open_nmnist, open_recordings
from tcvq_data.frames.manifest import CACHE_VERSION, Manifest
from tcvq_data.frames.recordings import FileRecordings, Recordings, SimulatedRecordings, count_frames
from tcvq_data.frames.source import EventFrames

__all__ = [
    "CACHE_VERSION",
    "CacheEntry",
    "EventFrames",
    "FileRecordings",
    "FrameCache",
    "Manifest",
    "Recordings",
    "SimulatedRecordings",
    "count_frames",
    "list_caches",
    "open_cache",
    "open_dvs_cifar10",
    "open_fashion_mini_events",
    "open_nmnist",
    "open_recordings",
    "prune_caches",
]
