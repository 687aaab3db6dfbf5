"""Training: what is computed in which batch, what is remembered, and that it learns."""

import lightning
import pytest
import torch

from tcvq_vqvae import LitVQVAE, LossConfig, Stage1Config
from tcvq_vqvae import objective as objective_module
from tcvq_vqvae.schedule import learning_rate_factor

# Lightning 2.6 builds its tree specs in a way that torch 2.15 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")
NO_GAN = LossConfig(disc_weight=0.0)


def gan(disc_start):
    return LossConfig(disc_start=disc_start, disc_width=4, disc_layers=1)


def steps(n, **options):
    return Stage1Config(**{"max_steps": n, "batch_size": 4, "learning_rate": 2e-3, "revive_every": 0, **options})


class Metrics(lightning.Callback):
    """Keeps what was logged in each batch."""

    def __init__(self):
        self.batches = []

    def on_train_batch_end(self, trainer, module, *_):
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.batches.append(logged)
        trainer.callback_metrics.clear()


@pytest.fixture
def images():
    base = torch.linspace(-1, 1, 8)
    return torch.stack([torch.outer(base.roll(i), base.flip(0).roll(2 * i)) for i in range(4)])[:, None]


def test_training_reduces_the_reconstruction_error_and_stops_by_itself(make_config, fit, images):
    torch.manual_seed(0)
    train = steps(40, schedule="cosine", warmup_steps=2, learning_rate=5e-3)  # seeds 0 to 9 end at 0.29 to 0.42
    module, metrics = LitVQVAE(make_config(), NO_GAN, train), Metrics()
    trainer = fit(module, images, callbacks=[metrics])
    losses = [batch["train/l1"] for batch in metrics.batches]
    assert module.batches_seen == trainer.global_step == len(losses) == 40
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])


@pytest.mark.parametrize("disc_start", [0, 2])
def test_first_batch_with_adversarial_terms_is_disc_start_for_both_networks(
    make_config, fit, images, monkeypatch, disc_start
):
    module = LitVQVAE(make_config(), gan(disc_start), steps(4))
    calls = {"adaptive_weight": [], "hinge_discriminator_loss": []}
    for name, seen in calls.items():
        original = getattr(objective_module, name)
        monkeypatch.setattr(
            objective_module, name, lambda *a, _f=original, _seen=seen: (_seen.append(module.batches_seen), _f(*a))[1]
        )
    fit(module, images)
    assert calls["adaptive_weight"] == calls["hinge_discriminator_loss"] == list(range(disc_start, 4))


def test_adversarial_terms_are_not_logged_before_they_exist(make_config, fit, images):
    metrics = Metrics()
    fit(LitVQVAE(make_config(), gan(1), steps(2)), images, callbacks=[metrics])
    gan_names = {"train/generator", "train/discriminator", "train/adaptive_weight", "train/adaptive_weight_dropped"}
    assert not gan_names & metrics.batches[0].keys()
    assert gan_names <= metrics.batches[1].keys()
    assert metrics.batches[1]["train/adaptive_weight_dropped"] == 0


def test_each_pass_leaves_the_gradients_of_the_other_network_alone(make_config, fit, images):
    class Watched(LitVQVAE):
        passes = ()

        def manual_backward(self, loss, *args, **kwargs):
            norms = [self.gradient_norms()]
            super().manual_backward(loss, *args, **kwargs)
            norms.append(self.gradient_norms())
            self.passes = (*self.passes, norms)

        def gradient_norms(self):
            """Sums of |gradient| of both networks, -1 where there is none."""
            networks = (self.model, self.discriminator)
            return [sum(-1 if p.grad is None else p.grad.abs().sum() for p in n.parameters()) for n in networks]

    module = Watched(make_config(), gan(0), steps(1))
    fit(module, images)
    (before, after), (before_d, after_d) = module.passes
    none = -len(list(module.discriminator.parameters()))
    assert before[0] < 0 < after[0]
    assert before[1] == after[1] == before_d[1] == none
    assert after_d[0] == before_d[0]
    assert after_d[1] > 0


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_adaptive_weight_that_is_not_finite_drops_the_term_and_is_counted(
    make_config, fit, images, monkeypatch, weight
):
    monkeypatch.setattr(objective_module, "adaptive_weight", lambda *_: torch.tensor(weight))
    module, metrics = LitVQVAE(make_config(), gan(0), steps(2)), Metrics()
    fit(module, images, callbacks=[metrics])
    assert [batch["train/adaptive_weight_dropped"] for batch in metrics.batches] == [1.0, 1.0]
    assert all(p.isfinite().all() for p in module.model.parameters())


def test_error_inside_the_adversarial_term_stops_training_unchanged(make_config, fit, images, monkeypatch):
    error = RuntimeError("out of memory")

    def fail(*_):
        raise error

    monkeypatch.setattr(objective_module, "adaptive_weight", fail)
    with pytest.raises(RuntimeError) as caught:
        fit(LitVQVAE(make_config(), gan(0), steps(2)), images)
    assert caught.value is error


def test_loss_that_is_not_finite_stops_training_and_names_the_batch(make_config, fit, images):
    broken = images.clone()
    broken[0, 0, 0, 0] = torch.inf
    module = LitVQVAE(make_config(), NO_GAN, steps(4, unquantized_steps=3))
    with pytest.raises(FloatingPointError, match=r"not finite at batch 1: latents = nan; lower stage1\.learning_rate"):
        fit(module, images, broken)


def test_codebook_is_drawn_from_the_latents_of_the_unquantized_warm_up(make_config, fit, images, monkeypatch):
    module, metrics, given = LitVQVAE(make_config(), NO_GAN, steps(4, unquantized_steps=3)), Metrics(), []
    codebook = module.model.codebook
    original = codebook.initialize
    monkeypatch.setattr(codebook, "initialize", lambda z: (given.append(z), original(z))[1])
    fit(module, images, callbacks=[metrics])
    assert ["train/perplexity" in batch for batch in metrics.batches] == [False, False, False, True]
    assert [z.shape for z in given] == [(2, 12, 4, 4, 4)]
    assert codebook.initted


def test_revival_forgets_the_optimizer_moments_of_the_replaced_entries_only(make_config, fit, images, monkeypatch):
    train = steps(3, revive_every=2, ema_decay=0.9)
    module, revived = LitVQVAE(make_config(n_embed=50, codebook_init="uniform"), NO_GAN, train), []
    codebook = module.model.codebook
    original = codebook.revive
    monkeypatch.setattr(codebook, "revive", lambda z: revived.append(original(z)) or revived[0])
    moments, averages = {}, []

    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            state = trainer.optimizers[0].state.get(codebook.codebook, {})
            for name in state.keys() & {"exp_avg", "exp_avg_sq"}:
                state[name].fill_(1.0)

        def on_train_batch_end(self, trainer, module, *_):
            if module.batches_seen == 2:
                state = trainer.optimizers[0].state[codebook.codebook]
                moments.update({name: state[name].flatten(1).abs().amax(1) for name in ("exp_avg", "exp_avg_sq")})
                averages.append((module.average.module.codebook.codebook - codebook.codebook).flatten(1).abs().amax(1))

    fit(module, images, callbacks=[Watch()])
    assert len(revived) == 1
    assert 0 < revived[0].sum() < 50
    for largest in moments.values():
        assert largest[revived[0]].max() == 0
        assert largest[~revived[0]].min() > 0.3
    assert averages[0][revived[0]].max() == 0  # the average forgets the old entries too
    assert averages[0].max() > 0


def test_entries_are_not_replaced_after_the_last_step_where_nothing_would_train_them(
    make_config, fit, images, monkeypatch
):
    module = LitVQVAE(make_config(codebook_init="uniform"), NO_GAN, steps(2, revive_every=1))
    calls = []
    monkeypatch.setattr(module, "_revive", lambda z: calls.append(module.batches_seen))
    fit(module, images)
    assert calls == [1]


def test_gradient_clipping_bounds_the_norm_that_the_optimizer_sees(make_config, fit, images):
    class Norms(lightning.Callback):
        seen = ()

        def on_train_batch_end(self, trainer, module, *_):
            grads = [p.grad for p in module.model.parameters() if p.grad is not None]
            self.seen = (*self.seen, torch.nn.utils.get_total_norm(grads).item())

    norms = Norms()
    fit(LitVQVAE(make_config(), NO_GAN, steps(2, grad_clip=1e-3)), images, callbacks=[norms])
    assert norms.seen == pytest.approx((1e-3, 1e-3), rel=1e-2)


def test_event_batches_are_turned_time_first(make_config, fit, monkeypatch):
    config = make_config(encoding="event", decoding="event", in_channels=2, n_steps=3)
    module, seen, events = LitVQVAE(config, gan(0), steps(1)), [], torch.rand(3, 3, 2, 8, 8)
    original = module.model.latents
    monkeypatch.setattr(module.model, "latents", lambda x: (seen.append(x), original(x))[1])
    fit(module, events)
    assert torch.equal(seen[0], events.transpose(0, 1))


def test_interrupted_training_goes_on_where_it_stopped_and_ends_with_the_same_weights(
    make_config, fit, images, tmp_path
):
    def train(n, **options):
        torch.manual_seed(1)
        module = LitVQVAE(make_config(codebook_init="uniform"), gan(3), steps(n))
        return module, fit(module, images, **options)

    whole, _ = train(5)
    first, trainer = train(2)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    second, _ = train(5, ckpt_path=tmp_path / "last.ckpt")
    assert (first.batches_seen, second.batches_seen) == (2, 5)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_discriminator_too_deep_for_the_images_is_refused_before_training(make_config):
    with pytest.raises(ValueError, match=r"disc_layers is 2, which needs images of 12 pixels, not 8"):
        LitVQVAE(make_config(), LossConfig(disc_layers=2), steps(1))


def test_no_discriminator_is_built_without_adversarial_weight(make_config):
    module = LitVQVAE(make_config(), NO_GAN, steps(1))
    assert module.discriminator is None
    assert len(module.configure_optimizers()[0]) == 1


def test_cosine_schedule_warms_up_and_ends_at_zero():
    train = steps(10, schedule="cosine", warmup_steps=1)
    factors = [learning_rate_factor(step, train.total_steps(1), train) for step in (0, 1, 5, 10)]
    assert factors == pytest.approx([0.5, 0.9755283, 0.5, 0.0])
