"""Small random pictures for every test, the same in each run."""

import pytest
import torch


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pictures(generator):
    """Return a function that makes n random 28 x 28 images of 8-bit levels in [-1, 1]."""

    def make(n):
        return torch.randint(0, 256, (n, 1, 28, 28), generator=generator) / 127.5 - 1

    return make
