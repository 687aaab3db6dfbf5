"""Whether a run is what it says: every artifact read and hashed again, and each one's origin compared."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tcvq_data import ArtifactError, read_codes, sha256_file
from tcvq_prior import load_prior
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.samples import read_samples
from tcvq_vqvae import load_vqvae


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was found about one artifact.

    Attributes:
        name: Its path below the run folder.
        problem: What is wrong, "" if it is whole and comes from what is there, None if it was never made.
        sha256: Its hash; empty where it cannot be read.
    """

    name: str
    problem: str | None
    sha256: str = ""


def verify_run(path: Path) -> list[Check]:
    """Read every artifact of a run, compare its hash with the run's record, and its origin with what is there.

    The chain is: codes name the VQ-VAE that made them, the prior names codes and VQ-VAE, samples name prior and VQ-VAE.

    Raises:
        RunFolderError: The folder is no run, or its record is damaged.
        ConfigError: Its recipe is damaged.
    """
    folder = RunFolder(path)
    folder.recipe()
    chain = _Chain(folder)
    checks = [chain.check(fact) for fact in _READERS]
    for draw in sorted(path.glob("samples-*/run.json")):
        checks.append(chain.check("samples", RunFolder(draw.parent)))
    return [*checks, *_checkpoints(path)]


def _codes(path: Path) -> tuple[str, dict[str, str]]:
    codes = read_codes(path)
    return codes.sha256, {"vqvae": codes.vqvae_sha256}


def _prior(path: Path) -> tuple[str, dict[str, str]]:
    prior = load_prior(path)
    return prior.sha256, {"vqvae": prior.vqvae_sha256, "codes_train": prior.codes_sha256}


def _samples(path: Path) -> tuple[str, dict[str, str]]:
    samples = read_samples(path)
    return sha256_file(path), {"vqvae": samples.vqvae_sha256, "prior": samples.prior_sha256}


Reader = Callable[[Path], tuple[str, dict[str, str]]]  # path -> its hash, and {origin: the hash it names}
_READERS: dict[str, tuple[str, Reader]] = {
    "vqvae": ("stage1", lambda path: (load_vqvae(path).sha256, {})),
    "codes_train": ("encode", _codes),
    "codes_test": ("encode", _codes),
    "prior": ("stage2", _prior),
    "samples": ("sample", _samples),
}


class _Chain:
    """Checks artifacts in the order of their making, each against those before."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._hashes: dict[str, str] = {}

    def check(self, fact: str, folder: RunFolder | None = None) -> Check:
        """Return what is found of one artifact of the run, or of a later draw in a folder of its own."""
        step, read = _READERS[fact]
        at = folder or self._run
        path = at.codes(fact.removeprefix("codes_")) if fact.startswith("codes_") else getattr(at, fact)
        name, recorded = str(path.relative_to(self._run.path)), at.steps().get(step)
        if recorded is None and not path.exists():
            return Check(name=name, problem=None)
        try:
            found, origins = read(path)
        except ArtifactError as error:
            return Check(name=name, problem=str(error).removeprefix(f"{path}: "))
        if folder is None:
            self._hashes[fact] = found
        return Check(name=name, problem=self._mismatch(found, (recorded or {}).get(fact), origins), sha256=found)

    def _mismatch(self, found: str, recorded: object, origins: dict[str, str]) -> str:
        if isinstance(recorded, str) and recorded != found:
            return f"is whole but not what the run made ({found[:12]}, run.json says {recorded[:12]})"
        for origin, named in origins.items():
            ours = self._hashes.get(origin, named)
            if ours != named:
                return f"was made from another {origin} ({named[:12]}) than the one here ({ours[:12]})"
        return ""


def _checkpoints(path: Path) -> Iterator[Check]:
    """Yield what was found of every checkpoint: the files of each and the hashes in its manifest."""
    for manifest in sorted(path.glob("checkpoints/*/[0-9]*/manifest.json")):
        name = str(manifest.parent.relative_to(path))
        try:
            files = json.loads(manifest.read_text("utf-8"))["files"]
            bad = [each for each, wanted in files.items() if sha256_file(manifest.parent / each) != wanted]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield Check(name=name, problem=f"damaged: {error}")
        else:
            yield Check(name=name, problem=f"{bad[0]} is damaged" if bad else "")
