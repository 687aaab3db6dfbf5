"""The second step of a run: images of both splits become grids of code indices, each process doing its share."""

import shutil
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tcvq_data import Codes, CodesWriter, ImageSource, finish_codes, write_codes
from tcvq_runner.batching import images_of, in_batches
from tcvq_runner.config import Recipe
from tcvq_runner.distributed import barrier, on_first, process_rank
from tcvq_runner.progress import Reporter, Task
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.wiring import Compute, open_split
from tcvq_vqvae import SpikingVQVAE, load_vqvae


def encode(folder: RunFolder, recipe: Recipe, compute: Compute, reporter: Reporter) -> None:
    """Encode both splits with the trained VQ-VAE and write the folders ``codes_train`` and ``codes_test``.

    The files are the same however many processes there are.

    Raises:
        RunFolderError: The VQ-VAE is missing.
        ArtifactError: It is damaged.
        OSError: A file cannot be written.
    """
    loaded = load_vqvae(folder.need(folder.vqvae))
    model = loaded.model.to(compute.device)
    sources = {split: open_split(recipe, split) for split in ("train", "test")}
    rank, world_size = process_rank()
    total = sum(len(range(rank, len(source), world_size)) for source in sources.values())
    done = 0
    with folder.step("encode") as facts, reporter.task("encode", total, "image") as task:
        for split, source in sources.items():
            rows = torch.arange(rank, len(source), world_size)
            indices = _indices(model, source, rows, recipe.eval.batch_size, compute, task=task, done=done)
            about: dict[str, Any] = {
                "n_embed": model.config.n_embed,
                "n_steps": model.config.n_steps,
                "classes": source.classes,
                "vqvae_sha256": loaded.sha256,
                "dataset": recipe.data.name,
                "split": split,
            }
            facts[f"codes_{split}"] = _write(folder.codes(split), indices, source.labels[rows], about)
            done += len(rows)


def _indices(
    model: SpikingVQVAE,
    source: ImageSource,
    rows: Int[Tensor, " n"],
    size: int,
    compute: Compute,
    *,
    task: Task,
    done: int,
) -> Int[Tensor, "n h w"]:
    """Return the grids of some images."""
    if not len(rows):
        return torch.empty(0, *model.config.grid, dtype=torch.int64)

    def encode_rows(part: Tensor) -> Tensor:
        return model.encode(images_of(source, part.cpu()).to(compute.device)).indices

    return in_batches(encode_rows, rows, size, compute, task=task, done=done)


def _write(path: Path, indices: Int[Tensor, "n h w"], labels: Int[Tensor, " n"], about: dict[str, Any]) -> str | None:
    """Write the grids of all processes, and return the hash of their content on the first one.

    Each process writes its own rows beside the final place; the first one puts them into the order of the dataset.
    """
    rank, world_size = process_rank()
    if world_size == 1:
        return write_codes(path, Codes(indices=indices, labels=labels, **about)).sha256
    parts = path.with_name(f".ranks-{path.name}")
    height, width = indices.shape[1:]
    with CodesWriter(parts, grid=(height, width), rank=rank, world_size=world_size, **about) as writer:
        writer.append(indices, labels)
    barrier()

    def merge() -> str:
        codes = finish_codes(parts)
        sha256 = write_codes(path, codes).sha256
        shutil.rmtree(parts)
        return sha256

    return on_first(merge)
