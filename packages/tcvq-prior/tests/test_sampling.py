"""Drawing grids: filters by hand, reproducibility, and the distribution that the model describes."""

import math

import pytest
import torch

from tcvq_prior import Choice, draw_grids, filter_logits, fitting_micro_batch, sample_grids, sampling, score
from tcvq_prior.choosing import uniforms

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
        ({"min_p": 0.6}, [0, 4 / 7, 0, 3 / 7]),
        ({"min_p": 0.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"min_p": 1.0}, [0, 1, 0, 0]),
        ({"temperature": 0.5, "min_p": 0.3}, [0, 16 / 25, 0, 9 / 25]),  # after the temperature: 4/16 is below 0.3
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
        ({"min_p": -0.1}, "min_p is -0.1"),
        ({"min_p": 1.1}, "min_p is 1.1"),
        ({"guidance": 2.0}, "guidance is 2.0, which compares a class with none"),
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


def test_asking_for_1_7_or_64_gives_the_same_first_samples_in_float32(make_prior):
    prior = make_prior(width=32, n_head=2)
    drawn = {n: prior.sample(n, seed=3, micro_batch=64) for n in (1, 7, 64)}
    assert torch.equal(drawn[7], drawn[64][:7])
    assert torch.equal(drawn[1], drawn[64][:1])


STEPS = {"grid": (4, 3), "n_code_steps": 2}
KINDS = {
    "spiking": {},
    "gpt": {"kind": "gpt"},
    "per step": {"per_step": "joint", **STEPS},
    "steps alone": {"per_step": "independent", **STEPS},
    "options": {"rotary": True, "width": 16, "positions": "grid", "attention_norm": "position", "tie_weights": True},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_batches_of_1_7_and_64_give_the_same_samples_with_any_cache_in_float64(make_prior, kind):
    prior = make_prior(n_classes=3, neighbourhood=1, **KINDS[kind]).double()
    labels = torch.arange(64) % 3
    expected = draw_grids(prior, 64, labels=labels, seed=1, micro_batch=64, cache="none").indices
    for micro_batch, cache in ((1, "auto"), (7, "kv")):
        few = {"labels": labels[:20], "seed": 1, "cache": cache, "micro_batch": micro_batch}
        assert torch.equal(draw_grids(prior, 20, **few).indices, expected[:20])


def test_any_part_of_the_samples_can_be_drawn_alone(make_prior):
    prior = make_prior(n_classes=2)
    labels = torch.arange(20) % 2
    whole = draw_grids(prior, 20, labels=labels, seed=4, micro_batch=8).indices
    assert not torch.equal(whole[8:16], whole[:8])  # each batch has numbers of its own
    for first, stop in ((0, 8), (5, 6), (7, 19), (16, 20)):
        part = draw_grids(prior, stop - first, labels=labels[first:stop], seed=4, first=first, micro_batch=8).indices
        assert torch.equal(part, whole[first:stop])


def test_guidance_extrapolates_from_no_class_to_the_class(make_prior):
    prior = make_prior(n_classes=2, null_class=True, class_everywhere=True).double()
    torch.nn.init.normal_(prior.embedding.start.weight)
    labels = torch.tensor([0, 1, 1])
    drawn = draw_grids(prior, 3, labels=labels, seed=2, guidance=2.5, return_logprobs=True)
    tokens, numbers = drawn.indices.flatten(1), torch.from_numpy(uniforms(2, 0, 3, 6))
    with torch.no_grad():
        own, null = prior(tokens[:, :-1], labels), prior(tokens[:, :-1], torch.full((3,), 2))
    for position in range(6):
        logits = (null + 2.5 * (own - null))[:, position]
        assert torch.equal(Choice().codes(logits, numbers[:, position]), tokens[:, position])
    plain = draw_grids(prior, 3, labels=labels, seed=2).indices
    assert not torch.equal(plain, drawn.indices)
    expected = own.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(drawn.log_probs.flatten(1), expected)  # of the prior, not of the guided draw


def test_guidance_of_1_computes_once(make_prior, monkeypatch):
    prior = make_prior(n_classes=2, null_class=True)
    calls, extend = [], prior.extend
    monkeypatch.setattr(prior, "extend", lambda *arguments: calls.append(1) or extend(*arguments))
    labels = torch.tensor([0, 1])
    draw_grids(prior, 2, labels=labels)
    assert len(calls) == 6
    draw_grids(prior, 2, labels=labels, guidance=3.0)
    assert len(calls) == 18


@pytest.mark.parametrize("cache", ["state", "kv", "none"])
@pytest.mark.parametrize("prefill", [1, 2, 256])
def test_a_given_beginning_is_kept_and_the_rest_drawn_as_if_it_had_been_drawn(make_prior, monkeypatch, cache, prefill):
    monkeypatch.setattr(sampling, "PREFILL", prefill)
    prior = make_prior(n_classes=2, neighbourhood=1).double()
    labels = torch.tensor([0, 1, 1])
    whole = draw_grids(prior, 3, labels=labels, seed=6, return_logprobs=True)
    for n_known in range(7):
        known = whole.indices.flatten(1).clone()
        known[:, n_known:] = -1
        options = {"labels": labels, "seed": 6, "cache": cache, "return_logprobs": True}
        again = draw_grids(prior, 3, known=known.unflatten(1, (2, 3)), **options)
        assert torch.equal(again.indices, whole.indices)
        torch.testing.assert_close(again.log_probs, whole.log_probs)


def test_known_codes_anywhere_are_kept_and_seen_by_the_codes_after_them(make_prior):
    prior = make_prior().double()
    free = draw_grids(prior, 8, seed=6).indices
    known = torch.full((8, 2, 3), -1)
    known[:, 0, 2] = (free[:, 0, 2] + 1) % 7
    forced = draw_grids(prior, 8, seed=6, known=known).indices
    assert torch.equal(forced[:, 0, 2], known[:, 0, 2])
    assert torch.equal(forced[:, 0, :2], free[:, 0, :2])  # drawn before it: they do not see it
    assert not torch.equal(forced[:, 1], free[:, 1])


def test_known_codes_of_another_shape_or_beyond_the_codebook_are_refused(make_prior):
    with pytest.raises(ValueError, match=r"known codes \(2, 3, 2\) reach 0; need \(2, 2, 3\) below 7"):
        draw_grids(make_prior(), 2, known=torch.zeros(2, 3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="reach 7; need"):
        draw_grids(make_prior(), 2, known=torch.full((2, 2, 3), 7))


def test_grids_grow_row_by_row_before_the_eyes_of_the_caller(make_prior):
    seen = []
    drawn = draw_grids(make_prior(), 5, seed=1, micro_batch=2, stream=seen.append).indices
    assert [(part.first, part.rows, len(part.indices)) for part in seen] == [
        (0, 1, 2), (0, 2, 2), (2, 1, 2), (2, 2, 2), (4, 1, 1), (4, 2, 1),
    ]  # fmt: skip
    for part in seen:
        mine = drawn[part.first : part.first + len(part.indices)]
        assert torch.equal(part.indices[:, : part.rows], mine[:, : part.rows])
        assert (part.indices[:, part.rows :] == -1).all()


@pytest.mark.parametrize(("kind", "cache"), [("spiking", "state"), ("spiking", "none"), ("gpt", "kv")])
def test_score_is_the_cross_entropy_with_and_without_a_cache(make_prior, monkeypatch, kind, cache):
    monkeypatch.setattr(sampling, "PREFILL", 4)
    prior = make_prior(kind=kind, n_classes=3).double()
    indices, labels = torch.randint(7, (5, 2, 3)), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        log_p = prior(indices.flatten(1)[:, :-1], labels).log_softmax(-1)
    expected = -log_p.gather(-1, indices.flatten(1)[..., None])[..., 0].unflatten(1, (2, 3)) / math.log(2)
    bits = score(prior, indices, labels, cache=cache, micro_batch=2)
    torch.testing.assert_close(bits, expected, rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="code -1 is negative"):
        score(prior, torch.full_like(indices, -1), labels)


def test_micro_batch_fits_into_the_memory_there_is(make_prior, monkeypatch):
    prior = make_prior(width=64, n_head=1, n_layer=2)
    assert fitting_micro_batch(prior) == 256
    per_row = prior.cache_bytes(1, "state") + 7 * 8 * 8
    monkeypatch.setattr("tcvq_prior.memory.free_memory", lambda device: 4 * 50 * per_row)
    assert fitting_micro_batch(prior, "state") == 32
    assert fitting_micro_batch(prior, "state", guided=True) == 16
    assert draw_grids(prior, 3, micro_batch=None).indices.shape == (3, 2, 3)
