"""Watch a network work: firing rates, silent and saturated neurons, synaptic operations, without changing a number."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tcvq_neurons.lif import LIF

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuronActivity:
    """What the neurons of one layer did; a neuron is one position of the axes after time and batch.

    Attributes:
        neurons: Number of neurons.
        samples: Number of samples recorded, all calls together.
        rate: Share of outputs that are not zero, over all steps, samples and neurons. For a gate, ``x * s``, a spike at
            a current of exactly 0 does not count; under hard reset there are none.
        rate_per_step: The same at each step of a call.
        silent: Share of neurons that fired at no step of any sample.
        saturated: Share of neurons that fired at every step of every sample.
    """

    neurons: int
    samples: int
    rate: float
    rate_per_step: list[float]
    silent: float
    saturated: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SynapseActivity:
    """The work of one linear or convolutional layer, as executed: sums over all calls, not per sample or step.

    Attributes:
        kind: Class of the layer, such as ``Conv2d``.
        calls: Number of calls.
        density: Share of the inputs that are not zero.
        dense_macs: Multiply-accumulates of a dense implementation, padding included.
        synops: Synaptic operations. ``Linear``: non-zero inputs times ``out_features``, exact. Convolutions: density
            times dense MACs, which takes the non-zero inputs for evenly spread.
        operation: ``ac`` if all inputs were 0 or 1, so that adding weights suffices; else ``mac``.
    """

    kind: str
    calls: int
    density: float
    dense_macs: int
    synops: float
    operation: Literal["ac", "mac"]


@dataclass(slots=True)
class _NeuronSums:
    """Counts of one layer of neurons, as tensors on its device; calls of different shapes are kept apart."""

    samples: int = 0
    fired: dict[tuple[int, ...], Tensor] = field(default_factory=dict)  # spikes of each neuron, by shape of the layer
    chances: dict[tuple[int, ...], int] = field(default_factory=dict)  # steps x samples that each of them had
    per_step: dict[int, Tensor] = field(default_factory=dict)  # spikes of each step, by number of steps
    step_chances: dict[int, int] = field(default_factory=dict)  # neurons x samples that each step had

    def add(self, y_seq: Tensor) -> None:
        """Count the outputs ``(T, B, *site)``; a missing batch axis is one sample."""
        y_seq = y_seq.unsqueeze(1) if y_seq.ndim == 1 else y_seq
        n_steps, n_batch, *site = y_seq.shape
        shape = tuple(site)
        fired = _indicator(y_seq).sum(1, dtype=torch.float32).long()  # (T, *site)
        total, steps = fired.sum(0), fired.reshape(n_steps, math.prod(shape)).sum(1)
        self.samples += n_batch
        self.fired[shape] = self.fired[shape] + total if shape in self.fired else total
        self.per_step[n_steps] = self.per_step[n_steps] + steps if n_steps in self.per_step else steps
        self.chances[shape] = self.chances.get(shape, 0) + n_steps * n_batch
        self.step_chances[n_steps] = self.step_chances.get(n_steps, 0) + n_batch * math.prod(shape)

    def read(self) -> NeuronActivity:
        """Fetch the counts from the device."""
        neurons = sum(total.numel() for total in self.fired.values())
        spikes = [0] * max(self.per_step)
        chances = [0] * max(self.per_step)
        for n_steps, counts in self.per_step.items():
            for t, count in enumerate(counts.tolist()):
                spikes[t] += count
                chances[t] += self.step_chances[n_steps]
        silent = sum(int((total == 0).sum()) for total in self.fired.values())
        saturated = sum(int((total == self.chances[shape]).sum()) for shape, total in self.fired.items())
        return NeuronActivity(
            neurons=neurons,
            samples=self.samples,
            rate=_share(sum(spikes), sum(chances)),
            rate_per_step=[_share(*counts) for counts in zip(spikes, chances, strict=True)],
            silent=_share(silent, neurons),
            saturated=_share(saturated, neurons),
        )


@dataclass(slots=True)
class _SynapseSums:
    """Counts of one layer with weights, as tensors on its device."""

    kind: str
    calls: int = 0
    inputs: int = 0
    dense_macs: int = 0
    nonzero: Tensor | None = None
    distance: Tensor | None = None  # largest distance of an input from 0 or 1

    def add(self, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Count one call of ``y = layer(x)``."""
        if x.numel() == 0:
            return
        indicator = _indicator(x)
        nonzero = indicator.sum(-1, dtype=torch.float32).long().sum()
        distance = indicator.sub_(x).abs_().amax()
        self.nonzero = nonzero if self.nonzero is None else self.nonzero + nonzero
        self.distance = distance if self.distance is None else torch.maximum(self.distance, distance)
        self.calls += 1
        self.inputs += x.numel()
        self.dense_macs += _dense_macs(layer, x, y)

    def read(self) -> SynapseActivity:
        """Fetch the counts from the device."""
        assert self.nonzero is not None
        assert self.distance is not None
        nonzero = int(self.nonzero)
        return SynapseActivity(
            kind=self.kind,
            calls=self.calls,
            density=nonzero / self.inputs,
            dense_macs=self.dense_macs,
            synops=nonzero * self.dense_macs / self.inputs,
            operation="ac" if float(self.distance) == 0 else "mac",
        )


class Record:
    """What `monitor` counts; every reading method waits for the device, counting does not.

    Args:
        net: The network whose layers are counted.
    """

    def __init__(self, net: nn.Module) -> None:
        self._neurons: dict[str, _NeuronSums] = {}
        self._synapses: dict[str, _SynapseSums] = {}
        self._layers: dict[nn.Module, str] = {}
        for path, module in net.named_modules():
            name = path or type(module).__name__
            if isinstance(module, LIF):
                self._neurons[name] = _NeuronSums()
            elif isinstance(module, (nn.Linear, *_CONV, *_TRANSPOSED)):
                self._synapses[name] = _SynapseSums(type(module).__name__)
            else:
                continue
            self._layers[module] = name

    def neurons(self) -> dict[str, NeuronActivity]:
        """Return the activity of every layer of neurons that was called, by its name in the network."""
        return {name: sums.read() for name, sums in self._neurons.items() if sums.samples}

    def synapses(self) -> dict[str, SynapseActivity]:
        """Return the work of every linear and convolutional layer that was called, by its name in the network."""
        return {name: sums.read() for name, sums in self._synapses.items() if sums.calls}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists and numbers, ready for JSON."""
        return {
            "neurons": {name: asdict(activity) for name, activity in self.neurons().items()},
            "synapses": {name: asdict(activity) for name, activity in self.synapses().items()},
        }

    @torch.no_grad()
    def _count(self, module: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
        name = self._layers[module]
        if name in self._neurons:
            self._neurons[name].add(y.detach())
        else:
            self._synapses[name].add(module, args[0].detach(), y)


@contextmanager
def monitor(net: nn.Module) -> Iterator[Record]:
    """Count what the neurons and weights of a network do while the block runs.

    Counted are modules of the class `LIF` and its subclasses, ``nn.Linear`` and the convolutions, each under its first
    name in ``net``, when they are called as modules, with time on axis 0 and the batch on axis 1 of the neurons' input.
    What `merge_time` computes once for a constant sequence counts once: that is what ran. The counts stay on the device
    until they are read; outputs, gradients and random numbers are the same with and without it.

    Args:
        net: The network; enter before ``torch.compile``, whose graphs call no hooks added later.

    Yields:
        The record, readable inside the block and after it.
    """
    record = Record(net)
    handles = [module.register_forward_hook(record._count) for module in record._layers]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _dense_macs(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return inputs times fan-out or outputs times fan-in, whichever the layer's kind makes exact."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Linear):
        return x.numel() * weight.shape[0]
    if isinstance(layer, _TRANSPOSED):
        return x.numel() * weight[0].numel()  # (C_in, C_out / groups, *kernel)
    return y.numel() * weight[0].numel()  # (C_out, C_in / groups, *kernel)


def _indicator(x: Tensor) -> Tensor:
    """Return 1 where ``x`` is not 0 (NaN is not), else 0, in its dtype: several times faster than a bool tensor."""
    return torch.ne(x, 0, out=torch.empty_like(x))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
