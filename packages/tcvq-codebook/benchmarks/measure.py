"""Shared by the benchmarks: interleaved wall times, peak extra memory and a table that is also JSON."""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch

Call = Callable[[], object]


class Measured(NamedTuple):
    """One method: median wall time in seconds, peak memory beyond its inputs in bytes, and its first result."""

    seconds: float
    extra: int
    result: object


def measure(calls: dict[str, Call], repeats: dict[str, int], device: torch.device) -> dict[str, Measured]:
    """Measure memory, then time, of each call; the call whose memory is measured also warms up."""
    first = {name: peak_bytes(call, device) for name, call in calls.items()}
    walls = seconds(calls, repeats, device)
    return {name: Measured(walls[name], *first[name]) for name in calls}


def seconds(calls: dict[str, Call], repeats: dict[str, int], device: torch.device) -> dict[str, float]:
    """Return the median wall time of each call, the repetitions of all calls taking turns.

    Taking turns exposes every method to the same disturbances, so that ratios hold on a busy machine too.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(max(repeats.values())):
        for name, call in calls.items():
            if turn >= repeats[name]:
                continue
            _wait(device)
            start = time.perf_counter()
            call()
            _wait(device)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def peak_bytes(call: Call, device: torch.device) -> tuple[int, object]:
    """Return the largest amount of memory that one call holds at once beyond what exists before it, and its result."""
    if device.type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = call()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before, result
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate((size for _, size in changes), initial=0)), result


def table(results: dict[str, Measured], notes: dict[str, str]) -> str:
    """Return one line per method; ratios are relative to the first."""
    first = next(iter(results.values()))
    lines = [
        f"{name:31} {found.seconds * 1e3:10.1f} ms (x{found.seconds / first.seconds:7.2f})"
        f" {found.extra / 2**20:9.1f} MiB (x{found.extra / max(first.extra, 1):7.2f})  {notes.get(name, '')}".rstrip()
        for name, found in results.items()
    ]
    return "\n".join(lines)


def write_json(
    path: Path | None, setting: dict[str, object], results: dict[str, Measured], notes: dict[str, str]
) -> None:
    """Write setting, versions and results, if a path is given."""
    if path is not None:
        tree = {
            "setting": setting | {"torch": torch.__version__},
            "results": {
                name: {"seconds": found.seconds, "extra_bytes": found.extra, "note": notes.get(name, "")}
                for name, found in results.items()
            },
        }
        path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
