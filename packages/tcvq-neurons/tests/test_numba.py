"""The numba backend: threads, forks, its cache on disk, and the rounding of bfloat16."""

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from tcvq_neurons import LIF, QuadraticGate, lif, lif_gate
from tcvq_neurons.surrogate import ATan


def currents(*shape):
    return torch.randn(shape) * 1.5


def big():
    """Enough neurons to be split over threads, with a ragged end."""
    return currents(4, 70_001)


def test_number_of_threads_changes_nothing(numba_backend):
    x = big()
    torch.set_num_threads(1)
    one = lif_gate(x, backend="numba")
    torch.set_num_threads(3)
    three = lif_gate(x, backend="numba")
    assert torch.equal(one.s_seq, three.s_seq)
    assert torch.equal(one.v, three.v)
    assert any(thread.name.startswith("tcvq-neurons") for thread in threading.enumerate())


def test_calls_from_several_threads_at_once(numba_backend):
    torch.set_num_threads(2)
    x = big()
    expected, results = lif(x, backend="numba").s_seq, []
    threads = [threading.Thread(target=lambda: results.append(lif(x, backend="numba").s_seq)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)


def _in_child(x, expected, queue):
    torch.set_num_threads(2)
    queue.put(bool((LIF(backend="numba")(x).numpy() == expected).all()))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tested
def test_forked_child_can_run_after_its_parent_used_threads(numba_backend):
    torch.set_num_threads(2)
    x = big()
    expected = LIF(backend="numba")(x).numpy()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(x, expected, queue))
    child.start()
    assert queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0


def test_bfloat16_rounding_equals_torch_on_a_million_bit_patterns(numba_backend):
    from numba import njit

    from tcvq_neurons.backends import numba_kernels

    round_, widen = numba_kernels._round, numba_kernels._widen

    @njit
    def convert(values, stored, widened):
        for i in range(values.size):
            stored[i] = round_(values[i], stored[i])
            widened[i] = widen(stored[i])

    bits = np.random.default_rng(0).integers(0, 2**32, 1 << 20, dtype=np.uint32)
    bits[:4] = (0x7F7FFFFF, 0x7FFFFFFF, 0x3F808000, 0x3F818000)  # overflow to inf, a NaN, two ties
    values = bits.view(np.float32)
    stored, widened = np.empty(bits.size, np.uint16), np.empty(bits.size, np.float32)
    convert(values, stored, widened)
    expected = torch.from_numpy(values).bfloat16()
    torch.testing.assert_close(torch.from_numpy(stored).view(torch.bfloat16), expected, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(torch.from_numpy(widened), expected.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("surrogate", [QuadraticGate(), ATan()])
def test_compiled_kernels_are_found_again_on_disk(numba_backend, monkeypatch, surrogate):
    from tcvq_neurons.backends import numba, numba_kernels

    x = currents(2, 3).requires_grad_()
    for name in ("forward", "backward"):
        monkeypatch.setattr(numba, name, numba_kernels._jit(getattr(numba_kernels, name).py_func))
        lif(x, backend="numba", surrogate=surrogate).s_seq.sum().backward()  # compiles, if nobody did
        again = numba_kernels._jit(getattr(numba_kernels, name).py_func)  # knows only what the disk holds
        monkeypatch.setattr(numba, name, again)
        lif(x, backend="numba", surrogate=surrogate).s_seq.sum().backward()
        assert sum(again.stats.cache_hits.values()) == 1
        assert not again.stats.cache_misses


def test_kernels_compile_where_nothing_can_be_cached(numba_backend):
    from tcvq_neurons.backends import numba_kernels

    scope = {}
    exec("def double(x):\n    return 2 * x", scope)  # code without a file has no place for a cache
    assert numba_kernels._jit(scope["double"])(21) == 42
