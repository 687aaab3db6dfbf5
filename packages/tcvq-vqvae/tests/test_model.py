"""The whole network: round trips, statelessness, events, sizes."""

import pytest
import torch

from tcvq_vqvae import PatchDiscriminator, SpikingVQVAE, VQVAEConfig
from tcvq_vqvae import model as model_module
from tcvq_vqvae.testing import check_tokenizer


@pytest.fixture
def images():
    return torch.rand(3, 1, 8, 8) * 2 - 1


def trained(config, x):
    """A network whose codebook is drawn from these images."""
    model = SpikingVQVAE(config)
    with torch.no_grad():
        model.codebook.initialize(model.latents(x))
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upsample": "nearest", "shortcut": "3x3", "out_nonlinearity": "spike"},
        {"space_to_depth": 2, "attn_resolutions": (2,)},
        {"time_embedding": True, "decoding": "last", "channel_mult": (1, 1, 2)},
        {"time_embedding": True, "time_embedding_form": "sinusoidal", "decoding": "sum_sigmoid"},
        {"attn_normalise": "count", "decoding": "mean_sigmoid", "dropout": 0.1, "width": 12},
    ],
)
def test_every_architecture_keeps_the_promises_of_a_tokenizer(make_config, images, options):
    config = make_config(**options)
    check_tokenizer(trained(config, images).eval(), images)


def test_decoding_the_codes_gives_the_training_reconstruction_bit_for_bit(make_config, images):
    model = trained(make_config(), images).train()
    out = model(images)
    assert out.x_hat.requires_grad
    assert len(out.quantized.indices.unique()) > 1
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.decode_indices(out.quantized.indices), out.x_hat)
        assert torch.equal(model.decode(model.encode(images).z_q), out.x_hat)


def test_nothing_is_remembered_between_calls_or_batch_sizes(make_config, images):
    model = trained(make_config(), images).eval()
    with torch.no_grad():
        first = model(images).x_hat
        assert torch.equal(model(images).x_hat, first)
        model(images[:1])
        assert torch.equal(model(images).x_hat, first)


def test_call_that_fails_halfway_leaves_no_trace(make_config, images, monkeypatch):
    model = trained(make_config(), images).eval()
    with torch.no_grad():
        first = model(images).x_hat
        with monkeypatch.context() as broken:
            broken.setattr(model.decoder.mid.attn, "forward", None)
            with pytest.raises(TypeError):
                model(images)
        assert torch.equal(model(images).x_hat, first)


def test_gradient_of_the_reconstruction_reaches_every_weight_but_the_codebook(make_config, images):
    model = trained(make_config(), images)
    model(images).x_hat.square().mean().backward()
    assert {name for name, p in model.named_parameters() if p.grad is None} == {"codebook.codebook"}


def test_event_frames_keep_their_time_axis_first_to_last(make_config):
    config = make_config(encoding="event", decoding="event", in_channels=2, n_steps=3)
    frames = torch.rand(3, 2, 2, 8, 8)
    model = trained(config, frames).eval()
    check_tokenizer(model, frames)
    with torch.no_grad():
        whole = model.latents(frames)
        changed = frames.clone()
        changed[2] = 0
        assert torch.equal(model.latents(changed)[:2], whole[:2])
        assert not torch.equal(model.latents(changed)[2], whole[2])


def test_space_to_depth_folds_pixels_before_the_first_and_after_the_last_convolution(make_config, images):
    config = make_config(space_to_depth=2, attn_resolutions=())
    model = SpikingVQVAE(config)
    assert config.grid == (2, 2)
    assert model.encoder.conv_in.in_channels == model.decoder.conv_out.out_channels == 4
    assert model.latents(images).shape == (2, 3, 4, 2, 2)
    assert model(images).x_hat.shape == images.shape


def test_image_of_another_size_is_refused_with_both_sizes(make_config):
    model = SpikingVQVAE(make_config())
    with pytest.raises(ValueError, match=r"images are \(1, 12, 12\).*takes \(1, 8, 8\)"):
        model(torch.zeros(2, 1, 12, 12))
    with pytest.raises(ValueError, match=r"images are \(3, 8, 8\)"):
        model(torch.zeros(2, 3, 8, 8))


def test_pixels_that_are_not_floating_point_are_refused_with_what_to_do(make_config):
    with pytest.raises(TypeError, match=r"images are torch\.uint8.*x / 127\.5 - 1"):
        model_module.check_images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), make_config())


def test_grid_of_another_size_is_refused_with_both_sizes(make_config):
    model = SpikingVQVAE(make_config(codebook_init="uniform"))
    with pytest.raises(ValueError, match=r"latents are \(2, 1, 4, 2, 2\).*\(4, 4, 4\)"):
        model.decode_indices(torch.zeros(1, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("part", "millions"),
    [("encoder", 29.30), ("decoder", 42.45), ("codebook", 1.05), ("quant_conv", 0.066), ("post_quant_conv", 0.066)],
)
def test_paper_sized_networks_have_the_parameters_of_the_released_code(part, millions):
    config = VQVAEConfig(image_size=64, in_channels=3, attn_resolutions=(4,), upsample="nearest")
    with torch.device("meta"):
        model = SpikingVQVAE(config)
    count = sum(p.numel() for p in getattr(model, part).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005)


def test_paper_sized_discriminator_has_the_parameters_of_the_released_code():
    with torch.device("meta"):
        assert sum(p.numel() for p in PatchDiscriminator(3).parameters()) / 1e6 == pytest.approx(2.77, abs=0.005)


def test_time_embedding_adds_parameters_only_when_asked_for(make_config):
    plain = SpikingVQVAE(make_config()).state_dict()
    timed = SpikingVQVAE(make_config(time_embedding=True)).state_dict()
    assert plain.keys() < timed.keys()
    assert all("step_" in name for name in timed.keys() - plain.keys())


def test_every_network_is_built_once_and_with_the_configured_steps(make_config, monkeypatch):
    built = []
    for name in ("Encoder", "Decoder", "TemporalCodebook"):
        original = getattr(model_module, name)
        monkeypatch.setattr(
            model_module,
            name,
            lambda *args, _make=original, _name=name, **kw: (built.append(_name), _make(*args, **kw))[1],
        )
    model = SpikingVQVAE(make_config(n_steps=5))
    assert sorted(built) == ["Decoder", "Encoder", "TemporalCodebook"]
    assert model.codebook.n_steps == model.spike_encoder.n_steps == 5


def test_equal_seeds_build_equal_networks(make_config, images):
    def run():
        torch.manual_seed(3)
        model = trained(make_config(), images).eval()
        return model(images)

    first, second = run(), run()
    assert torch.equal(first.quantized.indices, second.quantized.indices)
    assert torch.equal(first.x_hat, second.x_hat)
