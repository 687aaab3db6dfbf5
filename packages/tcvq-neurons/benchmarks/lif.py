"""Time of every backend, forward and forward + backward, as a multiple of copying the input.

Run `python benchmarks/lif.py [--threads 2] [--sites 500000 8000000]` on an otherwise idle machine. Each number is the
median of interleaved rounds, so a slow moment of the machine falls on all candidates alike; page faults are included.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from tcvq_neurons import LIFGate, backends

N_STEPS = 4


def forward(gate: LIFGate, x: Tensor) -> None:
    """Run the gate without autograd."""
    with torch.no_grad():
        gate(x)


def both(gate: LIFGate, x: Tensor, g: Tensor) -> None:
    """Run the gate and its gradient."""
    x.grad = None
    gate(x).backward(g)


def medians(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return seconds per call, after one call of each to compile and warm up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in range(rounds + 1):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            if run:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(n_site: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Return seconds of copying, adding, and each backend, for ``N_STEPS`` steps of ``n_site`` neurons."""
    x, g = (torch.randn(N_STEPS, n_site).to(dtype) for _ in range(2))
    leaf = x.clone().requires_grad_()
    candidates: dict[str, Callable[[], object]] = {"clone": x.clone, "add": lambda: torch.add(x, g)}
    for name in (status.name for status in backends() if status.available):
        gate = LIFGate(backend=name)
        candidates[f"{name} forward"] = lambda gate=gate: forward(gate, x)
        candidates[f"{name} both"] = lambda gate=gate: both(gate, leaf, g)
    return medians(candidates, rounds)


def main() -> None:
    """Print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sites", type=int, nargs="+", default=[500_000, 8_000_000])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"lif_gate, T={N_STEPS}, {args.threads} threads; forward / clone, forward + backward / (clone + add)")
    for n_site in args.sites:
        for dtype in (torch.float32, torch.bfloat16):
            seconds = measure(n_site, dtype, args.rounds)
            print(f"N={n_site} {dtype}: clone {seconds['clone'] * 1e3:.2f} ms, add {seconds['add'] * 1e3:.2f} ms")
            for name in (key.removesuffix(" both") for key in seconds if key.endswith(" both")):
                fwd = seconds[f"{name} forward"] / seconds["clone"]
                total = seconds[f"{name} both"] / (seconds["clone"] + seconds["add"])
                print(f"  {name:<10} forward {fwd:6.2f}   forward + backward {total:6.2f}")


if __name__ == "__main__":
    main()
