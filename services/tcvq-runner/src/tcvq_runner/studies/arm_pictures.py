"""Pictures of the arms of a study: the same test data, what each codec makes of them, what each prior draws."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_data import read_batch
from tcvq_eval import Picture, event_gif, event_strips, image_grid
from tcvq_runner.batching import in_batches
from tcvq_runner.studies.measures import batch_first, drawn_indices
from tcvq_runner.studies.sweep import Trained
from tcvq_runner.wiring import Compute, open_split
from tcvq_vqvae import SpikingVQVAE, load_vqvae

_SHOWN, _STRIPS = 8, 3
_NOT_CHOSEN = "The first of each, no selection."


def arm_pictures(runs: Sequence[Trained], compute: Compute) -> list[Picture]:
    """Return test data, and for every arm of the first seed its reconstructions and its first samples.

    Images are one sheet, a row each; recordings are strips of their steps and a GIF that plays them side by side.
    """
    first = [run for run in runs if run.seed == runs[0].seed]
    rows: dict[str, Tensor] = {}
    for run in first:
        model = load_vqvae(run.folder.vqvae).model.to(compute.device)
        x = read_batch(open_split(run.recipe, "test"), list(range(_SHOWN))).image
        rows.setdefault("test data", x)
        drawn = drawn_indices(run.folder, run.recipe, compute, run.recipe.sample.n)[0][:_SHOWN]
        codes = in_batches(partial(_codes, model), x, _SHOWN, compute)
        rows[f"{run.variant}: codec"] = in_batches(partial(_decoded, model), codes, _SHOWN, compute)
        rows[f"{run.variant}: samples"] = in_batches(partial(_decoded, model), drawn, _SHOWN, compute)
    if x.ndim == 5:
        return _recordings(rows)
    sheet = image_grid(torch.cat(list(rows.values())), _SHOWN, row_labels=list(rows), scale=2)
    alt = "Test data, reconstructions and samples of every arm"
    return [Picture(name="samples", data=sheet, alt=alt, caption=_NOT_CHOSEN)]


def _recordings(rows: Mapping[str, Float[Tensor, "N T 2 H W"]]) -> list[Picture]:
    """Return strips of the first recordings of every row, and a GIF with one row of recordings each."""
    steps = max(x.shape[1] for x in rows.values())
    shares = {name: (_longer(x, steps).clamp(-1, 1) + 1) / 2 for name, x in rows.items()}
    labels = [f"{name} {i + 1}" for name in shares for i in range(_STRIPS)]
    strips = event_strips(torch.cat([x[:_STRIPS] for x in shares.values()]), row_labels=labels, scale=3)
    played = event_gif(torch.cat(list(shares.values())), cols=_SHOWN, scale=2, frame_ms=300)
    order = "; ".join(shares)
    return [
        Picture(
            name="samples",
            data=strips,
            alt="Steps of test recordings, reconstructions and samples of every arm",
            caption=f"{_NOT_CHOSEN} Steps from left to right.",
        ),
        Picture(
            name="played",
            data=played,
            alt="The same recordings played",
            caption=f"Rows from above: {order}.",
        ),
    ]


def _longer(x: Float[Tensor, "N T 2 H W"], steps: int) -> Float[Tensor, "N S 2 H W"]:
    """Add empty steps, so that arms of different T stand in one picture."""
    return F.pad(x, (0, 0, 0, 0, 0, 0, 0, steps - x.shape[1]), value=-1.0)


def _decoded(model: SpikingVQVAE, indices: Int[Tensor, "B h w"]) -> Tensor:
    return batch_first(model.decode_indices(indices))


def _codes(model: SpikingVQVAE, x: Tensor) -> Tensor:
    return model.encode(x.transpose(0, 1) if x.ndim == 5 else x).indices
