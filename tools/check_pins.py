"""Check that the packages of this workspace pin each other by interface version.

uv installs workspace members whatever their pins say, so a wrong pin would only be noticed by whoever installs the
built wheels. Two rules, read from the sources alone:

1. a dependency on another member is pinned ``~=X.Y.0``, where ``X.Y`` is the provider's ``INTERFACE_VERSION``;
2. the version of a distribution starts with its own ``INTERFACE_VERSION``.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def interface_version(dist: Path) -> str | None:
    """Return ``INTERFACE_VERSION`` of a distribution, None where it has no ``interface.py``."""
    for path in dist.glob("src/*/interface.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INTERFACE_VERSION":
                return str(ast.literal_eval(node.value))
    return None


def requirements(project: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and version constraint of every dependency, those of the extras too."""
    for requirement in chain(project.get("dependencies", []), *project.get("optional-dependencies", {}).values()):
        match = re.match(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*([^;]*)", requirement)
        if match:
            yield match[1], match[2].strip()


def complaints(dists: dict[str, Path]) -> Iterator[str]:
    """Yield one sentence for each broken rule."""
    versions = {name: interface_version(dist) for name, dist in dists.items()}
    for name, dist in dists.items():
        project = tomllib.loads((dist / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        where = (dist / "pyproject.toml").relative_to(ROOT)
        own = versions[name]
        if own is not None and not project["version"].startswith(f"{own}."):
            yield f"{where}: version {project['version']} does not start with its INTERFACE_VERSION, {own}"
        for provider, pin in requirements(project):
            if provider not in dists:
                continue
            if versions[provider] is None:
                yield f"{where}: {provider} has no interface.py, so nothing may depend on it"
            elif pin != f"~={versions[provider]}.0":
                yield f"{where}: pin {provider}{pin} should be {provider}~={versions[provider]}.0"


def main() -> int:
    """Check all members; return the exit code."""
    members = sorted([*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")])
    found = list(complaints({path.parent.name: path.parent for path in members}))
    print("\n".join(found) or f"pins agree with the interface versions of {len(members)} distributions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
