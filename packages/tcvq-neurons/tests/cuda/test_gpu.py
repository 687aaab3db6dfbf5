"""What only a real GPU can show: streams, graphs, devices, sizes; `test_kernels.py` runs there too."""

import threading

import pytest
import torch

from tcvq_neurons import LAUNCHES, lif, lif_gate
from tcvq_neurons.backends import cupy_module
from tcvq_neurons.backends.cuda_source import Target, make_variant
from tcvq_neurons.config import LIFConfig

from .conftest import OnDevice
from .oracle import Inputs, assert_equal, currents, expected, inputs

pytestmark = pytest.mark.gpu
GIB = 2**30


def on(device, *tensors):
    return [tensor.to(device).requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("neuron", [lif, lif_gate])
def test_auto_takes_the_cuda_kernels_and_equals_the_reference_on_the_cpu(gpu, neuron):
    given = inputs(4, 2, 3, 16, 16)
    x, v0 = on("cuda", given.x, given.v0)
    before = LAUNCHES.copy()
    out = neuron(x, v0)
    torch.autograd.backward(out, (given.grad_y.cuda(), given.grad_v.cuda()))
    assert LAUNCHES - before == {"cupy.forward": 1, "cupy.backward": 1}
    results = [each.cpu() for each in (*out, x.grad, v0.grad)]
    for a, e in zip(results, expected(given, LIFConfig(), gate=neuron is lif_gate), strict=True):
        assert torch.equal(a, e)


def test_work_on_a_side_stream_waits_for_what_was_queued_there(gpu):
    given = inputs(4, 1 << 20, with_v0=False)
    wanted = expected(given, LIFConfig(), gate=True)
    source, grad_y, grad_v = given.x.cuda(), given.grad_y.cuda(), given.grad_v.cuda()
    x = torch.full_like(source, float("nan")).requires_grad_()
    lif_gate(source)  # loaded before the race
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # about a tenth of a second: a launch on another stream would read the NaN
        x.data.copy_(source)
        out = lif_gate(x)
        torch.autograd.backward(out, (grad_y, grad_v))
        results = [each.cpu() for each in (*out, x.grad)]
    for a, e in zip(results, wanted, strict=True):
        assert torch.equal(a, e)


def test_memory_freed_after_the_call_is_not_reused_too_early(gpu):
    given = inputs(4, 1 << 20, with_v0=False, with_grad_v=False)
    wanted = expected(given, LIFConfig(), gate=True)
    torch.cuda._sleep(200_000_000)
    y = lif_gate(given.x.cuda()).s_seq  # its input dies while the kernel is still queued
    torch.full((4, 1 << 20), float("nan"), device="cuda")
    assert torch.equal(y.cpu(), wanted[0])


def test_calls_from_several_threads_at_once(gpu):
    given = inputs(4, 1 << 16)
    wanted, results = expected(given, LIFConfig(), gate=True), []

    def call():
        with torch.cuda.stream(torch.cuda.Stream()):
            x, v0 = on("cuda", given.x, given.v0)
            out = lif_gate(x, v0)
            torch.autograd.backward(out, (given.grad_y.cuda(), given.grad_v.cuda()))
            results.append([each.cpu() for each in (*out, x.grad, v0.grad)])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(a, e) for result in results for a, e in zip(result, wanted, strict=True))


@pytest.mark.parametrize("n_steps", [4, 20])
def test_captured_graph_replays_with_new_inputs(gpu, n_steps):
    config = LIFConfig(tau=3.0)
    first, second = (inputs(n_steps, 4096, with_v0=False) for _ in range(2))
    x, grad_y, grad_v = first.x.cuda(), first.grad_y.cuda(), first.grad_v.cuda()
    gpu.warmup(x.device, n_steps, x.dtype, config, gate=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, v = gpu.forward(x, None, config, gate=True, need_v=True)
        grad_x, _ = gpu.backward(x, None, grad_y, grad_v, config, gate=True)
    for given in (second, first):
        x.copy_(given.x)
        grad_y.copy_(given.grad_y)
        grad_v.copy_(given.grad_v)
        graph.replay()
        for a, e in zip((y, v, grad_x), expected(given, config, gate=True), strict=True):
            assert torch.equal(a.cpu(), e)


def test_capture_of_kernels_that_are_not_loaded_says_what_to_do(gpu):
    x, config = torch.zeros(5, 64, device="cuda"), LIFConfig(reset="none", fire_at_threshold=True)
    torch.cuda.synchronize()
    message = "run the same call once before the capture"
    with pytest.raises(RuntimeError, match=message), torch.cuda.graph(torch.cuda.CUDAGraph()):
        gpu.forward(x, None, config, gate=False, need_v=False)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device or none; two are needed")
def test_second_device_is_used_while_the_first_is_current(gpu):
    for index in (1, 0, 1):
        assert_equal(OnDevice(f"cuda:{index}"), inputs(17, 4096), LIFConfig(), gate=True)
        assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("odd", [0, 1], ids=["wide", "narrow"])
def test_more_elements_than_32_bits_can_count(gpu, odd):
    """Two steps of 2^30 neurons and some more, 2^31 values: the ends, and the places where 32 bits would wrap."""
    if torch.cuda.mem_get_info()[0] < 40 * GIB:
        pytest.skip("less than 40 GiB of free device memory")
    n_site, n_checked = 2**30 + 4096 + odd, 4096
    x = torch.empty(2, n_site, dtype=torch.bfloat16, device="cuda").normal_(std=1.5)
    grad_y = torch.empty_like(x).normal_()
    y, v = gpu.forward(x, None, LIFConfig(), gate=True, need_v=True)
    grad_x, _ = gpu.backward(x, None, grad_y, None, LIFConfig(), gate=True)
    for start in (0, 2**29 - 2048, 2**30 - 2048, n_site - n_checked):
        part = (slice(None), slice(start, start + n_checked))
        given = Inputs(x[part].cpu(), None, grad_y[part].cpu(), None)
        for a, e in zip((y[part], v[part[1]], grad_x[part]), expected(given, LIFConfig(), gate=True), strict=True):
            assert torch.equal(a.cpu(), e)


def test_device_newer_than_the_compiler_runs_its_ptx(gpu, monkeypatch):
    major, minor = torch.cuda.get_device_capability(0)
    monkeypatch.setattr(cupy_module, "compiler_target", lambda *_: Target(f"compute_{major}{minor}", False))
    for cached in (cupy_module.load, cupy_module._compile):
        cached.cache_clear()
    assert_equal(gpu, inputs(4, 4096), LIFConfig(), gate=True)
    for cached in (cupy_module.load, cupy_module._compile):
        cached.cache_clear()


def test_kernels_use_no_memory_but_registers_and_allocate_nothing_through_cupy(gpu):
    import cupy

    x = currents(8, 1 << 16).cuda()
    gpu.forward(x, None, LIFConfig(), gate=True, need_v=True)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        gpu.warmup(x.device, 8, dtype, LIFConfig(), gate=True)
        loaded = cupy_module.load(0, make_variant(LIFConfig(), True, 8, dtype, True))
        assert [kernel.local_size_bytes for kernel in loaded.values()] == [0, 0]
    assert cupy.get_default_memory_pool().used_bytes() == 0


def test_call_does_not_wait_for_the_device(gpu):
    x = currents(4, 4096).cuda().requires_grad_()
    lif_gate(x).s_seq.sum().backward()
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # about a second
    event = torch.cuda.Event()
    event.record()
    lif_gate(x).s_seq.backward(torch.ones_like(x))
    assert not event.query()  # both passes were queued while the device was still busy
