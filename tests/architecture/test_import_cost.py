"""Importing a package of ours costs no more than importing torch, and touches nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["tcvq_neurons", "tcvq_codebook", "tcvq_data", "tcvq_vqvae", "tcvq_prior", "tcvq_eval"]
HEAVY = {"lightning", "pytorch_lightning", "torchmetrics", "torchvision", "matplotlib", "numba", "cupy"} | {
    "click",
    "omegaconf",
    "pydantic",
    "rich",
    "tcvq_runner",
}
PROBE = """
import importlib, json, sys
import einops, jaxtyping, numpy, torch
deeds = []

def watch(event, args):
    if event == "open" and isinstance(args[0], str):
        path, mode = args[0], args[1] or "r"
        if set(mode) & set("wax+") or ("/src/tcvq_" in path and not path.endswith((".py", ".pyc"))):
            deeds.append(f"open {path}")
    elif event.startswith("socket.connect") or event in ("subprocess.Popen", "os.mkdir", "urllib.Request"):
        deeds.append(event)

sys.addaudithook(watch)
report = {}
for name in sys.argv[1:]:
    deeds.clear()
    importlib.import_module(name)
    modules = sorted({module.partition(".")[0] for module in sys.modules})
    report[name] = {"modules": modules, "deeds": list(deeds), "cuda": torch.cuda.is_initialized()}
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def imported():
    """What a fresh interpreter knows and did after importing one package after the other."""
    argv = [sys.executable, "-B", "-c", PROBE, *PACKAGES]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_takes_no_heavy_library_along(imported, package):
    assert not HEAVY & set(imported[package]["modules"])


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_does_not_initialise_cuda(imported, package):
    assert imported[package]["cuda"] is False


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_reads_no_data_writes_no_file_and_opens_no_connection(imported, package):
    assert imported[package]["deeds"] == []
