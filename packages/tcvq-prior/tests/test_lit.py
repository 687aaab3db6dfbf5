"""Training the prior: the loss it computes, what it decays, and that it learns."""

import math

import lightning
import pytest
import torch

from tcvq_prior import LitPrior, Stage2Config

# Lightning 2.6 builds its tree specs in a way that torch 2.15 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")


class Batches:
    """One batch of grids and labels, as often as asked."""

    def __init__(self, indices, labels, n):
        self.batch, self.n = (indices, labels), n

    def __len__(self):
        return self.n

    def __iter__(self):
        return iter([self.batch] * self.n)


class Bits(lightning.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        self.seen.append(trainer.callback_metrics["train/bits"].item())


@pytest.fixture
def codes():
    """Grids of which the class decides the first row and the first row the second."""
    labels = torch.arange(8) % 2
    first = torch.stack([labels * 3, labels * 3 + 1, labels * 2 + 2], dim=1)
    return torch.stack([first, (first + 1) % 7], dim=1), labels


def fit(module, codes, ckpt_path=None, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(
        module,
        Batches(*codes, 10),
        Batches(*codes, 1),
        ckpt_path=ckpt_path,
        weights_only=True if ckpt_path else None,
    )
    return trainer


def steps(n, **options):
    return Stage2Config(**{"max_steps": n, "batch_size": 8, "learning_rate": 1e-2, **options})


def test_training_learns_grids_that_their_class_decides_and_stops_by_itself(make_config, codes):
    module, bits = LitPrior(make_config(n_classes=2, width=16), steps(60, schedule="cosine")), Bits()
    trainer = fit(module, codes, callbacks=[bits])
    assert module.batches_seen == trainer.global_step == len(bits.seen) == 60
    assert bits.seen[0] == pytest.approx(math.log2(7), abs=0.5)
    assert bits.seen[-1] < 0.2
    assert trainer.callback_metrics["val/bits"] < 0.2
    indices, labels = codes
    assert torch.equal(module.model.sample(8, labels=labels, temperature=0.0), indices)


def test_bits_are_the_cross_entropy_of_every_code_given_those_before(make_config, codes):
    module = LitPrior(make_config(n_classes=2), steps(1)).eval()
    indices, labels = codes
    tokens = indices.flatten(1)
    log_p = module.model(tokens, labels).log_softmax(-1)
    expected = -sum(log_p[i, n, tokens[i, n]] for i in range(8) for n in range(6)) / 48 / math.log(2)
    torch.testing.assert_close(module.bits(indices, labels), expected)


def test_labels_are_ignored_by_an_unconditional_prior(make_config, codes):
    module = LitPrior(make_config(), steps(1)).eval()
    indices, labels = codes
    assert torch.equal(module.bits(indices, labels), module.bits(indices, -torch.ones_like(labels)))


def test_only_weights_of_linear_layers_decay(make_config):
    module = LitPrior(make_config(neighbourhood=1), steps(1, weight_decay=0.1))
    (optimizer,), _ = module.configure_optimizers()
    decayed, others = optimizer.param_groups
    names = {id(p): name for name, p in module.model.named_parameters()}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {names[id(p)].split(".")[-2] for p in decayed["params"]} == {"qkv", "proj", "fc", "out", "stem"}
    assert {"table.weight", "head.weight", "embedding.position"} <= {names[id(p)] for p in others["params"]}
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_everything_else(make_config):
    module = LitPrior(make_config(neighbourhood=1), steps(1, optimizer="muon"))
    (muon, adamw), schedulers = module.configure_optimizers()
    names = {id(p): name for name, p in module.model.named_parameters()}
    by_muon, by_adamw = ({names[id(p)] for g in o.param_groups for p in g["params"]} for o in (muon, adamw))
    layers = ("qkv", "proj", "fc", "out")
    assert by_muon == {f"blocks.{i}.{layer}.weight" for i in range(2) for layer in layers}
    assert by_adamw == set(names.values()) - by_muon
    assert [scheduler.optimizer for scheduler in schedulers] == [muon, adamw]


def test_gradient_clipping_bounds_the_norm_that_the_optimizer_sees(make_config, codes):
    class Norms(lightning.Callback):
        seen = ()

        def on_train_batch_end(self, trainer, module, *_):
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            self.seen = (*self.seen, torch.nn.utils.get_total_norm(grads).item())

    norms = Norms()
    fit(LitPrior(make_config(n_classes=2), steps(3, grad_clip=1e-3)), codes, callbacks=[norms])
    assert norms.seen == pytest.approx((1e-3,) * 3, rel=1e-2)


def test_loss_that_is_not_finite_stops_training_and_names_the_batch(make_config, codes):
    module = LitPrior(make_config(n_classes=2), steps(3))
    with torch.no_grad():
        module.model.ln_f.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"at batch 0; lower stage2\.learning_rate"):
        fit(module, codes)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_interrupted_training_goes_on_where_it_stopped_and_ends_with_the_same_weights(
    make_config, codes, tmp_path, optimizer
):
    def train(n, **options):
        torch.manual_seed(1)
        module = LitPrior(make_config(n_classes=2), steps(n, optimizer=optimizer))
        return module, fit(module, codes, **options)

    whole, _ = train(5)
    first, trainer = train(2)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    second, _ = train(5, ckpt_path=tmp_path / "last.ckpt")
    assert (first.batches_seen, second.batches_seen) == (2, 5)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name
