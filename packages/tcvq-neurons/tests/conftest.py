"""Fixtures shared by the tests of tcvq-neurons."""

import importlib.util

import pytest
import torch

from tcvq_neurons import set_default_backend

NEEDS_NUMBA = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason='numba is not installed; pip install "tcvq-neurons[cpu]"'
)


@pytest.fixture(params=["torch", pytest.param("numba", marks=NEEDS_NUMBA)])
def fused(request):
    """Name of each fused backend."""
    return request.param


@pytest.fixture
def numba_backend():
    """Name of the compiled backend, where it is installed."""
    if importlib.util.find_spec("numba") is None:
        pytest.skip('numba is not installed; pip install "tcvq-neurons[cpu]"')
    return "numba"


@pytest.fixture(autouse=True)
def _settings_are_restored():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    set_default_backend("auto")
