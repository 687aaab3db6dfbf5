"""What training remembers, guards and leaves alone: resumption, averages, precision, validation, previews."""

from types import SimpleNamespace

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy

from tcvq_data import read_artifact
from tcvq_vqvae import LitVQVAE, LossConfig, Previews, Stage1Config, reconstruct
from tcvq_vqvae import objective as objective_module
from tcvq_vqvae.guard import SCHEMA

pytestmark = pytest.mark.slow  # all of them together
NO_GAN = LossConfig(disc_weight=0.0)
GAN = LossConfig(disc_start=0, disc_width=4, disc_layers=1)


def steps(n, **options):
    return Stage1Config(**{"max_steps": n, "batch_size": 4, "learning_rate": 2e-3, "revive_every": 0, **options})


@pytest.fixture
def images():
    return torch.rand(4, 1, 8, 8) * 2 - 1


def assert_equal_states(a, b):
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(b[name], tensor), name


class SaveAt(lightning.Callback):
    """Saves the state of training after some of the batches."""

    def __init__(self, folder, batches):
        self.folder, self.batches, self.seen = folder, batches, 0

    def on_train_batch_end(self, trainer, module, *_):
        self.seen += 1
        if self.seen in self.batches:
            trainer.save_checkpoint(self.folder / f"{self.seen}.ckpt", weights_only=False)


def test_training_goes_on_bit_for_bit_from_any_batch(make_config, fit, images, tmp_path):
    """Batch 3 is in the unquantized start and in the middle of a step, batch 8 the end of step 4 of 8."""
    loss = LossConfig(disc_start=3, disc_width=4, disc_layers=1)
    train = steps(8, accumulate=2, ema_decay=0.9, revive_every=2, unquantized_steps=2, warmup_steps=3, grad_clip=0.5)
    config = make_config(n_embed=40, dropout=0.1)
    torch.manual_seed(1)
    whole = LitVQVAE(config, loss, train)
    fit(whole, images, callbacks=[SaveAt(tmp_path, (3, 8))])
    for batch in (3, 8):
        torch.manual_seed(2)
        rest = LitVQVAE(config, loss, train)
        fit(rest, images, ckpt_path=tmp_path / f"{batch}.ckpt")
        assert rest.batches_seen == 8
        assert_equal_states(whole.state_dict(), rest.state_dict())


def test_accumulated_pieces_equal_the_whole_batch(make_config, fit, images):
    def trained(accumulate):
        torch.manual_seed(1)
        module = LitVQVAE(make_config(codebook_init="uniform"), NO_GAN, steps(3, accumulate=accumulate))
        fit(module, *images.chunk(accumulate), precision="64-true")
        return module

    whole, pieces = trained(1), trained(2)
    assert whole.batches_seen == pieces.batches_seen == 3
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(pieces.model.state_dict()[name], tensor, rtol=0, atol=1e-10)


def test_epochs_and_the_start_of_the_discriminator_are_counted_with_the_trainers_batches(make_config, fit, images):
    loss = LossConfig(disc_start="2 epochs", disc_width=4, disc_layers=1)
    train = Stage1Config(max_epochs=3, batch_size=4, learning_rate=1e-3, schedule="cosine")
    module, started = LitVQVAE(make_config(), loss, train), []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if "train/discriminator" in trainer.callback_metrics and not started:
                started.append(module.batches_seen - 1)

    fit(module, images, images.flip(0), callbacks=[Watch()])
    assert module.total_steps == module.batches_seen == 6
    assert started == [4]


def test_discriminator_warms_up_before_its_term_counts(make_config, fit, images):
    loss, log = LossConfig(disc_start=1, disc_warmup=2, disc_width=4, disc_layers=1), []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            log.append(set(trainer.callback_metrics) & {"train/discriminator", "train/generator"})
            trainer.callback_metrics.clear()

    fit(LitVQVAE(make_config(), loss, steps(4)), images, callbacks=[Watch()])
    assert log == [set(), {"train/discriminator"}, {"train/discriminator"}, {"train/discriminator", "train/generator"}]


def test_average_of_the_weights_is_validated_and_returned(make_config, fit, images):
    module, history = LitVQVAE(make_config(codebook_init="uniform"), NO_GAN, steps(3, ema_decay=0.75)), []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            history.append(module.model.decoder.conv_out.weight.detach().clone())

    trainer = fit(module, images, validation=images, check_val_every_n_epoch=3, callbacks=[Watch()])
    expected = 0.75 * (0.75 * history[0] + 0.25 * history[1]) + 0.25 * history[2]
    torch.testing.assert_close(module.trained.decoder.conv_out.weight, expected)
    assert module.trained is not module.model
    error = (reconstruct(module.trained, images) - images).square().mean()
    assert trainer.callback_metrics["val/mse"].item() == pytest.approx(error.item(), rel=1e-5)


def test_validation_and_previews_leave_no_trace_in_the_training(make_config, fit, images):
    written = []

    def trained(**options):
        torch.manual_seed(1)
        module = LitVQVAE(make_config(n_embed=40, dropout=0.2), GAN, steps(4, unquantized_steps=1, revive_every=2))
        trainer = fit(module, images, **options)
        assert all(part.training for part in module.modules())
        return module, trainer

    def write(step, x, x_hat):
        written.append((step, x_hat))

    plain, _ = trained()
    previews = Previews(images[:2], write, every=2)
    watched, trainer = trained(validation=images[:3], check_val_every_n_epoch=1, callbacks=[previews])
    assert_equal_states(plain.state_dict(), watched.state_dict())
    names = {"val/l1", "val/mse", "val/codebook", "val/perplexity", "val/used"}
    assert names <= trainer.callback_metrics.keys()
    assert [(step, tuple(x_hat.shape)) for step, x_hat in written] == [(2, (2, 1, 8, 8)), (4, (2, 1, 8, 8))]
    assert all(x_hat.abs().max() <= 1 for _, x_hat in written)


def test_preview_that_fails_gives_every_part_its_mode_back(make_config):
    module = LitVQVAE(make_config(), NO_GAN, steps(1))
    module.model.encoder.eval()
    modes = [part.training for part in module.modules()]
    with pytest.raises(ValueError, match="takes"):
        reconstruct(module.model, torch.zeros(1, 1, 9, 9))
    assert [part.training for part in module.modules()] == modes


def test_recomputed_blocks_change_no_bit(make_config, fit, images):
    def trained(**options):
        torch.manual_seed(1)
        module = LitVQVAE(make_config(codebook_init="uniform", dropout=0.1), GAN, steps(2, ema_decay=0.5, **options))
        fit(module, images)
        return module.state_dict()

    assert_equal_states(trained(), trained(grad_checkpoint=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo looks at inputs
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")  # which kernels there are
def test_levels_are_compiled_and_train_as_before(make_config, fit, images, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def compiled(module):
        module._compiled_call_impl = torch.compile(module._call_impl, backend=backend)

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)

    def trained(**options):
        torch.manual_seed(1)
        module = LitVQVAE(make_config(codebook_init="uniform"), GAN, steps(2, ema_decay=0.5, **options))
        fit(module, images)
        return module.state_dict()

    expected = trained()
    assert not graphs
    found = trained(compile=True)
    assert graphs
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


class Exact(MixedPrecision):
    """Scales losses as float16 training does, and computes in float32."""

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


def test_scaled_losses_train_as_unscaled_ones_although_the_scale_changes_within_a_step(make_config, fit, images):
    """The scale doubles after every update, so between those of the two networks; powers of two change no bit."""

    def trained(**options):
        torch.manual_seed(1)
        module = LitVQVAE(make_config(codebook_init="uniform"), GAN, steps(4, accumulate=2))
        trainer = fit(module, images, images.flip(0), **options)
        return module.state_dict(), trainer

    expected, _ = trained()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1)
    found, trainer = trained(plugins=[Exact("16-mixed", "cpu", scaler)])
    assert trainer.precision_plugin.scaler.get_scale() == 2.0 ** (8 + 2 * 4)
    assert_equal_states(expected, found)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains(make_config, fit, images, precision):
    module, losses = LitVQVAE(make_config(codebook_init="uniform"), GAN, steps(40, grad_clip=1.0)), []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            losses.append(trainer.callback_metrics["train/l1"].item())

    options = {"precision": "bf16-mixed"}
    if precision == "fp16":
        options = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))]}
    fit(module, images, callbacks=[Watch()], **options)
    assert losses[-1] < 0.9 * losses[0]
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_term_that_is_not_finite_stops_before_the_weights_change_and_keeps_the_batch(
    make_config, fit, images, tmp_path, monkeypatch
):
    path, original = tmp_path / "debug_batch.safetensors", objective_module.pixel_loss
    module = LitVQVAE(make_config(codebook_init="uniform"), NO_GAN, steps(4), debug_batch=path)
    before = {}

    def fail_at_step_2(*args):
        before.update({name: tensor.clone() for name, tensor in module.model.state_dict().items()})
        return original(*args) * (float("nan") if module.batches_seen == 2 else 1.0)

    monkeypatch.setattr(objective_module, "pixel_loss", fail_at_step_2)
    with pytest.raises(
        FloatingPointError, match=rf"not finite at batch 2: l1 = nan, loss = nan; the batch is in {path}"
    ):
        fit(module, images)
    for name, parameter in module.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    kept = read_artifact(path, schema=SCHEMA)
    assert torch.equal(kept.tensors["image"], images)
    assert kept.meta["step"] == 2
    assert kept.meta["values"] == {"l1": "nan", "loss": "nan"}


def test_gradient_that_is_not_finite_stops_training_and_is_named(make_config, fit, images):
    module = LitVQVAE(make_config(codebook_init="uniform"), NO_GAN, steps(2))
    module.model.encoder.conv_in.bias.register_hook(lambda grad: grad * torch.inf)
    with pytest.raises(FloatingPointError, match="at batch 0: gradient of the autoencoder = "):
        fit(module, images)


@pytest.mark.parametrize("channels", [2, 6])
def test_discriminator_of_events_sees_single_frames_or_whole_clips(make_config, fit, channels):
    config = make_config(encoding="event", decoding="event", in_channels=2, n_steps=3)
    loss = LossConfig(disc_start=0, disc_width=4, disc_layers=1, disc_input="frame" if channels == 2 else "clip")
    module, seen = LitVQVAE(config, loss, steps(1)), []
    module.discriminator.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    fit(module, torch.rand(4, 3, 2, 8, 8))
    assert seen == [(12 if channels == 2 else 4, channels, 8, 8)] * 3


def test_clips_of_still_images_are_refused(make_config):
    with pytest.raises(ValueError, match="only event recordings have clips"):
        LitVQVAE(make_config(), LossConfig(disc_layers=1, disc_input="clip"), steps(1))


def test_sharding_is_refused(make_config, monkeypatch):
    module = LitVQVAE(make_config(), NO_GAN, steps(1))
    monkeypatch.setattr(LitVQVAE, "trainer", SimpleNamespace(strategy=ModelParallelStrategy()))
    with pytest.raises(ValueError, match="does not shard its networks; train with strategy ddp"):
        module.setup("fit")
