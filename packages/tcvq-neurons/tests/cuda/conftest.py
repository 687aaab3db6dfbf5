"""Builds of the CUDA source for the CPU, once per session, and a pretended GPU that runs them."""

import pytest
import torch

from tcvq_neurons.backends.cupy import CupyKernel

from .fake_cupy import Machine
from .shim import COMPILER, RuntimeLibrary, build, runtime_units

ON_GPU = [pytest.param("gpu", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(scope="session")
def compiler():
    """Skip where nothing can compile the CUDA source for the CPU."""
    if COMPILER is None:
        pytest.skip("no C++ compiler to run lif.cu on the CPU; install g++, or name one in CXX")


@pytest.fixture(scope="session")
def library(compiler, tmp_path_factory):
    """Every shape of the kernels, with the other options read at run time."""
    return RuntimeLibrary(build(runtime_units(), tmp_path_factory.mktemp("lif") / "lif.so"))


@pytest.fixture
def machine(library, monkeypatch):
    """A pretended GPU."""
    machine = Machine(library)
    machine.install(monkeypatch)
    return machine


class OnDevice(CupyKernel):
    """The CUDA backend with the device that the tests should bring its tensors to."""

    def __init__(self, device):
        self.device = torch.device(device)


@pytest.fixture
def simulated(machine):
    """The CUDA backend on the pretended GPU; it takes tensors of the CPU."""
    return OnDevice("cpu")


@pytest.fixture
def gpu():
    """The CUDA backend on a real GPU: where there is one, it must run."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device; run `nox -s gpu` where there is one")
    assert CupyKernel().problem() is None
    return OnDevice("cuda:0")


@pytest.fixture(params=["simulated", *ON_GPU])
def kernel(request):
    """The CUDA backend, on the pretended GPU, and on a real one where there is one."""
    return request.getfixturevalue(request.param)
