"""A codebook of other sizes made from one that exists: resized in time, or compacted to used codes."""

from dataclasses import replace

import torch

from tcvq_codebook.config import CodebookConfig
from tcvq_codebook.remap import CodeMap
from tcvq_codebook.resize import Resize, resize_entries
from tcvq_codebook.temporal import TemporalCodebook


def resize_codebook(codebook: TemporalCodebook, n_steps: int, mode: Resize) -> TemporalCodebook:
    """Return a copy with trajectories of ``n_steps`` steps; see `resize_entries` for the modes.

    Moving sums M_k are resampled as the entries are, which keeps M_k = e_k N_k because every mode is linear in the
    entries; so are step weights. Use and the initialised flag are kept. An optimizer has to be made anew.

    Raises:
        ValueError: If T' is below 1, above T under ``truncate``, the mode is unknown, or all step weights left are 0.
    """
    weights = codebook.config.step_weights
    if weights is not None:
        resized = resize_entries(torch.tensor([weights], dtype=torch.float64), n_steps, mode)
        weights = tuple(resized[0].tolist())
    state = codebook.state_dict()
    for name in {"codebook", "ema_sums"} & state.keys():
        state[name] = resize_entries(state[name], n_steps, mode)
    return _rebuilt(codebook, replace(codebook.config, n_steps=n_steps, step_weights=weights), state)


def compact_codebook(codebook: TemporalCodebook, codes: CodeMap) -> TemporalCodebook:
    """Return a copy with the used entries alone, in the numbering of ``codes.to_compact``.

    Raises:
        ValueError: If the map is not one of this codebook's K codes.
    """
    if len(codes.compact) != codebook.n_embed:
        raise ValueError(f"the map numbers {len(codes.compact)} codes, but this codebook has {codebook.n_embed}")
    state = codebook.state_dict()
    for name in {"codebook", "counts", "ema_counts", "ema_sums"} & state.keys():
        state[name] = state[name][codes.used.to(state[name].device)]
    return _rebuilt(codebook, replace(codebook.config, n_embed=len(codes.used)), state)


def _rebuilt(codebook: TemporalCodebook, config: CodebookConfig, state: dict[str, torch.Tensor]) -> TemporalCodebook:
    """Return a codebook of this state, on the device, in the dtype and in the mode of another."""
    other = TemporalCodebook.from_config(config).to(codebook.codebook.device, codebook.codebook.dtype)
    other.load_state_dict(state)
    other.codebook.requires_grad_(codebook.codebook.requires_grad)
    return other.train(codebook.training)
