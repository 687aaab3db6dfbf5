"""Proof that the comparison with the reference can fail: one line of `lif.cu` broken at a time."""

import pytest
import torch

from tcvq_neurons.backends.cuda_source import kernels
from tcvq_neurons.config import LIFConfig

from .conftest import OnDevice
from .fake_cupy import Machine
from .oracle import assert_equal, inputs
from .shim import RuntimeLibrary, build, runtime_unit

SOFT_ATTACHED = {"reset": "soft", "detach_reset": False}
HARD_ATTACHED = {"detach_reset": False}
# What breaks: line, what replaces it, and the options that show it.
MUTANTS = {
    "wrong carry": ("c.value[j] = gh - q;", "c.value[j] = gh;", {}),
    "carry by a factor instead of a difference": ("c.value[j] = gh - q;", "c.value[j] = gh * (1.0f - 1.0f / tau);", {}),
    "missing reset in the forward": ("v.value[j] = reset(h, s, v_th);", "v.value[j] = h;", {}),
    "missing reset in the backward": ("v.value[j] = reset(h, fire(h, v_th), v_th);", "v.value[j] = h;", {}),
    "reset sends no carry back": ("gh = gh * (1.0f - s);", "gh = gh * 0.0f;", {}),
    "spike carries across the reset": ("if (RESET == HARD) gh = gh * (1.0f - s);", "", {}),
    "gradient of the soft reset forgotten": ("(RESET == HARD ? h : v_th)", "(RESET == HARD ? h : 0.0f)", SOFT_ATTACHED),
    "gradient of the hard reset forgotten": (
        "(RESET == HARD ? h : v_th)",
        "(RESET == HARD ? 0.0f : v_th)",
        HARD_ATTACHED,
    ),
    "reciprocal instead of division": ("v + (x - v) / tau", "v + (x - v) * (1.0f / tau)", {}),
    "contraction to FMA": (
        "gs * tcvq_surrogate(h - v_th, k0, k1, k2) + gh",
        "fmaf(gs, tcvq_surrogate(h - v_th, k0, k1, k2), gh)",
        {},
    ),
    "threshold fires": ("u >= 0.0f : u > 0.0f", "u >= 0.0f : u >= 0.0f", {"tau": 2.0}),
    "step read at the distance of the output": (
        "x[t * x_step + i];\n            State",
        "x[t * n_packs + i];\n            State",
        {},
    ),
    "last membrane not stored": ("if (v_last) v_last[i] = v;", "", {}),
    "gate keeps the gradient of silent steps": ("GATE ? gy * s + gx : gx", "GATE ? gy + gx : gx", {}),
    "half precision cut off instead of rounded": (
        "bits + 0x7fffu + (bits >> 16 & 1u)",
        "bits",
        {"dtype": torch.bfloat16},
    ),
}


def check(options):
    """Compare with the reference as `test_kernels.py` does, on a few inputs."""
    options = dict(options)
    dtype = options.pop("dtype", torch.float32)
    config = LIFConfig(**{"tau": 1.7, **options})
    given = inputs(4, 1024, dtype=dtype)
    apart = inputs(8, 1024, dtype=dtype)
    apart = apart._replace(x=apart.x[::2], grad_y=apart.grad_y[::2])
    for each in (given, apart):
        assert_equal(OnDevice("cpu"), each, config, gate=True)


@pytest.fixture(scope="module")
def mutants(compiler, tmp_path_factory):
    """One library with every mutant, for float32 and bfloat16 at T = 4, and the sound source."""
    texts = {"sound": kernels()}
    for name, (line, replacement, _) in MUTANTS.items():
        assert kernels().count(line) == 1, f"the mutant {name!r} no longer fits lif.cu"
        texts[name] = kernels().replace(line, replacement)
    units = [
        runtime_unit(dtype, 4, width, text)
        for name, text in texts.items()
        for dtype, width in {torch.float32: 4, torch.bfloat16: 8}.items()
        if dtype == MUTANTS.get(name, ("", "", {}))[2].get("dtype", torch.float32) or name == "sound"
    ]
    path = build(units, tmp_path_factory.mktemp("mutants") / "mutants.so")
    return {name: RuntimeLibrary(path, text) for name, text in texts.items()}


@pytest.mark.parametrize("name", MUTANTS)
def test_comparison_notices(mutants, monkeypatch, name):
    options = MUTANTS[name][2]
    Machine(mutants[name]).install(monkeypatch)
    with pytest.raises(AssertionError, match="differs from the reference"):
        check(options)
    Machine(mutants["sound"]).install(monkeypatch)
    check(options)
