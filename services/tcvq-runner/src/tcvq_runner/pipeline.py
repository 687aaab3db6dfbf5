"""A whole run: every step in order."""

from collections.abc import Callable, Mapping
from functools import partial

from tcvq_runner.config import Recipe
from tcvq_runner.distributed import agreed, end_alone
from tcvq_runner.drawing import sample
from tcvq_runner.encoding import encode
from tcvq_runner.evaluation import evaluate
from tcvq_runner.progress import Reporter
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.stages import train_stage1, train_stage2
from tcvq_runner.wiring import Compute

Step = Callable[[RunFolder, Recipe, Compute, Reporter], None]

STEPS: Mapping[str, Step] = {
    "stage1": train_stage1,
    "encode": encode,
    "stage2": train_stage2,
    "sample": sample,
    "eval": evaluate,
}
ALONE = "eval"  # the last step, done by the first process


def run(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Take a run folder from images to the report; raises what the steps raise.

    Steps that are recorded as done and whose files are still what they made are left out; from the first one that is
    not, whatever follows from another result is made again.
    """
    for name, step in STEPS.items():
        problem = agreed(partial(folder.problem, name))
        if problem is None:
            continue
        if problem:
            reporter.note(f"{name}: done again, because {problem}")
        work = partial(step, folder, recipe, compute, reporter)
        if name == ALONE:
            end_alone(work)
        else:
            work()
