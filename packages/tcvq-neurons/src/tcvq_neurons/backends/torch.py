"""Fused backend in plain torch operations, in place: needs nothing, runs on every device and dtype.

Each line is one rounding of `tcvq_neurons.dynamics`, in the same order, so results are equal bit for bit.
"""

import torch
from torch import Tensor

from tcvq_neurons.backends.layout import empty_steps
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.dynamics import learnable, state_dtype


class TorchKernel:
    """The equations of `tcvq_neurons.dynamics` and their derivative, with one membrane buffer."""

    name = "torch"

    def refuses(self, x_seq: Tensor, config: LIFConfig) -> str | None:
        """Return why these constants cannot run, or None: every input on every device can."""
        return learnable(config)

    def forward(
        self, x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, need_v: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run all steps; see `tcvq_neurons.backends.fused.Kernel`."""
        y_seq, v = empty_steps(x_seq), _initial(x_seq, v0)
        s, scratch = torch.empty_like(v), torch.empty_like(v)
        for x_in, y in zip(x_seq, y_seq, strict=True):
            x = x_in.to(v.dtype)
            _charge_(v, x, scratch, config)
            _fire(v, config, scratch, out=s)
            if gate:
                torch.mul(x, s, out=y)
            else:
                y.copy_(s)
            _reset_(v, s, scratch, config)
        return y_seq, v if need_v else None

    def backward(
        self,
        x_seq: Tensor,
        v0: Tensor | None,
        grad_y: Tensor | None,
        grad_v: Tensor | None,
        config: LIFConfig,
        *,
        gate: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Recompute ``h`` forwards, then walk the steps backwards; see `tcvq_neurons.backends.fused.Kernel`."""
        h_seq, s_seq = _recompute(x_seq, v0, config)
        grad_x = empty_steps(x_seq)
        c = torch.zeros_like(h_seq[0]) if grad_v is None else grad_v.clone()
        for t in reversed(range(len(x_seq))):
            h, s = h_seq[t], s_seq[t]
            gy = torch.zeros_like(h) if grad_y is None else grad_y[t].to(h.dtype)
            gs = gy * x_seq[t] if gate else gy
            if not config.detach_reset and config.reset != "none":
                gs = gs - c * (h if config.reset == "hard" else config.v_threshold)
            if config.reset == "hard":
                c.mul_(1 - s)
            gh = (gs * config.surrogate(h - config.v_threshold)).add_(c)
            q = gh / config.tau
            gx = q if config.decay_input else gh
            torch.sub(gh, q, out=c)
            grad_x[t].copy_(s.mul_(gy).add_(gx) if gate else gx)
        return grad_x, None if v0 is None else c


def _initial(x_seq: Tensor, v0: Tensor | None) -> Tensor:
    v = empty_steps(x_seq[:1], state_dtype(x_seq))[0]
    return v.zero_() if v0 is None else v.copy_(v0)


def _charge_(v: Tensor, x: Tensor, scratch: Tensor, config: LIFConfig) -> None:
    """Turn ``v`` into ``h`` in place."""
    if config.decay_input:
        v.add_(torch.sub(x, v, out=scratch).div_(config.tau))
    else:
        v.sub_(torch.div(v, config.tau, out=scratch)).add_(x)


def _fire(h: Tensor, config: LIFConfig, scratch: Tensor, out: Tensor) -> None:
    """Write the spikes of ``h`` to ``out``."""
    torch.sub(h, config.v_threshold, out=scratch)
    (torch.ge if config.fire_at_threshold else torch.gt)(scratch, 0, out=out)


def _reset_(h: Tensor, s: Tensor, scratch: Tensor, config: LIFConfig) -> None:
    """Turn ``h`` into ``v`` in place."""
    if config.reset == "hard":
        h.mul_(torch.neg(s, out=scratch).add_(1))
    elif config.reset == "soft":
        h.sub_(torch.mul(s, config.v_threshold, out=scratch))


def _recompute(x_seq: Tensor, v0: Tensor | None, config: LIFConfig) -> tuple[Tensor, Tensor]:
    """Return membrane before reset and spikes of every step, in the state's dtype."""
    v = _initial(x_seq, v0)
    h_seq, s_seq, scratch = empty_steps(x_seq, v.dtype), empty_steps(x_seq, v.dtype), torch.empty_like(v)
    for x, h, s in zip(x_seq, h_seq, s_seq, strict=True):
        _charge_(v, x.to(v.dtype), scratch, config)
        h.copy_(v)
        _fire(v, config, scratch, out=s)
        _reset_(v, s, scratch, config)
    return h_seq, s_seq
