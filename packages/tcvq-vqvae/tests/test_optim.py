"""Memory order of weights changes no number, and the fused Adam is Adam in any of them."""

import copy

import pytest
import torch
from torch import nn

from tcvq_neurons import fuses_norm
from tcvq_vqvae import SpikingVQVAE
from tcvq_vqvae.optim import FusedAdam, lay_out

CHANNELS_LAST = torch.channels_last


def test_fused_adam_equals_adam_in_both_memory_orders():
    plain = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1)).double()
    fused, turned = copy.deepcopy(plain), copy.deepcopy(plain).to(memory_format=CHANNELS_LAST)
    adams = [torch.optim.Adam(plain.parameters(), lr=0.1, betas=(0.5, 0.9))]
    adams += [FusedAdam(net.parameters(), lr=0.1, betas=(0.5, 0.9)) for net in (fused, turned)]
    for _ in range(3):
        x = torch.randn(2, 4, 6, 6).double()
        for net, adam in zip((plain, fused, turned), adams, strict=True):
            adam.zero_grad()
            net(x).square().sum().backward()
            adam.step()
    for a, b, c in zip(plain.parameters(), fused.parameters(), turned.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(c, a, rtol=1e-10, atol=1e-12)
    assert turned[0].weight.is_contiguous(memory_format=CHANNELS_LAST)
    assert adams[2].state[turned[0].weight]["exp_avg"].shape == (6, 4, 3, 3)


def test_moments_come_back_from_a_state_dict_in_the_shape_of_their_weights():
    net = nn.Conv2d(4, 6, 3).to(memory_format=CHANNELS_LAST)
    adam = FusedAdam(net.parameters(), lr=0.1, betas=(0.5, 0.9))
    net(torch.randn(1, 4, 5, 5)).sum().backward()
    adam.step()
    twin = copy.deepcopy(net)
    other = FusedAdam(twin.parameters(), lr=0.1, betas=(0.5, 0.9))
    other.load_state_dict(copy.deepcopy(adam.state_dict()))
    for each, optimizer in ((net, adam), (twin, other)):
        each.weight.grad = torch.ones_like(each.weight)
        optimizer.step()
    assert torch.equal(net.weight, twin.weight)


@pytest.mark.skipif(not fuses_norm("auto"), reason='needs numba; install "tcvq-neurons[cpu]"')
def test_laid_out_network_has_the_same_weights_and_results(make_config):
    model = SpikingVQVAE(make_config(codebook_init="uniform")).double()
    twin = lay_out(copy.deepcopy(model))
    assert twin.encoder.conv_in.weight.shape == model.encoder.conv_in.weight.shape
    assert twin.decoder.mid.block1.conv1.weight.is_contiguous(memory_format=CHANNELS_LAST)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    x = torch.rand(2, 1, 8, 8).double()
    torch.testing.assert_close(twin(x).x_hat, model(x).x_hat, rtol=1e-9, atol=1e-10)
