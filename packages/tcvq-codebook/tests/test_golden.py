"""The codebooks reproduce the reference implementation's recorded numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tcvq_codebook import TemporalCodebook, VanillaCodebook

GOLDEN = Path(__file__).parent / "golden"


def load(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "legacy"), [("temporal_codebook", False), ("temporal_codebook_legacy", True)])
def test_temporal_codebook_equals_the_reference(name, legacy):
    gold = load(name)
    codebook = TemporalCodebook(17, 8, 4, beta=0.25, legacy_beta=legacy, init="uniform")
    with torch.no_grad():
        codebook.codebook.copy_(gold["codebook"].view(17, 4, 8))
    z = gold["z"].requires_grad_()
    out = codebook(z)
    ((out.z_q * gold["grad_out"]).sum() + out.loss).backward()
    assert torch.equal(out.indices, gold["indices"])
    assert torch.equal(codebook.lookup(gold["indices"]), gold["entry"])
    assert_close(out.z_q, gold["z_q"])
    assert_close(out.loss, gold["loss"])
    assert_close(z.grad, gold["grad_z"])
    assert_close(codebook.codebook.grad.flatten(1), gold["grad_codebook"])


def test_vanilla_codebook_equals_the_reference():
    gold = load("vanilla_codebook_legacy")
    codebook = VanillaCodebook(17, 8, beta=0.25, legacy_beta=True, init="uniform")
    with torch.no_grad():
        codebook.codebook.copy_(gold["codebook"])
    z = gold["z"].requires_grad_()
    out = codebook(z)
    ((out.z_q * gold["grad_out"]).sum() + out.loss).backward()
    assert torch.equal(out.indices, gold["indices"])
    assert_close(out.z_q, gold["z_q"])
    assert_close(out.loss, gold["loss_per_step"].mean())
    assert_close(z.grad, gold["grad_z"])
    assert_close(codebook.step.codebook.grad.squeeze(1), gold["grad_codebook"])
