"""Which implementation runs: the readable reference, in-place torch, compiled CPU or CUDA kernels, and why."""

import importlib
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, get_args

from torch import Tensor

from tcvq_neurons.backends.fused import Kernel
from tcvq_neurons.backends.torch import TorchKernel
from tcvq_neurons.config import LIFConfig

BackendName = Literal["auto", "reference", "torch", "numba", "cupy"]

_NAMES: Final = get_args(BackendName)
_FASTEST: Final = {"cpu": "numba", "cuda": "cupy"}
_SETTINGS: dict[str, BackendName] = {"default": "auto"}


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendStatus:
    """What is known about one backend on this machine.

    Attributes:
        name: ``cupy``, ``numba``, ``torch`` or ``reference``.
        available: Whether it can run here.
        chosen_for: Types of devices, ``cpu`` and ``cuda``, for whose float32 tensors ``backend="auto"`` takes it.
        reason: What it is, or why it is not taken, in one sentence.
    """

    name: str
    available: bool
    chosen_for: tuple[str, ...]
    reason: str

    @property
    def chosen(self) -> bool:
        """Whether ``backend="auto"`` takes it on any device."""
        return bool(self.chosen_for)


def backends() -> list[BackendStatus]:
    """Return the status of every backend, fastest first."""
    texts = {
        "cupy": "fused CUDA kernels for float32, bfloat16 and float16",
        "numba": "compiled CPU kernels for float32, bfloat16 and float16",
        "torch": "fused in-place operations for every device and dtype; needs only torch",
        "reference": "the readable definition of the neuron; only on request",
    }
    return [_status(name, text) for name, text in texts.items()]


def _status(name: str, text: str) -> BackendStatus:
    default, problem = _SETTINGS["default"], _problem(name)
    chosen_for = tuple(device for device in _FASTEST if name == _chosen(device))
    if problem is None and not chosen_for and default != "auto":
        problem = f"set_default_backend({default!r}) is in force"
        return BackendStatus(name=name, available=True, chosen_for=(), reason=problem)
    return BackendStatus(name=name, available=problem is None, chosen_for=chosen_for, reason=problem or text)


def _chosen(device: str) -> str | None:
    default, fastest = _SETTINGS["default"], _FASTEST[device]
    if default == "auto":
        return fastest if _problem(fastest) is None else "torch"
    return default if default in {fastest, "torch", "reference"} else None


def set_default_backend(name: BackendName) -> BackendName:
    """Make ``backend="auto"`` mean ``name`` in this process, and return what it meant before.

    Args:
        name: ``reference``, ``torch``, ``numba``, ``cupy``, or ``auto`` for the fastest that can run each tensor.

    Raises:
        ValueError: If the name is unknown.
        RuntimeError: If the backend cannot run here; the message says how to get it.
    """
    _check_known(name)
    _check_runnable(name)
    previous, _SETTINGS["default"] = _SETTINGS["default"], name
    return previous


def resolve(backend: BackendName) -> BackendName:
    """Return the backend that is meant: the default in place of ``auto``.

    Raises:
        ValueError: If the name is unknown.
    """
    _check_known(backend)
    return _SETTINGS["default"] if backend == "auto" else backend


def choose(name: str, x_seq: Tensor, config: LIFConfig) -> Kernel:
    """Return the kernel that runs ``x_seq``: the one asked for, or for ``auto`` the fastest that can.

    Raises:
        ValueError: If the backend asked for cannot run this input.
        RuntimeError: If it cannot run here; the message says how to get it.
    """
    if name == "auto":
        kernel = _fastest(x_seq.device.type)
        return _kernel("torch") if kernel.refuses(x_seq, config) else kernel
    _check_runnable(name)
    kernel = _kernel(name)
    if problem := kernel.refuses(x_seq, config):
        raise ValueError(f"backend {name!r} cannot run this input: {problem}; use backend='torch' or 'auto'")
    return kernel


def fuses_norm(backend: BackendName) -> bool:
    """Return whether ``backend`` means the compiled CPU kernels here, of which group norm may become a part."""
    return resolve(backend) in ("auto", "numba") and _problem("numba") is None


def _fastest(device: str) -> Kernel:
    name = _FASTEST.get(device, "torch")
    if (problem := _problem(name)) is None:
        return _kernel(name)
    if device == "cuda":
        _warn_of_slow_cuda(problem)
    return _kernel("torch")


def _check_known(name: str) -> None:
    if name not in _NAMES:
        raise ValueError(f"backend is {name!r}; known backends are {', '.join(_NAMES)}")


def _check_runnable(name: str) -> None:
    if (problem := _problem(name)) is not None:
        raise RuntimeError(f"backend {name!r} cannot run here: {problem}")


def _problem(name: str) -> str | None:
    """Return why a backend cannot run on this machine, or None."""
    if name == "numba":
        return _numba_problem()
    return _cupy_problem() if name == "cupy" else None


@cache
def _numba_problem() -> str | None:
    """Return why numba cannot be used, or None; the first call imports it."""
    try:
        importlib.import_module("tcvq_neurons.backends.numba")
    except ImportError as error:
        return f'numba cannot be imported ({error}); pip install "tcvq-neurons[cpu]"'
    return None


@cache
def _cupy_problem() -> str | None:
    """Return why CuPy cannot be used, or None; the first call imports it."""
    try:
        problem: str | None = importlib.import_module("tcvq_neurons.backends.cupy").CupyKernel().problem()
    except ImportError as error:
        return f'CuPy cannot be imported ({error}); pip install "tcvq-neurons[cuda12]" or "tcvq-neurons[cuda13]"'
    return problem


@cache
def _warn_of_slow_cuda(problem: str) -> None:
    warnings.warn(
        f"neurons on CUDA run as torch operations, several times slower than the CUDA kernels of backend 'cupy': "
        f"{problem}. backend='torch' or set_default_backend('torch') asks for that without this warning",
        RuntimeWarning,
        stacklevel=2,
    )


@cache
def _kernel(name: str) -> Kernel:
    if name == "torch":
        return TorchKernel()
    module = importlib.import_module(f"tcvq_neurons.backends.{name}")
    return getattr(module, f"{name.capitalize()}Kernel")()
