"""Drawing in shards that appear whole or not at all: killed at any time, the next process goes on behind the last."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tcvq_data import ArtifactError, read_artifact, write_artifact
from tcvq_prior import draw_grids, load_prior
from tcvq_prior.interface import CodePrior
from tcvq_runner.batching import in_batches
from tcvq_runner.lock import RunFolderError
from tcvq_runner.samples import to_bytes
from tcvq_runner.sampling_plan import Inputs, Plan, read_inputs, read_plan
from tcvq_runner.wiring import Compute
from tcvq_vqvae import SpikingVQVAE, load_vqvae

PARTS = "samples.part"
_CODES, _IMAGES = "tcvq.shard-codes/1", "tcvq.shard-images/1"
_POLL = 0.2  # seconds between two looks at the shards of other processes


def draw_shards(
    folder: Path,
    plan: Plan,
    inputs: Inputs,
    *,
    prior: CodePrior,
    vqvae: SpikingVQVAE,
    compute: Compute,
    rank: int = 0,
    world_size: int = 1,
    finished: Callable[[int], None] | None = None,
) -> None:
    """Draw and decode the shards that are missing, of those that are this process's: every ``world_size``-th.

    Args:
        folder: Where the shards lie.
        plan: What to draw.
        inputs: Classes and given codes.
        prior: Draws.
        vqvae: Decodes, in batches of ``plan.decode_batch``.
        compute: Where.
        rank: Number of this process.
        world_size: How many processes share the draw.
        finished: Told the number of samples of each shard when it is done.

    Raises:
        OSError: A file cannot be written.
    """
    for number in range(rank, plan.n_shards, world_size):
        samples = plan.shard(number)
        if _read(folder, "images", number, plan) is None:
            indices = _read(folder, "codes", number, plan)
            if indices is None:
                indices = _draw(plan, inputs, prior, samples)
                _write(folder, "codes", number, indices.to(torch.int32))
            images = in_batches(_decoder(vqvae), indices.long(), plan.decode_batch, compute)
            _write(folder, "images", number, to_bytes(images))
        if finished is not None:
            finished(len(samples))


def n_finished(folder: Path, plan: Plan) -> int:
    """Return how many samples are drawn and decoded."""
    return sum(len(plan.shard(i)) for i in range(plan.n_shards) if _path(folder, "images", i).exists())


def collect(folder: Path, plan: Plan) -> tuple[Tensor, Tensor] | None:
    """Return codes and images (uint8) of all samples in order, or None while shards are missing."""
    names = [(kind, number) for kind in ("codes", "images") for number in range(plan.n_shards)]
    if not all(_path(folder, *name).exists() for name in names):
        return None
    found = {name: _read(folder, *name, plan) for name in names}
    if any(tensor is None for tensor in found.values()):
        return None
    codes, images = (
        torch.cat([tensor for (kind, _), tensor in found.items() if kind == wanted and tensor is not None])
        for wanted in ("codes", "images")
    )
    return codes.long(), images


@contextmanager
def kept_if_begun(folder: Path) -> Iterator[None]:
    """Remove the folder of a draw if an error leaves no shard in it, so that a failure leaves nothing behind."""
    try:
        yield
    except BaseException:
        if not any(folder.glob("codes-*")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def share_out(
    folder: Path, plan: Plan, vqvae: Path, prior: Path, *, workers: int, update: Callable[[int], None]
) -> None:
    """Let several processes of this machine draw the shards; on GPUs each takes one of its own.

    Args:
        folder: Where the shards lie.
        plan: What to draw.
        vqvae: File of the VQ-VAE.
        prior: File of the prior.
        workers: Number of processes.
        update: Told the number of finished samples.

    Raises:
        RunFolderError: One of them failed; quotes its last words.
    """
    command = [sys.executable, "-m", "tcvq_runner.sampling_job", str(folder), str(vqvae), str(prior), str(workers)]
    running = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        for rank in range(workers)
    ]
    try:
        while any(worker.poll() is None for worker in running):
            for rank, worker in enumerate(running):
                if worker.poll():
                    words = (worker.stderr.read() if worker.stderr else "").strip().splitlines()
                    raise RunFolderError(f"worker {rank} of the draw in {folder} failed: {(words or ['no word'])[-1]}")
            update(n_finished(folder, plan))
            time.sleep(_POLL)
    finally:
        for worker in running:
            worker.kill()
            worker.wait()
            if worker.stderr is not None:
                worker.stderr.close()


def _draw(plan: Plan, inputs: Inputs, prior: CodePrior, samples: range) -> Tensor:
    rows = slice(samples.start, samples.stop)
    return draw_grids(
        prior,
        len(samples),
        first=samples.start,
        labels=None if not prior.n_classes else inputs.labels[rows],
        known=inputs.known[rows] if len(inputs.known) else None,
        choice=plan.choice,
        guidance=plan.settings["guidance"],
        cache=plan.settings["cache"],
        seed=plan.seed,
        micro_batch=plan.micro_batch,
    ).indices.cpu()


def _decoder(vqvae: SpikingVQVAE) -> Callable[[Tensor], Tensor]:
    """Return the decoder of grids, with recordings as ``(B, T, 2, H, W)``."""

    def decode(indices: Tensor) -> Tensor:
        x = vqvae.decode_indices(indices)
        return x.transpose(0, 1) if x.ndim == 5 else x

    return decode


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:05d}.safetensors"


def _write(folder: Path, kind: str, number: int, tensor: Tensor) -> None:
    schema = _CODES if kind == "codes" else _IMAGES
    write_artifact(_path(folder, kind, number), {"x": tensor}, schema=schema, meta={"shard": number})


def _read(folder: Path, kind: str, number: int, plan: Plan) -> Tensor | None:
    """Return the content of a shard; one that is damaged counts as missing and is removed."""
    path = _path(folder, kind, number)
    if not path.exists():
        return None
    try:
        tensor = read_artifact(path, schema=_CODES if kind == "codes" else _IMAGES).tensors["x"]
    except (ArtifactError, KeyError):
        path.unlink(missing_ok=True)
        return None
    return tensor if len(tensor) == len(plan.shard(number)) else None


def main(arguments: list[str]) -> None:
    """What a process of `share_out` does; it ends with the process that started it."""
    folder, vqvae, prior = map(Path, arguments[:3])
    world_size, rank = int(arguments[3]), int(arguments[4])
    plan, parent = read_plan(folder), os.getppid()
    torch.set_num_threads(plan.threads)
    device = torch.device(f"cuda:{rank % torch.cuda.device_count()}" if plan.device == "cuda" else "cpu")
    compute = Compute(device=device, precision="32-true", threads=plan.threads)

    def alive(_: int) -> None:
        if os.getppid() != parent:
            sys.exit(1)

    draw_shards(
        folder,
        plan,
        read_inputs(folder),
        prior=load_prior(prior).model.to(device),
        vqvae=load_vqvae(vqvae).model.to(device),
        compute=compute,
        rank=rank,
        world_size=world_size,
        finished=alive,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
