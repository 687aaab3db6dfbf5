"""Rate and latency coding, checked by hand and against the laws they are named after."""

import math

import pytest
import torch

from tcvq_neurons import SpikeEncoder
from tcvq_neurons.coding import latency, poisson

MODES = ["poisson", "latency", "log_latency"]


def steps_of(s_seq):
    """Step at which each site fires; the number of steps where it never does."""
    n_steps = len(s_seq)
    return torch.where(s_seq.any(0), s_seq.argmax(0), n_steps).tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_spike_encoders_give_zeros_and_ones_of_the_image_s_dtype_with_time_first(mode, dtype):
    x = torch.rand(2, 3, 4, 4, dtype=dtype)
    s_seq = SpikeEncoder(mode, n_steps=5)(x)
    assert s_seq.shape == (5, 2, 3, 4, 4)
    assert s_seq.dtype == dtype
    assert set(s_seq.unique().tolist()) == {0.0, 1.0}


def test_equal_seeds_give_equal_poisson_spikes_whatever_was_drawn_before():
    x = torch.rand(3, 2, 4, 4)
    first = SpikeEncoder("poisson", n_steps=6, seed=3)(x)
    state = torch.get_rng_state()
    assert torch.equal(SpikeEncoder("poisson", n_steps=6)(x, seed=3), first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(poisson(x, 6, seed=3), first)
    assert not torch.equal(poisson(x, 6, seed=4), first)


@pytest.mark.parametrize("shape", [(5, 3), (40, 1, 9, 9)])
def test_poisson_spikes_of_a_sample_do_not_depend_on_the_samples_after_it(shape):
    x = torch.rand(*shape)
    assert torch.equal(poisson(x, 4, seed=0)[:, :2], poisson(x[:2], 4, seed=0))


def test_poisson_rate_is_the_input_and_steps_are_independent():
    x = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0])
    s_seq = poisson(x.expand(20_000, 5), 2, seed=0).double()
    rates = s_seq.mean((0, 1)).tolist()
    assert rates[0] == 0
    assert rates[4] == 1
    for rate, p in zip(rates, x.tolist(), strict=True):
        assert abs(rate - p) <= 5 * math.sqrt(p * (1 - p) / 40_000)
    both = (s_seq[0] * s_seq[1]).mean(0)[2].item()
    assert abs(both - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 20_000)


def test_every_site_fires_once_and_zero_never():
    x = torch.tensor([0.0, 1e-6, 0.3, 1.0])
    for law in ("linear", "log"):
        assert latency(x, 8, law=law).sum(0).tolist() == [0, 1, 1, 1]


def test_linear_latency_on_paper():
    # (T - 1) (1 - x) with T = 5: 4, 3, 2, 1, 0; 0.625 gives 1.5 and 0.875 gives 0.5, rounded to even
    x = torch.tensor([0.0, 0.01, 0.25, 0.5, 0.75, 1.0, 0.625, 0.875])
    assert steps_of(latency(x, 5)) == [5, 4, 3, 2, 1, 0, 2, 0]


def test_log_latency_on_paper():
    # a = e^4 - 1; x = (e^k - 1) / a fires at step 4 - k
    a = math.exp(4) - 1
    x = torch.tensor([(math.exp(k) - 1) / a for k in range(1, 5)])
    assert steps_of(latency(x, 5, law="log")) == [3, 2, 1, 0]


@pytest.mark.parametrize("law", ["linear", "log"])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 80])
def test_larger_values_never_fire_later(law, n_steps):
    x = torch.linspace(0.001, 1, 999)
    steps = torch.tensor(steps_of(latency(x, n_steps, law=law)))
    assert (steps.diff() <= 0).all()
    assert steps[-1] == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [-0.25, 1.5, math.nan])
def test_values_outside_zero_to_one_are_refused_with_the_range_found(mode, bad):
    x = torch.full((1, 1, 1, 2), 0.5)
    x[..., 0] = bad
    with pytest.raises(ValueError, match=rf"got values from .*{bad}.*it takes \[0, 1\]"):
        SpikeEncoder(mode)(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: poisson(x, 0, seed=0), "poisson.n_steps is 0"),
        (lambda x: latency(x, 0), "latency.n_steps is 0"),
        (lambda x: latency(x, 81, law="log"), "at most 80 steps"),
    ],
)
def test_steps_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.rand(2))


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_gives_an_empty_sequence(mode):
    assert SpikeEncoder(mode)(torch.zeros(0, 1, 2, 2)).shape == (4, 0, 1, 2, 2)


def test_printing_an_encoder_shows_its_seed_where_it_has_one():
    assert repr(SpikeEncoder("poisson", seed=7)) == "SpikeEncoder(mode='poisson', n_steps=4, seed=7)"
    assert repr(SpikeEncoder("latency")) == "SpikeEncoder(mode='latency', n_steps=4)"


@pytest.mark.peer
@pytest.mark.parametrize("law", ["linear", "log"])
def test_latency_equals_spikingjelly_s_where_the_input_is_not_zero(law):
    encoding = pytest.importorskip(
        "spikingjelly.activation_based.encoding", reason="needs spikingjelly; nox -s peers has it"
    )
    x = torch.rand(500) * 0.999 + 0.001
    encoder = encoding.LatencyEncoder(9, enc_function=law)
    assert torch.equal(latency(x, 9, law=law), torch.stack([encoder(x) for _ in range(9)]))
