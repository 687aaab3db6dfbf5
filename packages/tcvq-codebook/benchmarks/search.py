"""Time and extra memory of the search against the broadcast distance, `torch.cdist` and the bare matrix product.

Run as ``python benchmarks/search.py [--threads 2] [--sites 2048 --codes 1024 --width 1024]``. Every method runs once to
warm up; the fastest of the repetitions counts. Ratios are relative to `tcvq_codebook.nearest`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from tcvq_codebook import nearest

Search = Callable[[Tensor, Tensor], Tensor]


def broadcast(z: Tensor, codes: Tensor) -> Tensor:
    """Search with the textbook distance tensor (N, K, width)."""
    return (z[:, None] - codes).square().sum(2).argmin(1)


def cdist(z: Tensor, codes: Tensor) -> Tensor:
    """Search with `torch.cdist`."""
    return torch.cdist(z, codes).argmin(1)


def matmul(z: Tensor, codes: Tensor) -> Tensor:
    """Multiply only: the floor of every search that uses a matrix product. Its result is not a search."""
    return z @ codes.t()


def seconds(search: Search, z: Tensor, codes: Tensor, repeats: int) -> float:
    """Return the shortest of ``repeats`` wall times after one warm-up call."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        search(z, codes)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def peak_bytes(search: Search, z: Tensor, codes: Tensor) -> int:
    """Return the largest amount of memory that one call holds at once beyond its inputs, in bytes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        search(z, codes)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    return max(accumulate(size for _, size in changes))


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"threads": 1, "sites": 2048, "codes": 1024, "width": 1024, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--no-broadcast", action="store_true", help="skip the distance tensor (N, K, width)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    z, codes = torch.randn(args.sites, args.width), torch.randn(args.codes, args.width)
    methods: dict[str, Search] = {"nearest": nearest, "matmul": matmul, "cdist": cdist, "broadcast": broadcast}
    if args.no_broadcast:
        del methods["broadcast"]
    print(f"N={args.sites} K={args.codes} width={args.width} threads={args.threads} torch={torch.__version__}")
    expected = nearest(z, codes)
    base_wall, base_extra = seconds(nearest, z, codes, args.repeats), peak_bytes(nearest, z, codes)
    for name, search in methods.items():
        wall = seconds(search, z, codes, 1 if search is broadcast else args.repeats)
        extra = peak_bytes(search, z, codes)
        found = "" if search is matmul else f"  same indices {(search(z, codes) == expected).float().mean():.2%}"
        print(
            f"{name:10} {wall * 1e3:9.1f} ms (x{wall / base_wall:6.2f})"
            f" {extra / 2**20:9.1f} MiB (x{extra / base_extra:6.2f}){found}"
        )


if __name__ == "__main__":
    main()
