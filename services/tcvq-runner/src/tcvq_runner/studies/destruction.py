"""`tcvq study destruction`: the same codes decoded with their steps reversed, frozen or emptied."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcvq_codebook import time_operator
from tcvq_eval import (
    Headline,
    Picture,
    Table,
    destruction_plot,
    event_strips,
    image_grid,
)
from tcvq_runner.batching import in_batches, tensors
from tcvq_runner.config import Recipe
from tcvq_runner.progress import Reporter
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.stages import codes_of
from tcvq_runner.studies.measures import Yardstick, drawn_indices, split_rows, yardstick
from tcvq_runner.studies.result import Study, StudyFigure
from tcvq_runner.wiring import Compute, open_split
from tcvq_vqvae import SpikingVQVAE, load_vqvae

N_IMAGES = 1000
_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Destroyed:
    """One set of index maps decoded in one mode.

    Attributes:
        images: The decoded images or recordings, the batch first.
        change: Mean absolute difference to ``none`` of every sample, paired.
        fd: Fréchet distance to real images.
        error: Mean absolute difference to the original; None for generated index maps, which have none.
    """

    images: Float[Tensor, "N *frame"]
    change: Float[Tensor, " N"]
    fd: float
    error: float | None


def modes(n_steps: int) -> list[str]:
    """Return the operators of the paper: none, reverse, repeat, empty, and last-n for n = 1 … T."""
    return ["none", "reverse", "repeat", "empty", *(f"last-{n}" for n in range(1, n_steps + 1))]


def destruction(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> Study:
    """Decode generated and held-out index maps of a run in every mode, and compare with ``none``.

    Raises:
        RunFolderError: A file of an earlier step is missing.
        ArtifactError: One is damaged, or they do not belong together.
    """
    loaded = load_vqvae(folder.need(folder.vqvae))
    model, size = loaded.model.to(compute.device), recipe.eval.batch_size
    drawn = drawn_indices(folder, recipe, compute, min(recipe.sample.n, N_IMAGES))[0]
    held_out = codes_of(folder, "test", loaded.sha256).indices.long()
    x = tensors(open_split(recipe, "test"))[0]
    n = min(len(drawn), len(held_out), len(x) // 2)
    drawn, held_out, ruler = drawn[:n], held_out[split_rows(len(x), n)[1]], yardstick(recipe, x, n)
    names = modes(model.config.n_steps)
    with reporter.task("destruction", 2 * len(names), "mode") as task:
        decode = _decoder(model, size, compute, task.update)
        generated = _all(decode, drawn, names, original=None, ruler=ruler)
        codec = _all(decode, held_out, names, original=ruler.others, ruler=ruler)
    return _study(folder, generated, codec, ruler)


def _decoder(
    model: SpikingVQVAE, size: int, compute: Compute, done: Callable[[int], None]
) -> Callable[[Tensor, str], Tensor]:
    """Return the function (index maps, mode) -> images, the batch first, with one pass of ``size`` after the other."""
    finished = 0

    def decode(indices: Int[Tensor, "N h w"], mode: str) -> Tensor:
        nonlocal finished
        images = in_batches(lambda i: destroyed_images(model, i, mode), indices, size, compute)
        finished += 1
        done(finished)
        return images

    return decode


def destroyed_images(model: SpikingVQVAE, indices: Int[Tensor, "B h w"], mode: str) -> Float[Tensor, "B *frame"]:
    """Look codes up, apply a time operator to the sequence, decode; the batch stands first, also of recordings."""
    images = model.decode(time_operator(mode)(model.codebook.lookup(indices)))
    return images.transpose(0, 1) if images.ndim == 5 else images


def _all(
    decode: Callable[[Tensor, str], Tensor],
    indices: Int[Tensor, "N h w"],
    names: Sequence[str],
    *,
    original: Tensor | None,
    ruler: Yardstick,
) -> dict[str, Destroyed]:
    plain, found = None, {}
    for mode in names:
        images = decode(indices, mode)
        plain = images if plain is None else plain
        found[mode] = Destroyed(
            images=images,
            change=(images.clamp(-1, 1) - plain.clamp(-1, 1)).abs().flatten(1).mean(1),
            fd=ruler.distance(images),
            error=None if original is None else (images.clamp(-1, 1) - original).abs().mean().item(),
        )
    return found


def _study(
    folder: RunFolder, generated: Mapping[str, Destroyed], codec: Mapping[str, Destroyed], ruler: Yardstick
) -> Study:
    noise = ruler.noise_floor()
    columns = ["mode", "L1 to none, generated", "±", "L1 to none, test codes", "L1 to test images"]
    columns += ["FD, generated", "FD, test codes"]
    rows = []
    for mode, found in generated.items():
        row: list[object] = [mode, *_mean(found.change), codec[mode].change.mean().item(), codec[mode].error]
        rows.append([*row, found.fd, codec[mode].fd])
    series = {
        "generated codes": {mode: found.change.mean().item() for mode, found in generated.items()},
        "test codes": {mode: found.change.mean().item() for mode, found in codec.items()},
    }
    distances = {mode: found.fd for mode, found in generated.items()}
    worst = max(generated, key=lambda mode: generated[mode].change.mean())
    return Study(
        name="destruction",
        title=f"Destruction of time: {folder.path}",
        question="How much of an image is in the order of its steps? The same generated codes are looked up once, and "
        "their steps are reversed, frozen or emptied before the decoder.",
        answer=_answer(generated, codec, f"{ruler.space}, noise floor {noise:.2f}"),
        table=Table(columns=columns, rows=rows, caption="L1 in pixel values from -1 to 1; ± is the standard error."),
        figures=[
            StudyFigure(
                name="destruction",
                alt="Change of the image in every mode",
                draw=lambda kind: destruction_plot(series, distances, noise, kind=kind),
                caption="Mean absolute change of the decoded image, paired with none; right: Fréchet distance of "
                f"generated images in {ruler.space}, dashed: real against real.",
            )
        ],
        pictures=[_strip(generated)],
        headlines=[
            Headline(
                label=f"L1 change, {mode}",
                value=generated[mode].change.mean().item(),
                digits=3,
                reference="none: 0 by construction",
            )
            for mode in dict.fromkeys(["reverse", "repeat", "empty", worst])
        ],
        metrics={
            "generated": {mode: _numbers(found) for mode, found in generated.items()},
            "test_codes": {mode: _numbers(found) for mode, found in codec.items()},
            "fd_noise_floor": noise,
        },
        commands={"make this again": f"tcvq study destruction {folder.path}"},
    )


def _answer(generated: Mapping[str, Destroyed], codec: Mapping[str, Destroyed], space: str) -> str:
    last = f"last-{sum(mode.startswith('last-') for mode in generated)}"
    same = torch.equal(generated["last-1"].images, generated["none"].images)
    frozen = torch.equal(generated[last].images, generated["repeat"].images)
    parts = ", ".join(f"{mode} {generated[mode].change.mean():.3f}" for mode in ("reverse", "repeat", "empty"))
    text = (
        f"Mean absolute change of {len(generated['none'].images)} generated images, paired with none, pixels in "
        f"[-1, 1]: {parts}. On codes of test images the reconstruction error rises from {codec['none'].error:.3f} to "
        + ", ".join(f"{codec[mode].error:.3f} ({mode})" for mode in ("reverse", "repeat", "empty"))
        + f". Fréchet distance of the generated images in {space}: "
        + ", ".join(f"{mode} {generated[mode].fd:.2f}" for mode in ("none", "reverse", "repeat", "empty"))
        + "."
    )
    return (
        f"{text} last-1 is {'' if same else 'NOT '}bit equal to none, {last} is {'' if frozen else 'NOT '}bit equal to "
        "repeat. The decoder was trained on intact sequences: part of any drop is its surprise, not lost information."
    )


def _strip(generated: Mapping[str, Destroyed]) -> Picture:
    """Return the same samples in every mode, one row per mode; of recordings the first one."""
    names = list(generated)
    first = generated["none"].images
    if first.ndim == 5:
        counts = torch.stack([(generated[mode].images[0].clamp(-1, 1) + 1) / 2 for mode in names])
        data = event_strips(counts, row_labels=names, scale=2)
        caption = "The first generated recording, steps from left to right."
    else:
        chosen = torch.linspace(0, len(first) - 1, min(_SHOWN, len(first))).long()
        images = torch.cat([generated[mode].images[chosen] for mode in names])
        data = image_grid(images, len(chosen), row_labels=names, scale=2)
        caption = "The same generated codes in every row; chosen at equal distances, not by look."
    return Picture(name="strip", data=data, alt="The same samples in every mode", caption=caption)


def _mean(values: Tensor) -> tuple[float, float]:
    spread = values.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
    return values.mean().item(), spread


def _numbers(found: Destroyed) -> dict[str, float | None]:
    mean, error = _mean(found.change)
    return {"l1_to_none": mean, "standard_error": error, "fd": found.fd, "l1_to_original": found.error}
