"""`lif.cu` itself, run on the CPU: equal to the reference bit for bit."""

import itertools

import pytest
import torch

from tcvq_neurons import dynamics
from tcvq_neurons.backends.cuda_source import SCALARS, make_variant, vector_width
from tcvq_neurons.backends.cupy import Traced
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.surrogate import SURROGATES

from .conftest import OnDevice
from .fake_cupy import Machine
from .oracle import Inputs, assert_equal, currents, inputs
from .shim import EXPRESSIONS, ShippedLibrary, build, unit

BOOLS = (True, False)
RESETS = ("hard", "soft", "none")
SLOPES = [surrogate() for surrogate in SURROGATES.values() if surrogate.c_expression in EXPRESSIONS]
OPTIONS = [
    {"reset": reset, "decay_input": decay, "detach_reset": detach, "fire_at_threshold": at}
    for reset, decay, detach, at in itertools.product(RESETS, BOOLS, BOOLS, BOOLS)
]
STATES = list(itertools.product(BOOLS, BOOLS))  # v0 given, grad_v given


@pytest.mark.parametrize("gate", BOOLS, ids=["gate", "lif"])
@pytest.mark.parametrize("surrogate", SLOPES, ids=lambda surrogate: type(surrogate).__name__)
def test_every_option_with_every_surrogate_equals_the_reference(kernel, surrogate, gate):
    for options in OPTIONS:
        config = LIFConfig(surrogate=surrogate, tau=2.0 if gate else 1.7, **options)
        assert_equal(kernel, inputs(4, 97), config, gate=gate)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 6, 8, 16, 17, 32])
@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
def test_every_dtype_and_number_of_steps_equals_the_reference(kernel, dtype, n_steps):
    cases = itertools.product(OPTIONS, BOOLS)
    for (options, gate), surrogate, (v0, grad_v), n_site in zip(
        cases, itertools.cycle(SLOPES), itertools.cycle(STATES[::-1] + STATES[:1]), itertools.cycle((96, 41, 128))
    ):
        config = LIFConfig(surrogate=surrogate, tau=2.0 if gate else 3.0, **options)
        assert_equal(kernel, inputs(n_steps, n_site, dtype=dtype, with_v0=v0, with_grad_v=grad_v), config, gate=gate)


def layouts(dtype=torch.float32):
    """Sequences (4, 3, 4, 8, 2) whose steps lie in memory in different orders, or not densely, or not aligned."""
    base = currents(8, 3, 4, 8, 2, dtype=dtype)
    yield "channels_last", base[:4].flatten(0, 1).to(memory_format=torch.channels_last).view(4, 3, 4, 8, 2)
    yield "transposed", base[:4].mT.contiguous().mT
    yield "every other step", base[::2]
    yield "same at every step", base[:1].expand(4, 3, 4, 8, 2)
    yield "batch first", base[:4].transpose(0, 1).contiguous().transpose(0, 1)
    yield "gaps", base[:4, :, :, ::2].repeat_interleave(2, 3)[..., :8, :]
    yield "misaligned", currents(1 + base[:4].numel(), dtype=dtype)[1:].view(4, 3, 4, 8, 2)
    yield "overlapping steps", currents(300, dtype=dtype).as_strided((4, 3, 4, 8, 2), (9, 64, 16, 2, 1))


@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", [name for name, _ in layouts()])
def test_every_layout_equals_the_reference(kernel, name, dtype):
    x = dict(layouts(dtype))[name]
    v0, grad_v = currents(*x.shape[1:]), torch.randn(x.shape[:0:-1]).permute(3, 2, 1, 0)
    for grad_y in (
        torch.randn(x.shape),
        torch.randn(x.shape[::-1]).permute(4, 3, 2, 1, 0),
        torch.ones(()).expand(x.shape),
    ):
        given = Inputs(x, v0, grad_y.to(dtype), grad_v)
        assert_equal(kernel, given, LIFConfig(tau=1.7, detach_reset=False), gate=True)
    assert_equal(kernel, Inputs(x, None, x, None), LIFConfig(), gate=False)  # a gradient in the layout of the input


@pytest.mark.parametrize("n_steps", [1, 4, 17])
@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("n_site", [0, 1, 2, 7, 8, 255, 256, 257])
def test_every_number_of_neurons_equals_the_reference(kernel, n_site, dtype, n_steps):
    assert_equal(kernel, inputs(n_steps, n_site, dtype=dtype), LIFConfig(), gate=True)
    assert_equal(kernel, inputs(n_steps, dtype=dtype), LIFConfig(), gate=False)  # one neuron without axes


@pytest.mark.parametrize("n_site", [9001, 40_000], ids=["narrow", "wide"])
def test_order_of_the_threads_changes_nothing(simulated, machine, n_site):
    given = inputs(4, n_site)
    for machine.order in (0, 1, 2, 3):
        assert_equal(simulated, given, LIFConfig(tau=1.7), gate=True)
    assert {launch.grid for launch in machine.launches} == {8}  # threads go on to further neurons


@pytest.mark.parametrize("fire_at_threshold", BOOLS)
def test_membrane_exactly_at_the_threshold_fires_only_on_request(kernel, fire_at_threshold):
    given = inputs(1, 8, with_v0=False)._replace(x=torch.ones(1, 8))  # h = 1 / tau = 0.5 = v_threshold
    config = LIFConfig(fire_at_threshold=fire_at_threshold)
    assert_equal(kernel, given, config, gate=False)
    y, _ = kernel.forward(given.x.to(kernel.device), None, config, gate=False, need_v=False)
    assert torch.equal(y.cpu(), torch.full((1, 8), float(fire_at_threshold)))


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("gate", BOOLS, ids=["gate", "lif"])
@pytest.mark.parametrize("dtype", SCALARS, ids=lambda dtype: str(dtype)[6:])
def test_infinities_and_nans_spread_as_in_the_reference(kernel, dtype, gate, reset):
    for surrogate, n_site in itertools.product(SLOPES, (64, 61)):
        given = inputs(6, n_site)
        given.x[1, :8], given.x[2, 8:16], given.x[3, 16:24] = float("inf"), float("-inf"), float("nan")
        given.grad_y[4, :32:4] = float("inf")
        given.v0[40:44], given.grad_v[44:48] = float("inf"), float("nan")
        given = given._replace(x=given.x.to(dtype), grad_y=given.grad_y.to(dtype))
        for detach in BOOLS:
            config = LIFConfig(surrogate=surrogate, reset=reset, detach_reset=detach)
            assert_equal(kernel, given, config, gate=gate, equal_nan=True)


def test_numbers_below_the_normal_ones_are_kept(kernel):
    given = inputs(4, 64)
    given = given._replace(
        x=given.x * 1e-39, v0=given.v0 * 1e-39, grad_y=given.grad_y * 1e-39, grad_v=given.grad_v * 1e-39
    )
    assert_equal(kernel, given, LIFConfig(v_threshold=1e-39, tau=3.0), gate=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_widened_and_rounded_as_torch_does_it(kernel, dtype):
    config = LIFConfig(tau=1.0, reset="none")  # h = x in the forward, dL/dx = dL/dv in the backward
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)[None]
    _, v = kernel.forward(every.to(kernel.device), None, config, gate=False, need_v=True)
    torch.testing.assert_close(v.cpu(), every[0].float(), rtol=0, atol=0, equal_nan=True)
    ties = [65519.996, 65520.0, 2**-25, 3 * 2**-25, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, 3.39e38]
    patterns = torch.randint(-(2**31), 2**31, (200_000,)).to(torch.int32).view(torch.float32)
    grad_v = torch.cat([patterns, torch.tensor(ties)])
    zeros = torch.zeros(1, len(grad_v), dtype=dtype, device=kernel.device)
    grad_x, _ = kernel.backward(zeros, None, zeros, grad_v.to(kernel.device), config, gate=False)
    torch.testing.assert_close(grad_x[0].cpu(), grad_v.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("n_steps", [4, 33])
@pytest.mark.parametrize("with_v0", BOOLS)
def test_trace_records_the_membrane_of_every_step(kernel, n_steps, with_v0):
    given, config = inputs(n_steps, 24, with_v0=with_v0), LIFConfig(reset="soft", tau=3.0)
    x, v0, *_ = given.on(kernel.device)
    h, v = (Traced(*(t.cpu() for t in kernel.trace(x, v0, config, gate=False, of=of))) for of in "hv")
    steps = [dynamics.unroll(given.x[: t + 1], given.v0, config, gate=False) for t in range(n_steps)]
    assert torch.equal(v.trace, torch.stack([step.v for step in steps]))
    assert torch.equal(v.v, v.trace[-1])
    assert torch.equal(h.s_seq, (h.trace > 0.5).float())
    assert torch.equal(v.trace, h.trace - h.s_seq * 0.5)


def test_sources_compile_and_run_as_they_are_shipped(compiler, monkeypatch, tmp_path):
    """Options compiled in, each value of each several times, with exactly the text and the macros that NVRTC gets."""
    cases = []
    for i, (surrogate, options) in enumerate(zip(SLOPES * 4, OPTIONS, strict=True)):
        dtype, n_steps, gate = list(SCALARS)[i % 3], (1, 3, 4)[i // 2 % 3], i % 5 < 2
        with_v0 = i % 4 < 2
        n_site = 40 if i % 7 else 13
        cases.append((LIFConfig(surrogate=surrogate, **options), dtype, n_steps, gate, with_v0, n_site))
    units = {}
    for config, dtype, n_steps, gate, with_v0, n_site in cases:
        variant = make_variant(config, gate, n_steps, dtype, not with_v0)
        wide = vector_width(dtype, n_steps)
        variant = variant._replace(width=wide if n_site % wide == 0 else 1)
        units[variant] = unit(variant.macros(), variant.source())
    Machine(ShippedLibrary(build(units.values(), tmp_path / "shipped.so"))).install(monkeypatch)
    for config, dtype, n_steps, gate, with_v0, n_site in cases:
        assert_equal(OnDevice("cpu"), inputs(n_steps, n_site, dtype=dtype, with_v0=with_v0), config, gate=gate)
