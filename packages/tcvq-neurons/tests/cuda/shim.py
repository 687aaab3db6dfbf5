"""Builds the CUDA source with a C++ compiler, through `shim.h`, and runs its kernels on the CPU."""

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tcvq_neurons.backends.cuda_source import CHUNK, SCALARS, kernels, prelude, vector_width
from tcvq_neurons.surrogate import SURROGATES

FOLDER = Path(__file__).parent
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FLAGS = ("-x", "c++", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-w", f"-I{FOLDER}")
STEPS = (1, 2, 3, 4, 6, 8, CHUNK)  # of one launch
EXPRESSIONS = [surrogate.c_expression for surrogate in SURROGATES.values() if surrogate.__module__.startswith("tcvq")]

# Options that select code, read at run time, so that one build serves all; what is shipped has them compiled in.
RUNTIME = {
    "RESET": "shim_options.reset",
    "DECAY_INPUT": "shim_options.decay_input",
    "DETACH_RESET": "shim_options.detach_reset",
    "FIRE_AT_THRESHOLD": "shim_options.fire_at_threshold",
    "GATE": "shim_options.gate",
    "FROM_REST": "shim_options.from_rest",
    "TRACE": "shim_options.trace",
}
NUMBERS = {
    name: i for names in ("HARD SOFT NONE", "NOTHING BEFORE_RESET AFTER_RESET") for i, name in enumerate(names.split())
}

ONE_TOO_MANY = kernels().replace("i < n_packs", "i <= n_packs")  # what the sanitizers must notice


class Unit(NamedTuple):
    """One compilation of `lif.cu`: the name of its exports, its macros and its text."""

    name: str
    macros: dict[str, str]
    text: str

    def code(self):
        """Return the unit in a namespace of its own, with its kernels exported under its name."""
        macros = {**self.macros, "lif_forward": f"{self.name}_kernel_f", "lif_backward": f"{self.name}_kernel_b"}
        lines = [f"#define {name} {value}" for name, value in macros.items()]
        lines += [f"namespace {self.name} {{", self.text, "}"]
        lines += [f"#undef {name}" for name in macros]
        for kernel in "fb":
            lines.append(f"SHIM_EXPORT({self.name}_{kernel}, {self.name}::{self.name}_kernel_{kernel})")
        return "\n".join(lines)


def unit(macros, text):
    """Return a unit whose name tells it from all others."""
    key = repr(sorted(macros.items())) + text
    return Unit(f"unit_{hashlib.sha256(key.encode()).hexdigest()[:16]}", macros, text)


@cache
def runtime_unit(dtype, n_steps, width, text=None):
    """Return the unit for a dtype and a shape that reads all other options at run time."""
    shape = {"N_STEPS": str(n_steps), "WIDTH": str(width), "SCALAR": SCALARS[dtype]}
    chosen = " : ".join(f"shim_options.surrogate == {i} ? ({each})" for i, each in enumerate(EXPRESSIONS))
    return unit({**shape, **RUNTIME}, prelude(f"{chosen} : 0.0f") + (text or kernels()))


def runtime_units(dtypes=tuple(SCALARS), steps=STEPS, text=None):
    """Return the units for all shapes."""
    return [
        runtime_unit(dtype, n_steps, width, text)
        for dtype in dtypes
        for n_steps in steps
        for width in sorted({1, vector_width(dtype, n_steps)})
    ]


def build(units, path, *flags):
    """Compile units into one shared library."""
    code = "\n".join(['#include "shim.h"', *(each.code() for each in units)])
    command = [COMPILER, *FLAGS, *(flags or ("-O2",)), "-o", str(path), "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


class RuntimeLibrary:
    """Kernels built once per dtype and shape; every launch sets the other options first."""

    def __init__(self, path, text=None):
        self._library = ctypes.CDLL(str(path))
        self._text = text

    def launch(self, kernel, source, macros, grid, block, order, arguments):
        values = [NUMBERS.get(macros[name]) if macros[name] in NUMBERS else int(macros[name]) for name in RUNTIME]
        self._library.shim_set_options((ctypes.c_int * 8)(*values, _sources()[source]))
        dtype = next(dtype for dtype, scalar in SCALARS.items() if scalar == macros["SCALAR"])
        name = runtime_unit(dtype, int(macros["N_STEPS"]), int(macros["WIDTH"]), self._text).name
        _run(self._library, f"{name}_{kernel[4]}", grid, block, order, arguments)


@cache
def _sources():
    """Return the number of the surrogate for each text that the package compiles."""
    return {prelude(each) + kernels(): i for i, each in enumerate(EXPRESSIONS)}


class ShippedLibrary:
    """Kernels built from exactly the text and the macros that NVRTC would be given."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))

    def launch(self, kernel, source, macros, grid, block, order, arguments):
        _run(self._library, f"{unit(macros, source).name}_{kernel[4]}", grid, block, order, arguments)


def _run(library, name, grid, block, order, arguments):
    pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(each) for each in arguments))
    getattr(library, name)(grid, block, order, pointers)
