"""The command `tcvq eval`: arguments to calls, nothing else."""

from pathlib import Path
from typing import Any

import click

from tcvq_runner.options import FOLDER, combined, compute_options, json_option

_METRICS = ("fd", "kid", "is", "precision", "recall", "density", "coverage", "fd_infinity", "cmmd")
_EXTRACTORS = ("inception", "fashion", "vgg16", "dinov2", "clip")
_FILE = click.Path(path_type=Path)
_set_options = combined(
    click.option("--real", type=_FILE, metavar="SET", help="Real images: a folder, an .npz file, or saved features."),
    click.option("--fake", type=_FILE, metavar="SET", help="Generated images: the same, or a run with samples."),
    click.option("--metric", "metrics", multiple=True, type=click.Choice(_METRICS), help="May be repeated."),
    click.option("--extractor", type=click.Choice(_EXTRACTORS), default="inception", show_default=True),
    click.option("--weights", type=_FILE, metavar="FILE", help="Weights of the extractor; see `tcvq weights list`."),
    click.option("--weights-sha256", metavar="HEX", help="Hash of other weights than the published ones."),
    click.option("--resize", type=click.Choice(["tf1", "halfpixel", "antialias"]), default="tf1", show_default=True),
    click.option("--resamples", type=click.IntRange(min=0), default=10, help="Halves for the spread; 0 leaves it out."),
    click.option("--seed", type=click.IntRange(min=0), default=0, help="Of every random division."),
    click.option("--cache", type=FOLDER, metavar="FOLDER", help="Keep the features of --real here; default: nowhere."),
)


@click.command("eval")
@click.argument("run", type=FOLDER, metavar="[RUN]", required=False)
@_set_options
@click.option("--lpips", type=_FILE, metavar="FILE", help="Weights of VGG16: adds LPIPS of a RUN's reconstructions.")
@click.option("--lpips-sha256", metavar="HEX", help="Hash of other weights than torchvision's.")
@json_option
@compute_options
def evaluate(
    run: Path | None, real: Path | None, fake: Path | None, *, as_json: bool, cache: Path | None, **options: Any
) -> None:
    """Measure a run again and write its report; or compare two sets of images.

    With RUN, every measure that fits its data is taken against the test split; --weights adds FID and KID. With --real
    and --fake, two sets are compared, and nothing is written but the cache.

    Each number stands beside its spread and the same measure of real against real. "fd" is the Frechet distance: FID
    in Inception's features. What is missing is skipped and says why; nothing is ever downloaded here.
    """
    compute = {key: options.pop(key) for key in ("device", "precision", "threads")}
    if options["lpips_sha256"] and not options["lpips"]:
        raise click.UsageError("--lpips-sha256 is the hash of the file that --lpips FILE names; give both")
    if run is None and real is not None and fake is not None:
        del options["lpips_sha256"]
        if options.pop("lpips"):
            raise click.UsageError("--lpips is for a RUN: it compares images with their reconstructions")
        _compare(real, fake, compute, as_json=as_json, cache=cache, **options)
    elif run is not None and real is None and fake is None:
        _measure_run(run, compute, as_json=as_json, cache=cache, **options)
    else:
        raise click.UsageError("give a RUN, or both --real SET and --fake SET")


def _measure_run(run: Path, compute: dict[str, Any], *, as_json: bool, **options: Any) -> None:
    from tcvq_runner import distances, evaluation, session

    if options.pop("extractor") != "inception":
        raise click.UsageError("--extractor is for --real and --fake, and a run is a SET: --real FOLDER --fake RUN")
    asked = options["weights"] is not None or bool(options["metrics"])
    request = distances.Request(inception=asked, **options)
    with session.old_session(run, **compute) as at:
        evaluation.evaluate(at.folder, at.recipe, at.compute, at.reporter, request)
        click.echo(at.folder.report_json.read_text("utf-8") if as_json else f"report: {at.folder.report_html}")


def _compare(real: Path, fake: Path, compute: dict[str, Any], *, as_json: bool, **options: Any) -> None:
    import sys

    from tcvq_runner import comparing, wiring
    from tcvq_runner.progress import open_reporter

    found = comparing.compare_sets(real, fake, wiring.open_compute(**compute), open_reporter(sys.stderr), **options)
    click.echo(comparing.as_json(found) if as_json else "\n".join(comparing.as_lines(found)))
