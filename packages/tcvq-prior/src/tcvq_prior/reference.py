"""Import of checkpoints of the paper's released priors: parameter names and shapes become one of ours.

Names: classes SnnGPT and minGPT of GitHub Brain-Cog-Lab/tts_vqvae, the code of arXiv 2405.14474; the second is the GPT
of CompVis/taming-transformers, after karpathy/minGPT. Read such a checkpoint with
``torch.load(path, weights_only=True)["state_dict"]``, which runs no code from the file.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from tcvq_neurons import drop_neuron_constants
from tcvq_prior.config import PriorConfig, PriorKind
from tcvq_prior.transformer import CodeTransformer, build_prior

_LAYERS = {
    "ln1": ("ln1",),
    "qkv": ("attn.query", "attn.key", "attn.value"),
    "proj": ("attn.proj",),
    "ln2": ("ln2",),
    "fc": ("mlp.0",),
    "out": ("mlp.2",),
}


def from_reference(
    state_dict: Mapping[str, Tensor],
    *,
    n_head: int,
    grid: tuple[int, int],
    n_steps: int | None = None,
    first_token_free: bool = False,
    prefix: str = "",
) -> CodeTransformer:
    """Build a prior from a state dict of the released code: a `SpikingPrior`, or a `GPTPrior` if it is of minGPT.

    The reference has no start token of its own: its sequences begin with code 0, so the start embedding becomes that
    of code 0. Its position table may be longer than the grid; the rest is left out.

    Args:
        state_dict: Tensors by the reference's names.
        n_head: Attention heads, which no shape shows.
        grid: Height and width of the grids of codes.
        n_steps: SNN steps of a spiking prior, which no shape shows.
        first_token_free: Let any code begin a sequence, as the reference's own forward does: the K codes become the
            classes, and the label of a row is its first token.
        prefix: Read only the names that begin so, without it: ``transformer.`` in a checkpoint of stage 2.

    Returns:
        The prior, in training mode; number and width of layers, codes and kind are read from the tensors.

    Raises:
        ValueError: If names are unknown or missing, shapes do not fit together, a neuron has other constants, or
            ``n_steps`` is missing for a spiking prior.
    """
    state = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    state = drop_neuron_constants({k: v for k, v in state.items() if not k.endswith("attn.mask")})
    n_layer = max((int(name.split(".")[1]) + 1 for name in state if name.startswith("blocks.")), default=0)
    kind: PriorKind = "gpt" if "blocks.0.attn.key.weight" in state else "spiking"
    sources = _sources(max(n_layer, 1), kind)
    _check_names(state, {name for names in sources.values() for name in names})
    if kind == "spiking" and n_steps is None:
        raise ValueError("the checkpoint is of a spiking prior, and no tensor shows its steps; give n_steps")
    n_embed, width = state["tok_emb.weight"].shape
    model = build_prior(
        PriorConfig(
            kind=kind,
            n_embed=n_embed,
            grid=grid,
            n_classes=n_embed if first_token_free else 0,
            n_layer=n_layer,
            n_head=n_head,
            width=width,
            n_steps=n_steps or 1,
        )
    )
    loaded = {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in sources.items()}
    loaded["embedding.position"] = loaded["embedding.position"][0, : model.config.n_tokens]
    loaded["embedding.start.weight"] = loaded["embedding.start.weight"][: len(model.embedding.start.weight)]
    own = model.state_dict()
    _check_shapes(loaded, own, sources)
    model.load_state_dict({**loaded, "features": own["features"]})
    return model


def _sources(n_layer: int, kind: PriorKind) -> dict[str, list[str]]:
    """Which of the reference's tensors make each of ours; several are concatenated."""
    suffix = {"attn.query": ".0", "attn.key": ".0", "attn.value": ".0"} if kind == "spiking" else {}
    sources = {
        f"blocks.{i}.{ours}.{part}": [f"blocks.{i}.{name}{suffix.get(name, '')}.{part}" for name in theirs]
        for i in range(n_layer)
        for ours, theirs in _LAYERS.items()
        for part in ("weight", "bias")
    }
    return sources | {
        "embedding.start.weight": ["tok_emb.weight"],
        "embedding.position": ["pos_emb"],
        "table.weight": ["tok_emb.weight"],
        "ln_f.weight": ["ln_f.weight"],
        "ln_f.bias": ["ln_f.bias"],
        "head.weight": ["head.weight"],
    }


def _check_names(state: Mapping[str, Tensor], wanted: set[str]) -> None:
    problems = [f"unknown {name}" for name in state if name not in wanted]
    problems += [f"missing {name}" for name in sorted(wanted - state.keys())]
    if problems:
        raise ValueError(f"not a checkpoint of the reference implementation's prior: {'; '.join(problems)}")


def _check_shapes(loaded: Mapping[str, Tensor], own: Mapping[str, Tensor], sources: Mapping[str, list[str]]) -> None:
    problems = [
        f"{' + '.join(sources[name])} gives {tuple(tensor.shape)} where {tuple(own[name].shape)} fits"
        for name, tensor in loaded.items()
        if tensor.shape != own[name].shape
    ]
    if problems:
        raise ValueError(f"the checkpoint does not fit the prior it describes: {'; '.join(problems)}")
