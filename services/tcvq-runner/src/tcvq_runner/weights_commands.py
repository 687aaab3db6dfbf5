"""The commands `tcvq weights …`: published weights of extractors, fetched when asked for and never otherwise."""

from pathlib import Path

import click

from tcvq_runner.options import debug_option


@click.group()
def weights() -> None:
    """Get the published weights that some measures need."""


@weights.command("list")
@debug_option
def list_() -> None:
    """List the weights by name, and which of them are here."""
    from tcvq_eval import KNOWN_WEIGHTS, weights_folder

    for known in KNOWN_WEIGHTS.values():
        here = next((path for file in known.file if (path := weights_folder() / file).is_file()), None)
        click.echo(f"{known.name:<12}{known.size_mb:>5} MB  sha256 {known.sha256[:12]}  {here or 'not here'}")


@weights.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take a file that you fetched yourself instead of downloading.",
)
@debug_option
def download(name: str, source: Path | None) -> None:
    """Fetch weights, or put a file you have into place; its hash is checked."""
    from tcvq_runner.published import get_weights

    click.echo(f"wrote {get_weights(name, source)}")
