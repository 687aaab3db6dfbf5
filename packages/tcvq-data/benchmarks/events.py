"""Denoising and binning against tonic, on the same recordings in the same run.

`python benchmarks/events.py [--recordings 60] [--json FILE]`, on an otherwise idle machine; one thread. Medians of
rounds in which both take turns. Both must give the same bits, or the run fails. Recordings are simulated saccades.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tcvq_data import FashionMini
from tcvq_data.events import bin_events, denoise, event_statistics, simulate_saccades

N_STEPS = 6
ROUNDS = 7
LIMITS = {"denoise": 2.0, "bin": 8.0}


def main() -> int:
    """Measure, print, and return 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from tonic.transforms import Denoise, ToFrame

    images = ((FashionMini("train", limit=options.recordings).images[:, 0] + 1) * 127.5).round().byte().numpy()
    raw = [simulate_saccades(image, seed=(0, 0, i)) for i, image in enumerate(images)]
    clean = [denoise(events) for events in raw]
    print(f"{len(raw)} recordings, mean {np.mean([event_statistics(e).n_events for e in raw]):.0f} events")
    their_denoise, to_frame = Denoise(filter_time=10_000), ToFrame(sensor_size=(34, 34, 2), n_time_bins=N_STEPS)
    theirs_raw, theirs_clean = [e.structured() for e in raw], [e.structured() for e in clean]
    for events, structured, before in zip(clean, theirs_clean, theirs_raw, strict=True):
        assert np.array_equal(their_denoise(before), structured), "denoising differs from tonic"
        assert np.array_equal(to_frame(structured), bin_events(events, N_STEPS, rule="tonic")), "binning differs"
    cases = {
        "denoise": (lambda i: denoise(raw[i]), lambda i: their_denoise(theirs_raw[i])),
        "bin": (lambda i: bin_events(clean[i], N_STEPS, rule="tonic"), lambda i: to_frame(theirs_clean[i])),
    }
    results = {}
    for name, (ours, theirs) in cases.items():
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for call, kept in ((ours, times[0]), (theirs, times[1])):
                begin = time.perf_counter()
                for i in range(len(raw)):
                    call(i)
                kept.append((time.perf_counter() - begin) / len(raw))
        ms = [1e3 * statistics.median(each) for each in times]
        results[name] = {"ours_ms": ms[0], "tonic_ms": ms[1], "ratio": ms[1] / ms[0]}
        verdict = "met" if ms[1] / ms[0] >= LIMITS[name] else "MISSED"
        facts = f"ours {ms[0]:.3f} ms, tonic {ms[1]:.3f} ms: {ms[1] / ms[0]:.1f}x"
        print(f"{name:<8} {facts}, at least {LIMITS[name]}x {verdict}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(any(results[name]["ratio"] < limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
