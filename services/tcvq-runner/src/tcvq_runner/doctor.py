"""What this machine will compute with, and why: the text of ``tcvq doctor``."""

import importlib
import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

import tcvq_neurons
from tcvq_runner.wiring import DISTRIBUTIONS, Compute, has_bf16


def diagnose(compute: Compute) -> Iterator[tuple[str, str]]:
    """Yield (topic, finding) pairs: packages with their interfaces, devices, precision, neuron backends, threads, disk.

    Args:
        compute: What a run would use with the same options.
    """
    for name in DISTRIBUTIONS:
        yield name, f"{importlib.metadata.version(name)}{_interface(name)}"
    yield "python", platform.python_version()
    for name in ("torch", "lightning", "numba"):
        yield name, _version(name)
    yield "device", _device(compute)
    yield "precision", _precision(compute)
    for status in tcvq_neurons.backends():
        used = "will be used" if compute.device.type in status.chosen_for else "not used"
        yield f"neurons: {status.name}", f"{used}: {status.reason}"
    yield "threads", f"{compute.threads} of {os.cpu_count()} logical CPUs; change with --threads"
    yield "disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.1f} GiB free here"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _interface(distribution: str) -> str:
    module = importlib.import_module(distribution.replace("-", "_"))
    version = getattr(module, "INTERFACE_VERSION", None)  # the command itself promises no Python interface
    return f" (interface {version})" if version else ""


def _device(compute: Compute) -> str:
    if compute.device.type == "cuda":
        return f"cuda will be used: {torch.cuda.get_device_name(compute.device)}"
    why = "as asked" if torch.cuda.is_available() else "torch sees no CUDA device"
    return f"cpu will be used: {why}"


def _precision(compute: Compute) -> str:
    native = "has" if has_bf16(compute.device) else "has no"
    return f"training in {compute.precision} will be used: the {compute.device.type} {native} native bf16 arithmetic"
