"""Fetching published weights on request: one file, its hash checked before it appears."""

import shutil
import urllib.error
from pathlib import Path

from tcvq_data import atomic_path
from tcvq_eval import KNOWN_WEIGHTS, file_sha256, weights_folder


def get_weights(name: str, source: Path | None = None) -> Path:
    """Put a file of published weights into the folder of weights.

    Args:
        name: A name of ``tcvq_eval.KNOWN_WEIGHTS``.
        source: A file of the user's; None downloads.

    Returns:
        Where it lies.

    Raises:
        ValueError: The name is unknown, the file is another one, or it cannot be downloaded.
        OSError: It cannot be written.
    """
    import torch

    if name not in KNOWN_WEIGHTS:
        raise ValueError(f"there are no weights {name!r}; names: {', '.join(sorted(KNOWN_WEIGHTS))}")
    known, folder = KNOWN_WEIGHTS[name], weights_folder()
    target = folder / known.file[0]
    folder.mkdir(parents=True, exist_ok=True)
    if source is not None:
        if (found := file_sha256(source)) != known.sha256:
            raise ValueError(f"{source} has sha256 {found[:12]}; the weights of {name} have {known.sha256[:12]}")
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
        return target
    try:
        torch.hub.download_url_to_file(known.url, str(target), hash_prefix=known.sha256)
    except (urllib.error.URLError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name} could not be downloaded ({reason}); fetch {known.url} yourself and run: tcvq weights download "
            f"{name} --from FILE"
        ) from error
    return target
