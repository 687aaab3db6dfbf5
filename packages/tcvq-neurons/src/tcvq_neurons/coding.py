"""Between still images or event frames and sequences of input currents."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

EncoderMode = Literal["direct", "event", "poisson", "latency", "log_latency"]
DecoderMode = Literal["mean", "sum_sigmoid", "mean_sigmoid", "last", "event"]
LatencyLaw = Literal["linear", "log"]


def poisson(x: Float[Tensor, "*site"], n_steps: int, *, seed: int) -> Float[Tensor, "T *site"]:
    """Draw spikes with probability ``x`` at every step, independently (rate coding).

    The numbers come from a CPU generator seeded with ``seed``, one sample after the other: the same seed gives the same
    spikes on every device and whatever was drawn before, and a sample's spikes do not depend on the samples after it.
    A site with 0 never fires, a site with 1 always. No gradient flows back to ``x``.

    Args:
        x: Probabilities in [0, 1]; axis 0 counts samples.
        n_steps: Number of steps T.
        seed: Use another one for every batch, or equal positions of all batches share their noise.

    Returns:
        Spikes 0 and 1 in the dtype and on the device of ``x``.

    Raises:
        ValueError: If ``x`` leaves [0, 1] or ``n_steps`` is less than 1.
    """
    _check_steps("poisson", n_steps)
    _check_unit_range("poisson", x)
    shape = x.shape if x.ndim else (1,)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(shape[0], n_steps, *shape[1:], generator=generator).transpose(0, 1)
    return (uniform.reshape(n_steps, *x.shape).to(x.device) < x.detach()).to(x.dtype)


def latency(x: Float[Tensor, "*site"], n_steps: int, *, law: LatencyLaw = "linear") -> Float[Tensor, "T *site"]:
    """Give every site one spike, the earlier the larger ``x`` (time-to-first-spike coding, Thorpe et al. 2001).

    The step is, rounded half to even, ``(T - 1) (1 - x)`` for the ``linear`` law and ``(T - 1) - ln(a x + 1)`` with
    ``a = e^(T-1) - 1`` for the ``log`` law: those of spikingjelly's ``LatencyEncoder``. 1 fires at step 0, the smallest
    values at step T - 1, and, unlike there, a site with exactly 0 never fires. No gradient flows back to ``x``.

    Args:
        x: Intensities in [0, 1].
        n_steps: Number of steps T.
        law: ``linear`` or ``log``.

    Returns:
        Spikes 0 and 1 in the dtype of ``x``.

    Raises:
        ValueError: If ``x`` leaves [0, 1], ``n_steps`` is less than 1, or more than 80 with the ``log`` law, or ``law``
            is unknown.
    """
    _check_steps("latency", n_steps)
    _check_known("latency", "law", law, get_args(LatencyLaw))
    _check_unit_range("latency", x)
    x = x.detach()
    intensity = x.to(torch.promote_types(x.dtype, torch.float32))
    last = n_steps - 1
    if law == "log":
        if n_steps > 80:
            raise ValueError(f"latency.n_steps is {n_steps}; e^(T-1) needs at most 80 steps with law='log'")
        step = last - torch.log(math.expm1(last) * intensity + 1)
    else:
        step = last * (1 - intensity)
    step = torch.where(intensity > 0, step.round(), n_steps)
    steps = torch.arange(n_steps, device=x.device, dtype=step.dtype)
    return (step == steps.view(-1, *(1,) * x.ndim)).to(x.dtype)


class SpikeEncoder(nn.Module):
    """Make the input of every step.

    ``direct`` gives a still image ``(B, C, H, W)`` to every step, as a view; ``event`` passes frames
    ``(T, B, C, H, W)`` through after checking their number; ``poisson``, ``latency`` and ``log_latency`` turn an image
    with values in [0, 1] into spikes, see the functions `poisson` and `latency`.

    Args:
        mode: ``direct``, ``event``, ``poisson``, ``latency`` or ``log_latency``.
        n_steps: SNN steps T.
        seed: Of the ``poisson`` spikes of every call that does not bring its own.

    Raises:
        ValueError: If ``mode`` is unknown or ``n_steps`` is less than 1.
    """

    def __init__(self, mode: EncoderMode = "direct", n_steps: int = 4, *, seed: int = 0) -> None:
        super().__init__()
        _check_known("SpikeEncoder", "mode", mode, get_args(EncoderMode))
        _check_steps("SpikeEncoder", n_steps)
        self.mode = mode
        self.n_steps = n_steps
        self.seed = seed

    def forward(self, x: Float[Tensor, "*T B C H W"], *, seed: int | None = None) -> Float[Tensor, "T B C H W"]:
        """Return the input currents, time first.

        Args:
            x: Images, or frames in ``event`` mode.
            seed: Of this call's ``poisson`` spikes; None is the encoder's own, so that calls repeat each other.

        Raises:
            ValueError: If ``x`` has the wrong number of axes or, in ``event`` mode, of steps, or leaves [0, 1] where
                spikes are made of it.
        """
        if self.mode == "event":
            if x.ndim != 5 or x.shape[0] != self.n_steps:
                wanted = f"({self.n_steps}, B, C, H, W), time first"
                raise ValueError(f"SpikeEncoder('event') got shape {tuple(x.shape)}; it takes {wanted}")
            return x
        if x.ndim != 4:
            raise ValueError(f"SpikeEncoder({self.mode!r}) got shape {tuple(x.shape)}; it takes images (B, C, H, W)")
        match self.mode:
            case "direct":
                return x.expand(self.n_steps, *x.shape)
            case "poisson":
                return poisson(x, self.n_steps, seed=self.seed if seed is None else seed)
            case "latency":
                return latency(x, self.n_steps, law="linear")
            case "log_latency":
                return latency(x, self.n_steps, law="log")

    def extra_repr(self) -> str:
        """Show the mode and the number of steps when printed."""
        seed = f", seed={self.seed}" if self.mode == "poisson" else ""
        return f"mode={self.mode!r}, n_steps={self.n_steps}{seed}"


class SpikeDecoder(nn.Module):
    """Make one image, or the frames themselves, from the output of every step ``y_t``.

    ``mean``: mean_t y_t; ``sum_sigmoid``: sigmoid(sum_t y_t); ``mean_sigmoid``: sigmoid(mean_t y_t); ``last``: y_{T-1};
    ``event``: all y_t.

    Args:
        mode: One of the five names above.

    Raises:
        ValueError: If ``mode`` is unknown.
    """

    def __init__(self, mode: DecoderMode = "mean") -> None:
        super().__init__()
        _check_known("SpikeDecoder", "mode", mode, get_args(DecoderMode))
        self.mode = mode

    def forward(self, y_seq: Float[Tensor, "T B C H W"]) -> Float[Tensor, "*T B C H W"]:
        """Return ``(B, C, H, W)``, or ``(T, B, C, H, W)`` in ``event`` mode."""
        match self.mode:
            case "mean":
                return y_seq.mean(0)
            case "sum_sigmoid":
                return y_seq.sum(0).sigmoid()
            case "mean_sigmoid":
                return y_seq.mean(0).sigmoid()
            case "last":
                return y_seq[-1]
            case "event":
                return y_seq

    def extra_repr(self) -> str:
        """Show the mode when printed."""
        return f"mode={self.mode!r}"


def _check_known(owner: str, option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{owner}.{option} is {value!r}; known {option}s are {', '.join(known)}")


def _check_steps(owner: str, n_steps: int) -> None:
    if n_steps < 1:
        raise ValueError(f"{owner}.n_steps is {n_steps}; it must be at least 1")


def _check_unit_range(owner: str, x: Tensor) -> None:
    if x.numel() == 0:
        return
    low, high = (bound.item() for bound in x.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"{owner} got values from {low} to {high}; it takes [0, 1]: images in [-1, 1] become so by (x + 1) / 2"
        )
