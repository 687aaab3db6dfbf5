"""Where datasets lie on disk, and what to say when they do not."""

import os
from pathlib import Path

from tcvq_data.interface import MissingDataError


def data_root(root: Path | None = None) -> Path:
    """Return the folder of all datasets: ``root`` if given, else ``$TCVQ_DATA``, else ``~/.cache/tcvq/data``."""
    if root is not None:
        return root
    from_environment = os.environ.get("TCVQ_DATA")
    return Path(from_environment) if from_environment else Path.home() / ".cache" / "tcvq" / "data"


def missing_data(name: str, path: Path) -> MissingDataError:
    """Return the error for a file or folder of a dataset that is not there: what, where, and both ways to get it."""
    there = path.parent
    while not there.exists():
        there = there.parent
    found = sorted(entry.name for entry in there.iterdir())[:5] if there.is_dir() else []
    content = ", ".join(found) + (", …" if len(found) == 5 else "") if found else "nothing"
    return MissingDataError(
        f"{name}: {path} is missing ({there} holds {content}); get it with: tcvq data download {name}, or from files "
        f"of your own with: tcvq data download {name} --from FILE_OR_FOLDER"
    )
