"""Fused CUDA backend: `lif.cu` launched through CuPy on torch's device, on its current stream and in its memory.

Nothing here allocates through CuPy, waits for the device or, once the same options have run, compiles; so calls can be
captured in a CUDA graph (see `CupyKernel.warmup`).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tcvq_neurons.backends import cupy_module
from tcvq_neurons.backends.cuda_source import (
    CHUNK,
    SCALARS,
    Trace,
    Variant,
    chunks,
    constants,
    make_variant,
    vector_width,
)
from tcvq_neurons.backends.layout import empty_steps
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.dynamics import learnable
from tcvq_neurons.surrogate import SURROGATES

THREADS = 256  # of one block
BLOCKS_PER_SM = 8  # 2048 threads, as many as a multiprocessor runs at once; each goes on to further neurons

Argument = Tensor | int | np.float32 | None  # an int is a distance or a number of values


class Traced(NamedTuple):
    """Result of `CupyKernel.trace`.

    Attributes:
        s_seq: As in `tcvq_neurons.interface.NeuronOutput`.
        v: As there.
        trace: Membrane of every step, ``(T, *site)``, float32.
    """

    s_seq: Tensor
    v: Tensor
    trace: Tensor


class CupyKernel:
    """CUDA kernels for float32, bfloat16 and float16, with the membrane in float32 registers."""

    name = "cupy"

    def problem(self) -> str | None:
        """Return why CuPy cannot run on this machine, and how to get it, or None; the first call imports it."""
        return cupy_module.problem()

    def refuses(self, x_seq: Tensor, config: LIFConfig) -> str | None:
        """Return why this input cannot run, or None if it can."""
        if x_seq.device.type != "cuda":
            return f"the tensor is on {x_seq.device}, not on a CUDA device"
        return self.refuses_options(x_seq.dtype, config)

    def refuses_options(self, dtype: torch.dtype, config: LIFConfig) -> str | None:
        """Return why an input of this dtype cannot run on any device, or None if it can."""
        if dtype not in SCALARS:
            return f"its dtype is {dtype}, not float32, bfloat16 or float16"
        surrogate = type(config.surrogate)  # a subclass may be another function
        if SURROGATES.get(surrogate.__name__) is not surrogate or not hasattr(surrogate, "c_expression"):
            return f"it has no compiled form of the surrogate {config.surrogate!r}"
        return learnable(config)

    def forward(
        self, x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, need_v: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run all steps; see `tcvq_neurons.backends.fused.Kernel`."""
        y_seq, n_chunks = empty_steps(x_seq), _n_chunks(x_seq)
        v = _empty_state(x_seq) if need_v or n_chunks > 1 else None
        _forward(x_seq, v0, y_seq, [v] * n_chunks, config=config, gate=gate)
        return y_seq, v if need_v else None

    def trace(
        self, x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, of: Literal["h", "v"]
    ) -> Traced:
        """Run all steps and record the membrane of each, without gradients.

        Args:
            x_seq: Dense steps ``(T, *site)`` on a CUDA device; see `tcvq_neurons.backends.layout`.
            v0: Membrane before the first step, in the memory order of one step, or None.
            config: Constants of the neuron.
            gate: Return ``x * s`` instead of ``s``.
            of: The membrane before the reset, ``h``, or after it, ``v``.
        """
        y_seq, v, trace = empty_steps(x_seq), _empty_state(x_seq), empty_steps(x_seq, torch.float32)
        kind: Trace = "before_reset" if of == "h" else "after_reset"
        ends = [v] * _n_chunks(x_seq)
        _forward(x_seq, v0, y_seq, ends, config=config, gate=gate, kind=kind, trace=trace)
        return Traced(y_seq, v, trace)

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
        """Recompute and walk back, chunk by chunk; see `tcvq_neurons.backends.fused.Kernel`."""
        if grad_y is None:
            grad_y = empty_steps(x_seq[:1]).zero_().expand_as(x_seq)
        assert grad_y.dtype == x_seq.dtype
        grad_x, n_chunks = empty_steps(x_seq), _n_chunks(x_seq)
        ends = [_empty_state(x_seq) for _ in range(n_chunks - 1)]
        _forward(x_seq, v0, grad_x, ends, config=config, gate=gate)  # its outputs are overwritten below
        c = _empty_state(x_seq) if v0 is not None or n_chunks > 1 else None
        for (start, n_steps), v in reversed(list(zip(chunks(len(x_seq)), [v0, *ends], strict=True))):
            steps = slice(start, start + n_steps)
            x, gy, gx = x_seq[steps], grad_y[steps], grad_x[steps]
            variant = make_variant(config, gate, n_steps, x.dtype, v is None)
            _launch("lif_backward", variant, x, (x, _step(x), v, gy, _step(gy), grad_v, gx, c, *constants(config)))
            grad_v = c
        return grad_x, None if v0 is None else c

    def warmup(
        self,
        device: torch.device,
        n_steps: int,
        dtype: torch.dtype,
        config: LIFConfig,
        *,
        gate: bool,
        from_rest: bool = True,
    ) -> None:
        """Compile and load what calls with these options will launch, so that they can be captured in a CUDA graph.

        Args:
            device: The CUDA device of the calls.
            n_steps: Steps of a sequence.
            dtype: Of the input.
            config: Constants of the neuron.
            gate: ``lif_gate`` instead of ``lif``.
            from_rest: Whether the calls pass no initial membrane.

        Raises:
            ValueError: If no call can have these options.
        """
        if problem := self.refuses_options(dtype, config):
            raise ValueError(f"backend 'cupy' cannot run this input: {problem}")
        index = torch.cuda.current_device() if device.index is None else device.index
        for start, n in chunks(n_steps):
            variant = make_variant(config, gate, n, dtype, from_rest and start == 0)
            for width in {1, vector_width(dtype, n)}:
                cupy_module.load(index, variant._replace(width=width))


def _forward(
    x_seq: Tensor,
    v0: Tensor | None,
    y_seq: Tensor,
    ends: Sequence[Tensor | None],
    *,
    config: LIFConfig,
    gate: bool,
    kind: Trace = "nothing",
    trace: Tensor | None = None,
) -> None:
    """Run as many chunks as there are ``ends``, each from the end of the one before, and store their last membranes."""
    tau, v_th, *_ = constants(config)
    for (start, n_steps), v_end in zip(chunks(len(x_seq)), ends, strict=False):
        steps = slice(start, start + n_steps)
        x, y, recorded = x_seq[steps], y_seq[steps], None if trace is None else trace[steps]
        variant = make_variant(config, gate, n_steps, x.dtype, v0 is None)._replace(trace=kind)
        _launch("lif_forward", variant, x, (x, _step(x), v0, y, v_end, recorded, tau, v_th))
        v0 = v_end


def _launch(kernel: str, variant: Variant, x: Tensor, arguments: tuple[Argument, ...]) -> None:
    """Launch over the sites of ``x`` on its device, on torch's current stream there; no sites, no launch.

    Wide kernels need every tensor on a boundary of 16 bytes and every distance a multiple of their width; the narrow
    one takes the rest. The tensors are held until the launch is queued; from then on torch's allocator keeps their
    memory from anything but later work of the same stream.
    """
    n_site = x.shape[1:].numel()
    if n_site == 0:
        return
    arguments = (*arguments, n_site)
    wide = vector_width(variant.dtype, variant.n_steps)
    width = wide if all(_fits(argument, wide) for argument in arguments) else 1
    packed = tuple(_pack(argument, width) for argument in arguments)
    index = x.get_device()
    stream = torch.cuda.current_stream(x.device).cuda_stream
    with torch.cuda.device(x.device), cupy_module.cupy_stream(stream, index):
        blocks = min(-(-(n_site // width) // THREADS), BLOCKS_PER_SM * cupy_module.n_multiprocessors(index))
        cupy_module.load(index, variant._replace(width=width))[kernel]((blocks,), (THREADS,), packed)


def _fits(argument: Argument, width: int) -> bool:
    if isinstance(argument, Tensor):
        return argument.data_ptr() % 16 == 0
    return not isinstance(argument, int) or argument % width == 0


def _pack(argument: Argument, width: int) -> int | np.int64 | np.float32:
    """Return an argument with the type that CuPy passes on: it would turn a Python float into a double."""
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if argument is None:
        return 0
    return np.int64(argument // width) if isinstance(argument, int) else argument


def _n_chunks(x_seq: Tensor) -> int:
    return -(-len(x_seq) // CHUNK)


def _step(x_seq: Tensor) -> int:
    """Return the distance between steps; a single step is at distance 0 from itself, whatever its stride."""
    return x_seq.stride(0) if len(x_seq) > 1 else 0


def _empty_state(x_seq: Tensor) -> Tensor:
    return empty_steps(x_seq[:1], torch.float32)[0]
