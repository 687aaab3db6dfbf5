"""Weight files of published networks: named by hash, given by path, never fetched in silence, never unpickled."""

import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """A published file of weights.

    Attributes:
        name: What it is called here, such as ``inception``.
        file: Its usual file names.
        sha256: Its hash.
        url: Where its authors publish it.
        size_mb: Its size.
    """

    name: str
    file: tuple[str, ...]
    sha256: str
    url: str
    size_mb: int


KNOWN_WEIGHTS: Mapping[str, WeightsFile] = {
    "inception": WeightsFile(
        name="inception",
        file=("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        size_mb=96,
    ),
    "vgg16": WeightsFile(
        name="vgg16",
        file=("vgg16-397923af.pth",),
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        size_mb=553,
    ),
}


class MissingWeightsError(ValueError):
    """Weights of an extractor, or the library that builds it, are not here; the measure is skipped with this reason."""


def weights_folder() -> Path:
    """Return where weights are kept: ``$TCVQ_WEIGHTS``, else ``~/.cache/tcvq/weights``."""
    from_environment = os.environ.get("TCVQ_WEIGHTS")
    return Path(from_environment) if from_environment else Path.home() / ".cache" / "tcvq" / "weights"


def find_weights(name: str, path: Path | None = None) -> Path:
    """Return the file of some known weights: ``path`` if given, else the one in `weights_folder`.

    Nothing is downloaded.

    Raises:
        MissingWeightsError: There is no such file; says how to get it.
    """
    known = KNOWN_WEIGHTS[name]
    if path is not None and path.is_file():
        return path
    places = [path] if path is not None else [weights_folder() / file for file in known.file]
    for place in places:
        if place.is_file():
            return place
    raise MissingWeightsError(
        f"the weights of {name} are not at {places[0]}; get the {known.size_mb} MB with: tcvq weights download {name}, "
        "or name a file that you have with --weights"
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a file of weights after comparing its hash; only tensors are read, no code in it runs.

    Raises:
        ValueError: The file is another one, or not a file of weights.
        OSError: It cannot be read.
    """
    found = file_sha256(path)
    if found != sha256:
        raise ValueError(
            f"{path} has sha256 {found[:12]}, not the {sha256[:12]} that is expected here: another file, or a damaged "
            "one; a number measured with it would be comparable with nothing"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a file of weights ({' '.join(str(error).split())[:80]})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not weights by name")
    return state
