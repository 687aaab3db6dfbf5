"""Time and memory of every backend beside spikingjelly, snntorch and a loop in torch, in one process.

`python benchmarks/lif.py [--threads 2] [--json FILE]`, on an otherwise idle machine. Every number is the median of
rounds in which all candidates take turns, after one to warm up, so that a slow moment of the machine falls on all.
Every call on the CPU begins without free memory, so that all of them, the bases too, pay the same for new pages.
With a CUDA device, everything is measured there too.
"""

import argparse
import ctypes
import gc
import importlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tcvq_neurons import LIF, LIFGate, backends

Neuron = Callable[[Tensor], Tensor]
DEVICES = {"numba": ("cpu",), "cupy": ("cuda",)}  # of the others: both
PEERS = ("spikingjelly", "snntorch")
LARGE = (4, 8_000_000)  # the row with the limits
LEAST_FOR_PEAK = 32_000_000  # bytes of input below which the CPU's allocator reuses what it has, and nothing shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One candidate on one size; seconds, and bytes as multiples of the input's, None where it cannot be measured."""

    device: str
    dtype: str
    op: str
    n_steps: int
    n_site: int
    name: str
    forward: float
    backward: float
    both: float
    saved: float
    peak: float | None
    clone: float
    add: float

    @property
    def size(self) -> tuple[Any, ...]:
        """What rows that can be compared have in common."""
        return self.op, self.n_steps, self.n_site, self.dtype, self.device


def spikingjelly_neuron() -> Neuron:
    """Return its LIF neuron with our constants, at rest at every call."""
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    node = neuron.LIFNode(
        v_threshold=0.5, surrogate_function=surrogate.PiecewiseQuadratic(2.0), detach_reset=True, step_mode="m"
    )

    def run(x_seq: Tensor) -> Tensor:
        node.reset()
        return node(x_seq)

    return run


def snntorch_neuron() -> Neuron:
    """Return a loop over its neuron with the same leak and reset; its input is not divided by tau."""
    snntorch = importlib.import_module("snntorch")
    leaky = snntorch.Leaky(beta=0.5, threshold=0.5, reset_mechanism="zero")

    def run(x_seq: Tensor) -> Tensor:
        leaky.to(x_seq.device)
        v, out = torch.zeros_like(x_seq[0]), []
        for x in x_seq:
            s, v = leaky(x, v)
            out.append(s)
        return torch.stack(out)

    return run


def candidates(op: str, device: str, missing: dict[str, str]) -> dict[str, Neuron]:
    """Return every neuron that can run here; why the others cannot goes to ``missing``."""
    module = LIFGate if op == "lif_gate" else LIF
    found: dict[str, Neuron] = {}
    for status in backends():
        if device in DEVICES.get(status.name, (device,)):
            if status.available:
                found["torch loop (reference)" if status.name == "reference" else status.name] = module(
                    backend=status.name
                )
            else:
                missing[f"{status.name} on {device}"] = status.reason
    for name, make in zip(PEERS, (spikingjelly_neuron, snntorch_neuron), strict=True):
        try:
            neuron = make()
        except ImportError as error:
            missing[name] = f"not installed ({error}); uv sync --group peers"
            continue
        found[name] = partial(_gated, neuron) if op == "lif_gate" else neuron
    return found


def _gated(neuron: Neuron, x_seq: Tensor) -> Tensor:
    return x_seq * neuron(x_seq)


def seconds(call: Callable[[], object], device: str) -> float:
    """Return the time of one call, by the device's own clock on CUDA, from fresh memory on the CPU."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def saved_bytes(neuron: Neuron, x: Tensor) -> int:
    """Return the bytes that a forward pass keeps for its backward, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        neuron(x)
    return sum(kept.values())


def peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """Return the most memory that a call needs besides what is there; on the CPU from Linux's books, else None."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(
    op: str, n_steps: int, n_site: int, *, dtype: torch.dtype, device: str, rounds: int, missing: dict[str, str]
) -> list[Row]:
    """Return one row per candidate for ``n_steps`` steps of ``n_site`` neurons."""
    x, g = (torch.randn(n_steps, n_site, device=device).to(dtype) for _ in range(2))
    leaf = x.clone().requires_grad_()
    times: dict[tuple[str, str], list[float]] = {}

    def note(name: str, phase: str, call: Callable[[], object], warm: bool) -> None:
        spent = seconds(call, device)
        if warm:
            times.setdefault((name, phase), []).append(spent)

    def forward(neuron: Neuron, kept: list[Tensor] | None) -> None:
        with nullcontext() if kept is not None else torch.no_grad():
            y = neuron(leaf if kept is not None else x)
        if kept is not None:
            kept.append(y)

    def both(neuron: Neuron) -> None:
        leaf.grad = None
        neuron(leaf).backward(g)

    neurons = candidates(op, device, missing)
    for turn in range(rounds + 1):
        note("", "clone", x.clone, turn > 0)
        note("", "add", partial(torch.add, x, g), turn > 0)
        for name, neuron in neurons.items():
            kept: list[Tensor] = []
            note(name, "forward", partial(forward, neuron, None), turn > 0)
            note(name, "both", partial(both, neuron), turn > 0)
            forward(neuron, kept)
            leaf.grad = None
            note(name, "backward", partial(kept.pop().backward, g), turn > 0)
            leaf.grad = None
    median = {key: statistics.median(values) for key, values in times.items()}
    size = x.numel() * x.element_size()
    rows = []
    for name, neuron in neurons.items():
        measurable = device == "cuda" or size >= LEAST_FOR_PEAK
        peak = peak_bytes(partial(both, neuron), device) if measurable else None
        leaf.grad = None
        rows.append(
            Row(
                device=device, dtype=str(dtype).removeprefix("torch."), op=op, n_steps=n_steps, n_site=n_site,
                name=name, forward=median[name, "forward"], backward=median[name, "backward"],
                both=median[name, "both"], saved=saved_bytes(neuron, leaf) / size,
                peak=None if peak is None else peak / size, clone=median["", "clone"], add=median["", "add"],
            )
        )  # fmt: skip
    return rows


def ratios(row: Row, rows: list[Row]) -> dict[str, float | None]:
    """Return times as multiples of copying and adding the input, and of spikingjelly's on the same size."""
    theirs = [other for other in rows if other.size == row.size and other.name == "spikingjelly"]
    return {
        "forward / clone": row.forward / row.clone,
        "backward / add": row.backward / row.add,
        "both / (clone + add)": row.both / (row.clone + row.add),
        "both / spikingjelly": row.both / theirs[0].both if theirs else None,
        "saved / input": row.saved,
        "peak / input": row.peak,
    }


def table(rows: list[Row]) -> str:
    """Return the ratios of all rows, a block per size."""
    columns = list(ratios(rows[0], rows))
    lines = []
    for i, row in enumerate(rows):
        if i == 0 or row.size != rows[i - 1].size:
            head = f"{row.op}, T={row.n_steps}, N={row.n_site}, {row.dtype}, {row.device}"
            lines += ["", f"{head}: clone {row.clone * 1e3:.2f} ms, add {row.add * 1e3:.2f} ms"]
            lines += [f"{'':<24}" + "".join(f"{column:>22}" for column in columns)]
        values = (("-" if value is None else f"{value:.2f}") for value in ratios(row, rows).values())
        lines.append(f"{row.name:<24}" + "".join(f"{value:>22}" for value in values))
    return "\n".join(lines)


def limits(rows: list[Row]) -> list[str]:
    """Return what the large row must show, for the backend that ``auto`` takes on the CPU."""
    chosen = next(status.name for status in backends() if "cpu" in status.chosen_for)
    large = [r for r in rows if (r.n_steps, r.n_site) == LARGE and r.device == "cpu" and r.op == "lif_gate"]
    theirs = next((r for r in large if r.name == "spikingjelly"), None)
    lines = []
    for row in (r for r in large if r.name == chosen and r.dtype == "float32"):
        shares = ratios(row, large)
        bounds = {"forward / clone": 1.5, "backward / add": 1.5, "both / spikingjelly": 0.5, "saved / input": 1.0}
        for key, bound in bounds.items():
            value = shares[key]
            said = "not measured: spikingjelly is missing" if value is None else f"{value:.3f}"
            verdict = "" if value is None else (" met" if value <= bound * (1 + 1e-6) else " NOT MET")
            lines.append(f"{chosen}: {key} = {said}, at most {bound}{verdict}")
        if theirs is not None:
            lines.append(f"spikingjelly: saved / input = {theirs.saved:.3f}")
    return lines


def environment() -> dict[str, Any]:
    """Return what a reader needs to judge the numbers."""
    found = {}
    for name in ("torch", "tcvq-neurons", "numba", *PEERS):
        try:
            found[name] = version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"versions": found, "threads": torch.get_num_threads(), "machine": platform.platform(), "cuda": device}


def main() -> None:
    """Measure the grid, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="*", default=[4, 16])
    parser.add_argument("--sites", type=int, nargs="*", default=[10_000, 250_000])
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-large", action="store_true", help=f"leave out T, N = {LARGE}, the row with the limits")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    missing: dict[str, str] = {} if torch.cuda.is_available() else {"cupy": "no CUDA device"}
    rows: list[Row] = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        go = partial(measure, device=device, rounds=args.rounds, missing=missing)
        for dtype in (getattr(torch, name) for name in args.dtypes):
            for n_steps, n_site in ((t, n) for t in args.steps for n in args.sites):
                rows += go("lif", n_steps, n_site, dtype=dtype) + go("lif_gate", n_steps, n_site, dtype=dtype)
        if not args.no_large:
            rows += go("lif_gate", *LARGE, dtype=torch.float32)
    print(f"{args.threads} threads; times and bytes as multiples of the column's base{table(rows)}\n")
    print("\n".join(limits(rows) + [f"missing: {name}: {reason}" for name, reason in missing.items()]))
    if args.json:
        plain = [asdict(row) | {"ratios": ratios(row, rows)} for row in rows]
        report = {"environment": environment(), "rows": plain, "limits": limits(rows), "missing": missing}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
