"""Which implementation runs: the readable reference, in-place torch, or compiled CPU kernels, and why."""

import importlib
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from torch import Tensor

from tcvq_neurons import dynamics
from tcvq_neurons.backends import fused
from tcvq_neurons.backends.fused import LAUNCHES
from tcvq_neurons.backends.torch import TorchKernel
from tcvq_neurons.config import LIFConfig

BackendName = Literal["auto", "reference", "torch", "numba"]

_TORCH = TorchKernel()
_SETTINGS: dict[str, BackendName] = {"default": "auto"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendStatus:
    """What is known about one backend on this machine.

    Attributes:
        name: ``reference``, ``torch`` or ``numba``.
        available: Whether it can run here.
        chosen: Whether ``backend="auto"`` takes it for a float32 tensor on the CPU.
        reason: Why, in one sentence.
    """

    name: str
    available: bool
    chosen: bool
    reason: str


def backends() -> list[BackendStatus]:
    """Return the status of every backend, fastest first."""
    problem = _numba_problem()
    default = "numba" if problem is None else "torch"
    chosen = default if _SETTINGS["default"] == "auto" else _SETTINGS["default"]
    reasons = {
        "numba": problem or "compiled CPU kernels for float32, bfloat16 and float16",
        "torch": "fused in-place operations for every device and dtype; needs only torch",
        "reference": "the readable definition of the neuron; only on request",
    }
    return [
        BackendStatus(name=name, available=name != "numba" or problem is None, chosen=name == chosen, reason=reason)
        for name, reason in reasons.items()
    ]


def set_default_backend(name: BackendName) -> BackendName:
    """Make ``backend="auto"`` mean ``name`` in this process, and return what it meant before.

    Args:
        name: ``reference``, ``torch``, ``numba``, or ``auto`` for the fastest that can run each tensor.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If the backend is not installed.
    """
    _check_installed(name)
    previous, _SETTINGS["default"] = _SETTINGS["default"], name
    return previous


def run(
    x_seq: Tensor, v0: Tensor | None, config: LIFConfig, *, gate: bool, backend: BackendName, need_v: bool
) -> tuple[Tensor, Tensor | None]:
    """Run checked inputs ``(T, *site)`` on the chosen backend; the last membrane may be None without ``need_v``.

    Raises:
        ValueError: If the backend is unknown or cannot run this input.
        RuntimeError: If the backend is not installed.
    """
    name = _SETTINGS["default"] if backend == "auto" else backend
    if name == "reference":
        LAUNCHES["reference.forward"] += 1
        return dynamics.unroll(x_seq, v0, config, gate=gate)
    return fused.run(_choose(name, x_seq, config), x_seq, v0, config, gate=gate, need_v=need_v)


def _choose(name: BackendName, x_seq: Tensor, config: LIFConfig) -> fused.Kernel:
    if name == "torch" or (name == "auto" and _numba_problem() is not None):
        return _TORCH
    _check_installed(name)
    kernel = _numba_kernel()
    problem = kernel.refuses(x_seq, config)
    if problem is None:
        return kernel
    if name == "auto":
        return _TORCH
    raise ValueError(f"backend 'numba' cannot run this input: {problem}; use backend='torch' or 'auto'")


def _check_installed(name: BackendName) -> None:
    if name not in get_args(BackendName):
        raise ValueError(f"backend is {name!r}; known backends are {', '.join(get_args(BackendName))}")
    if name == "numba" and (problem := _numba_problem()) is not None:
        raise RuntimeError(f"backend 'numba' cannot run here: {problem}")


@cache
def _numba_problem() -> str | None:
    """Return why numba cannot be used, or None; the first call imports it."""
    try:
        importlib.import_module("tcvq_neurons.backends.numba")
    except ImportError as error:
        return f'numba cannot be imported ({error}); pip install "tcvq-neurons[cpu]"'
    return None


@cache
def _numba_kernel() -> fused.Kernel:
    return importlib.import_module("tcvq_neurons.backends.numba").NumbaKernel()
