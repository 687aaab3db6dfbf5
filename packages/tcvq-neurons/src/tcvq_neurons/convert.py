"""Swap the neurons of spikingjelly, snntorch and braincog for ours where they compute the same, and say where not."""

from dataclasses import dataclass

from torch import nn

from tcvq_neurons.lif import LIF
from tcvq_neurons.peers import Allowed, RefusedError, Rule, find_rule


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What `convert` did.

    Attributes:
        module: The network; the one that was given, unless that was itself a neuron.
        converted: What to know about each neuron that is ours now, by its name.
        refused: Why each other spiking neuron was left as it is, by its name.
    """

    module: nn.Module
    converted: dict[str, str]
    refused: dict[str, str]

    def __str__(self) -> str:
        """Return one line per neuron."""
        lines = [f"converted {name}: {note}" for name, note in self.converted.items()]
        return "\n".join(lines + [f"refused {name}: {reason}" for name, reason in self.refused.items()])


def convert(module: nn.Module, *, single_step: bool = False, rounding: bool = False) -> Conversion:
    """Replace the spiking neurons of other packages in ``module``, in place, by ours.

    Known are ``LIFNode``, ``IFNode`` and ``ParametricLIFNode`` of spikingjelly, ``Leaky`` of snntorch, and ``LIFNode``,
    ``IFNode`` and ``PLIFNode`` of braincog. A neuron is replaced only if its spikes are bit for bit those of ours for
    float32 input; the surrogate gradient is the same function, its gradients equal up to rounding. Anything else stays
    and is reported with the reason. All neurons are judged before the first is replaced.

    Args:
        module: The network, with its neurons at rest.
        single_step: Also convert neurons that took one step per call. You promise to call the network with whole
            sequences from now on: given a single step ``(B, ...)``, ours would take the batch for time.
        rounding: Also convert neurons whose equation is the same in real numbers but rounded differently: a current
            near the threshold can then fire in one and not in the other.

    Returns:
        The network and what became of each neuron.
    """
    allowed = Allowed(single_step=single_step, rounding=rounding)
    ours: dict[nn.Module | None, LIF] = {}
    converted: dict[str, str] = {}
    refused: dict[str, str] = {}
    inside: set[nn.Module] = set()  # parts of neurons, such as their surrogates
    for path, node in module.named_modules():
        rule = None if node in inside else find_rule(type(node))
        if rule is None:
            continue
        inside.update(node.modules())
        name = path or type(node).__name__
        try:
            ours[node], converted[name] = _replace(node, rule, allowed)
        except RefusedError as reason:
            refused[name] = str(reason)
    for parent in list(module.modules()):
        for child_name, child in parent._modules.items():
            if child in ours:
                parent._modules[child_name] = ours[child]
    return Conversion(module=ours.get(module, module), converted=converted, refused=refused)


def _replace(node: nn.Module, rule: Rule, allowed: Allowed) -> tuple[LIF, str]:
    if node._forward_hooks or node._forward_pre_hooks or node._backward_hooks or node._backward_pre_hooks:
        raise RefusedError("has hooks, which would be lost; remove them first")
    neuron, note = rule(node, allowed)
    return neuron.train(node.training), note
