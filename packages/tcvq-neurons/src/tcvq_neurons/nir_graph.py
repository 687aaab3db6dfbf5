"""Neurons and chains of layers as graphs of NIR, the Neuromorphic Intermediate Representation, and back.

NIR (Pedersen et al. 2024, doi:10.1038/s41467-024-52259-9) writes neurons in continuous time, ``tau`` in seconds:
``tau dv/dt = (v_leak - v) + r I``; at ``v > v_threshold`` they spike and go to ``v_reset``. A step of ``dt`` seconds of
forward Euler is our neuron with ``tau / dt`` steps, ``v_leak = v_reset = 0``, and ``r = 1`` with ``decay_input``,
``r = tau / dt`` without; integrate-and-fire, ``dv/dt = r I``, has ``r = 1 / dt``.

The package ``nir`` is needed: ``pip install "tcvq-neurons[nir]"``.
"""

import importlib
import itertools
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tcvq_neurons.interface import Surrogate
from tcvq_neurons.lif import IF, LIF
from tcvq_neurons.sequential import SpikingSequential
from tcvq_neurons.surrogate import QuadraticGate

_CLOSE = 1e-6  # of r: other packages store float32


def to_nir(module: nn.Module, *, dt: float, input_shape: tuple[int, ...], inference: bool = False) -> Any:
    """Return a neuron, or a chain of layers, as a graph.

    Args:
        module: A `LIF` or `IF`, or an ``nn.Sequential`` (`SpikingSequential`) of those, ``nn.Linear``, ``nn.Conv2d``
            and ``nn.Flatten``.
        dt: Length of one step in seconds.
        input_shape: Shape of the input without time and batch.
        inference: Leave out what NIR has no place for but only training needs: the surrogate, ``detach_reset=False``,
            and which constants are learned.

    Returns:
        A ``nir.NIRGraph``; ``nir.write(path, graph)`` saves it. With the same ``dt``, `from_nir` makes a network of it
        whose outputs are equal bit for bit in float32; a layer without bias comes back with one of zeros.

    Raises:
        ImportError: If the package ``nir`` is missing.
        ValueError: If something has no place in NIR: which layer, what, and what to do.
        TypeError: If a layer is of another class.
    """
    nir = _import_nir()
    _check_dt(dt)
    shape = tuple(input_shape)
    nodes = {"input": nir.Input({"input": np.array(shape)})}
    for name, layer in _chain(module):
        if isinstance(layer, LIF):
            nodes[name] = _neuron_node(nir, name, layer, dt=dt, shape=shape, inference=inference)
            continue
        nodes[name] = _layer_node(nir, name, layer, shape)
        shape = _output_shape(name, layer, shape)
    nodes["output"] = nir.Output({"output": np.array(shape)})
    return nir.NIRGraph(nodes, list(itertools.pairwise(nodes)))


def from_nir(
    graph: Any, *, dt: float, surrogate: Surrogate | None = None, detach_reset: bool = True
) -> SpikingSequential | LIF:
    """Return the network of a graph that is a chain, or the neuron of a single node.

    Args:
        graph: A ``nir.NIRGraph`` of ``LIF``, ``IF``, ``Linear``, ``Affine``, ``Conv2d`` and ``Flatten`` nodes, or one
            ``nir.LIF`` or ``nir.IF``. Constants that differ between channels (axis 0) become tensors ``(C,)``.
        dt: Length of one step in seconds: as when it was exported, or the step that you want to simulate with.
        surrogate: Of all neurons, for training; None is `QuadraticGate`.
        detach_reset: Of all neurons, for training.

    Raises:
        ImportError: If the package ``nir`` is missing.
        ValueError: If the graph is no chain, or something in it is not what our neurons do: which node, and what.
        TypeError: If a node is of another class.
    """
    nir = _import_nir()
    _check_dt(dt)
    options = {"surrogate": surrogate or QuadraticGate(), "detach_reset": detach_reset}
    if isinstance(graph, nir.LIF | nir.IF):
        return _neuron(nir, type(graph).__name__, graph, dt, options)
    network = SpikingSequential()
    for name, node in _nodes(nir, graph):
        is_neuron = isinstance(node, nir.LIF | nir.IF)
        layer = _neuron(nir, name, node, dt, options) if is_neuron else _layer(nir, name, node)
        network.add_module(name.replace(".", "_"), layer)
    return network


def _import_nir() -> ModuleType:
    try:
        return importlib.import_module("nir")
    except ImportError as error:
        raise ImportError(f'NIR needs the package nir ({error}); pip install "tcvq-neurons[nir]"') from error


def _check_dt(dt: float) -> None:
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt is {dt}; it is the length of one step in seconds, such as 1e-3")


def _chain(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers in order, those of nested containers in their place."""
    if not isinstance(module, nn.Sequential):
        yield path or type(module).__name__.lower(), module
        return
    for name, layer in module.named_children():
        yield from _chain(layer, f"{path}_{name}" if path else name)


def _neuron_node(nir: ModuleType, name: str, neuron: LIF, *, dt: float, shape: tuple[int, ...], inference: bool) -> Any:
    if type(neuron) not in {LIF, IF}:
        raise ValueError(f"{name} is a {type(neuron).__name__}, which NIR cannot hold; only LIF and IF can be exported")
    config = neuron.config
    if config.reset != "hard":
        raise ValueError(f"{name} has reset={config.reset!r}, which NIR cannot hold; only 'hard' can be exported")
    if config.fire_at_threshold:
        raise ValueError(f"{name} has fire_at_threshold=True, which NIR cannot hold: it spikes at v > v_threshold")
    training = [
        *([f"surrogate={config.surrogate}"] if config.surrogate != QuadraticGate() else []),
        *([] if config.detach_reset else ["detach_reset=False"]),
        *(f"learned {key.removeprefix('w_')}" for key, _ in neuron.named_parameters()),
    ]
    if training and not inference:
        raise ValueError(
            f"{name} has {', '.join(training)}, for which NIR has no place; pass inference=True to drop it"
        )
    threshold = _spread(name, neuron.v_threshold, shape)
    zero = np.zeros(shape)
    tau = _spread(name, neuron.tau, shape)
    if np.isinf(tau).all():
        return nir.IF(r=np.full(shape, 1 / dt), v_threshold=threshold, v_reset=zero)
    if not config.decay_input and (tau == 1).any():
        raise ValueError(f"{name} has tau=1 and decay_input=False, in NIR the same as with it; drop decay_input=False")
    r = np.ones(shape) if config.decay_input else tau
    return nir.LIF(tau=_seconds(tau, dt), r=r, v_leak=zero, v_threshold=threshold, v_reset=zero)


def _spread(name: str, value: float | Tensor, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a constant, one number or one per channel (axis 0), for every neuron."""
    value = torch.as_tensor(value, dtype=torch.float64).detach().cpu()
    if value.ndim == 0:
        return np.full(shape, value.item())
    if not shape or shape[0] != len(value):
        raise ValueError(f"{name} has {len(value)} channels and gets inputs of shape {shape}")
    return np.broadcast_to(value.numpy().reshape(-1, *[1] * (len(shape) - 1)), shape).copy()


def _seconds(tau: NDArray[np.float64], dt: float) -> NDArray[np.float64]:
    """Return the number nearest to ``tau dt`` from which `from_nir` gets ``tau`` back, if there is one."""
    seconds = tau * dt
    for other in (np.nextafter(seconds, 0), np.nextafter(seconds, np.inf)):
        seconds = np.where((seconds / dt != tau) & (other / dt == tau), other, seconds)
    return seconds


def _layer_node(nir: ModuleType, name: str, layer: nn.Module, shape: tuple[int, ...]) -> Any:
    bias: Tensor | None = getattr(layer, "bias", None)
    if isinstance(layer, nn.Linear):
        weight = _array(layer.weight)
        return nir.Linear(weight=weight) if bias is None else nir.Affine(weight=weight, bias=_array(bias))
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        if layer.groups != 1:
            raise ValueError(f"{name} has groups={layer.groups}; nir checks shapes as if there were one group")
        bias = layer.weight.new_zeros(layer.out_channels) if bias is None else bias
        geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return nir.Conv2d(shape[1:], _array(layer.weight), *geometry, _array(bias))
    if isinstance(layer, nn.Flatten):
        if 0 in {layer.start_dim, layer.end_dim}:
            raise ValueError(f"{name} flattens the batch axis, which NIR does not have; start at axis 1")
        start, end = (dim - 1 if dim > 0 else dim for dim in (layer.start_dim, layer.end_dim))
        return nir.Flatten({"input": np.array(shape)}, start_dim=start, end_dim=end)
    what = f"Conv2d with padding_mode={layer.padding_mode!r}" if isinstance(layer, nn.Conv2d) else type(layer).__name__
    raise TypeError(f"{name} is a {what}; LIF, IF, Linear, Conv2d and Flatten can be exported to NIR, in a Sequential")


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy().copy()


def _output_shape(name: str, layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    weight = next(layer.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            return tuple(layer(weight.new_zeros(1, *shape)).shape[1:])
    except RuntimeError as error:
        raise ValueError(f"{name} does not take inputs of shape {shape}; check input_shape ({error})") from error


def _nodes(nir: ModuleType, graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield the nodes of a chain from its input to its output."""
    if not isinstance(graph, nir.NIRGraph):
        raise TypeError(f"graph is a {type(graph).__name__}; pass a nir.NIRGraph, nir.LIF or nir.IF")
    name = next((name for name, node in graph.nodes.items() if isinstance(node, nir.Input)), None)
    left = set(graph.nodes)
    while name is not None and name in left:
        left.remove(name)
        if not isinstance(graph.nodes[name], nir.Input | nir.Output):
            yield name, graph.nodes[name]
        following = [target for source, target in graph.edges if source == name]
        if len(following) > 1:
            raise ValueError(f"node {name} feeds {', '.join(following)}; only chains can be imported")
        name = next(iter(following), None)
    if left or name is not None:
        raise ValueError(
            f"the graph is no chain: {name or ', '.join(sorted(left))} is not met once between input and output"
        )


def _neuron(nir: ModuleType, name: str, node: Any, dt: float, options: dict[str, Any]) -> LIF:
    if np.any(node.v_reset):
        raise ValueError(f"node {name} has v_reset={_few(node.v_reset)}; our neurons reset to 0")
    options = {**options, "v_threshold": _constant(name, "v_threshold", node.v_threshold)}
    r = np.asarray(node.r, dtype=np.float64)
    if isinstance(node, nir.IF):
        if not np.allclose(r * dt, 1, rtol=_CLOSE, atol=0):
            raise ValueError(f"node {name} has r={_few(r)}; with dt={dt} our IF neurons need r = 1 / dt = {1 / dt:g}")
        return IF(**options)
    if np.any(node.v_leak):
        raise ValueError(f"node {name} has v_leak={_few(node.v_leak)}; our neurons leak to 0")
    tau = np.asarray(node.tau, dtype=np.float64) / dt
    if not (tau >= 1).all():
        raise ValueError(f"node {name} has tau={_few(node.tau)} s, shorter than one step; pass a smaller dt than {dt}")
    decay = bool(np.allclose(r, 1, rtol=_CLOSE, atol=0))
    if not decay and not np.allclose(r, tau, rtol=_CLOSE, atol=0):
        raise ValueError(
            f"node {name} has r={_few(r)}; with dt={dt} our neurons need r = 1 or r = tau / dt = {_few(tau)}"
        )
    return LIF(tau=_constant(name, "tau", tau), decay_input=decay, **options)


def _constant(name: str, what: str, values: Any) -> float | Tensor:
    """Return one number, or one per channel (axis 0)."""
    array = np.asarray(values, dtype=np.float64)
    first = array.reshape(array.shape[0], -1)[:, 0] if array.ndim else array
    if (array == first.flat[0]).all():
        return float(first.flat[0])
    if (array.reshape(array.shape[0], -1) != first[:, None]).any():
        raise ValueError(
            f"node {name} has {what} that differs within a channel; our neurons take one value per channel"
        )
    return torch.from_numpy(first.astype(np.float32))


def _few(values: Any) -> str:
    numbers = np.unique(np.asarray(values))
    return ", ".join(f"{number:g}" for number in numbers[:3]) + (", ..." if len(numbers) > 3 else "")


def _layer(nir: ModuleType, name: str, node: Any) -> nn.Module:
    layer: nn.Module
    if isinstance(node, nir.Linear | nir.Affine) and np.ndim(node.weight) == 2:
        n_out, n_in = node.weight.shape
        layer = nn.Linear(n_in, n_out, bias=isinstance(node, nir.Affine))
    elif isinstance(node, nir.Conv2d):
        n_out, n_in, *kernel = node.weight.shape
        geometry = (_plain(node.stride), _plain(node.padding), _plain(node.dilation), int(node.groups))
        layer = nn.Conv2d(n_in * int(node.groups), n_out, (kernel[0], kernel[1]), *geometry)
    elif isinstance(node, nir.Flatten):
        start, end = (int(dim) + 1 if dim >= 0 else int(dim) for dim in (node.start_dim, node.end_dim))
        return nn.Flatten(start, end)
    else:
        raise TypeError(
            f"node {name} is a nir.{type(node).__name__} that cannot be imported; see from_nir for those that can"
        )
    for parameter, _ in list(layer.named_parameters()):
        setattr(layer, parameter, nn.Parameter(torch.from_numpy(np.array(getattr(node, parameter)))))
    return layer


def _plain(value: Any) -> Any:
    """Return a geometry option, which may have become an array or bytes in a file, as torch takes it."""
    if isinstance(value, str | bytes):
        return value.decode() if isinstance(value, bytes) else value
    return tuple(int(number) for number in np.broadcast_to(value, (2,)))
