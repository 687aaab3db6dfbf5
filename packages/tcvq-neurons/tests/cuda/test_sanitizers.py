"""`lif.cu` and its launcher under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tcvq_neurons.backends.cuda_source import CHUNK

from .shim import COMPILER, ONE_TOO_MANY, build, runtime_units

FLAGS = ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def runtimes(compiler):
    """The sanitizers' runtimes, which must be loaded before Python."""
    names = [subprocess.check_output([COMPILER, f"-print-file-name={name}"], text=True).strip() for name in LIBRARIES]
    if not all(Path(name).is_absolute() for name in names):
        pytest.skip(f"{COMPILER} comes without {' and '.join(LIBRARIES)}; install the sanitizers' runtimes")
    return os.pathsep.join(names)


LIBRARIES = ("libasan.so", "libubsan.so")


@pytest.fixture(scope="module")
def report(runtimes, tmp_path_factory):
    """What `sanitized.py` wrote, with the library it needs."""
    units = [*runtime_units(steps=(1, 4)), *runtime_units((torch.float32,), (CHUNK,))]
    units += runtime_units((torch.float32,), (1,), ONE_TOO_MANY)
    library = build(units, tmp_path_factory.mktemp("sanitized") / "lif.so", *FLAGS)
    environment = {**os.environ, "LD_PRELOAD": runtimes, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("sanitized.py")), str(library)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_no_access_is_out_of_bounds_or_misaligned(report):
    assert report.stdout == "clean\n", report.stderr


def test_one_element_too_many_is_noticed_and_its_line_named(report):
    assert report.returncode != 0
    assert "heap-buffer-overflow" in report.stderr
    assert "lif.cu:" in report.stderr
