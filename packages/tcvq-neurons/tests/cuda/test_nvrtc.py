"""`lif.cu` compiled by NVRTC for every architecture, without a GPU: what the PTX and the assembler's log must say."""

import itertools
import re
from typing import NamedTuple

import pytest
import torch

from tcvq_neurons.backends.cuda_source import CHUNK, SCALARS, make_variant, vector_width
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.surrogate import SURROGATES

from .shim import EXPRESSIONS

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SLOPES = [surrogate() for surrogate in SURROGATES.values() if surrogate.c_expression in EXPRESSIONS]
BOOLS = (True, False)
MATRIX = [(a, n) for a in ARCHITECTURES for n in ((1, 4, 8, CHUNK) if a in (75, 90) else (CHUNK,))]  # most registers


class Compiled(NamedTuple):
    ptx: str
    log: str


def _with_cuda_bindings():
    """Return a compiler that uses the bindings which torch brings with it on Linux."""
    from cuda.bindings import nvrtc

    def check(result, *values):
        assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS, result
        return values[0] if values else None

    def text(size, get, program):
        buffer = b" " * check(*size(program))
        check(*get(program, buffer))
        return buffer.rstrip(b"\0").decode()

    def compile_source(source, options):
        program = check(*nvrtc.nvrtcCreateProgram(source.encode(), b"lif.cu", 0, [], []))
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        assert result == nvrtc.nvrtcResult.NVRTC_SUCCESS, log
        compiled = Compiled(text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program), log)
        check(*nvrtc.nvrtcDestroyProgram(program))
        return compiled

    check(*nvrtc.nvrtcVersion())
    return compile_source


def _with_cupy():
    """Return a compiler that uses CuPy's bindings, as the package does."""
    from cupy.cuda import nvrtc

    def compile_source(source, options):
        program = nvrtc.createProgram(source, "lif.cu", (), ())
        try:
            nvrtc.compileProgram(program, options)
            return Compiled(nvrtc.getPTX(program).decode(), nvrtc.getProgramLog(program))
        finally:
            nvrtc.destroyProgram(program)

    nvrtc.getVersion()
    return compile_source


@pytest.fixture(scope="module")
def nvrtc():
    """Compile with NVRTC, or skip where it is not installed."""
    problems = []
    for find in (_with_cuda_bindings, _with_cupy):
        try:
            return find()
        except Exception as error:  # a library that does not load raises anything
            problems.append(f"{find.__name__[6:]}: {error}")
    pytest.skip(f"no NVRTC ({'; '.join(problems)}); pip install cuda-bindings nvidia-cuda-nvrtc")


def check(nvrtc, architecture, *, dtype, n_steps, gate, config=None, from_rest=True, wide=True):
    """Compile one variant; check exactness, loads and registers."""
    config = LIFConfig() if config is None else config
    width = vector_width(dtype, n_steps) if wide else 1
    variant = make_variant(config, gate, n_steps, dtype, from_rest)._replace(width=width)
    ptx, log = nvrtc(variant.source(), (*variant.options(), f"-arch=sm_{architecture}", "--ptxas-options=-v"))
    assert ptx.count(".visible .entry") == 2
    assert "fma.rn.f32" not in ptx
    assert ".ftz" not in ptx
    assert "div.rn.f32" in ptx
    assert not re.search(r"div\.(approx|full)|rcp\.approx|sqrt", ptx)
    assert "__local_depot" not in ptx
    if wide:
        loads = set(re.findall(r"ld\.global\.nc\.(v\d\.\w)\d+", ptx))
        assert loads <= {"v4.f", "v4.u", "v4.b", "v2.u", "v2.b"}
        assert loads, "no vector loads through the read-only cache"
        assert not re.search(r"(ld|st)\.global(\.nc)?\.[fub]\d", ptx), "a load or store of a single value"
    assert re.findall(r"(\d+) bytes spill stores", log) == ["0", "0"], f"{variant}\n{log}"
    assert all(int(registers) <= 255 for registers in re.findall(r"Used (\d+) registers", log))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_compiles(nvrtc, architecture):
    check(nvrtc, architecture, dtype=torch.bfloat16, n_steps=1, gate=True)


@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("architecture", [80, 90])
def test_four_steps_are_exact_and_stay_in_registers(nvrtc, architecture, dtype):
    check(nvrtc, architecture, dtype=dtype, n_steps=4, gate=True)


@pytest.mark.parametrize("surrogate", SLOPES, ids=lambda surrogate: type(surrogate).__name__)
def test_every_surrogate_is_exact(nvrtc, surrogate):
    config = LIFConfig(surrogate=surrogate, reset="soft", detach_reset=False, decay_input=False)
    check(nvrtc, 90, dtype=torch.float32, n_steps=2, gate=False, config=config, from_rest=False)


def test_default_options_of_the_compiler_would_contract(nvrtc):
    variant = make_variant(LIFConfig(), False, 1, torch.float32, True)
    options = tuple(option for option in variant.options() if not option.startswith("--fmad"))
    assert "fma.rn.f32" in nvrtc(variant.source(), (*options, "-arch=sm_80")).ptx


@pytest.mark.parametrize("n_steps", [1, 4, CHUNK])
@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("architecture", [75, 90])
def test_lengths_and_dtypes_are_exact_and_stay_in_registers(nvrtc, architecture, dtype, n_steps):
    check(nvrtc, architecture, dtype=dtype, n_steps=n_steps, gate=n_steps != 4, from_rest=False)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "n_steps"), MATRIX)
@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
def test_whole_matrix_is_exact_and_stays_in_registers(nvrtc, architecture, dtype, n_steps):
    kinds = itertools.product(BOOLS, BOOLS) if architecture == 90 else [(True, False)]  # that one needs most registers
    for (gate, from_rest), wide in itertools.product(kinds, BOOLS):
        check(nvrtc, architecture, dtype=dtype, n_steps=n_steps, gate=gate, from_rest=from_rest, wide=wide)
