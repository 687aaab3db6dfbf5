"""Kills runs of the recipe `debug` with SIGKILL at random moments, continues them, and compares every final file.

Example:
    python services/tcvq-runner/benchmarks/kill_resume.py --kills 20
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MADE = ("*.safetensors", "codes_*/*", "metrics.csv", "*.png")
MOST_PER_RUN = 4  # kills of one run before it may finish


def command(folder: Path, settings: list[str]) -> list[str]:
    """Return the command that begins or continues a run in a folder."""
    fixed = ["--threads", "1", "--precision", "32", "--out", str(folder)]
    return [sys.executable, "-m", "tcvq_runner", "run", "debug", *settings, *fixed]


def files(folder: Path) -> dict[str, bytes]:
    """Return what a run has made: models, codes, samples, curves and pictures."""
    return {str(path.relative_to(folder)): path.read_bytes() for each in MADE for path in folder.glob(each)}


def where(folder: Path) -> str:
    """Return how far a run has come: its finished steps, and its newest checkpoint."""
    record, saved = folder / "run.json", sorted(folder.glob("checkpoints/*/[0-9]*"))
    done = list(json.loads(record.read_text("utf-8"))["steps"]) if record.exists() else []
    newest = f", checkpoint {saved[-1].parent.name}/{int(saved[-1].name)}" if saved else ""
    return f"{'+'.join(done) or 'nothing'} done{newest}"


def killed(folder: Path, settings: list[str], after: float) -> str | None:
    """Start or continue a run, and kill it so many seconds after it has taken the folder; None if it ended before."""
    with subprocess.Popen(command(folder, settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (folder / ".lock").exists():
            time.sleep(0.01)
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return where(folder)
        if process.returncode:
            assert process.stderr is not None
            raise SystemExit(f"the run failed: {process.stderr.read().decode()}")
        return None


def main() -> None:
    """Kill, continue, compare; exit with status 1 if a file differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("settings", nargs="*", default=["stage1.max_steps=20", "stage2.max_steps=20"])
    asked = parser.parse_args()
    settings, chance = [*asked.settings, "checkpoint.every_steps=2"], random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch, "reference")
        subprocess.run(command(reference, settings), check=True, capture_output=True)
        wanted = files(reference)
        steps = json.loads((reference / "run.json").read_text("utf-8"))["steps"]
        seconds = sum(step["seconds"] for step in steps.values())
        print(f"reference: {len(wanted)} files in {seconds:.1f} s of work")
        kills = runs = wrong = 0
        while kills < asked.kills:
            runs += 1
            folder, mine = Path(scratch, f"run{runs}"), 0
            while mine < MOST_PER_RUN and kills < asked.kills:
                place = killed(folder, settings, chance.uniform(0, seconds))
                if place is None:
                    break
                kills, mine = kills + 1, mine + 1
                print(f"kill {kills:>3} (run {runs}): {place}", flush=True)
            subprocess.run(command(folder, settings), check=True, capture_output=True)
            found = files(folder)
            different = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
            wrong += bool(different)
            print(f"run {runs}, killed {mine} times: {', '.join(different) or 'every file identical'}", flush=True)
    print(f"{kills} kills in {runs} runs; {runs - wrong} of {runs} runs ended in identical files")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
