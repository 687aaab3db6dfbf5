"""The spiking prior reproduces the public reference implementation's numbers, in float64, gradients included."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tcvq_prior.reference import from_reference

GOLDEN = Path(__file__).parent / "golden" / "prior.safetensors"
SIZES = {"n_head": 4, "n_steps": 2, "grid": (4, 6), "prefix": "weights."}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def assert_golden(actual, expected):
    torch.testing.assert_close(actual, expected.reshape(actual.shape), rtol=1e-9, atol=1e-10)


def test_prior_reproduces_logits_loss_and_gradients_of_the_reference(golden):
    prior = from_reference(golden, **SIZES, first_token_free=True).double()
    idx = golden["idx"]
    logits = prior(idx[:, 1:], idx[:, 0])
    loss = F.cross_entropy(logits.flatten(0, 1), golden["targets"].flatten())
    loss.backward()
    assert_golden(logits, golden["logits"])
    assert_golden(loss, golden["loss"])
    assert_golden(prior.embedding.position.grad, golden["grad_pos_emb"])
    assert_golden(prior.head.weight.grad, golden["grad_head"])
    assert prior.table.weight.grad.abs().sum() > 0  # the gradient that the reference cuts (P1)


def test_running_state_reproduces_the_logits_of_the_reference_token_by_token(golden):
    prior = from_reference(golden, **SIZES, first_token_free=True).double()
    idx, cache, steps = golden["idx"], prior.new_cache("state"), []
    for position in range(24):
        logits, cache = prior.extend(idx[:, 1 : position + 1], idx[:, 0], position, cache)
        steps.append(logits)
    assert_golden(torch.cat(steps, dim=1), golden["logits"])


def test_sequences_begin_with_code_0_where_no_first_token_is_given(golden):
    plain = from_reference(golden, **SIZES).double()
    free = from_reference(golden, **SIZES, first_token_free=True).double()
    tokens = golden["idx"][:, 1:]
    assert torch.equal(plain(tokens), free(tokens, torch.zeros(3, dtype=torch.long)))
