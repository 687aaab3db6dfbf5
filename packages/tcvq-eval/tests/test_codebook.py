"""Counts over a whole set."""

import math

import pytest
import torch

from tcvq_eval import code_usage


def test_equal_use_of_all_codes_has_perplexity_k():
    usage = code_usage(torch.arange(8).repeat(3).view(2, 3, 4), 8)
    assert (usage.used, usage.used_fraction, usage.n_tokens) == (8, 1.0, 24)
    assert usage.perplexity == pytest.approx(8.0)
    assert usage.counts == (3,) * 8


def test_one_code_has_perplexity_one():
    usage = code_usage(torch.zeros(5, dtype=torch.int64), 4)
    assert (usage.used, usage.used_fraction) == (1, 0.25)
    assert usage.perplexity == pytest.approx(1.0)


def test_perplexity_of_three_to_one_is_the_exponential_of_the_entropy():
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert code_usage(torch.tensor([0, 0, 0, 2]), 3).perplexity == pytest.approx(math.exp(entropy))


def test_whole_set_perplexity_exceeds_the_mean_over_batches():
    indices = torch.arange(4).repeat_interleave(4)
    batches = [code_usage(batch, 4).perplexity for batch in indices.split(4)]
    assert batches == pytest.approx([1.0] * 4)
    assert code_usage(indices, 4).perplexity == pytest.approx(4.0)


@pytest.mark.parametrize("indices", [[0, 4], [-1, 2]])
def test_an_index_outside_the_codebook_is_refused(indices):
    with pytest.raises(ValueError, match="a codebook of 4 has 0 to 3"):
        code_usage(torch.tensor(indices), 4)


def test_no_index_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one index"):
        code_usage(torch.empty(0, dtype=torch.int64), 4)


def test_step_contributions_by_hand():
    from tcvq_eval import StepMeter

    z = torch.tensor([[2.0], [4.0]]).reshape(2, 1, 1, 1, 1)  # two steps of one site of width one
    z_q = torch.tensor([[1.0], [3.0]]).reshape(2, 1, 1, 1, 1)
    meter = StepMeter()
    for _ in range(3):  # the same batch again changes no mean
        meter.update(z, z_q)
    found = meter.result()
    assert found.error == (1.0, 1.0)
    assert found.relative == (1 / 4, 1 / 16)
    assert found.energy == pytest.approx((0.1, 0.9))
    assert found.change == pytest.approx((4 / 5,))  # (3 - 1)² over the mean of 1 and 9
    with pytest.raises(ValueError, match="at least one batch"):
        StepMeter().result()
