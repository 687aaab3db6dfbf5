"""Time operators: what each does to the steps 0, 1, 2, 3."""

import pytest
import torch

from tcvq_codebook.operators import time_operator

STEPS = torch.arange(4.0)


def sequence(values):
    """Latents (T, 2, 3, 2, 2) whose value at step t is values[t] + 1 everywhere."""
    return (torch.as_tensor(values) + 1).view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 2, 2)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("none", [0, 1, 2, 3]),
        ("reverse", [3, 2, 1, 0]),
        ("repeat", [3, 3, 3, 3]),
        ("empty", [-1, 1, 2, 3]),
        ("last-1", [0, 1, 2, 3]),
        ("last-2", [0, 1, 3, 3]),
        ("last-3", [0, 3, 3, 3]),
        ("last-4", [3, 3, 3, 3]),
    ],
)
def test_operators_show_these_steps(name, steps):
    z = sequence([0, 1, 2, 3])
    before = z.clone()
    assert torch.equal(time_operator(name)(z), sequence(steps))
    assert torch.equal(z, before)


@pytest.mark.parametrize("name", ["none", "reverse", "repeat", "last-1", "shuffle"])
def test_with_one_step_every_reordering_changes_nothing(name):
    z = torch.randn(1, 2, 3, 2, 2)
    assert torch.equal(time_operator(name)(z), z)


def test_shuffle_is_a_permutation_other_than_the_identity_and_depends_on_the_seed_alone():
    z = sequence([0, 1])
    for seed in range(8):
        assert torch.equal(time_operator("shuffle", seed=seed)(z), sequence([1, 0]))
    long = torch.arange(10.0)
    orders = [time_operator("shuffle", seed=seed)(long) for seed in (0, 0, 1)]
    assert torch.equal(orders[0].sort().values, long)
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    other = torch.randn(10, 3, 2, 1, 1, dtype=torch.float16)
    assert torch.equal(time_operator("shuffle", seed=0)(other), other[orders[0].long()])


@pytest.mark.parametrize("name", ["none", "reverse", "repeat", "empty", "last-2", "shuffle"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.bool])
def test_operators_keep_shape_and_dtype(name, dtype):
    z = torch.ones(3, 0, 2, 1, 4).to(dtype)
    out = time_operator(name)(z)
    assert (out.shape, out.dtype) == (z.shape, dtype)


def test_the_gradient_goes_to_the_steps_that_are_shown():
    z = STEPS.clone().requires_grad_()
    time_operator("last-3")(z).sum().backward()
    assert z.grad.tolist() == [1, 0, 0, 3]


@pytest.mark.parametrize("name", ["last-0", "last", "last-02", "backwards", ""])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"none, reverse, repeat, empty, shuffle and last-1 … last-T"):
        time_operator(name)


def test_more_last_steps_than_there_are_is_an_error():
    with pytest.raises(ValueError, match=r"last-5 needs n between 1 and the number of steps, here 4"):
        time_operator("last-5")(STEPS)
