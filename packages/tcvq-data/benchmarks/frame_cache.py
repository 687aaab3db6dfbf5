"""Random single reads of the same frames from our cache and from tonic's DiskCachedDataset, in one run.

Usage: ``OMP_NUM_THREADS=1 python packages/tcvq-data/benchmarks/frame_cache.py [--recordings N] [--reads N] [--json F]``
Both hold the same simulated recordings, denoised and in T = 6 steps of 34x34; rounds of both take turns. Both are in
the page cache, as a data set that fits into memory is from the second epoch on.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tonic

from tcvq_data.frames import SimulatedRecordings, count_frames, open_cache
from tcvq_data.interface import EventOptions

GOAL = 20


class Frames:
    """The same recordings as a dataset of frames and labels, which is what tonic caches."""

    def __init__(self, recordings: SimulatedRecordings, options: EventOptions) -> None:
        self.recordings, self.options = recordings, options

    def __len__(self) -> int:
        return len(self.recordings.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        frames = count_frames(self.recordings.read(index), self.options).astype(np.int16)  # the type of tonic's ToFrame
        return frames, self.recordings.labels[index]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=500)
    parser.add_argument("--reads", type=int, default=500, help="per round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    options = EventOptions(n_steps=6, rule="tonic")
    recordings = SimulatedRecordings(split="train", limit=args.recordings)
    with tempfile.TemporaryDirectory() as folder:
        ours = open_cache(recordings, options, root=Path(folder) / "ours")
        labels = ours.labels()
        theirs = tonic.DiskCachedDataset(Frames(recordings, options), cache_path=str(Path(folder) / "tonic"))
        for i in range(args.recordings):
            frames, label = theirs[i]
            assert np.array_equal(frames, ours[i])
            assert label == labels[i]
        rng = np.random.default_rng(0)
        seconds: dict[str, list[float]] = {"ours": [], "tonic": []}
        for _ in range(args.rounds):
            index = rng.integers(0, args.recordings, args.reads).tolist()
            start = time.perf_counter()
            for i in index:
                ours[i], labels[i]
            middle = time.perf_counter()
            for i in index:
                theirs[i]
            seconds["ours"].append((middle - start) / args.reads)
            seconds["tonic"].append((time.perf_counter() - middle) / args.reads)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    result = {
        "recordings": args.recordings,
        "reads_per_second": {name: round(1 / value) for name, value in median.items()},
        "ratio": round(median["tonic"] / median["ours"], 1),
        "goal": GOAL,
        "met": median["tonic"] >= GOAL * median["ours"],
        "versions": {"tonic": tonic.__version__, "numpy": np.__version__, "python": platform.python_version()},
    }
    print(json.dumps(result, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
