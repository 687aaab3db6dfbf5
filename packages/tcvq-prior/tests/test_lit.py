"""Training the prior: the loss it computes, what it decays, and that it learns."""

import math

import lightning
import pytest
import torch

from tcvq_prior import LitPrior, Stage2Config

# Lightning 2.6 builds its tree specs in a way that torch 2.15 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated:FutureWarning")


class Batches:
    """An epoch of batches."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


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


def fit(module, codes, **options):
    """Train on the same batch ten times an epoch."""
    return fit_on(module, [codes] * 10, **options)


def fit_on(module, batches, ckpt_path=None, **options):
    """Train on these batches and validate on the first."""
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
        module, Batches(batches), Batches(batches[:1]), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None
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


def shuffled(codes, n):
    """The batches of n steps, all different."""
    indices, labels = codes
    orders = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(i)) for i in range(n)])
    return [(indices[order], labels[order]) for order in orders]


def assert_same_state(a, b):
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        assert torch.equal(b.state_dict()[name], tensor), name


class StopAfter(lightning.Callback):
    """Saves a checkpoint after so many batches, and stops."""

    def __init__(self, n, path):
        self.left, self.path = n, path

    def on_train_batch_end(self, trainer, *_):
        self.left -= 1
        if not self.left:
            trainer.save_checkpoint(self.path, weights_only=False)
            trainer.should_stop = True


NOISY = {"pkeep": 0.8, "class_dropout": 0.3, "label_smoothing": 0.1, "ema_decay": 0.9, "schedule": "cosine"}


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")  # the test hands over the batches that are left
@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": "muon"}, NOISY, {"accumulate": 3, "grad_checkpoint": True}],
    ids=["adamw", "muon", "noise and average", "stopped in mid-step"],
)
def test_four_steps_a_restart_and_four_steps_are_eight_steps_bit_for_bit(make_config, codes, tmp_path, options):
    accumulate = options.get("accumulate", 1)
    batches, half = shuffled(codes, 8 * accumulate), 4 * accumulate + accumulate - 1  # with 3: inside of a step

    def train(data, seed, **fitted):
        torch.manual_seed(seed)
        config = make_config(n_classes=2, null_class=True, dropout=0.2)
        module = LitPrior(config, steps(8, batch_size=8 * accumulate, **options))
        return module, fit_on(module, data, **fitted)

    whole, _ = train(batches, 1)
    first, _ = train(batches[:half], 1, callbacks=[StopAfter(half, tmp_path / "last.ckpt")])
    second, _ = train(batches[half:], 2, ckpt_path=tmp_path / "last.ckpt")
    assert (first.batches_seen, second.batches_seen) == (4, 8)
    assert_same_state(whole, second)


def test_accumulated_batches_are_one_step_of_the_whole_batch(make_config, codes):
    def train(batches, accumulate):
        torch.manual_seed(1)
        options = {**NOISY, "pkeep": 0.5, "grad_clip": 0.01, "batch_size": 8, "accumulate": accumulate}
        module = LitPrior(make_config(n_classes=2, null_class=True), steps(3, **options)).double()
        fit_on(module, batches)
        return module

    whole = shuffled(codes, 3)
    parts = [(x[i : i + 2], y[i : i + 2]) for x, y in whole for i in range(0, 8, 2)]
    one, four = train(whole, 1), train(parts, 4)
    assert one.batches_seen == four.batches_seen == 3
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(four.state_dict()[name], tensor, rtol=0, atol=1e-10)


def test_epochs_end_the_training_and_the_schedule(make_config, codes):
    config = steps(None, max_epochs=2, schedule="cosine", batch_size=16, accumulate=2)
    module = LitPrior(make_config(n_classes=2), config)
    trainer = fit_on(module, shuffled(codes, 5))
    assert module.total_steps == module.batches_seen == 5  # 10 batches, 2 per step
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_token_embeddings_move_in_training_where_their_codes_occur(make_config):
    module = LitPrior(make_config(), steps(1, grad_clip=0.0))
    before = module.model.table.weight.detach().clone()
    fit_on(module, [(torch.tensor([[[0, 1, 2], [3, 4, 5]]]), torch.tensor([-1]))])
    moved = (module.model.table.weight != before).any(1)
    assert moved.tolist() == [True] * 5 + [False] * 2  # 5 is only predicted, 6 does not occur


def test_recomputed_blocks_give_the_same_gradient(make_config, codes):
    def gradients(flag):
        torch.manual_seed(1)
        module = LitPrior(make_config(n_classes=2, dropout=0.3), steps(1, grad_checkpoint=flag))
        torch.manual_seed(2)
        module.bits(*codes).backward()
        return [p.grad for p in module.model.parameters()]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(a, b)


def test_average_of_the_weights_is_what_is_validated_and_kept(make_config, codes):
    torch.manual_seed(1)
    module = LitPrior(make_config(n_classes=2), steps(3, ema_decay=0.5))
    seen = []

    class Weights(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen.append(module.model.head.weight.detach().clone())

    fit_on(module, shuffled(codes, 3), callbacks=[Weights()])
    expected = (seen[0] * 0.5 + seen[1] * 0.5) * 0.5 + seen[2] * 0.5
    torch.testing.assert_close(module.trained.head.weight, expected)
    assert module.trained is not module.model
    assert LitPrior(make_config(), steps(1)).trained is not None


def test_bits_per_pixel_and_the_gap_to_validation_are_logged(make_config, codes):
    module = LitPrior(make_config(n_classes=2), steps(10, learning_rate=1e-9), n_pixels=24)
    metrics = fit(module, codes).callback_metrics
    assert metrics["val/bits_per_pixel"] == pytest.approx(metrics["val/bits"] * 6 / 24)
    assert metrics["train/bits_per_pixel"] == pytest.approx(metrics["train/bits"] * 6 / 24)
    assert metrics["val/gap"] == pytest.approx(0, abs=1e-3)  # the same grids, and hardly a step


def test_label_smoothing_changes_the_loss_and_not_the_logged_bits(make_config, codes):
    def logged(smoothing):
        torch.manual_seed(1)
        return fit(LitPrior(make_config(n_classes=2), steps(1, label_smoothing=smoothing)), codes).callback_metrics

    assert logged(0.5)["train/bits"] == logged(0.0)["train/bits"]


def test_classes_are_only_hidden_where_there_is_a_label_for_it(make_config):
    with pytest.raises(ValueError, match=r"stage2\.class_dropout is 0\.1 but prior\.null_class is false"):
        LitPrior(make_config(n_classes=2), steps(1, class_dropout=0.1))
