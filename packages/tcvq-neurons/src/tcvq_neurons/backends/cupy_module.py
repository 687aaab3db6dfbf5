"""What the CUDA backend needs of CuPy: compiling `lif.cu`, loading it, and torch's streams; imported in functions only.

CuPy's own compilation is not used: its ``RawModule(code=...)`` always adds ``-ftz=true``, which flushes the subnormal
numbers that the reference keeps. NVRTC is called directly instead, and CuPy loads what it returns.
"""

import hashlib
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tcvq_neurons.backends.cuda_source import Variant, compiler_target

OLDEST_CUPY = 13


def cupy_stream(handle: int, index: int) -> Any:
    """Return a context in which CuPy launches on a stream of torch.

    Args:
        handle: The ``cudaStream_t``, as ``torch.cuda.Stream.cuda_stream`` gives it.
        index: Of the stream's device.
    """
    import cupy

    if not hasattr(cupy.cuda.Stream, "from_external"):  # before CuPy 14
        return cupy.cuda.ExternalStream(handle, index)
    return cupy.cuda.Stream.from_external(_Stream(handle))


class _Stream(NamedTuple):
    """A stream in the form that CUDA libraries exchange, which torch's own has only in its newer versions."""

    handle: int

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return the version of the protocol and the ``cudaStream_t``."""
        return 0, self.handle


@cache
def load(index: int, variant: Variant) -> dict[str, Any]:
    """Compile a variant for a device and load it there.

    Args:
        index: Of the device.
        variant: What to compile.

    Returns:
        ``lif_forward`` and ``lif_backward`` by name, each called with ``(grid,), (block,), arguments``.

    Raises:
        RuntimeError: If a CUDA graph is being captured, or NVRTC cannot compile the source.
    """
    import cupy

    with torch.cuda.device(index):
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "a CUDA graph is being captured, and its LIF kernel is not loaded yet; run the same call once before"
                " the capture, or CupyKernel().warmup(...)"
            )
        binary, suffix = _compile(variant, torch.cuda.get_device_capability(index))
        with tempfile.TemporaryDirectory(prefix="tcvq-") as folder:
            # CuPy remembers modules by path, so a path must never be used for two
            path = Path(folder) / (hashlib.sha256(binary).hexdigest() + suffix)
            path.write_bytes(binary)
            module = cupy.RawModule(path=str(path))
            return {name: module.get_function(name) for name in ("lif_forward", "lif_backward")}


@cache
def _compile(variant: Variant, capability: tuple[int, int]) -> tuple[bytes, str]:
    """Return machine code, or PTX for a device that NVRTC does not know yet, and the suffix of such a file."""
    from cupy.cuda import nvrtc

    target = compiler_target(capability, nvrtc.getSupportedArchs())
    assert target is not None
    program = nvrtc.createProgram(variant.source(), "lif.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*variant.options(), f"-arch={target.name}"))
        return (nvrtc.getCUBIN(program), ".cubin") if target.is_exact else (nvrtc.getPTX(program), ".ptx")
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"NVRTC cannot compile lif.cu for {target.name}: {nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)


@cache
def n_multiprocessors(index: int) -> int:
    """Return how many multiprocessors a device has."""
    return int(torch.cuda.get_device_properties(index).multi_processor_count)


def problem() -> str | None:
    """Return why CuPy cannot run on this machine, and how to get it, or None; imports it where it could run."""
    extra = f'pip install "tcvq-neurons[cuda{"12" if (torch.version.cuda or "").startswith("12") else "13"}]"'
    if torch.version.cuda is None:
        return "this torch is built without CUDA; install one that has it"
    if find_spec("cupy") is None:
        return f"CuPy is not installed; {extra}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device; nvidia-smi should list one"
    try:
        return _problem_of_cupy(extra)
    except Exception as error:  # a library that fails to load raises anything
        return f"CuPy does not work here ({error}); {extra}"


def _problem_of_cupy(extra: str) -> str | None:
    import cupy
    from cupy.cuda import nvrtc

    if int(cupy.__version__.split(".")[0]) < OLDEST_CUPY:
        return f"CuPy is {cupy.__version__}, and {OLDEST_CUPY} is the oldest that can be used; {extra}"
    supported, version = nvrtc.getSupportedArchs(), ".".join(map(str, nvrtc.getVersion()))
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        if compiler_target(capability, supported) is None:
            return (
                f"NVRTC {version} is too new for device {index}, of capability {capability}; use tcvq-neurons[cuda12]"
            )
    return None
