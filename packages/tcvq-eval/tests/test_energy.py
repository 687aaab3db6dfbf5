"""Energy of networks small enough for pencil and paper, in all three accountings."""

import pytest
import torch
from torch import nn

from tcvq_eval import EnergyTable, LayerWork, SideWork, estimate_energy, input_kind


def two_layers(kind, density=0.25):
    """4 -> 3 -> 2 units, T = 5: the first layer sees the image once, the second one 25 % non-zero inputs."""
    return [
        LayerWork(name="first", part="net", macs=12, steps=1, density=1.0, input="analog"),
        LayerWork(name="second", part="net", macs=6, steps=5, density=density, input=kind),
    ]


def test_two_layers_with_binary_spikes_by_hand():
    energy = estimate_energy(two_layers("spikes"), n_steps=5)
    # SOP of the second layer = 0.25 x 5 x 6 = 7.5
    assert energy.rows[1].synops == pytest.approx(7.5)
    assert energy.ac_convention == pytest.approx((4.6 * 12 + 0.9 * 7.5) / 1000)  # 61.95 pJ
    assert energy.graded == pytest.approx((4.6 * 12 + 0.9 * 7.5) / 1000)
    assert energy.ann == pytest.approx(4.6 * (12 + 6) / 1000)  # 82.8 pJ


def test_the_same_layers_behind_the_gate_multiply_and_are_dearer_than_the_convention_says():
    energy = estimate_energy(two_layers("graded"), n_steps=5)
    assert energy.ac_convention == pytest.approx((4.6 * 12 + 0.9 * 7.5) / 1000)
    assert energy.graded == pytest.approx((4.6 * 12 + 4.6 * 7.5) / 1000)  # 89.7 pJ: more than the 82.8 of the ANN
    assert energy.graded > energy.ann


def test_a_layer_with_analog_inputs_runs_densely_at_every_step():
    energy = estimate_energy(two_layers("analog", density=1.0), n_steps=5)
    assert energy.graded == pytest.approx(4.6 * (12 + 5 * 6) / 1000)
    assert energy.by_input == pytest.approx({"spikes": 0, "graded": 0, "analog": 1})


def test_the_rate_enters_once():
    half, quarter = (estimate_energy(two_layers("spikes", r), n_steps=5).rows[1].synops for r in (0.5, 0.25))
    assert half == 2 * quarter


def test_side_work_counts_in_the_graded_accounting_only():
    side = [SideWork(name="lif", part="net", adds=30, multiplies=10, int_adds=100, macs=2, ann_macs=3)]
    with_it, without = (estimate_energy(two_layers("spikes"), s, n_steps=5) for s in (side, []))
    assert with_it.ac_convention == without.ac_convention
    assert with_it.graded - without.graded == pytest.approx((30 * 0.9 + 10 * 3.7 + 100 * 0.1 + 2 * 4.6) / 1000)
    assert with_it.ann - without.ann == pytest.approx(3 * 4.6 / 1000)
    assert with_it.part("net") == pytest.approx((with_it.ac_convention, with_it.graded, with_it.ann))


def test_another_table_scales_everything_and_is_named():
    table = EnergyTable(name="half", mac=2.3, ac=0.45, multiply=1.85, int_add=0.05)
    full, half = estimate_energy(two_layers("spikes"), n_steps=5), None
    half = estimate_energy(two_layers("spikes"), n_steps=5, table=table)
    assert (half.table.name, half.graded) == ("half", pytest.approx(full.graded / 2))


def test_inputs_are_told_apart_by_their_values():
    x = torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert input_kind(0.5, binary=True) == "spikes"
    assert input_kind(float((x * 0.7 != 0).float().mean()), binary=False) == "graded"
    assert input_kind(1.0, binary=False) == "analog"


def test_the_macs_of_a_real_two_layer_network_agree():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    layers = two_layers("spikes")
    assert [layer.macs for layer in layers] == [linear.weight.numel() for linear in net]


def test_impossible_measurements_are_refused():
    with pytest.raises(ValueError, match=r"density is 1\.5"):
        LayerWork(name="x", macs=1, steps=1, density=1.5, input="graded")
    with pytest.raises(ValueError, match="needs layers"):
        estimate_energy([], n_steps=4)
    with pytest.raises(ValueError, match="must not be negative"):
        EnergyTable(mac=-1)
