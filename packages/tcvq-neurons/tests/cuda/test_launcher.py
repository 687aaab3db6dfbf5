"""How the CUDA backend launches: devices, streams, modules, alignment and lifetimes, on a pretended GPU."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch

from tcvq_neurons.backends import cupy_module
from tcvq_neurons.backends.cuda_source import Target, compiler_target, vector_width
from tcvq_neurons.backends.cupy import CupyKernel
from tcvq_neurons.config import LIFConfig
from tcvq_neurons.surrogate import QuadraticGate, Sigmoid

from .conftest import OnDevice
from .fake_cupy import Machine, pack
from .oracle import actual, assert_equal, currents, inputs


def test_arguments_are_packed_as_cupy_packs_them():
    assert bytes(pack(3)) == (3).to_bytes(8, "little")  # pointers are Python integers
    assert bytes(pack(np.int64(3))) == (3).to_bytes(8, "little")
    assert bytes(pack(np.float32(0.5))) == np.float32(0.5).tobytes()
    assert len(bytes(pack(0.5))) == 8  # a double: not what a float parameter reads
    with pytest.raises(TypeError, match="Unsupported type"):
        pack(torch.zeros(1))


def test_scalars_have_the_types_that_the_kernels_declare(simulated, machine):
    actual(simulated, inputs(4, 8), LIFConfig(), gate=True)
    forward, backward = machine.launches
    pointer, distance, number = int, np.int64, np.float32
    assert [type(value) for value in forward.arguments] == [
        *(pointer, distance, pointer, pointer, pointer, pointer, number, number, distance)
    ]
    assert [type(value) for value in backward.arguments] == [
        *(pointer, distance, pointer, pointer, distance, pointer, pointer, pointer),
        *(number, number, number, number, number, distance),
    ]
    assert backward.arguments[8:13] == (2.0, 0.5, 2.0, 4.0, 0.5)  # tau, threshold, and the surrogate's constants


def test_launches_run_on_the_device_and_the_current_stream_of_torch(simulated, machine):
    given = inputs(4, 8)
    for machine.current_stream in (7, 8):
        actual(simulated, given, LIFConfig(), gate=False)
    assert [launch.stream for launch in machine.launches] == [7, 7, 8, 8]
    assert {launch.device for launch in machine.launches} == {given.x.device}
    assert machine.devices == machine.streams == []


def test_streams_work_without_the_newer_protocol(library, monkeypatch):
    machine = Machine(library)
    machine.install(monkeypatch, from_external=False)
    assert_equal(OnDevice("cpu"), inputs(2, 8), LIFConfig(), gate=False)
    assert {launch.stream for launch in machine.launches} == {7}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n_steps", "n_site"), [(4, 4096), (8, 4096), (16, 4096), (1, 20_000), (4, 4097)])
def test_grid_covers_the_neurons_and_no_more_than_the_device_holds(simulated, machine, dtype, n_steps, n_site):
    simulated.forward(currents(n_steps, n_site, dtype=dtype), None, LIFConfig(), gate=False, need_v=False)
    width = vector_width(dtype, n_steps) if n_site % 8 == 0 else 1
    (launch,) = machine.launches
    assert int(launch.macros["WIDTH"]) == width
    assert launch.grid == min(-(-n_site // (width * 256)), 8 * machine.n_multiprocessors)


def test_registers_bound_the_width_and_16_bytes_the_load():
    assert [vector_width(torch.float32, n) for n in (1, 4, 8, 16)] == [4, 4, 4, 4]
    assert [vector_width(torch.float16, n) for n in (1, 4, 8, 9, 16)] == [8, 8, 8, 4, 4]
    assert vector_width(torch.bfloat16, 8) == 8


def widths(machine):
    return [int(launch.macros["WIDTH"]) for launch in machine.launches]


def shifted(tensor, by=1):
    """Return a copy whose memory starts ``by`` values after a boundary."""
    return torch.cat([torch.zeros(by, dtype=tensor.dtype), tensor.reshape(-1)])[by:].view(tensor.shape)


@pytest.mark.parametrize("name", ["x", "v0", "grad_y", "grad_v"])
def test_one_tensor_off_a_boundary_makes_the_kernels_that_read_it_narrow(simulated, machine, name):
    given = inputs(4, 64)
    assert_equal(simulated, given, LIFConfig(), gate=True)
    assert widths(machine) == [4, 4]
    machine.launches.clear()
    assert_equal(simulated, given._replace(**{name: shifted(getattr(given, name))}), LIFConfig(), gate=True)
    assert widths(machine) == ([1, 1] if name in {"x", "v0"} else [4, 1])


def test_distance_between_steps_that_is_no_multiple_of_the_width_makes_kernels_narrow(simulated, machine):
    x = currents(4 * 66).as_strided((4, 64), (66, 1))
    assert_equal(simulated, inputs(4, 64)._replace(x=x), LIFConfig(), gate=True)
    assert widths(machine) == [1, 1]
    machine.launches.clear()
    one = inputs(1, 64)
    assert_equal(simulated, one._replace(x=one.x.as_strided((1, 64), (66, 1))), LIFConfig(), gate=True)
    assert widths(machine) == [4, 4]  # a single step has no distance


def test_nothing_is_launched_or_compiled_without_neurons(simulated, machine):
    for given in (inputs(4, 0), inputs(17, 3, 0, 2)):
        assert_equal(simulated, given, LIFConfig(), gate=True)
    assert machine.launches == machine.compilations == []


def test_current_that_is_the_same_at_every_step_is_read_in_place(simulated, machine):
    x = currents(1, 64).expand(6, 64)
    simulated.forward(x, None, LIFConfig(), gate=False, need_v=False)
    pointer, distance, *_ = machine.launches[0].arguments
    assert (pointer, distance) == (x.data_ptr(), 0)


def test_long_sequences_run_in_chunks_that_hand_the_membrane_on(simulated, machine):
    assert_equal(simulated, inputs(40, 64), LIFConfig(), gate=True)
    steps = [(launch.kernel, int(launch.macros["N_STEPS"])) for launch in machine.launches]
    forward, again = [("lif_forward", n) for n in (16, 16, 8)], [("lif_forward", 16)] * 2
    assert steps == [*forward, *again, *(("lif_backward", n) for n in (8, 16, 16))]
    for before, after in pairwise(machine.launches[:3]):
        assert before.arguments[4] == after.arguments[2]  # v_last is the next v0
    for before, after in pairwise(machine.launches[5:]):
        assert before.arguments[7] == after.arguments[5]  # grad_v0 is the next grad_v
    assert [launch.macros["FROM_REST"] for launch in machine.launches] == ["0"] * 8


def test_inputs_are_never_written(simulated):
    for n_steps in (4, 33):
        given = inputs(n_steps, 64)
        copies = [each.clone() for each in given]
        actual(simulated, given, LIFConfig(), gate=True)
        assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_memory_of_every_pointer_is_alive_at_the_launch(simulated, machine, monkeypatch):
    seen, alive, data_ptr = {}, [], torch.Tensor.data_ptr

    def spy(tensor):
        seen[data_ptr(tensor)] = weakref.ref(tensor)
        return data_ptr(tensor)

    def look():
        gc.collect()
        pointers = [value for value in machine.launches[-1].arguments if isinstance(value, int) and value]
        alive.extend(seen[pointer]() is not None for pointer in pointers)

    monkeypatch.setattr(torch.Tensor, "data_ptr", spy)
    machine.before_launch = look
    given = inputs(17, 64)._replace(grad_y=None, grad_v=None)
    simulated.backward(*given, LIFConfig(), gate=True)
    simulated.forward(given.x, None, LIFConfig(), gate=True, need_v=False)
    assert len(alive) > 10
    assert all(alive)


def test_module_is_compiled_once_for_what_its_code_depends_on(simulated, machine):
    x = currents(4, 64)

    def compilations(config, x=x, v0=None, gate=False):
        before = len(machine.compilations)
        for _ in range(2):
            actual(simulated, inputs(*x.shape, dtype=x.dtype)._replace(x=x, v0=v0), config, gate=gate)
        return len(machine.compilations) - before

    assert compilations(LIFConfig()) == 1
    assert compilations(LIFConfig(tau=3.0, v_threshold=0.7, surrogate=QuadraticGate(3.0))) == 0  # arguments
    assert compilations(LIFConfig(), currents(4, 128)) == 0
    assert compilations(LIFConfig(), currents(4, 61)) == 1
    assert compilations(LIFConfig(), currents(3, 64)) == 1
    assert compilations(LIFConfig(), x.half()) == 1
    assert compilations(LIFConfig(), v0=torch.zeros(64)) == 1
    assert compilations(LIFConfig(), gate=True) == 1
    for options in (
        {"reset": "soft"},
        {"decay_input": False},
        {"detach_reset": False},
        {"fire_at_threshold": True},
        {"surrogate": Sigmoid()},
    ):
        assert compilations(LIFConfig(**options)) == 1


def test_every_device_gets_its_own_module(simulated, machine):
    variant = vars(cupy_module)["Variant"](4, 1, torch.float32, "hard", True, True, False, False, True, "u")
    first, second = cupy_module.load(0, variant), cupy_module.load(1, variant)
    assert first is not second
    assert first is cupy_module.load(0, variant)
    assert len(machine.compilations) == 1  # both devices are of one architecture


def test_compiler_is_told_to_be_exact(simulated, machine):
    actual(simulated, inputs(1, 8), LIFConfig(), gate=False)
    for options in machine.compilations:
        assert {"--fmad=false", "--ftz=false", "--prec-div=true", "-arch=sm_90"} < set(options)
        assert not any("fast" in option for option in options)


def test_device_newer_than_the_compiler_gets_ptx():
    assert compiler_target((9, 0), [75, 80, 90, 100]) == Target("sm_90", True)
    assert compiler_target((12, 1), [75, 120]) == Target("compute_120", False)
    assert compiler_target((7, 0), [75, 80]) is None


def test_warmup_loads_all_that_a_capture_will_launch(simulated, machine):
    given, config = inputs(17, 64, with_v0=False), LIFConfig()
    simulated.warmup(given.x.device, 17, torch.float32, config, gate=True)
    machine.capturing = True
    assert_equal(simulated, given, config, gate=True)
    assert_equal(simulated, inputs(17, 61, with_v0=False), config, gate=True)
    with pytest.raises(RuntimeError, match=r"run the same call once before the capture, or CupyKernel\(\)\.warmup"):
        actual(simulated, given, config, gate=False)


def test_warmup_of_what_cannot_run_is_an_error(simulated):
    with pytest.raises(ValueError, match=r"dtype is torch\.float64"):
        simulated.warmup(torch.device("cuda", 0), 4, torch.float64, LIFConfig(), gate=False)


def test_what_the_kernels_cannot_run_is_refused_with_a_reason(simulated):
    class Mine(QuadraticGate):
        pass

    assert "not on a CUDA device" in simulated.refuses(torch.zeros(1, 2), LIFConfig())
    refuses = simulated.refuses_options
    assert refuses(torch.float32, LIFConfig()) is None
    assert "float64" in refuses(torch.float64, LIFConfig())
    assert "no compiled form" in refuses(torch.float32, LIFConfig(surrogate=Mine()))
    assert "no compiled form" in refuses(torch.float32, LIFConfig(surrogate=torch.ones_like))


def test_source_that_does_not_compile_shows_the_compilers_words(simulated, machine):
    variant = cupy_module.Variant(4, 1, torch.float32, "hard", True, True, False, False, True, "error")
    with pytest.raises(RuntimeError, match=r"sm_90: lif\.cu\(1\): error: no such thing"):
        cupy_module.load(0, variant)


class TestProblem:
    """Why CuPy cannot run here."""

    @pytest.fixture(autouse=True)
    def _ready(self, machine, monkeypatch):
        monkeypatch.setattr(torch.version, "cuda", "13.2")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(cupy_module, "find_spec", lambda name: object())

    def test_nothing_is_wrong_where_all_is_there(self):
        assert CupyKernel().problem() is None

    def test_missing_cupy_says_which_extra_to_install(self, monkeypatch):
        monkeypatch.setattr(cupy_module, "find_spec", lambda name: None)
        assert 'pip install "tcvq-neurons[cuda13]"' in CupyKernel().problem()
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        assert 'pip install "tcvq-neurons[cuda12]"' in CupyKernel().problem()

    def test_missing_device_is_named(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "no CUDA device" in CupyKernel().problem()

    def test_torch_without_cuda_is_named(self, monkeypatch):
        monkeypatch.setattr(torch.version, "cuda", None)
        assert "without CUDA" in CupyKernel().problem()

    def test_old_cupy_is_refused(self, monkeypatch):
        import cupy

        monkeypatch.setattr(cupy, "__version__", "12.3.0")
        assert "12.3.0" in CupyKernel().problem()

    def test_library_that_does_not_load_is_named(self, monkeypatch):
        from cupy.cuda import nvrtc

        def broken():
            raise RuntimeError("libnvrtc.so.13: cannot open shared object file")

        monkeypatch.setattr(nvrtc, "getSupportedArchs", broken)
        assert "libnvrtc.so.13" in CupyKernel().problem()

    def test_device_too_old_for_the_compiler_is_named(self, machine):
        machine.capability = (7, 0)
        assert "tcvq-neurons[cuda12]" in CupyKernel().problem()
