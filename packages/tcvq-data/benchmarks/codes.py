"""Writing and reading of 60,000 grids of 64 codes, beside the same folder through `datasets`' own torch format.

Usage: ``OMP_NUM_THREADS=1 python packages/tcvq-data/benchmarks/codes.py [--rows N] [--length L] [--json F]``
Batches of 64 are drawn in one random order; the page cache is warm, as it is for any set that fits into memory.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import torch

from tcvq_data import Codes, read_codes, write_codes

BATCH = 64
ROUNDS = 3


def rows_per_second(rows: int, function: Callable[[], object]) -> int:
    """Return how many rows a second the fastest of some calls handles."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return round(rows / min(seconds))


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    codes = Codes(
        indices=torch.randint(512, (args.rows, 1, args.length), generator=torch.Generator().manual_seed(0)),
        labels=torch.zeros(args.rows, dtype=torch.int64),
        n_embed=512,
        classes=("all",),
        vqvae_sha256="",
        dataset="random",
        split="train",
    )
    order = torch.randperm(args.rows, generator=torch.Generator().manual_seed(0)).split(BATCH)
    lists = [index.tolist() for index in order]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "codes")
        speed = {"write": rows_per_second(args.rows, lambda: write_codes(path, codes))}
        speed["read whole, verified"] = rows_per_second(args.rows, lambda: read_codes(path))
        loaded, plain = read_codes(path), datasets.load_from_disk(str(path)).with_format("torch")
        speed["batches of 64"] = rows_per_second(args.rows, lambda: [loaded.indices[i].long() for i in order])
        speed["batches of 64, datasets"] = rows_per_second(args.rows, lambda: [plain[i]["codes"] for i in lists])
        size = sum(file.stat().st_size for file in path.iterdir())
    assert torch.equal(loaded.indices.long(), codes.indices)
    versions = {"datasets": datasets.__version__, "pyarrow": pyarrow.__version__, "python": platform.python_version()}
    result = {
        "rows": args.rows,
        "length": args.length,
        "bytes_per_row": round(size / args.rows, 1),
        "rows_per_second": speed,
        "versions": versions,
    }
    print(json.dumps(result, indent=1))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
