"""Trains the recipes of the paper at their full size for two steps of each stage, on small data in the true formats.

Only what cannot be had on small data is changed: the number of steps, the batch, and LPIPS, which needs the weights of
VGG16. Each stage is a process of its own, so that the most memory it held can be told.

Example:
    python services/tcvq-runner/benchmarks/full_size.py mnist nmnist --batch 2
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tcvq_data import testing
from tcvq_runner.parameters import parameter_counts
from tcvq_runner.recipe import load_recipe

DATA: dict[str, Callable[[Path], Path]] = {
    "mnist": testing.write_mnist,
    "fashion-mnist": lambda root: testing.write_mnist(root, "FashionMNIST"),
    "cifar10": testing.write_cifar10,
    "celeba": testing.write_celeba,
    "nmnist": testing.write_nmnist_set,
    "dvs-cifar10": testing.write_dvs_cifar10,
    "bedroom": testing.write_lsun_bedroom,
    "celeba-hq": testing.write_celeba_hq,
    "church": testing.write_lsun_church,
}
STEPS = 2


def settings_of(root: Path, batch: int) -> list[str]:
    """Return what is changed of a recipe."""
    per_stage = (
        f"{stage}.{key}" for stage in ("stage1", "stage2") for key in (f"max_steps={STEPS}", f"batch_size={batch}")
    )
    return [
        f"data.root={root}",
        "data.workers=0",
        "data.limit=4",
        "loss.disc_start=1",
        "loss.perceptual_weight=0",
        *per_stage,
    ]


def peak(arguments: list[str], threads: int) -> float:
    """Run a command of tcvq and return the most memory that it held, in GiB; ends with its words if it fails."""
    command = [sys.executable, "-m", "tcvq_runner", *arguments, "--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"tcvq {' '.join(arguments)} failed: {said}")
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30


def main() -> None:
    """Print a line for each recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(DATA)}; default: all")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    columns = ("recipe", "stage 1, M", "prior, M", "stage 1, s", "GiB", "loss", "stage 2, s", "GiB", "bits")
    print(f"{columns[0]:<14}" + "".join(f"{each:>12}" for each in columns[1:]), flush=True)
    for name in asked.recipes or DATA:
        with tempfile.TemporaryDirectory() as scratch:
            root, run = Path(scratch, "data"), Path(scratch, "run")
            DATA[name](root)
            settings = settings_of(root, asked.batch)
            first = peak(["train", "stage1", name, *settings, "--out", str(run)], asked.threads)
            peak(["encode", str(run)], asked.threads)
            second = peak(["train", "stage2", str(run)], asked.threads)
            steps = json.loads((run / "run.json").read_text("utf-8"))["steps"]
            with (run / "metrics.csv").open(newline="", encoding="utf-8") as lines:
                last = {(row["stage"], row["metric"]): float(row["value"]) for row in csv.DictReader(lines)}
        counts = parameter_counts(load_recipe(name, settings))
        prior = counts.pop("prior")
        stages = (
            (steps["stage1"]["seconds"], first, last["stage1", "train/loss"]),
            (steps["stage2"]["seconds"], second, last["stage2", "train/bits"]),
        )
        cells = "".join(f"{n / 1e6:>12.1f}" for n in (sum(counts.values()), prior))
        cells += "".join(f"{seconds:>12.1f}{memory:>12.1f}{loss:>12.3f}" for seconds, memory, loss in stages)
        print(f"{name:<14}{cells}", flush=True)


if __name__ == "__main__":
    main()
