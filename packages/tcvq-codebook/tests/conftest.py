"""Fixtures shared by the tests: seeded randomness and one fitted codebook."""

import pytest
import torch

from tcvq_codebook import TemporalCodebook


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def z():
    """Latents (T, B, D, H, W) = (4, 6, 8, 3, 5): 90 sites."""
    return torch.randn(4, 6, 8, 3, 5)


@pytest.fixture
def codebook(z):
    """A codebook of 17 entries that were drawn from the latents."""
    module = TemporalCodebook(17, 8, 4)
    module(z)
    return module
