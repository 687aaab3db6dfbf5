"""What decides a draw: all that would change a sample, as one value that a later process compares."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tcvq_data import ArtifactError, read_artifact, write_artifact, write_json
from tcvq_prior import Choice, fitting_micro_batch
from tcvq_prior.interface import CodePrior
from tcvq_runner.config import SampleConfig
from tcvq_runner.lock import RunFolderError
from tcvq_runner.wiring import Compute

SCHEMA = "tcvq.sampling/1"
_SHARD = 200  # samples of a shard, rounded up to whole micro-batches
_INPUTS = "tcvq.sampling-inputs/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A draw of images.

    Attributes:
        n: Images to draw.
        seed: Of the prior's random numbers.
        settings: How codes are chosen; `SampleConfig` without n and micro_batch.
        micro_batch: Grids drawn at once.
        decode_batch: Images decoded at once.
        device: What computes, ``cpu`` or ``cuda``.
        threads: CPU threads of one process.
        vqvae_sha256: Hash of the VQ-VAE.
        prior_sha256: Hash of the prior.
        inputs_sha256: Hash of classes and given codes.
    """

    n: int
    seed: int
    settings: dict[str, Any]
    micro_batch: int
    decode_batch: int
    device: str
    threads: int
    vqvae_sha256: str
    prior_sha256: str
    inputs_sha256: str

    @property
    def shard_size(self) -> int:
        """Samples of a shard: whole micro-batches."""
        return -(-_SHARD // self.micro_batch) * self.micro_batch

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n // self.shard_size)

    def shard(self, number: int) -> range:
        """Return the numbers of the samples of a shard."""
        return range(number * self.shard_size, min((number + 1) * self.shard_size, self.n))

    @property
    def choice(self) -> Choice:
        """How codes are chosen."""
        return Choice(**{key: self.settings[key] for key in ("temperature", "top_k", "top_p", "min_p")})


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What is given to each sample.

    Attributes:
        labels: Classes ``(n,)``, -1 for a prior without.
        known: Codes ``(n, h, w)`` that are given, -1 where they are to be drawn; empty if none are.
    """

    labels: Tensor
    known: Tensor

    @property
    def sha256(self) -> str:
        """Hash of both."""
        digest = hashlib.sha256(json.dumps([list(self.labels.shape), list(self.known.shape)]).encode())
        for tensor in (self.labels, self.known):
            digest.update(tensor.to(torch.int32).contiguous().numpy().tobytes())
        return digest.hexdigest()


def settings_of(config: SampleConfig) -> dict[str, Any]:
    """Return what decides how codes are chosen."""
    return {key: value for key, value in dataclasses.asdict(config).items() if key not in ("n", "micro_batch")}


def micro_batch_of(config: SampleConfig, prior: CodePrior) -> int:
    """Return the grids drawn at once, no more than there are to draw."""
    if config.micro_batch is not None:
        return config.micro_batch
    return fitting_micro_batch(prior, config.cache, guided=config.guidance != 1)


def adopt(folder: Path, plan: Plan, inputs: Inputs, *, explicit: bool = False) -> Plan:
    """Make ``folder`` the place of a draw, or check that it is; return the plan that is followed there.

    A draw that was begun keeps the micro-batch and the threads that it was begun with.

    Args:
        folder: Where the shards lie.
        plan: What is wanted.
        inputs: Classes and given codes.
        explicit: The number of threads was asked for.

    Raises:
        RunFolderError: The folder belongs to another draw; says in what it differs.
        OSError: It cannot be written.
    """
    if (folder / "manifest.json").exists():
        begun = read_plan(folder)
        automatic = {"micro_batch"} | (set() if explicit else {"threads"})
        ours, theirs = dataclasses.asdict(plan), dataclasses.asdict(begun)
        for key in ours:
            if key not in automatic and ours[key] != theirs[key]:
                raise RunFolderError(
                    f"{folder} holds the beginning of another draw: its {key} is {_short(theirs[key])}, "
                    f"now asked for is {_short(ours[key])}; repeat that command to finish it, "
                    "or delete the folder to begin anew"
                )
        return begun
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"labels": inputs.labels.to(torch.int32), "known": inputs.known.to(torch.int32)}
    write_artifact(folder / "inputs.safetensors", tensors, schema=_INPUTS)
    write_json(folder / "manifest.json", {"schema": SCHEMA, **dataclasses.asdict(plan)})
    return plan


def read_plan(folder: Path) -> Plan:
    """Read the plan of a draw that was begun.

    Raises:
        RunFolderError: It cannot be read.
    """
    try:
        tree = json.loads((folder / "manifest.json").read_text("utf-8"))
        if tree.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        return Plan(**tree)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(
            f"{folder}/manifest.json cannot be read ({error}); delete {folder} to begin anew"
        ) from error


def read_inputs(folder: Path) -> Inputs:
    """Read what is given to each sample of a draw.

    Raises:
        ArtifactError: It is missing or damaged.
    """
    tensors = read_artifact(folder / "inputs.safetensors", schema=_INPUTS).tensors
    inputs = Inputs(labels=tensors["labels"].long(), known=tensors["known"].long())
    if inputs.sha256 != read_plan(folder).inputs_sha256:
        raise ArtifactError(f"{folder}/inputs.safetensors is not of this draw; delete {folder} to begin anew")
    return inputs


def make_plan(
    config: SampleConfig,
    *,
    seed: int,
    decode_batch: int,
    prior: CodePrior,
    compute: Compute,
    inputs: Inputs,
    vqvae_sha256: str,
    prior_sha256: str,
) -> Plan:
    """Return the plan of a draw."""
    return Plan(
        n=config.n,
        seed=seed,
        settings=settings_of(config),
        micro_batch=micro_batch_of(config, prior),
        decode_batch=decode_batch,
        device=compute.device.type,
        threads=compute.threads,
        vqvae_sha256=vqvae_sha256,
        prior_sha256=prior_sha256,
        inputs_sha256=inputs.sha256,
    )


def _short(value: object) -> str:
    return str(value)[:12] if isinstance(value, str) else str(value)
