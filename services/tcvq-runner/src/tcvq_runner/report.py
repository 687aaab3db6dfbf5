"""What the report of a run says: its headline numbers, pictures and next commands."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tcvq_eval import (
    Curve,
    Headline,
    Picture,
    Report,
    Section,
    code_usage_plot,
    event_gif,
    loss_curves,
    nearest_section,
    sample_headlines,
)
from tcvq_runner.config import Recipe
from tcvq_runner.curves import read_metrics
from tcvq_runner.distance_tables import distance_rows, event_rows, token_rows
from tcvq_runner.drawing import sample_sheet
from tcvq_runner.networks import Networks, network_headlines, network_metrics, network_sections
from tcvq_runner.recipe import recipe_tree
from tcvq_runner.run_dir import RunFolder

if TYPE_CHECKING:
    from tcvq_runner.evaluation import Findings

PLAYED = 8  # recordings side by side


def next_commands(path: Path) -> dict[str, str]:
    """Return what each command to try next does, and the command."""
    return {
        "repeat this run": f"tcvq run {path / 'config.yaml'}",
        "draw more images": f"tcvq sample {path} -n 64 --seed 1",
        "draw bolder or safer images": f"tcvq sample {path} -n 64 --temperature 0.9 --top-p 0.95",
        "see every setting": f"tcvq config show {path / 'config.yaml'}",
    }


def compose(folder: RunFolder, recipe: Recipe, found: "Findings", pairs: bytes, networks: Networks) -> Report:
    """Return the report of a run.

    Args:
        folder: The run, for curves, timings and environment.
        recipe: What was run.
        found: What was measured.
        pairs: PNG of test images above their reconstructions.
        networks: What was measured of the networks themselves.
    """
    steps = folder.steps()
    sampled = sample_headlines(found.fidelity) if found.fidelity else []
    metrics = {
        "reconstruction": found.reconstruction,
        "codebook": found.usage,
        "tokens": found.tokens,
        "samples": found.fidelity or {"skipped": found.skipped},
        "distances": list(found.distances),
        "events": found.events or {"skipped": found.events_skipped or "these are images"},
        "steps": found.steps,
        "memorisation": found.memorisation,
        "prior": {"test_bits_per_code": _test_bits(folder)},
        "samples_per_second": steps.get("sample", {}).get("samples_per_second"),
        **network_metrics(networks),
    }
    return Report(
        title=f"tcvq run: {recipe.name}",
        summary=f"A spiking image generator trained on {recipe.data.name}, seed {recipe.seed}.",
        headlines=[*sampled, *_model_headlines(found, _test_bits(folder)), *network_headlines(networks)],
        sections=[*_sections(folder, found, pairs), *network_sections(networks)],
        metrics=metrics,
        timings={name: float(step["seconds"]) for name, step in steps.items()},
        config=recipe_tree(recipe),
        environment=json.loads(folder.env.read_text("utf-8")) if folder.env.is_file() else {},
        commands=next_commands(folder.path),
    )


def _model_headlines(found: "Findings", bits: float) -> list[Headline]:
    mse, psnr, usage = found.reconstruction.mse, found.reconstruction.psnr, found.usage
    lpips = found.reconstruction.lpips
    perceptual = [] if lpips is None else [Headline(label="LPIPS", value=lpips, digits=3, better="lower")]
    uniform = f"uniform {math.log2(usage.n_embed):.2f}"
    return [
        Headline(label="reconstruction MSE", value=mse, digits=4, reference="pixels in [-1, 1]", better="lower"),
        Headline(label="reconstruction PSNR", value=psnr, unit="dB", better="higher"),
        *perceptual,
        Headline(label="codes used", value=100 * usage.used_fraction, digits=1, unit="%", better="higher"),
        Headline(label="test bits per code", value=bits, reference=uniform, better="lower"),
    ]


def _sections(folder: RunFolder, found: "Findings", pairs: bytes) -> list[Section]:
    curves, usage = loss_curves(_curves(folder.metrics)), code_usage_plot(found.usage.counts)
    recordings = found.samples.images.ndim == 5
    one = "recording" if recordings else "image"
    return [
        Section(
            title="Samples",
            text=f"Each {one} is a grid of codes drawn by the prior and decoded; the first ones, not a selection.",
            pictures=[
                Picture(name="samples", data=sample_sheet(found.samples), alt=f"Generated {one}s"),
                *([_played(found)] if recordings else []),
            ],
        ),
        Section(
            title="Reconstructions",
            text=f"Test {one}s, and what remains of them after encoder, codebook and decoder.",
            pictures=[Picture(name="reconstructions", data=pairs, alt=f"Test {one}s above their reconstructions")],
        ),
        *_distance_sections(found),
        Section(title="Training", pictures=[Picture(name="curves", data=curves, alt="Training curves")]),
        Section(
            title="Codebook",
            pictures=[Picture(name="usage", data=usage, alt="Use of each code by test images")],
            table=token_rows(found.tokens),
        ),
    ]


def _played(found: "Findings") -> Picture:
    """Return a GIF that plays generated recordings above test recordings."""
    rows = [(x[:PLAYED].clamp(-1, 1) + 1) / 2 for x in (found.samples.images, found.x)]
    n = min(len(row) for row in rows)
    data = event_gif(torch.cat([row[:n] for row in rows]), cols=n, scale=3, frame_ms=300)
    caption = "Above generated, below test recordings, step after step."
    return Picture(name="played", data=data, alt="Generated and test recordings played side by side", caption=caption)


def _distance_sections(found: "Findings") -> list[Section]:
    """Return the tables of distances, and the nearest training images."""
    nearest = nearest_section(found.samples.images[: len(found.train)], found.train, found.memorisation)
    if found.samples.images.ndim == 4:
        text = "Each value with its uncertainty and the same measure of real against real images."
        return [Section(title="Distances", text=text, table=distance_rows(found.distances)), nearest]
    title = "Recordings against real ones"
    if found.events is None:
        return [Section(title=title, text=f"Not measured: {found.events_skipped}."), nearest]
    text = "Features of a classifier trained on the real training split. Each value beside real against real."
    return [Section(title=title, text=text, table=event_rows(found.events)), nearest]


def _curves(path: Path) -> list[Curve]:
    """Return the training curves, training and validation values of one measure in one panel."""
    series: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for stage, step, metric, value in read_metrics(path):
        series.setdefault((stage, metric), []).append((step, value))
    return [
        Curve(
            name=metric,
            steps=[step for step, _ in points],
            values=[value for _, value in points],
            panel=f"{stage}: {metric.rpartition('/')[2]}",
        )
        for (stage, metric), points in series.items()
    ]


def _test_bits(folder: RunFolder) -> float:
    """Return the last bits per code on the test split, not-a-number if the prior was never validated."""
    values = [value for _, _, metric, value in read_metrics(folder.metrics) if metric == "val/bits"]
    return values[-1] if values else math.nan
