"""Drawing grids: filters by hand, reproducibility, and the distribution that the model describes."""

import math

import pytest
import torch

from tcvq_prior import filter_logits, sample_grids
from tcvq_prior.sampling import uniforms

LOGITS = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3]]))


def probabilities(**options):
    return filter_logits(LOGITS, **{"temperature": 1.0, "top_k": None, "top_p": None, **options})[0].tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 99}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 1e-9}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"temperature": 1e-310}, [0, 1, 0, 0]),
        ({"temperature": math.inf}, [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_filters_keep_the_probabilities_worked_out_by_hand(options, expected):
    assert probabilities(**options) == pytest.approx(expected, abs=1e-6)


def test_samples_depend_on_the_seed_and_their_number_only(make_prior):
    prior = make_prior()
    seven = prior.sample(7, seed=5, micro_batch=4)
    assert torch.equal(prior.sample(1, seed=5, micro_batch=4), seven[:1])
    assert torch.equal(prior.sample(4, seed=5, micro_batch=4), seven[:4])
    assert torch.equal(prior.sample(7, seed=5, micro_batch=4), seven)
    assert not torch.equal(prior.sample(7, seed=6, micro_batch=4), seven)
    assert len(seven.flatten(1).unique(dim=0)) > 1


def test_micro_batch_does_not_matter_in_float64(make_prior):
    prior, labels = make_prior(n_classes=3, neighbourhood=1).double(), torch.tensor([0, 1, 2, 0, 1])
    expected = prior.sample(5, labels=labels, seed=1, micro_batch=5)
    for micro_batch in (1, 2, 64):
        assert torch.equal(prior.sample(5, labels=labels, seed=1, micro_batch=micro_batch), expected)


def test_every_drawn_code_is_the_inverse_cdf_of_the_full_forward(make_prior):
    prior, n = make_prior(n_classes=2).double(), 3
    labels = torch.tensor([0, 1, 1])
    tokens = prior.sample(n, labels=labels, seed=9, top_p=0.9).flatten(1)
    numbers = torch.from_numpy(uniforms(9, 0, n, 6))
    with torch.no_grad():
        logits = prior(tokens[:, :-1], labels)
    for position in range(6):
        cdf = filter_logits(logits[:, position], temperature=1.0, top_k=None, top_p=0.9).cumsum(-1)
        assert torch.equal((cdf <= numbers[:, position, None]).sum(-1), tokens[:, position])


def test_greedy_sampling_follows_the_largest_logit(make_prior):
    prior = make_prior().double()
    tokens = prior.sample(1, temperature=0.0).flatten(1)
    with torch.no_grad():
        assert torch.equal(prior(tokens[:, :-1]).argmax(-1), tokens)


def test_codes_come_as_often_as_the_model_says(make_prior):
    prior = make_prior(n_embed=3, grid=(1, 2))
    torch.nn.init.zeros_(prior.head.weight)
    counts = prior.sample(1500, micro_batch=500).flatten().bincount(minlength=3)
    assert counts.tolist() == pytest.approx([1000] * 3, abs=80)  # three standard deviations


def test_filtered_codes_are_never_drawn(make_prior):
    prior = make_prior(n_embed=5)
    torch.nn.init.zeros_(prior.head.weight)
    with torch.no_grad():
        prior.ln_f.bias.fill_(1.0)
        prior.head.weight[[1, 3]] = 1.0
    assert set(prior.sample(50, top_k=2).flatten().tolist()) == {1, 3}


def test_mode_of_the_prior_is_restored_even_after_an_error(make_prior, monkeypatch):
    prior = make_prior(dropout=0.5).train()
    prior.sample(2, micro_batch=2)
    assert prior.training
    monkeypatch.setattr(prior, "extend", None)
    with pytest.raises(TypeError):
        prior.sample(2)
    assert prior.training


def test_dropout_is_off_while_sampling(make_prior):
    prior = make_prior(dropout=0.5).train()
    assert torch.equal(prior.sample(4, seed=1), prior.sample(4, seed=1))


def test_callback_hears_how_many_grids_are_finished(make_prior):
    finished = []
    sample_grids(make_prior(), 5, micro_batch=2, callback=finished.append)
    assert finished == [2, 4, 5]


def test_no_grids_are_an_empty_tensor(make_prior):
    assert make_prior().sample(0).shape == (0, 2, 3)


def test_uniform_numbers_belong_to_seed_and_sample():
    block = uniforms(7, 0, 6, 4)
    assert (uniforms(7, 2, 3, 4) == block[2:5]).all()
    assert (uniforms(7, 0, 6, 2) == block[:, :2]).all()
    assert not (uniforms(2**64 - 1, 0, 1, 4) == uniforms(2**64 - 2, 0, 1, 4)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n is -1"),
        ({"micro_batch": 0}, "micro_batch 0"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"labels": torch.tensor([0, 1, 2])}, r"\(3,\) labels for 2 samples"),
        ({"labels": torch.tensor([0, 3])}, "labels reach from 0 to 3; the prior has 3 classes"),
        ({"labels": torch.tensor([-1, 2])}, "labels reach from -1 to 2"),
        ({"labels": None}, "has 3 classes; labels were not given"),
    ],
)
def test_argument_out_of_range_is_refused_with_its_value(make_prior, options, message):
    arguments = {"n": 2, "labels": torch.tensor([0, 1]), **options}
    if arguments["n"] < 0:
        arguments["labels"] = None
    with pytest.raises(ValueError, match=message):
        sample_grids(make_prior(n_classes=3), **arguments)


def test_logits_that_are_not_finite_stop_sampling_at_their_position(make_prior):
    prior = make_prior()
    with torch.no_grad():
        prior.embedding.position[2] = torch.nan
    with pytest.raises(FloatingPointError, match="at position 2 are not finite"):
        prior.sample(2)
