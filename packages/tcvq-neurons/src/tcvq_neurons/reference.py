"""State dicts of the paper's released code, in which every neuron carries its constants as tensors."""

from collections.abc import Mapping

from torch import Tensor

_CONSTANTS = {".threshold": 0.5, ".act_fun.alpha": 2.0}  # the neuron of the paper, stored once or twice per LIF


def drop_neuron_constants(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state without the thresholds and surrogate slopes of its neurons.

    Raises:
        ValueError: If one of them is not the 0.5 or 2.0 that our neurons use.
    """
    kept, wrong = {}, []
    for name, tensor in state.items():
        constant = next((value for suffix, value in _CONSTANTS.items() if name.endswith(suffix)), None)
        if constant is None:
            kept[name] = tensor
        elif not bool((tensor == constant).all()):
            wrong.append(f"{name} is {tensor.tolist()}, not {constant}")
    if wrong:
        raise ValueError(f"the checkpoint's neurons are not ours: {'; '.join(wrong)}")
    return kept
