"""Kills runs of the recipe `debug` with SIGKILL at random moments, continues them, and compares every final file.

A moment is a random checkpoint of a training or the begin of another step, and a random wait from there on, up to the
time until the next one in a run that is left alone: so the moments spread over the work, not over the start-up.

Example:
    python services/tcvq-runner/benchmarks/kill_resume.py --kills 20
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

MADE = ("*.safetensors", "codes_*/*", "metrics.csv", "*.png")
STEPS = ("stage1", "encode", "stage2", "sample", "eval", "end")
MOST_PER_RUN = 4  # kills of one run before it may finish
POLL = 0.002  # seconds between two looks at a run folder

Place = tuple[int, int]  # number of steps that are done, newest checkpoint of the one under way


def command(folder: Path, settings: list[str]) -> list[str]:
    """Return the command that begins or continues a run in a folder."""
    fixed = ["--threads", "1", "--precision", "32", "--out", str(folder)]
    return [sys.executable, "-m", "tcvq_runner", "run", "debug", *settings, *fixed]


def files(folder: Path) -> dict[str, bytes]:
    """Return what a run has made: models, codes, samples, curves and pictures."""
    return {str(path.relative_to(folder)): path.read_bytes() for each in MADE for path in folder.glob(each)}


def place_of(folder: Path) -> Place | None:
    """Return how far a run has come; None before it has its folder."""
    if not (folder / "config.yaml").exists():
        return None
    record = folder / "run.json"
    done = json.loads(record.read_text("utf-8"))["steps"] if record.exists() else {}
    under_way = next(name for name in STEPS if name not in done)
    saved = [int(path.name) for path in folder.glob(f"checkpoints/{under_way}/[0-9]*")]
    return STEPS.index(under_way), max(saved, default=0)


def told(place: Place) -> str:
    """Return a place in words."""
    step, saved = place
    return f"{STEPS[step]}, newest checkpoint {saved}" if saved else STEPS[step]


@contextmanager
def running(folder: Path, settings: list[str], *, killed: bool) -> Iterator["subprocess.Popen[bytes]"]:
    """Start or continue a run, which may be killed or not; end with its words if it fails by itself."""
    with tempfile.TemporaryFile() as words:  # a pipe that nobody reads would fill up and stop the run
        with subprocess.Popen(command(folder, settings), stdout=subprocess.DEVNULL, stderr=words) as process:
            yield process
        if process.returncode not in ({0, -signal.SIGKILL} if killed else {0}):
            words.seek(0)
            raise SystemExit(f"the run failed: {words.read().decode()}")


def watched(folder: Path, settings: list[str]) -> dict[Place, float]:
    """Run without a kill; return each place that the run comes to, and how long it is there."""
    came: dict[Place, float] = {}
    with running(folder, settings, killed=False) as process:
        while process.poll() is None:
            place = place_of(folder)
            if place is not None and place not in came:
                came[place] = time.monotonic()
            time.sleep(POLL)
    ordered = sorted(came)
    return {place: came[after] - came[place] for place, after in pairwise(ordered)}


def killed(folder: Path, settings: list[str], target: Place, wait: float) -> Place | None:
    """Start or continue a run, and kill it so many seconds after it has come to a place; None if it ended before."""
    with running(folder, settings, killed=True) as process:
        while process.poll() is None and (place_of(folder) or (-1, 0)) < target:
            time.sleep(POLL)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return place_of(folder)
    return None


def moments(times: dict[Place, float], chance: random.Random) -> set[Place]:
    """Draw places for the kills of one run: first a step, so that each has its share, then a place in it."""
    steps = chance.choices(sorted({step for step, _ in times}), k=MOST_PER_RUN)
    return {chance.choice([place for place in sorted(times) if place[0] == step]) for step in steps}


def main() -> None:
    """Kill, continue, compare; exit with status 1 if a file differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("settings", nargs="*", default=["stage1.max_steps=20", "stage2.max_steps=20"])
    asked = parser.parse_args()
    settings, chance = [*asked.settings, "checkpoint.every_steps=2"], random.Random(asked.seed)
    fell: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch, "reference")
        times = watched(reference, settings)
        wanted = files(reference)
        print(f"reference: {len(wanted)} files, {len(times)} places in {sum(times.values()):.1f} s", flush=True)
        runs = wrong = 0
        while fell.total() < asked.kills:
            runs += 1
            folder, mine = Path(scratch, f"run{runs}"), 0
            for target in sorted(moments(times, chance)):
                if fell.total() == asked.kills or target <= (place_of(folder) or (-1, 0)):
                    continue
                place = killed(folder, settings, target, chance.uniform(0, times[target]))
                if place is None:
                    break
                mine += 1
                fell[STEPS[place[0]]] += 1
                print(f"kill {fell.total():>3} (run {runs}): {told(place)}", flush=True)
            subprocess.run(command(folder, settings), check=True, capture_output=True)
            found = files(folder)
            different = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
            wrong += bool(different)
            print(f"run {runs}, killed {mine} times: {', '.join(different) or 'every file identical'}", flush=True)
    print(f"kills during {', '.join(f'{step} {fell[step]}' for step in STEPS)}")
    print(f"{fell.total()} kills in {runs} runs; {runs - wrong} of {runs} runs ended in identical files")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
