"""The command line: puts the commands together. Everything heavy is imported inside the commands."""

import sys
from collections.abc import Sequence

import click

from tcvq_runner import __version__
from tcvq_runner.compare_commands import compare
from tcvq_runner.data_commands import data
from tcvq_runner.doctor_commands import completion, doctor
from tcvq_runner.eval_commands import evaluate
from tcvq_runner.failures import report, stop_signals
from tcvq_runner.options import debug_option
from tcvq_runner.recipe_commands import config, recipes
from tcvq_runner.reference_commands import import_reference
from tcvq_runner.run_commands import encode, run, train
from tcvq_runner.runs_commands import runs
from tcvq_runner.sample_commands import sample
from tcvq_runner.study_commands import study
from tcvq_runner.weights_commands import weights


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tcvq")
@debug_option
def cli() -> None:
    """Spiking networks that generate images with a temporal codebook.

    Settings are written as KEY=VALUE without dashes, such as vqvae.n_steps=6; `tcvq config show` lists them all.
    """


for each in (
    run,
    train,
    encode,
    sample,
    evaluate,
    compare,
    study,
    runs,
    recipes,
    config,
    data,
    weights,
    import_reference,
    doctor,
    completion,
):
    cli.add_command(each)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 2 for what the user can mend, 130 and 143 for signals, 1 for a bug."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with stop_signals():
            cli.main(arguments, prog_name="tcvq", standalone_mode=False, obj=arguments)
            sys.stdout.flush()
    except BaseException as error:
        if "--debug" in arguments and isinstance(error, Exception):
            raise
        return report(error, arguments)
    return 0
