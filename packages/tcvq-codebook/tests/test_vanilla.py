"""The vanilla codebook searches every step alone and shares one set of vectors over time."""

import torch

from tcvq_codebook import VanillaCodebook


def test_every_step_gets_its_own_nearest_entry(z):
    codebook = VanillaCodebook(17, 8)
    out = codebook(z)
    distance = (z.permute(0, 1, 3, 4, 2).unsqueeze(-2) - codebook.codebook).square().sum(-1)
    assert torch.equal(out.indices, distance.argmin(-1))
    assert out.indices.shape == (4, 6, 3, 5)


def test_vanilla_encode_lookup_and_forward_agree(z):
    codebook = VanillaCodebook(17, 8)
    out = codebook(z)
    assert torch.equal(codebook.lookup(out.indices), out.z_q)
    assert torch.equal(codebook.encode(z), out.indices)
    assert torch.equal(codebook.lookup(out.indices.flatten(2)), out.z_q.flatten(3))


def test_the_vanilla_loss_is_the_mean_over_the_steps(z):
    codebook = VanillaCodebook(17, 8)
    codebook.initialize(z)
    per_step = torch.stack([codebook.eval()(z[t : t + 1]).loss for t in range(4)])
    torch.testing.assert_close(codebook(z).loss, per_step.mean())


def test_vanilla_revival_replaces_dead_vectors_by_steps_of_latents(z):
    codebook = VanillaCodebook(17, 8)
    codebook(z)
    codebook.step.counts[[2, 5]] = 0
    dead = codebook.revive(z, min_usage=1e-6)
    assert dead.nonzero().flatten().tolist() == [2, 5]
    steps = z.permute(0, 1, 3, 4, 2).reshape(-1, 8)
    assert (codebook.codebook[dead][:, None] == steps).all(2).any(1).all()
