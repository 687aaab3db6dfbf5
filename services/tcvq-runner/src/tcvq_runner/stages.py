"""The training steps of a run: each reads files of the run folder, computes, and writes files there."""

from tcvq_data import ArtifactError, Codes, read_codes
from tcvq_prior import save_prior
from tcvq_runner.checkpoints import CheckpointStore
from tcvq_runner.config import Recipe
from tcvq_runner.distributed import on_first
from tcvq_runner.failures import stops_itself
from tcvq_runner.progress import Reporter
from tcvq_runner.recipe import ConfigError, recipe_tree
from tcvq_runner.resuming import start_of
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.tracking import open_tracker
from tcvq_runner.wiring import Compute, image_data, share_of_batch, stage_seed
from tcvq_vqvae import load_vqvae, save_vqvae


def train_stage1(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Train the VQ-VAE and write ``vqvae.safetensors``.

    Raises:
        ConfigError: The recipe does not fit the data.
        FloatingPointError: The loss became NaN.
        Interrupted: A signal arrived; the state of the training is saved.
        OSError: A file cannot be written.
    """
    from lightning import seed_everything  # takes seconds to import; the steps that do not train do without

    from tcvq_runner.training import fit
    from tcvq_vqvae import LitVQVAE

    data = image_data(recipe)
    store = checkpoints_of(folder, "stage1", recipe)
    start = start_of(store, "stage1", recipe, reporter)
    with stops_itself() as stop, folder.step("stage1") as facts, open_tracker(folder, recipe, "stage1") as log:
        seed_everything(stage_seed(recipe.seed, "stage1"), verbose=False)
        module = LitVQVAE(recipe.vqvae, recipe.loss, recipe.stage1, debug_batch=folder.path / "debug_batch.safetensors")
        batches = data.train_dataloader()
        facts["seconds_before"] = fit(
            module,
            batches,
            data.val_dataloader(),
            stage="stage1",
            max_steps=recipe.stage1.total_steps(max(1, len(batches) // recipe.stage1.accumulate)),
            metrics=folder.metrics,
            compute=compute,
            reporter=reporter,
            store=store,
            start=start,
            stop=stop,
            log=log,
        )
        facts["vqvae"] = on_first(lambda: save_vqvae(folder.vqvae, module.trained, meta=_origin(recipe)))
    on_first(store.finish)


def train_stage2(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Train the prior on the codes and write ``prior.safetensors``.

    Raises:
        RunFolderError: Codes or VQ-VAE are missing.
        ArtifactError: One of them is damaged, or the codes came from another VQ-VAE.
        FloatingPointError: The loss became NaN.
        Interrupted: A signal arrived; the state of the training is saved.
        OSError: A file cannot be written.
    """
    from lightning import seed_everything

    from tcvq_data import CodesDataModule
    from tcvq_prior import LitPrior
    from tcvq_runner.training import fit

    vqvae = load_vqvae(folder.need(folder.vqvae))
    train, test = (codes_of(folder, split, vqvae.sha256) for split in ("train", "test"))
    if (train.n_embed, tuple(train.indices.shape[1:])) != (recipe.prior.n_embed, recipe.prior.grid):
        raise ConfigError(
            f"the codes in {folder.path} are grids {tuple(train.indices.shape[1:])} of {train.n_embed} codes, but the "
            f"recipe says {recipe.prior.grid} of {recipe.prior.n_embed}; restore vqvae.* in its config.yaml"
        )
    seed = stage_seed(recipe.seed, "stage2")
    data = CodesDataModule(train, test, share_of_batch(recipe, "stage2"), seed=seed)
    batches = data.train_dataloader()
    store = checkpoints_of(folder, "stage2", recipe)
    start = start_of(store, "stage2", recipe, reporter)
    with stops_itself() as stop, folder.step("stage2") as facts, open_tracker(folder, recipe, "stage2") as log:
        seed_everything(seed, verbose=False)
        features = vqvae.model.codebook.codebook.detach().flatten(1) if recipe.prior.code_features else None
        n_frames = recipe.vqvae.n_steps if recipe.vqvae.encoding == "event" else 1
        n_pixels = n_frames * recipe.vqvae.in_channels * recipe.vqvae.image_size**2
        module = LitPrior(recipe.prior, recipe.stage2, features, n_pixels=n_pixels)
        facts["seconds_before"] = fit(
            module,
            batches,
            data.val_dataloader(),
            stage="stage2",
            max_steps=recipe.stage2.total_steps(len(batches)),
            metrics=folder.metrics,
            compute=compute,
            reporter=reporter,
            store=store,
            start=start,
            stop=stop,
            log=log,
        )
        facts["prior"] = on_first(
            lambda: save_prior(
                folder.prior,
                module.trained,
                codes_sha256=train.sha256,
                vqvae_sha256=vqvae.sha256,
                meta=_origin(recipe) | {"classes": list(train.classes)},
            )
        )
    on_first(store.finish)


def checkpoints_of(folder: RunFolder, stage: str, recipe: Recipe) -> CheckpointStore:
    """Return the checkpoints of a training stage of a run."""
    return CheckpointStore(folder.checkpoints(stage), recipe.checkpoint, recipe_tree(recipe))


def codes_of(folder: RunFolder, split: str, vqvae_sha256: str) -> Codes:
    """Read the codes of a split and check that this VQ-VAE made them.

    Raises:
        RunFolderError: They are missing.
        ArtifactError: They are damaged, or another VQ-VAE made them.
    """
    path = folder.need(folder.codes(split))
    codes = read_codes(path)
    if codes.vqvae_sha256 != vqvae_sha256:
        raise ArtifactError(
            f"{path} was made by another VQ-VAE ({codes.vqvae_sha256[:12]}) than {folder.vqvae} ({vqvae_sha256[:12]}); "
            f"encode again with: tcvq encode {folder.path}"
        )
    return codes


def _origin(recipe: Recipe) -> dict[str, object]:
    """Return what a model file says about its making; nothing that differs between two equal runs."""
    return {"recipe": recipe.name, "seed": recipe.seed, "dataset": recipe.data.name}
