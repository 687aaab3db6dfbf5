"""The text and the options that turn `lif.cu` into one compiled module; knows nothing of CuPy."""

from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import Literal, NamedTuple

import numpy as np
import torch

from tcvq_neurons.config import LIFConfig, Reset
from tcvq_neurons.exponential import C_HELPERS
from tcvq_neurons.interface import CompiledSurrogate

CHUNK = 16  # steps of one launch: more would not leave registers for the membrane of each
SCALARS = {torch.float32: "float", torch.float16: "Half", torch.bfloat16: "Bfloat16"}
# Bit for bit means: no contraction to FMA, no flushing of denormals, IEEE division.
EXACT = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
Trace = Literal["nothing", "before_reset", "after_reset"]


class Variant(NamedTuple):
    """What one compiled module is specialised for.

    Attributes:
        n_steps: Steps of one launch, at most `CHUNK`.
        width: Neurons of one thread, read and written together.
        dtype: Of the input, the output and their gradients in memory.
        reset: As in `LIFConfig`, like the three after it.
        decay_input: See `LIFConfig`.
        detach_reset: See `LIFConfig`.
        fire_at_threshold: See `LIFConfig`.
        gate: Return ``x * s`` instead of ``s``.
        from_rest: Start at 0 and read no initial membrane.
        surrogate: C expression of the surrogate in ``u, k0, k1, k2``.
        trace: What the forward records of each step: nothing, the membrane before the reset, or after it.
    """

    n_steps: int
    width: int
    dtype: torch.dtype
    reset: Reset
    decay_input: bool
    detach_reset: bool
    fire_at_threshold: bool
    gate: bool
    from_rest: bool
    surrogate: str
    trace: Trace = "nothing"

    def macros(self) -> dict[str, str]:
        """Return the macros that `lif.cu` asks for."""
        return {
            "N_STEPS": str(self.n_steps),
            "WIDTH": str(self.width),
            "SCALAR": SCALARS[self.dtype],
            "RESET": self.reset.upper(),
            "DECAY_INPUT": str(int(self.decay_input)),
            "DETACH_RESET": str(int(self.detach_reset)),
            "FIRE_AT_THRESHOLD": str(int(self.fire_at_threshold)),
            "GATE": str(int(self.gate)),
            "FROM_REST": str(int(self.from_rest)),
            "TRACE": self.trace.upper(),
        }

    def options(self) -> tuple[str, ...]:
        """Return the compiler's options, the architecture excepted."""
        return (*EXACT, *(f"-D{name}={value}" for name, value in self.macros().items()))

    def source(self) -> str:
        """Return the text to compile."""
        return prelude(self.surrogate) + kernels()


@lru_cache(maxsize=256)
def make_variant(config: LIFConfig, gate: bool, n_steps: int, dtype: torch.dtype, from_rest: bool) -> Variant:
    """Return the variant for these options, of width 1 and without a trace; see `Variant`."""
    return Variant(
        n_steps=n_steps,
        width=1,
        dtype=dtype,
        reset=config.reset,
        decay_input=bool(config.decay_input),
        detach_reset=bool(config.detach_reset),
        fire_at_threshold=bool(config.fire_at_threshold),
        gate=gate,
        from_rest=from_rest,
        surrogate=_compiled(config).c_expression,
    )


@lru_cache(maxsize=256)
def constants(config: LIFConfig) -> tuple[np.float32, ...]:
    """Return tau, threshold and the three constants of the surrogate, as the kernels take them."""
    k0, k1, k2 = (*_compiled(config).constants(), 0.0, 0.0)[:3]
    return tuple(np.float32(value) for value in (config.tau, config.v_threshold, k0, k1, k2))


def _compiled(config: LIFConfig) -> CompiledSurrogate:
    assert isinstance(config.surrogate, CompiledSurrogate)
    return config.surrogate


def prelude(expression: str) -> str:
    """Return what stands before `lif.cu`: the functions a surrogate may call, and the surrogate."""
    function = "__device__ __forceinline__ float tcvq_surrogate(float u, float k0, float k1, float k2)"
    return f'{C_HELPERS}\n{function} {{\n    return {expression};\n}}\n#line 1 "lif.cu"\n'


@cache
def kernels() -> str:
    """Return the text of `lif.cu`."""
    return (files("tcvq_neurons.backends") / "lif.cu").read_text(encoding="utf-8")


def vector_width(dtype: torch.dtype, n_steps: int) -> int:
    """Return how many neurons a thread can take: 16 bytes of input, while their membranes fit the registers.

    With at most 64 floats of membrane (steps times width) nothing spills on sm_80 and sm_90.
    """
    widest = 16 // dtype.itemsize
    return widest if n_steps * widest <= 64 else 4


def chunks(n_steps: int) -> Iterator[tuple[int, int]]:
    """Yield first step and number of steps of each launch of a sequence."""
    for start in range(0, n_steps, CHUNK):
        yield start, min(CHUNK, n_steps - start)


class Target(NamedTuple):
    """What NVRTC can make for a device.

    Attributes:
        name: Architecture, such as ``sm_90``, or ``compute_120`` for a device newer than NVRTC.
        is_exact: Whether it is the device's own, so that machine code can be made; else PTX, which the driver finishes.
    """

    name: str
    is_exact: bool


def compiler_target(capability: tuple[int, int], supported: Iterable[int]) -> Target | None:
    """Return what NVRTC can make for a device, or None if it is too old.

    Args:
        capability: Compute capability of the device.
        supported: Architectures that this NVRTC knows, such as 90 for sm_90.
    """
    wanted = 10 * capability[0] + capability[1]
    newest = max((arch for arch in supported if arch <= wanted), default=None)
    if newest is None:
        return None
    return Target(f"sm_{wanted}", True) if newest == wanted else Target(f"compute_{newest}", False)
