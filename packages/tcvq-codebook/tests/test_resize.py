"""Resizing in time, on entries whose steps are their own numbers."""

import pytest
import torch

from tcvq_codebook.resize import resize_entries

MODES = ["truncate", "repeat-last", "nearest", "linear"]


def ramp(n_steps):
    """Two entries of width 3: e_{k,t} = t and 10 t."""
    return torch.arange(float(n_steps)).view(1, -1, 1) * torch.tensor([1.0, 10.0]).view(2, 1, 1).expand(2, 1, 3)


@pytest.mark.parametrize(
    ("old", "new", "mode", "steps"),
    [
        (4, 2, "truncate", [0, 1]),
        (4, 2, "repeat-last", [0, 1]),
        (4, 6, "repeat-last", [0, 1, 2, 3, 3, 3]),
        (4, 8, "nearest", [0, 0, 1, 1, 2, 2, 3, 3]),
        (8, 4, "nearest", [0, 2, 5, 7]),
        (3, 2, "nearest", [0, 2]),
        (2, 3, "nearest", [0, 1, 1]),
        (4, 7, "linear", [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        (5, 3, "linear", [0, 2, 4]),
        (4, 3, "linear", [0, 1.5, 3]),
        (4, 1, "linear", [0]),
        (4, 1, "nearest", [0]),
        (1, 3, "linear", [0, 0, 0]),
        (1, 3, "repeat-last", [0, 0, 0]),
    ],
)
def test_new_steps_by_hand(old, new, mode, steps):
    expected = torch.tensor(steps).view(1, -1, 1) * torch.tensor([1.0, 10.0]).view(2, 1, 1).expand(2, 1, 3)
    assert torch.equal(resize_entries(ramp(old), new, mode), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("n_steps", [1, 4, 7])
def test_the_same_number_of_steps_is_an_exact_copy(mode, n_steps):
    entries = torch.randn(5, n_steps, 3)
    out = resize_entries(entries, n_steps, mode)
    assert torch.equal(out, entries)
    assert out.data_ptr() != entries.data_ptr()


@pytest.mark.parametrize(("there", "back"), [("repeat-last", "truncate"), ("nearest", "nearest")])
def test_longer_and_back_is_the_identity(there, back):
    entries = torch.randn(5, 4, 3)
    for n_steps in (6, 8) if there == "repeat-last" else (8, 10):
        assert torch.equal(resize_entries(resize_entries(entries, n_steps, there), 4, back), entries)


@pytest.mark.parametrize(
    ("n_steps", "mode", "message"),
    [
        (5, "truncate", "cannot truncate 4 steps to 5; use repeat-last or linear"),
        (0, "linear", "cannot linear 4 steps to 0"),
        (2, "cubic", "unknown resize mode 'cubic'; there are truncate, repeat-last, nearest, linear"),
    ],
)
def test_what_cannot_be_resized_is_refused(n_steps, mode, message):
    with pytest.raises((ValueError, TypeError), match=message if mode != "cubic" else "mode"):
        resize_entries(ramp(4), n_steps, mode)
