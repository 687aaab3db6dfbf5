"""Time and extra memory of the search against the broadcast distance, `torch.cdist` and bare matrix products.

    python benchmarks/search.py                                                 # N = 2,048, K = 1,024, T·D = 1,024
    python benchmarks/search.py --sites 32768 --codes 16384 --width 1536 --repeats 3 --skip broadcast cdist

``matmul`` multiplies at once and holds all N·K scores; ``matmul in chunks`` multiplies the same blocks of rows and
entries as the search, and ``matmul in rows`` as many rows at a time, by all entries, as fit the search's memory bound.
None of them finds an index: they are the floor of every search that uses a matrix product.
Repetitions of all methods take turns and medians count; ratios are relative to `tcvq_codebook.nearest`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from measure import measure, table, write_json
from torch import Tensor

from tcvq_codebook import nearest
from tcvq_codebook.nearest import chunk_sizes

Search = Callable[[Tensor, Tensor], Tensor | None]
BOUND = 64 * 2**20  # the default bound of `nearest`, in bytes


def search(z: Tensor, codes: Tensor) -> Tensor:
    """Search with `tcvq_codebook.nearest`."""
    return nearest(z, codes, max_bytes=BOUND)


def broadcast(z: Tensor, codes: Tensor) -> Tensor:
    """Search with the textbook distance tensor (N, K, width)."""
    return (z[:, None] - codes).square().sum(2).argmin(1)


def cdist(z: Tensor, codes: Tensor) -> Tensor:
    """Search with `torch.cdist`."""
    return torch.cdist(z, codes).argmin(1)


def matmul(z: Tensor, codes: Tensor) -> None:
    """Multiply only, all rows at once."""
    z @ codes.t()


def matmul_in_chunks(z: Tensor, codes: Tensor) -> None:
    """Multiply only, in the blocks of the search."""
    rows, block = chunk_sizes(len(codes), codes.shape[1], codes.element_size(), BOUND)
    for some in codes.split(block):
        for part in z.split(rows):
            part @ some.t()


def matmul_in_rows(z: Tensor, codes: Tensor) -> None:
    """Multiply only, in chunks of rows whose scores fit the bound."""
    for part in z.split(max(1, BOUND // (len(codes) * z.element_size()))):
        part @ codes.t()


METHODS: dict[str, Search] = {
    "nearest": search,
    "matmul in chunks": matmul_in_chunks,
    "matmul in rows": matmul_in_rows,
    "matmul": matmul,
    "cdist": cdist,
    "broadcast": broadcast,
}


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"threads": 1, "sites": 2048, "codes": 1024, "width": 1024, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip", nargs="*", default=[], choices=list(METHODS)[1:], metavar="METHOD")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    z, codes = (torch.randn(n, args.width).to(device) for n in (args.sites, args.codes))
    chosen = {name: method for name, method in METHODS.items() if name not in args.skip}
    calls = {name: (lambda method=method: method(z, codes)) for name, method in chosen.items()}
    repeats = {name: 1 if name == "broadcast" else args.repeats for name in calls}
    setting = {name: getattr(args, name) for name in ("sites", "codes", "width", "threads", "repeats", "device")}
    print(f"N={args.sites} K={args.codes} width={args.width} {device} threads={args.threads} torch={torch.__version__}")
    results = measure(calls, repeats, device)
    indices = {name: found.result for name, found in results.items() if isinstance(found.result, Tensor)}
    notes = {
        name: f"same indices {(found == indices['nearest']).float().mean():.2%}" for name, found in indices.items()
    }
    print(table(results, notes))
    write_json(args.json, setting, results, notes)


if __name__ == "__main__":
    main()
