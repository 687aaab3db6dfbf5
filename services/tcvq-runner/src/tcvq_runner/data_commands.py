"""The commands `tcvq data …`: arguments to calls, nothing else."""

import sys
from pathlib import Path
from typing import Any

import click

_ROOT = "Folder of all datasets; default $TCVQ_DATA, else ~/.cache/tcvq/data."
_root = click.option("--root", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER", help=_ROOT)
_debug = click.option("--debug", is_flag=True, expose_value=False, help="Show where an error came from.")
_name = click.argument("name", metavar="NAME")


@click.group()
def data() -> None:
    """Get, check and look at datasets."""


@data.command("list")
@_root
@_debug
def list_(root: Path | None) -> None:
    """List the datasets by name, and which of them are here."""
    from tcvq_data import describe_datasets

    for line in describe_datasets(root):
        click.echo(line)


@data.command()
@_name
@_root
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE_OR_FOLDER",
    help="Take files that you fetched yourself instead of downloading.",
)
@_debug
def download(name: str, root: Path | None, source: Path | None) -> None:
    """Fetch a dataset, or put files you have into place; checked, resumable, nothing half-written."""
    from tcvq_data import download
    from tcvq_runner.progress import announced, open_reporter

    with announced(open_reporter(sys.stderr), "MB") as progress:

        def in_megabytes(file: str, done: int, total: int | None) -> None:
            progress(file, done // 10**6, -(-(total or 0) // 10**6))

        for path in download(name, root, source=source, progress=in_megabytes):
            click.echo(f"wrote {path}")
    click.echo(f"next: tcvq data show {name}")


@data.command()
@_name
@_root
@click.option("--deep", is_flag=True, help="Decode every image and check every checksum.")
@_debug
def verify(name: str, root: Path | None, deep: bool) -> None:
    """Check that the files of a dataset are all there and whole."""
    from tcvq_data import verify

    result = verify(name, root, deep=deep)
    for line in result.lines():
        click.echo(line)
    if not result.ok:
        raise ValueError(f"{name}: damaged or incomplete; get it again with: tcvq data download {name}")


@data.command()
@_name
@_root
@click.option("--split", default="train", help="train (default), test, or val where there is one.")
@click.option("-n", "n", type=click.IntRange(min=1), default=80, help="Samples to show; default 80.")
@click.option("--size", type=click.IntRange(min=1), help="Height and width; default: what the paper uses.")
@click.option("--steps", type=click.IntRange(min=1), default=6, help="Steps of recordings; default 6.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of splits and simulated recordings.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=".", help="Where to write; default here."
)
@_debug
def show(name: str, split: str, n: int, out: Path, *, steps: int, **options: Any) -> None:
    """Draw a contact sheet (PNG); of event data strips of their steps (PNG), a GIF and statistics."""
    from tcvq_data import DataOptions, EventOptions
    from tcvq_runner.progress import open_reporter
    from tcvq_runner.showing import show_dataset

    how = DataOptions(limit=n, events=EventOptions(n_steps=steps), **options)
    for line in show_dataset(name, split, how, n=n, out=out, reporter=open_reporter(sys.stderr)):
        click.echo(line)


@data.group()
def cache() -> None:
    """Look at the caches of event frames, and delete what is not needed."""


@cache.command()
@_root
@_debug
def ls(root: Path | None) -> None:
    """List the caches."""
    from tcvq_data import list_caches

    for entry in list_caches(root):
        click.echo(_cache_line(entry))


@cache.command()
@_root
@click.option("--all", "everything", is_flag=True, help="Complete caches too, not only what cannot be read.")
@click.option("--dataset", metavar="NAME", help="Only of this dataset.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted.")
@_debug
def prune(root: Path | None, everything: bool, dataset: str | None, dry_run: bool) -> None:
    """Delete caches that are unfinished, damaged or of another version."""
    from tcvq_data import prune_caches

    days = 0.0 if everything else None
    for entry in prune_caches(root, dataset=dataset, older_than_days=days, dry_run=dry_run):
        click.echo(f"{'would delete' if dry_run else 'deleted'} {_cache_line(entry)}")


def _cache_line(entry: Any) -> str:
    """Return one line about a cache."""
    state = entry.fault or f"{entry.manifest.split}, {'x'.join(map(str, entry.manifest.shape))}"
    return f"{entry.dataset:<20} {entry.n_bytes / 1e6:>9.1f} MB  {entry.path}  {state}"
