"""Divergences of codes by hand, and what they see that single codes do not show."""

import math

import pytest
import torch

from tcvq_eval import token_distances
from tcvq_eval.tokens import js_divergence


def test_divergence_of_two_distributions_by_hand():
    half, one = torch.tensor([0, 7]), torch.tensor([0])
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))  # of the mixture (3/4, 1/4)
    assert js_divergence(half, one) == pytest.approx(entropy - 1 / 2)
    assert js_divergence(half, half) == 0
    assert js_divergence(torch.tensor([1]), torch.tensor([2])) == pytest.approx(1)


def test_bigrams_see_an_order_that_single_codes_do_not_show(generator):
    real = torch.randint(0, 4, (4000, 1), generator=generator) + torch.arange(6)
    real %= 4  # each code follows its predecessor
    shuffled = real.gather(1, torch.rand(4000, 6, generator=generator).argsort(dim=1))
    found = token_distances(real, shuffled, n_embed=4)
    assert found.n == 2000
    assert found.histogram < 5 * found.histogram_floor + 1e-3
    assert found.bigram > 0.3 > 100 * found.bigram_floor


def test_samples_of_the_same_distribution_are_at_the_floor_however_few(generator):
    draw = [torch.randint(0, 64, (n, 4, 4), generator=generator) for n in (200, 100)]
    found = token_distances(*draw, n_embed=64)
    assert found.bigram > 0.05  # biased, as there are 4,096 pairs
    assert found.bigram == pytest.approx(found.bigram_floor, rel=0.1)


@pytest.mark.parametrize(
    ("real", "fake", "words"),
    [
        (torch.zeros(4, 2, 2), torch.zeros(4, 2, 3), "one shape"),
        (torch.zeros(1, 2, 2), torch.zeros(4, 2, 2), "one shape"),
        (torch.zeros(4, 2, 2), torch.full((4, 2, 2), 9), "span 9 to 9"),
    ],
)
def test_codes_that_do_not_fit_are_refused(real, fake, words):
    with pytest.raises(ValueError, match=words):
        token_distances(real.long(), fake.long(), n_embed=9)
