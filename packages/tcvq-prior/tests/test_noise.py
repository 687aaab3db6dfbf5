"""Replaced codes and hidden classes: as often as asked, and the same however a batch is divided."""

import torch

from tcvq_prior.noise import Corruption

TOKENS = torch.arange(4000).reshape(400, 10) % 50
LABELS = torch.arange(400) % 5


def corruption(**changes):
    options = {
        "seed": 3,
        "step": 7,
        "n_rows": 400,
        "first": 0,
        "n_embed": 50,
        "n_classes": 5,
        "pkeep": 0.75,
        "class_dropout": 0.2,
    }
    return Corruption(**{**options, **changes})


def test_as_many_codes_are_replaced_and_classes_hidden_as_asked():
    tokens, labels = corruption()(TOKENS, LABELS)
    assert abs((tokens != TOKENS).float().mean() - 0.25 * 49 / 50) < 0.02  # one in 50 is replaced by itself
    assert abs((labels == 5).float().mean() - 0.2) < 0.06
    assert torch.equal(labels[labels != 5], LABELS[labels != 5])
    assert sorted(tokens.unique().tolist()) == list(range(50))


def test_rows_get_the_same_numbers_however_the_batch_is_divided():
    whole = corruption()(TOKENS, LABELS)
    part = corruption(first=100)(TOKENS[100:150], LABELS[100:150])
    assert torch.equal(part[0], whole[0][100:150])
    assert torch.equal(part[1], whole[1][100:150])


def test_every_step_and_seed_draws_other_numbers():
    first = corruption()(TOKENS, LABELS)[0]
    assert not torch.equal(corruption(step=8)(TOKENS, LABELS)[0], first)
    assert not torch.equal(corruption(seed=4)(TOKENS, LABELS)[0], first)


def test_nothing_changes_where_nothing_is_asked():
    tokens, labels = corruption(pkeep=1.0, class_dropout=0.0)(TOKENS, LABELS)
    assert tokens is TOKENS
    assert labels is LABELS
