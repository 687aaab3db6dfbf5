"""Shapes, resampling and the time axis of the building blocks."""

import pytest
import torch
import torch.nn.functional as F

from tcvq_vqvae.blocks import Downsample, ResBlock, SpikeAttention, Upsample, group_norm, sinusoids


def test_narrow_and_odd_widths_get_the_largest_power_of_two_of_groups():
    assert [group_norm(c).num_groups for c in (64, 48, 24, 7)] == [32, 16, 8, 1]


@pytest.mark.parametrize(("shortcut", "kernel"), [("1x1", 1), ("3x3", 3)])
def test_shortcut_is_a_convolution_only_where_widths_differ(shortcut, kernel):
    assert ResBlock(8, 16, shortcut=shortcut).shortcut.kernel_size == (kernel, kernel)
    assert isinstance(ResBlock(8, 8, shortcut=shortcut).shortcut, torch.nn.Identity)
    assert ResBlock(8, 16, shortcut=shortcut)(torch.randn(2, 3, 8, 4, 4)).shape == (2, 3, 16, 4, 4)


def test_first_steps_do_not_depend_on_how_many_follow():
    block, x = ResBlock(8, 16).double(), torch.randn(5, 2, 8, 4, 4).double()
    torch.testing.assert_close(block(x[:3]), block(x)[:3], rtol=0, atol=1e-12)


def test_neurons_remember_earlier_steps():
    block, x = ResBlock(8, 16).double(), 2 * torch.randn(3, 2, 8, 4, 4).double()
    assert not torch.allclose(block(x)[2:], block(x[2:]))


def test_time_embedding_exists_only_when_asked_for():
    names = dict(ResBlock(8, 8).named_parameters())
    assert not any("step" in name for name in names)
    block = ResBlock(8, 8, n_steps=3, time_embedding="learned")
    x = torch.randn(1, 2, 8, 4, 4).expand(3, 2, 8, 4, 4)
    block(x).sum().backward()
    assert block.step_emb.shape == (3, 8)
    assert block.step_proj.weight.grad.abs().sum() > 0


def test_sinusoidal_time_embedding_is_fixed_and_saved_with_no_one():
    steps = sinusoids(3, 5)
    assert steps[0].tolist() == [0, 1, 0, 1, 0]
    torch.testing.assert_close(steps[2, :2], torch.tensor([0.90929743, -0.41614684]))  # sin 2, cos 2
    block = ResBlock(8, 8, n_steps=3, time_embedding="sinusoidal")
    assert torch.equal(block.step_emb, sinusoids(3, 8))
    assert "step_emb" not in block.state_dict()
    block.double()(torch.randn(3, 1, 8, 4, 4).double())


def test_time_embedding_is_added_after_the_first_convolution():
    block = ResBlock(8, 8, n_steps=2, time_embedding="learned").double()
    plain = ResBlock(8, 8).double()
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if "step_" not in k})
    x, shift = torch.randn(2, 1, 8, 4, 4).double(), block.step_proj(block.step_gate(block.step_emb))
    plain.conv1.register_forward_hook(lambda conv, args, y: y + shift[:, :, None, None])
    torch.testing.assert_close(block(x), plain(x), rtol=1e-12, atol=1e-12)


def test_normalised_attention_does_not_grow_with_the_map():
    plain, counted = SpikeAttention(8).double(), SpikeAttention(8, normalise="count").double()
    counted.load_state_dict(plain.state_dict())
    for attention in (plain, counted):
        torch.nn.init.zeros_(attention.proj.bias)
    counted.load_state_dict(plain.state_dict())
    x = 2 * torch.randn(2, 1, 8, 3, 3).double()
    torch.testing.assert_close((plain(x) - x) / 9, counted(x) - x, rtol=1e-12, atol=1e-12)


def test_downsampling_pads_at_the_bottom_right_only():
    down = Downsample(1)
    torch.nn.init.constant_(down.conv.weight, 1.0)
    torch.nn.init.zeros_(down.conv.bias)
    y = down(torch.ones(1, 1, 1, 4, 4))[0, 0, 0]
    assert y.tolist() == [[9.0, 6.0], [6.0, 4.0]]


def test_nearest_upsampling_repeats_pixels_and_then_convolves():
    up = Upsample(2, "nearest")
    x = torch.randn(2, 1, 2, 3, 3)
    expected = up.conv(x.flatten(0, 1).repeat_interleave(2, -1).repeat_interleave(2, -2)).unflatten(0, (2, 1))
    torch.testing.assert_close(up(x), expected)


def test_transposed_upsampling_is_the_adjoint_of_a_strided_convolution():
    up = Upsample(2, "transpose")
    torch.nn.init.zeros_(up.conv.bias)
    x, y = torch.randn(1, 1, 2, 3, 3), torch.randn(1, 2, 6, 6)
    back = F.conv2d(y, up.conv.weight, stride=2, padding=1)
    torch.testing.assert_close((up(x)[0] * y).sum(), (x[0] * back).sum())


@pytest.mark.parametrize("side", [2, 3, 4])
def test_attention_equals_its_equation_on_both_sides_of_the_cheaper_order(side):
    attention = SpikeAttention(8).double()
    x = 2 * torch.randn(2, 1, 8, side, side).double()
    h = attention.norm(x.flatten(0, 1))
    q, k = (
        neuron(conv(h).unflatten(0, (2, 1)))
        for neuron, conv in ((attention.q_lif, attention.q), (attention.k_lif, attention.k))
    )
    v = attention.v(h).unflatten(0, (2, 1))
    y = torch.zeros_like(v)
    sites = [(a, b) for a in range(side) for b in range(side)]
    for t in range(2):
        for i in sites:
            for j in sites:
                overlap = (q[t, 0, :, *i] * k[t, 0, :, *j]).sum() * 8**-0.5
                y[t, 0, :, *i] += overlap * v[t, 0, :, *j]
    expected = x + attention.proj(y.flatten(0, 1)).unflatten(0, (2, 1))
    assert q.unique().tolist() == [0.0, 1.0]
    torch.testing.assert_close(attention(x), expected)
