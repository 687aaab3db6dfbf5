"""The command `tcvq import-reference`: released checkpoints of the paper's code become our artifacts."""

from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import debug_option

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import-reference")
@click.argument("checkpoint", type=_FILE, metavar="CKPT")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to; default CKPT's name."
)
@click.option("--image-size", type=click.IntRange(min=1), help="Side of the images of stage 1, which no shape shows.")
@click.option("--encoding", type=click.Choice(["direct", "event"]), help="Default: events if there are two channels.")
@click.option("--vanilla-steps", type=click.IntRange(min=1), metavar="T", help="The codebook is one of single steps.")
@click.option("--vqvae", type=_FILE, help="Artifact of the VQ-VAE, for a file that holds a prior alone.")
@click.option(
    "--heads", "n_head", type=click.IntRange(min=1), default=16, show_default=True, help="Attention heads of a prior."
)
@click.option("--snn-steps", type=click.IntRange(min=1), default=2, show_default=True, help="SNN steps of a prior.")
@debug_option
def import_reference(checkpoint: Path, out: Path | None, **options: Any) -> None:
    """Turn a checkpoint of the paper's released code (.ckpt or .safetensors) into vqvae and prior artifacts.

    The architecture is read off names and shapes, every tensor is loaded exactly or the command lists what does not
    fit, and nothing in the file is run.
    """
    from tcvq_runner import reference_import as reference

    for written in reference.import_reference(checkpoint, out or Path(checkpoint.stem), reference.Guess(**options)):
        click.echo(f"wrote {written}")
