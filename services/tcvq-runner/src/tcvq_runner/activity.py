"""What the neurons and weights of a run do on real data, and the energy of one image that follows from it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tcvq_data import ImageSource, read_batch
from tcvq_eval import Energy, LayerWork, SideWork, estimate_energy, input_kind
from tcvq_neurons import LIFGate, NeuronActivity, Record, monitor
from tcvq_prior import load_prior
from tcvq_runner.batching import in_batches
from tcvq_runner.config import Recipe
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.stages import codes_of
from tcvq_runner.wiring import Compute, open_split
from tcvq_vqvae import load_vqvae

N_SAMPLES = 1000  # images and grids over which rates are means
_NORM_MACS, _NORM_ADDS = 3, 1  # per element: square and sum, scale, shift; and the sum of the mean
_STEM = "embedding.stem"  # of a prior that sees neighbours
_LIF_ADDS, _LIF_MULTIPLIES = 3, 1  # per neuron and step: x - v, divide by tau, add, compare


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """Activity of the networks of a run, as means over real data.

    Attributes:
        n_images: Test images that passed the VQ-VAE.
        n_grids: Test grids that passed the prior.
        rates: For each layer of neurons, the share that fired at each step.
        neurons: For each layer of neurons everything that was counted.
        reconstruct: Energy of one image through encoder, search and decoder.
        generate: Energy of one generated image: the prior over all codes, and the decoder.
    """

    n_images: int
    n_grids: int
    rates: Mapping[str, list[float]]
    neurons: Mapping[str, NeuronActivity]
    reconstruct: Energy
    generate: Energy | None


@dataclass(slots=True)
class _Shapes:
    """What `monitor` does not count: steps of each layer per call, and elements that norms saw."""

    batch: int
    steps: dict[str, int] = field(default_factory=dict)
    normed: dict[str, int] = field(default_factory=dict)


def measure_activity(folder: RunFolder, recipe: Recipe, compute: Compute, *, limit: int = N_SAMPLES) -> Activity:
    """Count spikes and operations of a run's networks on its test images and on their codes.

    Raises:
        RunFolderError: A file of an earlier step is missing.
        ArtifactError: One is damaged, or they do not belong together.
    """
    loaded = load_vqvae(folder.need(folder.vqvae))
    model, config = loaded.model.to(compute.device), loaded.model.config
    source, size = open_split(recipe, "test"), recipe.eval.batch_size
    n = min(limit, len(source))
    with _watched(model, size) as (record, shapes):
        in_batches(lambda rows: model(_frames(source, rows, compute)).quantized.indices, torch.arange(n), size, compute)
    runs = math.ceil(n / size) * size
    layers = _layers(record, shapes, runs, part=_codec_part)
    side = [
        *_side(model, record, shapes, runs, part=_codec_part),
        *_attention(model, record, shapes, runs, part=_codec_part),
    ]
    sites, entries = math.prod(config.grid), config.n_embed * config.embed_dim
    search = SideWork(name="search of codes", part="encoder", macs=sites * entries * config.n_steps)
    neurons = record.neurons()
    generate = None
    if folder.prior.exists():
        ours, work = _prior_activity(folder, loaded.sha256, size, compute, limit)
        neurons |= {f"prior.{name}": value for name, value in ours.items()}
        decoder = _part("decoder", layers), _part("decoder", side)
        if work[0]:
            generate = estimate_energy([*work[0], *decoder[0]], [*work[1], *decoder[1]], n_steps=config.n_steps)
    return Activity(
        n_images=n,
        n_grids=n if folder.prior.exists() else 0,
        rates={name: activity.rate_per_step for name, activity in neurons.items()},
        neurons=neurons,
        reconstruct=estimate_energy(layers, [*side, _with_ann(search, config.n_steps)], n_steps=config.n_steps),
        generate=generate,
    )


def _prior_activity(
    folder: RunFolder, vqvae_sha256: str, size: int, compute: Compute, limit: int
) -> tuple[dict[str, NeuronActivity], tuple[list[LayerWork], list[SideWork]]]:
    """Count a prior on the test codes, all tokens of a grid at once; per grid that is what drawing it computes."""
    codes = codes_of(folder, "test", vqvae_sha256)
    prior = load_prior(folder.need(folder.prior)).model.to(compute.device)
    tokens = codes.indices[:limit].long().flatten(1)
    labels = torch.zeros(len(tokens), 1) if codes.labels is None else codes.labels[: len(tokens), None]
    rows = torch.cat([tokens, labels.long()], dim=1)

    def run(batch: Tensor) -> Tensor:
        prior(batch[:, :-1], batch[:, -1] if prior.n_classes else None)
        return batch[:, 0]

    with _watched(prior, size) as (record, shapes):
        in_batches(run, rows, size, compute)
    runs = math.ceil(len(rows) / size) * size
    layers = [w for w in _layers(record, shapes, runs, part=lambda _: "prior") if "from_features" not in w.name]
    layers = [*_stem(prior, tokens.shape[1]), *(work for work in layers if work.name != _STEM)]
    side = _side(prior, record, shapes, runs, part=lambda _: "prior")
    side += _attention(prior, record, shapes, runs, part=lambda _: "prior")
    head = float(tokens.shape[1] * prior.config.width * prior.n_embed)
    side.append(SideWork(name="head", part="prior", macs=head, ann_macs=head))
    return record.neurons(), (layers, side)


def _stem(prior: nn.Module, n_tokens: int) -> list[LayerWork]:
    """Return the stem over neighbours as drawing computes it, token by token; neighbours outside of the grid are zero.

    Whole grids go through a table of what each code brings, which calls no layer that could be watched.
    """
    stem = dict(prior.named_modules()).get(_STEM)
    if not isinstance(stem, nn.Linear):
        return []
    neighbours = prior.get_buffer("embedding.neighbours")
    inside, macs = (neighbours < n_tokens).double().mean().item(), float(n_tokens * stem.weight.numel())
    kind = input_kind(inside, binary=False)
    return [LayerWork(name=_STEM, part="prior", macs=macs, steps=1, density=inside, input=kind)]


def _frames(source: ImageSource, rows: Tensor, compute: Compute) -> Tensor:
    """Return some images of a dataset, recordings with time first."""
    images = read_batch(source, rows.tolist()).image.to(compute.device)
    return images.transpose(0, 1) if images.ndim == 5 else images


_SITE_AXES = {nn.Conv2d: 3, nn.ConvTranspose2d: 3, nn.Linear: 2, nn.GroupNorm: 1, nn.LayerNorm: 1}


@contextmanager
def _watched(net: nn.Module, batch: int) -> Iterator[tuple[Record, _Shapes]]:
    """Count while the block runs; a constant sequence is computed once, so steps are seen in the shapes."""
    shapes, handles = _Shapes(batch=batch), []

    def look(name: str, site_axes: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], _y: Tensor) -> None:
            leading = math.prod(args[0].shape[:-site_axes])
            if site_axes == 1:
                shapes.normed[name] = shapes.normed.get(name, 0) + args[0].numel()
            else:
                shapes.steps[name] = max(1, leading // batch)

        return hook

    for name, module in net.named_modules():
        axes = next((n for kind, n in _SITE_AXES.items() if isinstance(module, kind)), 0)
        if axes:
            handles.append(module.register_forward_hook(look(name, axes)))
    try:
        with monitor(net) as record:
            yield record, shapes
    finally:
        for handle in handles:
            handle.remove()


def _layers(record: Record, shapes: _Shapes, runs: int, *, part: Any) -> list[LayerWork]:
    """Return every layer with weights that ran, for one image."""
    return [
        LayerWork(
            name=name,
            part=part(name),
            macs=work.dense_macs / runs / shapes.steps.get(name, 1),
            steps=shapes.steps.get(name, 1),
            density=work.density,
            input=input_kind(work.density, binary=work.operation == "ac"),
        )
        for name, work in record.synapses().items()
    ]


def _side(net: nn.Module, record: Record, shapes: _Shapes, runs: int, *, part: Any) -> list[SideWork]:
    """Return updates of membranes, gates and norms, summed for each part."""
    work: list[SideWork] = []
    neurons = record.neurons()
    for name in dict.fromkeys(part(n) for n in (*neurons, *shapes.normed)):
        mine = [a for n, a in neurons.items() if part(n) == name]
        updates = sum(float(a.neurons * len(a.rate_per_step)) for a in mine)
        gates = [n for n in neurons if part(n) == name and isinstance(net.get_submodule(n), LIFGate)]
        fired = sum(neurons[n].neurons * sum(neurons[n].rate_per_step) for n in gates)
        elements = sum(count for n, count in shapes.normed.items() if part(n) == name) / runs
        work += [
            SideWork(name="membranes", part=name, adds=_LIF_ADDS * updates, multiplies=_LIF_MULTIPLIES * updates),
            SideWork(name="gates", part=name, multiplies=fired),
            SideWork(name="norms", part=name, macs=_NORM_MACS * elements, adds=_NORM_ADDS * elements),
        ]
    return work


def _attention(net: nn.Module, record: Record, shapes: _Shapes, runs: int, *, part: Any) -> list[SideWork]:
    """Return the products of attention, which are no layers: counts of coincident spikes, and counts times values."""
    neurons, synapses, work = record.neurons(), record.synapses(), []
    for name, module in net.named_modules():
        if f"{name}.q_lif" in neurons and f"{name}.k_lif" in neurons:  # codec: binary q and k, analog v
            q, k = neurons[f"{name}.q_lif"], neurons[f"{name}.k_lif"]
            steps, channels = len(q.rate_per_step), module.get_submodule("v").weight.shape[0]
            sites = q.neurons // int(channels)
            pairs = float(sites * int(channels) * min(sites, int(channels)))
            work += [
                SideWork(name=f"{name}: q·k", part=part(name), int_adds=q.rate * k.rate * steps * pairs),
                SideWork(name=f"{name}: count·v", part=part(name), macs=steps * pairs, ann_macs=2 * pairs),
            ]
        elif f"{name}.qkv_lif" in neurons:  # prior: q, k and v binary, summed in a state of d x d per head
            lif = neurons[f"{name}.qkv_lif"]
            steps, width = len(lif.rate_per_step), synapses[f"{name}.proj"].dense_macs
            tokens_width2 = width / runs / shapes.steps.get(f"{name}.proj", 1)
            if module.distance is not None:
                work.append(_weighed_pairs(name, module, lif.rate, steps, tokens_width2, part=part(name)))
                continue
            adds = (lif.rate**2 + lif.rate) * steps * tokens_width2 / int(module.n_head)
            macs = 2 * tokens_width2 / int(module.n_head)
            work.append(SideWork(name=f"{name}: state", part=part(name), int_adds=adds, ann_macs=macs))
    return work


def _weighed_pairs(name: str, module: Any, rate: float, steps: int, tokens_width2: float, *, part: str) -> SideWork:
    """Return the work of counts that are weighed by distance before they meet the values, pair by pair."""
    width = module.proj.in_features
    tokens = tokens_width2 / width**2
    pairs = tokens * (len(module.distance.coordinates) + 1) / 2  # of one sequence: a step, where steps are independent
    return SideWork(
        name=f"{name}: weighed pairs",
        part=part,
        int_adds=rate**2 * steps * pairs * width,
        multiplies=steps * pairs * int(module.n_head),
        adds=rate * steps * pairs * width,
        ann_macs=2 * pairs * width,
    )


def _codec_part(name: str) -> str:
    return "encoder" if name.startswith(("encoder", "quant_conv", "spike_encoder")) else "decoder"


def _part(name: str, work: list[Any]) -> list[Any]:
    return [item for item in work if item.part == name]


def _with_ann(search: SideWork, n_steps: int) -> SideWork:
    """The search of a network without time compares one step."""
    return SideWork(name=search.name, part=search.part, macs=search.macs, ann_macs=search.macs / n_steps)
