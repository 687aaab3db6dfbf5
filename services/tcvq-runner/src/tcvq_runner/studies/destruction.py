"""`tcvq study destruction`: the same codes decoded with their steps reversed, frozen or emptied."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float, Int
from torch import Tensor

from tcvq_codebook import time_operator
from tcvq_runner.batching import in_batches
from tcvq_runner.config import Recipe
from tcvq_runner.layers import ConfigError
from tcvq_runner.progress import Reporter
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.stages import codes_of
from tcvq_runner.studies.destruction_page import study_of
from tcvq_runner.studies.measures import batch_first, drawn_indices
from tcvq_runner.studies.result import Study
from tcvq_runner.studies.tuning import tuned_decoder
from tcvq_runner.studies.yardstick import Pair, Yardstick, yardstick
from tcvq_runner.wiring import Compute, open_split
from tcvq_vqvae import SpikingVQVAE, load_vqvae

N_IMAGES = 1000
TUNED = ("none", "repeat")
Decoders = Mapping[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Destroyed:
    """One set of index maps decoded in one mode.

    Attributes:
        images: The decoded images or recordings, the batch first.
        change: Mean absolute difference to ``none`` by the same decoder of every sample, paired.
        fd: Fréchet distance to real images.
        kid: Kernel distance to them.
        error: Mean absolute difference to the original; None for generated index maps, which have none.
        suite: The suite for recordings, each value beside real against real; empty for images.
    """

    images: Float[Tensor, "N *frame"]
    change: Float[Tensor, " N"]
    fd: float
    kid: float
    error: float | None
    suite: dict[str, Pair]


@dataclass(frozen=True, kw_only=True, slots=True)
class Destruction:
    """What destroying time does to one run.

    Attributes:
        name: What the study calls the run.
        folder: The run.
        n_steps: Steps T.
        tune_steps: Batches that the decoders of the control were trained on; 0 without a control.
        ruler: The space of the distances.
        generated: The prior's index maps in every mode.
        codec: Those of test images.
        time: What destroying time in real recordings costs, in noise floors; empty for images.
    """

    name: str
    folder: RunFolder
    n_steps: int
    tune_steps: int
    ruler: Yardstick
    generated: Mapping[str, Destroyed]
    codec: Mapping[str, Destroyed]
    time: Mapping[str, float]


def modes(n_steps: int) -> list[str]:
    """Return the operators of the paper: none, reverse, repeat, empty, and last-n for n = 1 … T."""
    return ["none", "reverse", "repeat", "empty", *(f"last-{n}" for n in range(1, n_steps + 1))]


def destruction(
    folder: RunFolder,
    recipe: Recipe,
    compute: Compute,
    reporter: Reporter,
    *,
    against: RunFolder | None = None,
    tune_steps: int = 200,
) -> Study:
    """Decode generated and held-out index maps of a run in every mode, and compare with ``none``.

    Args:
        folder: The run.
        recipe: What was run.
        compute: Where to compute.
        reporter: Shows the progress.
        against: Another run that stands beside it, such as one with the vanilla codebook.
        tune_steps: Batches of the control, whose decoder is trained on frozen, and beside it on intact sequences; 0
            leaves it out.

    Raises:
        ConfigError: The runs cannot stand in one table.
        RunFolderError: A file of an earlier step is missing.
        ArtifactError: One is damaged, or they do not belong together.
    """
    runs = [(folder, recipe), *([(against, against.recipe())] if against else [])]
    for each in runs[1:]:
        _check_comparable(runs[0], each)
    kinds = [each.vqvae.codebook for _, each in runs]
    names = kinds if len(set(kinds)) == len(kinds) else [run.path.name for run, _ in runs]
    found = [
        destroy(name, run, each, compute, reporter, tune_steps=tune_steps)
        for name, (run, each) in zip(names, runs, strict=True)
    ]
    return study_of(found)


def _check_comparable(one: tuple[RunFolder, Recipe], other: tuple[RunFolder, Recipe]) -> None:
    """Refuse a second run that was made of other data, or whose tables and pictures would have the same names."""
    (here, recipe), (there, against) = one, other
    facts = [
        (r.data.name, r.vqvae.encoding, r.vqvae.image_size, r.vqvae.in_channels, r.vqvae.n_steps)
        for r in (recipe, against)
    ]
    if facts[0] != facts[1]:
        raise ConfigError(
            f"--against {there.path} has (data, encoding, image size, channels, steps) {facts[1]}; "
            f"{here.path} has {facts[0]}, and one table cannot hold both"
        )
    if recipe.vqvae.codebook == against.vqvae.codebook and here.path.resolve().name == there.path.resolve().name:
        raise ConfigError(
            f"--against {there.path} and {here.path} have the same name and kind of codebook; rename one of the folders"
        )


def destroy(
    name: str, folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter, *, tune_steps: int
) -> Destruction:
    """Decode generated and held-out index maps of one run in every mode; arguments and errors as `destruction`."""
    loaded = load_vqvae(folder.need(folder.vqvae))
    model, size = loaded.model.to(compute.device), recipe.eval.batch_size
    drawn, asked = drawn_indices(folder, recipe, compute, min(recipe.sample.n, N_IMAGES))
    held_out = codes_of(folder, "test", loaded.sha256).indices.long()
    ruler = yardstick(recipe, len(drawn), reporter)
    decoders = {mode: partial(destroyed_images, model, mode=mode) for mode in modes(model.config.n_steps)}
    if tune_steps:
        codes = codes_of(folder, "train", loaded.sha256).indices.long()
        for mode in TUNED:
            with reporter.task(f"tune on {mode}", tune_steps, "step") as task:
                tuned = tuned_decoder(
                    model,
                    open_split(recipe, "train"),
                    codes,
                    mode,
                    steps=tune_steps,
                    recipe=recipe,
                    compute=compute,
                    done=task.update,
                )
            decoders[f"{mode}, tuned"] = partial(destroyed_images, tuned, mode=mode)
    with reporter.task("destruction", 2 * len(decoders), "mode") as task:

        def decoded(decode: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
            return in_batches(decode, indices, size, compute)

        every = partial(_all, decoded, decoders, ruler)
        generated = every(drawn[: ruler.n], asked[: ruler.n], original=None, done=task.update)
        codec = every(
            held_out[ruler.second],
            ruler.labels[ruler.second],
            original=ruler.x[ruler.second],
            done=lambda n: task.update(len(decoders) + n),
        )
    return Destruction(
        name=name,
        folder=folder,
        n_steps=model.config.n_steps,
        tune_steps=tune_steps,
        ruler=ruler,
        generated=generated,
        codec=codec,
        time=ruler.time(),
    )


def destroyed_images(model: SpikingVQVAE, indices: Int[Tensor, "B h w"], mode: str) -> Float[Tensor, "B *frame"]:
    """Look codes up, apply a time operator to the sequence, decode; the batch stands first, also of recordings."""
    return batch_first(model.decode(time_operator(mode)(model.codebook.lookup(indices))))


def _all(
    decoded: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
    decoders: Decoders,
    ruler: Yardstick,
    indices: Int[Tensor, "N h w"],
    labels: Int[Tensor, " N"],
    *,
    original: Tensor | None,
    done: Callable[[int], None],
) -> dict[str, Destroyed]:
    """Decode in every mode, those with ``none`` first, and compare each with ``none`` of the same decoder."""
    found: dict[str, Destroyed] = {}
    for mode, decode in decoders.items():
        images = decoded(decode, indices)
        before = found.get("none, tuned" if mode.endswith("tuned") else "none")
        plain = images if before is None else before.images
        found[mode] = Destroyed(
            images=images,
            change=(images.clamp(-1, 1) - plain.clamp(-1, 1)).abs().flatten(1).mean(1),
            fd=ruler.distance(images),
            kid=ruler.kernel(images),
            error=None if original is None else (images.clamp(-1, 1) - original).abs().mean().item(),
            suite=ruler.suite(images, labels, None if original is None else ruler.first),
        )
        done(len(found))
    return found
