"""Import of checkpoints of the paper's released code: its parameter names and shapes become a `SpikingVQVAE`.

Names: GitHub Brain-Cog-Lab/tts_vqvae, the code of arXiv 2405.14474. ``tcvq import-reference`` reads such a checkpoint;
in Python, ``torch.load(path, weights_only=True)["state_dict"]``. Neither runs code from the file.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from tcvq_neurons import drop_neuron_constants
from tcvq_vqvae.config import VQVAEConfig
from tcvq_vqvae.discriminator import PatchDiscriminator
from tcvq_vqvae.model import SpikingVQVAE

_SEGMENTS = {
    "down": "levels",
    "up": "levels",
    "block": "blocks",
    "attn": "attns",
    "downsample": "resample",
    "upsample": "resample",
    "block_1": "block1",
    "attn_1": "attn",
    "block_2": "block2",
    "nin_shortcut": "shortcut",
    "conv_shortcut": "shortcut",
    "proj_out": "proj",
}
_LOSS_NETWORKS = ("loss.discriminator.", "loss.perceptual_loss.")


def from_reference(
    state_dict: Mapping[str, Tensor],
    *,
    image_size: int,
    encoding: Literal["direct", "event"] | None = None,
    vanilla_steps: int | None = None,
    beta: float = 0.25,
    prefix: str = "",
) -> SpikingVQVAE:
    """Build a VQ-VAE from a state dict of the released code; every size but the image's is read off its shapes.

    The codebook keeps the placement of ``beta`` that the released code trains with (``legacy_beta``). The networks
    of its loss are left out; see `discriminator_from_reference`.

    Args:
        state_dict: Tensors by the reference's names.
        image_size: Height and width of the images that the network was trained on.
        encoding: ``direct`` for still images, ``event`` for event frames; None is events for two channels.
        vanilla_steps: SNN steps T of a codebook of single steps, which no shape shows; None is a temporal codebook.
        beta: Weight in the codebook's loss; it matters for further training only.
        prefix: Read only the names that begin so, without it: ``first_stage_model.`` in a checkpoint of stage 2.

    Returns:
        The network, in training mode.

    Raises:
        ValueError: If names are unknown or missing, shapes do not fit together, or a neuron has other constants.
    """
    state = {k: v for k, v in _below(state_dict, prefix).items() if not k.startswith(_LOSS_NETWORKS)}
    state = drop_neuron_constants(state)
    config = _config(state, image_size=image_size, encoding=encoding, vanilla_steps=vanilla_steps, beta=beta)
    model = SpikingVQVAE(config)
    n_levels = len(config.channel_mult)
    renamed = {name: _our_name(name, n_levels) for name in state}
    loaded = {renamed[name]: tensor for name, tensor in state.items()}
    own, codebook = model.state_dict(), "codebook." if vanilla_steps is None else "codebook.vanilla.step."
    rows = loaded.pop("codebook.codebook")
    loaded[f"{codebook}codebook"] = rows.view(own[f"{codebook}codebook"].shape)
    for buffer in ("initted", "counts"):
        loaded[codebook + buffer] = own[codebook + buffer]
    theirs = {ours: theirs for theirs, ours in renamed.items()} | {f"{codebook}codebook": "quantize.embedding.weight"}
    _load(model, loaded, theirs)
    return model


def discriminator_from_reference(
    state_dict: Mapping[str, Tensor], *, prefix: str = "loss.discriminator."
) -> PatchDiscriminator:
    """Build the patch discriminator from the same state dict.

    Args:
        state_dict: Tensors by the reference's names.
        prefix: What the discriminator's names begin with.

    Raises:
        ValueError: If names are unknown or missing, or shapes do not fit together.
    """
    state = _below(state_dict, prefix)
    _require(state, ["main.0.weight"])
    width, in_channels = state["main.0.weight"].shape[:2]
    n_layers = max(1, (_count(state, "main.") - 3) // 3)  # main.0 and 1, three modules per hidden layer, the last
    discriminator = PatchDiscriminator(in_channels, width, n_layers)
    names = {name.replace("main.", "layers.", 1): name for name in state}
    _load(discriminator, {ours: state[theirs] for ours, theirs in names.items()}, names)
    return discriminator


def block_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of one residual or attention block, checking and dropping the neuron constants."""
    return {_rename(name): tensor for name, tensor in drop_neuron_constants(state).items()}


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the encoder, named without ``encoder.``; neuron constants as in `block_state`."""
    return block_state(state)


def decoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the decoder, named without ``decoder.``; its levels count from the other end."""
    n_levels = _count(state, "up.")
    return {_decoder_name(name, n_levels): tensor for name, tensor in drop_neuron_constants(state).items()}


def _config(
    state: Mapping[str, Tensor],
    *,
    image_size: int,
    encoding: Literal["direct", "event"] | None,
    vanilla_steps: int | None,
    beta: float,
) -> VQVAEConfig:
    """Read the sizes off names and shapes."""
    n_levels = _count(state, "encoder.down.")
    widest = [f"encoder.down.{i}.block.0.conv1.weight" for i in range(n_levels)]
    sizes = ["encoder.conv_in.weight", "encoder.conv_out.weight", "quant_conv.weight", "quantize.embedding.weight"]
    _require(state, sizes + (widest or ["encoder.down.0.block.0.conv1.weight"]))
    (width, in_channels), (z_channels, _), (embed_dim, _), (n_embed, row) = (state[name].shape[:2] for name in sizes)
    if row % embed_dim:
        raise ValueError(f"quantize.embedding.weight has rows of {row}, not a multiple of quant_conv's {embed_dim}")
    if vanilla_steps is not None and row != embed_dim:
        raise ValueError(f"quantize.embedding.weight has rows of {row}, but single steps have quant_conv's {embed_dim}")
    if encoding is None:
        encoding = "event" if in_channels == 2 else "direct"
    upsample = state.get("decoder.up.1.upsample.conv.weight")
    return VQVAEConfig(
        image_size=image_size,
        in_channels=in_channels,
        n_steps=vanilla_steps or row // embed_dim,
        width=width,
        channel_mult=tuple(state[name].shape[0] // width for name in widest),
        n_res_blocks=_count(state, "encoder.down.0.block."),
        attn_resolutions=tuple(image_size // 2**i for i in range(n_levels) if _count(state, f"encoder.down.{i}.attn.")),
        z_channels=z_channels,
        n_embed=n_embed,
        embed_dim=embed_dim,
        beta=beta,
        legacy_beta=True,
        codebook="temporal" if vanilla_steps is None else "vanilla",
        codebook_init="uniform",
        upsample="transpose" if upsample is not None and upsample.shape[-1] == 4 else "nearest",
        shortcut="3x3" if any(".conv_shortcut." in name for name in state) else "1x1",
        encoding=encoding,
        decoding="event" if encoding == "event" else "mean",
    )


def _our_name(name: str, n_levels: int) -> str:
    if name.startswith("encoder."):
        return "encoder." + _rename(name.removeprefix("encoder."))
    if name.startswith("decoder."):
        return "decoder." + _decoder_name(name.removeprefix("decoder."), n_levels)
    return "codebook.codebook" if name == "quantize.embedding.weight" else name


def _rename(name: str) -> str:
    return ".".join(_SEGMENTS.get(part, part) for part in name.split("."))


def _decoder_name(name: str, n_levels: int) -> str:
    parts = name.split(".")
    if parts[0] == "up" and parts[1].isdigit():
        parts[1] = str(n_levels - 1 - int(parts[1]))
    return _rename(".".join(parts))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    """One more than the largest number that follows ``prefix`` in a name."""
    numbers = [name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)]
    return max((int(n) + 1 for n in numbers if n.isdigit()), default=0)


def _require(state: Mapping[str, Tensor], names: list[str]) -> None:
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"not a checkpoint of the reference implementation: missing {', '.join(missing)}")


def _load(module: nn.Module, state: Mapping[str, Tensor], theirs: Mapping[str, str]) -> None:
    """Load strictly, reporting everything that does not fit at once; ``theirs`` maps our names to the checkpoint's."""
    own = module.state_dict()
    problems = [f"unknown {theirs[name]}" for name in state if name not in own]
    problems += [f"missing {name} (our name)" for name in own if name not in state]
    problems += [
        f"{theirs[name]} is {tuple(tensor.shape)} where {tuple(own[name].shape)} fits"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if problems:
        raise ValueError(f"the checkpoint does not fit a {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(dict(state))
