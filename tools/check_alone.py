"""Check that this environment holds one package of ours and nothing that it does not declare.

    python tools/check_alone.py tcvq-neurons

Unit tests run after this: an import that works only because something else happens to be installed fails them.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {path.parent.name for path in ROOT.glob("*/tcvq-*/pyproject.toml")}
HEAVY = {"lightning", "pytorch-lightning", "torchvision", "torchmetrics", "matplotlib", "scipy", "numba", "click"}


def needs(name: str, extras: frozenset[str], seen: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Add a distribution and all it requires, with the extras that are asked for, to ``seen``: pairs (name, extra)."""
    new = {(name, extra) for extra in extras | {""}} - seen
    seen |= new
    try:
        required = metadata.requires(name) or [] if new else []
    except metadata.PackageNotFoundError:  # a requirement of another platform
        return seen
    for line in required:
        wanted = re.search(r"extra == ['\"]([\w.-]+)", line)
        match = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", line)
        if match and (name, wanted[1] if wanted else "") in new:
            asked = frozenset(filter(None, re.split(r"[\s,]+", match[2] or "")))
            needs(re.sub(r"[-_.]+", "-", match[1]).lower(), asked, seen)
    return seen


def main() -> int:
    """Look at what is installed; return the exit code."""
    package = sys.argv[1]
    installed = {str(dist.name).lower().replace("_", "-") for dist in metadata.distributions()}
    if package not in installed:
        print(f"{package} is not installed here")
        return 1
    strangers = sorted(((OURS | HEAVY) & installed) - {name for name, _ in needs(package, frozenset(), set())})
    if strangers:
        print(f"{package} does not declare {', '.join(strangers)}, yet this environment holds them")
        return 1
    print(f"{package} is alone with what it declares")
    return 0


if __name__ == "__main__":
    sys.exit(main())
