"""Time cells: noise is not above chance, a planted order is, and the figure shows both halves."""

import pytest
import torch

from tcvq_eval import TimeCellPanels, evaluate_time_cells, time_cell_figure


@pytest.fixture
def noise(generator):
    return [torch.randn(400, 4, generator=generator) for _ in range(2)]


@pytest.fixture
def planted(generator):
    """Unit u peaks at step u mod 4 in both halves, with noise that does not hide it."""
    signal = torch.nn.functional.one_hot(torch.arange(400) % 4, 4).float() * 3
    return [signal + 0.5 * torch.randn(400, 4, generator=generator) for _ in range(2)]


def test_null_data_are_not_above_chance(noise):
    found = evaluate_time_cells(*noise)
    assert not found.above_chance
    assert found.verdict.endswith("not above chance")
    assert found.agreement == pytest.approx(0.25, abs=0.07)
    assert found.chance == pytest.approx(0.25, abs=0.01)
    # yet noise sorted by its own peaks would look like a perfect sequence
    assert evaluate_time_cells(noise[0], noise[0]).agreement == 1


def test_a_planted_order_is_found_and_the_permuted_one_is_not(planted):
    found = evaluate_time_cells(*planted)
    assert found.above_chance
    assert found.agreement > 0.95
    assert found.p_value == pytest.approx(1 / 500)
    assert found.verdict.endswith("above chance")
    assert found.shown.argmax(1).float().diff().ge(0).float().mean() > 0.9  # a diagonal
    assert found.shown_null.argmax(1).float().diff().ge(0).float().mean() < 0.8


def test_few_units_by_hand():
    first = torch.tensor([[0.0, 2, 1], [5, 1, 0], [0, 0, 1], [7, 7, 7]])  # the last never varies
    second = torch.tensor([[0.0, 1, 0], [1, 0, 2], [0, 0, 1], [1, 2, 3]])
    found = evaluate_time_cells(first, second)
    assert found.n_units == 3
    assert found.agreement == pytest.approx(2 / 3)
    assert found.peak_counts == (1, 1, 1)
    assert found.shown.tolist() == [[0.5, 0, 1], [0, 1, 0], [0, 0, 1]]  # order of the first half: unit 1, 0, 2


def test_too_many_units_at_one_step_lie_outside_of_the_null(generator):
    early = torch.tensor([9.0, 0, 0, 0]) + torch.rand(300, 4, generator=generator)
    found = evaluate_time_cells(early, early)
    assert found.peak_counts == (300, 0, 0, 0)
    assert found.null_high[0] < 110
    assert found.null_low[3] > 40


def test_halves_of_different_units_and_constant_units_are_refused():
    with pytest.raises(ValueError, match="same units"):
        evaluate_time_cells(torch.rand(3, 4), torch.rand(4, 4))
    with pytest.raises(ValueError, match="none of 3 units varies"):
        evaluate_time_cells(torch.ones(3, 4), torch.rand(3, 4))


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_figure_is_the_same_in_each_run(planted, kind):
    found = evaluate_time_cells(*planted)
    panels = TimeCellPanels(
        rasters={"trained": found.shown, "permuted": found.shown_null},
        peak_counts=found.peak_counts,
        null_low=found.null_low,
        null_high=found.null_high,
        paths=torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1)),
        explained=(0.6, 0.2),
        profiles={"error": [0.1, 0.2, 0.3, 0.4], "change": [0.3, 0.2, 0.1]},
        variance_shares={"trained": 0.3},
    )
    first, second = (time_cell_figure(panels, kind=kind) for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
