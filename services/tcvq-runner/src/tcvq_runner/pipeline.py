"""A whole run: every step in order."""

from collections.abc import Callable, Mapping

from tcvq_runner.config import Recipe
from tcvq_runner.drawing import sample
from tcvq_runner.evaluation import evaluate
from tcvq_runner.progress import Reporter
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.stages import encode, train_stage1, train_stage2
from tcvq_runner.wiring import Compute

Step = Callable[[RunFolder, Recipe, Compute, Reporter], None]

STEPS: Mapping[str, Step] = {
    "stage1": train_stage1,
    "encode": encode,
    "stage2": train_stage2,
    "sample": sample,
    "eval": evaluate,
}


def run(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Take a new run folder from images to the report; raises what the steps raise."""
    for step in STEPS.values():
        step(folder, recipe, compute, reporter)
