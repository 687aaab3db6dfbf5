"""A stand-in for CuPy, NVRTC and torch's view of a GPU: packs arguments as CuPy does, and runs kernels on the CPU."""

import ctypes
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch

from tcvq_neurons.backends import cupy_module


class Launch(NamedTuple):
    """One recorded launch."""

    kernel: str
    macros: dict[str, str]
    grid: int
    arguments: tuple
    device: object
    stream: int | None


class Machine:
    """What the fakes share: a library of kernels, the state of the pretended device, and a record of all calls."""

    def __init__(self, library):
        self.library = library
        self.order = 0  # of the threads; see shim.h
        self.n_multiprocessors = 1
        self.capability = (9, 0)
        self.supported = [75, 80, 86, 89, 90, 100, 120]
        self.capturing = False
        self.current_stream = 7
        self.devices = []  # entered and not left
        self.streams = []
        self.launches = []
        self.compilations = []
        self.before_launch = None

    def install(self, monkeypatch, *, from_external=True):
        """Put the fakes where the package looks for CuPy and for torch's device."""
        cupy = _fake_modules(self, from_external)
        for name, module in {"cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.nvrtc": cupy.cuda.nvrtc}.items():
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(torch.cuda, "device", self._device)
        monkeypatch.setattr(
            torch.cuda, "current_stream", lambda device=None: SimpleNamespace(cuda_stream=self.current_stream)
        )
        monkeypatch.setattr(torch.cuda, "current_device", lambda: -1)  # what a tensor on the CPU says of its device
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: self.capability)
        properties = SimpleNamespace(multi_processor_count=self.n_multiprocessors)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index=None: properties)
        for cached in (cupy_module.load, cupy_module.n_multiprocessors, cupy_module._compile):
            cached.cache_clear()

    @contextmanager
    def _device(self, device):
        self.devices.append(device)
        yield
        self.devices.pop()


class _Stream:
    def __init__(self, machine, handle):
        self._machine, self.ptr = machine, handle

    def __enter__(self):
        assert self._machine.devices, "the stream is entered inside torch's device guard"
        self._machine.streams.append(self.ptr)

    def __exit__(self, *error):
        self._machine.streams.pop()


class _Kernel:
    def __init__(self, machine, name, source, macros):
        self._machine, self._name, self._source, self._macros = machine, name, source, macros

    def __call__(self, grid, block, args):
        machine = self._machine
        assert isinstance(grid, tuple)
        assert isinstance(block, tuple)
        assert 0 < grid[0] < 2**31
        assert 0 < block[0] <= 1024
        device = machine.devices[-1] if machine.devices else None
        stream = machine.streams[-1] if machine.streams else None
        machine.launches.append(Launch(self._name, self._macros, grid[0], args, device, stream))
        if machine.before_launch:
            machine.before_launch()
        packed = [pack(value) for value in args]
        machine.library.launch(self._name, self._source, self._macros, grid[0], block[0], machine.order, packed)


def pack(value):
    """Return an argument as CuPy hands it to the driver: Python numbers in 64 bits, NumPy scalars as they are."""
    if isinstance(value, np.generic):
        return (ctypes.c_char * value.itemsize).from_buffer_copy(value.tobytes())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Unsupported type {type(value)}")
    return ctypes.c_longlong(value) if isinstance(value, int) else ctypes.c_double(value)


class _NVRTCError(RuntimeError):
    pass


def _fake_modules(machine, from_external):
    cupy, cuda, nvrtc = ModuleType("cupy"), ModuleType("cupy.cuda"), ModuleType("cupy.cuda.nvrtc")
    cupy.__version__, cupy.cuda, cuda.nvrtc = "14.2.0" if from_external else "13.6.0", cuda, nvrtc

    class RawModule:
        def __init__(self, *, path):
            self._program = json.loads(Path(path).read_text())  # loaded at once: the file may go
            assert machine.devices, "a module is loaded inside torch's device guard"

        def get_function(self, name):
            macros = [option[2:].split("=", 1) for option in self._program["options"] if option.startswith("-D")]
            return _Kernel(machine, name, self._program["source"], dict(macros))

    class Stream:
        pass

    def stream_from_external(stream):
        version, handle = stream.__cuda_stream__()
        assert version == 0
        return _Stream(machine, handle)

    if from_external:
        Stream.from_external = staticmethod(stream_from_external)
    else:
        cuda.ExternalStream = lambda handle, device_id: _Stream(machine, handle)

    def compile_program(program, options):
        machine.compilations.append(options)
        if "error" in program["source"]:
            program["log"] = "lif.cu(1): error: no such thing"
            raise _NVRTCError("NVRTC_ERROR_COMPILATION")
        program["options"] = options

    def binary(program):
        return json.dumps(program).encode()

    cupy.RawModule, cuda.Stream = RawModule, Stream
    nvrtc.NVRTCError = _NVRTCError
    nvrtc.getVersion = lambda: (13, 2)
    nvrtc.getSupportedArchs = lambda: machine.supported
    nvrtc.createProgram = lambda source, name, headers, include_names: {"source": source, "name": name}
    nvrtc.compileProgram = compile_program
    nvrtc.getCUBIN = nvrtc.getPTX = binary
    nvrtc.getProgramLog = lambda program: program["log"]
    nvrtc.destroyProgram = lambda program: None
    return cupy
