"""Between still images or event frames and sequences of input currents."""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

EncoderMode = Literal["direct", "event"]
DecoderMode = Literal["mean", "sum_sigmoid", "mean_sigmoid", "last", "event"]


class SpikeEncoder(nn.Module):
    """Make the input of every step.

    ``direct`` gives a still image ``(B, C, H, W)`` to every step, as a view; ``event`` passes frames
    ``(T, B, C, H, W)`` through after checking their number.

    Args:
        mode: ``direct`` or ``event``.
        n_steps: SNN steps T.

    Raises:
        ValueError: If ``mode`` is unknown or ``n_steps`` is less than 1.
    """

    def __init__(self, mode: EncoderMode = "direct", n_steps: int = 4) -> None:
        super().__init__()
        _check_mode("SpikeEncoder", mode, get_args(EncoderMode))
        if n_steps < 1:
            raise ValueError(f"SpikeEncoder.n_steps is {n_steps}; it must be at least 1")
        self.mode = mode
        self.n_steps = n_steps

    def forward(self, x: Float[Tensor, "*T B C H W"]) -> Float[Tensor, "T B C H W"]:
        """Return the input currents, time first.

        Raises:
            ValueError: If ``x`` has the wrong number of axes or, in ``event`` mode, of steps.
        """
        if self.mode == "direct":
            if x.ndim != 4:
                raise ValueError(f"SpikeEncoder('direct') got shape {tuple(x.shape)}; it takes images (B, C, H, W)")
            return x.expand(self.n_steps, *x.shape)
        if x.ndim != 5 or x.shape[0] != self.n_steps:
            raise ValueError(
                f"SpikeEncoder('event') got shape {tuple(x.shape)}; it takes ({self.n_steps}, B, C, H, W), time first"
            )
        return x

    def extra_repr(self) -> str:
        """Show the mode and the number of steps when printed."""
        return f"mode={self.mode!r}, n_steps={self.n_steps}"


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
        _check_mode("SpikeDecoder", mode, get_args(DecoderMode))
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


def _check_mode(owner: str, mode: str, known: tuple[str, ...]) -> None:
    if mode not in known:
        raise ValueError(f"{owner}.mode is {mode!r}; known modes are {', '.join(known)}")
