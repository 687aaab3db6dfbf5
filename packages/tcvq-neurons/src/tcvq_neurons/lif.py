"""Integrate-and-fire neurons: two functions over a whole sequence, and the modules that call them."""

import math
from collections.abc import Collection
from typing import Unpack, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tcvq_neurons.backends import BackendName
from tcvq_neurons.config import ConstantName, IFOptions, LIFConfig, LIFOptions, split_tensors, with_tensors
from tcvq_neurons.constants import checked, from_weight, per_channel, per_site, to_weight
from tcvq_neurons.dynamics import state_dtype
from tcvq_neurons.interface import NeuronOutput
from tcvq_neurons.ops import run
from tcvq_neurons.state import CarriesState

_PAPER = LIFConfig()


def lif(
    x_seq: Float[Tensor, "T *site"],
    v0: Float[Tensor, "*site"] | None = None,
    *,
    backend: BackendName = "auto",
    **options: Unpack[LIFOptions],
) -> NeuronOutput:
    """Run a LIF neuron over all steps.

    ``h_t = v_{t-1} + (x_t - v_{t-1}) / tau``; ``s_t = 1 if h_t - v_threshold > 0 else 0``; ``v_t = h_t (1 - s_t)``.
    The membrane is float32 (float64 for float64 input); spikes come in the input's dtype.

    Args:
        x_seq: Input current, time first.
        v0: Membrane before the first step; None is rest, 0.
        backend: ``auto``, ``reference``, ``torch``, ``numba`` or ``cupy``; see `tcvq_neurons.backends`.
        **options: Fields of `LIFConfig`. ``tau`` and ``v_threshold`` may be tensors that broadcast against one step,
            and then get gradients; their values are not checked. The reference runs them, saving only its inputs.

    Returns:
        Spikes of every step and the membrane after the last; to go on from there, pass ``v`` as the next ``v0``
        (detached, to cut the gradient there).

    Raises:
        TypeError: If ``x_seq`` is not floating point or an option does not exist.
        ValueError: If a shape, device or option value does not fit.
        RuntimeError: If the backend asked for cannot run here.
    """
    return _neuron(x_seq, v0, options, backend, gate=False)


def lif_gate(
    x_seq: Float[Tensor, "T *site"],
    v0: Float[Tensor, "*site"] | None = None,
    *,
    backend: BackendName = "auto",
    **options: Unpack[LIFOptions],
) -> NeuronOutput:
    """Run the LIF-nonlinearity ``y_t = x_t s_t`` with ``s = lif(x)``, fused: it saves ``x`` once for the backward.

    Arguments, results and errors as for `lif`, with ``x * spikes`` in place of spikes.
    """
    return _neuron(x_seq, v0, options, backend, gate=True)


class LIF(CarriesState):
    """A LIF neuron that starts every call at rest, except inside `carry_state`; by default it has no parameters.

    ``tau`` and ``v_threshold`` are one number for all neurons, or one per channel (axis 2 of ``(T, B, C, ...)``), and
    are fixed, or learned: then the parameters are ``w_tau`` with ``1 / tau = sigmoid(w_tau)`` (Fang et al. 2021, arXiv
    2007.05785), so that ``tau > 1`` always, and ``w_v_threshold`` with ``v_threshold = exp(w_v_threshold)``.

    Args:
        config: Constants of the neuron; None is `LIFConfig()`.
        learn: Which of ``tau`` and ``v_threshold`` are trained.
        channels: Number of channels if those that are trained start from one number but learn one per channel.
        backend: Which implementation runs; see `tcvq_neurons.backends`. A constant that is trained or differs between
            channels needs ``auto`` or ``reference``.
        **options: Fields of `LIFConfig` that replace those of ``config``: ``LIF(tau=4.0)``. ``tau`` and ``v_threshold``
            may be tensors ``(C,)``: the value of each channel, or the initial one if it is trained.

    Raises:
        ValueError: If a constant is out of range or has another shape.
        TypeError: If an option does not exist.
    """

    _gate = False

    def __init__(
        self,
        config: LIFConfig | None = None,
        *,
        learn: Collection[ConstantName] = (),
        channels: int | None = None,
        backend: BackendName = "auto",
        **options: Unpack[LIFOptions],
    ) -> None:
        super().__init__()
        self.config, tensors = split_tensors(config or LIFConfig(), options)
        self.backend = backend
        if unknown := set(learn) - set(get_args(ConstantName)):
            raise ValueError(f"LIF.learn names {sorted(unknown)}; a neuron can learn {get_args(ConstantName)}")
        if channels is not None and not learn:
            raise ValueError(f"LIF.channels is {channels} but nothing is learned; pass learn=('tau',) or leave it out")
        for name in learn:
            start = tensors.pop(name, torch.tensor(float(getattr(self.config, name))))
            w = to_weight(name, checked(name, start, self.config))
            self.register_parameter(f"w_{name}", nn.Parameter(w.clone() if channels is None else w.repeat(channels)))
        for name, value in tensors.items():
            self.register_buffer(f"fixed_{name}", checked(name, value, self.config).detach().clone())

    @property
    def tau(self) -> float | Tensor:
        """Membrane time constant as it is now: a number, or a tensor ``()`` or ``(C,)`` if learned or per channel."""
        return self._value("tau")

    @property
    def v_threshold(self) -> float | Tensor:
        """Threshold as it is now: a number, or a tensor ``()`` or ``(C,)`` if learned or per channel."""
        return self._value("v_threshold")

    def _value(self, name: ConstantName) -> float | Tensor:
        if (w := self._parameters.get(f"w_{name}")) is not None:
            return from_weight(name, w)
        if (fixed := self._buffers.get(f"fixed_{name}")) is not None:
            return fixed
        return getattr(self.config, name)

    def forward(self, x_seq: Float[Tensor, "T *site"]) -> Float[Tensor, "T *site"]:
        """Return the spikes of every step; errors as for `lif`, and those of a carried membrane."""
        _check_sequence(x_seq)
        config, memory = self._config_for(x_seq), self._memory
        if memory is None:
            return run(x_seq, None, config, gate=self._gate, backend=self.backend, need_v=False)[0]
        v0 = memory.recall(x_seq)
        return memory.keep(*run(x_seq, v0, config, gate=self._gate, backend=self.backend, need_v=True))

    def step(self, x: Float[Tensor, "*site"]) -> Float[Tensor, "*site"]:
        """Return the spikes of one step, continuing from the call before.

        Raises:
            RuntimeError: Outside `carry_state`, where there is nothing to continue from.
        """
        if self._memory is None:
            name = type(self).__name__
            raise RuntimeError(f"{name}.step has no membrane to continue; call it inside `with carry_state(module):`")
        return self(x.unsqueeze(0)).squeeze(0)

    def _config_for(self, x_seq: Tensor) -> LIFConfig:
        """Return the config with learned and per-channel constants in the shape of one step of ``x_seq``."""
        if not self._parameters and not self._buffers:
            return self.config
        tensors: dict[ConstantName, Tensor] = {}
        for name in get_args(ConstantName):
            if isinstance(value := self._value(name), Tensor):
                tensors[name] = per_channel(name, value, x_seq)
        return with_tensors(self.config, tensors)

    def extra_repr(self) -> str:
        """Show the constants when printed."""
        own = {**self._parameters, **self._buffers}
        tensors = "".join(f", {name}={tuple(value.shape)}" for name, value in own.items() if value is not None)
        return f"{self.config}{tensors}, backend={self.backend!r}"


class LIFGate(LIF):
    """The LIF-nonlinearity ``x * LIF(x)``: passes the current of the steps at which the neuron fires."""

    _gate = True


class IF(LIF):
    """An integrate-and-fire neuron, ``h = v + x``: a `LIF` that leaks nothing (``tau=inf``, ``decay_input=False``).

    Args:
        learn: ``("v_threshold",)`` if the threshold is trained.
        channels: Number of channels if a threshold that is trained starts from one number but learns one per channel.
        backend: Which implementation runs; see `tcvq_neurons.backends`.
        **options: Fields of `LIFConfig` other than ``tau`` and ``decay_input``.

    Raises:
        ValueError: If a constant is out of range, or ``tau`` is to be learned.
        TypeError: If an option does not exist.
    """

    def __init__(
        self,
        *,
        learn: Collection[ConstantName] = (),
        channels: int | None = None,
        backend: BackendName = "auto",
        **options: Unpack[IFOptions],
    ) -> None:
        super().__init__(
            LIFConfig(tau=math.inf, decay_input=False), learn=learn, channels=channels, backend=backend, **options
        )


class IFGate(IF):
    """``x * IF(x)``: passes the current of the steps at which an integrate-and-fire neuron fires."""

    _gate = True


def _neuron(x_seq: Tensor, v0: Tensor | None, options: LIFOptions, backend: BackendName, *, gate: bool) -> NeuronOutput:
    config, tensors = split_tensors(_PAPER, options)
    _check_sequence(x_seq)
    for name, value in tensors.items():
        tensors[name] = per_site(name, value, x_seq)
    if v0 is not None:
        _check_state(v0, x_seq)
        v0 = v0.to(state_dtype(x_seq))
    return NeuronOutput(*run(x_seq, v0, with_tensors(config, tensors), gate=gate, backend=backend, need_v=True))


def _check_sequence(x_seq: Tensor) -> None:
    if not x_seq.is_floating_point():
        raise TypeError(f"x_seq has dtype {x_seq.dtype}; a neuron takes floating-point currents, call .float() first")
    if x_seq.ndim == 0 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq has shape {tuple(x_seq.shape)}; axis 0 is time and needs at least one step")


def _check_state(v0: Tensor, x_seq: Tensor) -> None:
    if v0.shape != x_seq.shape[1:]:
        raise ValueError(f"v0 has shape {tuple(v0.shape)}; one step of x_seq has {tuple(x_seq.shape[1:])}")
    if v0.device != x_seq.device:
        raise ValueError(f"v0 is on {v0.device} and x_seq on {x_seq.device}; move one of them")
