"""Priors small enough for a few forward passes."""

import pytest
import torch

from tcvq_prior import PriorConfig, build_prior

SIZES = {"n_embed": 7, "grid": (2, 3), "n_layer": 2, "n_head": 2, "width": 8, "init_gain": 2.0}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def make_config():
    """Builds a configuration of 7 codes on a 2x3 grid; keywords replace its sizes."""

    def make(**changes):
        return PriorConfig(**{**SIZES, **changes})

    return make


@pytest.fixture
def make_prior(make_config):
    """Builds a prior whose tables are wide enough apart that codes and positions matter."""

    def make(**changes):
        config = make_config(**changes)
        features = torch.randn(config.n_embed, config.code_features) if config.code_features else None
        prior = build_prior(config, features).eval()
        for table in (prior.table.weight, prior.head.weight, *prior.embedding.parameters(recurse=False)):
            torch.nn.init.normal_(table)
        return prior

    return make
