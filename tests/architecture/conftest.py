"""A scratch copy of the sources that a test may break, to see that the gate notices."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = shutil.ignore_patterns("tests", "benchmarks", "__pycache__", "*.gz", "*.safetensors", "*.npz")


class Tree:
    """Sources and tools of the repository under another root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("packages", "services", "tools"):
            shutil.copytree(ROOT / folder, root / folder, ignore=SKIPPED)
        shutil.copy(ROOT / ".importlinter", root)

    def source(self, package: str) -> Path:
        """Return the folder of an import package."""
        (found,) = self.root.glob(f"*/*/src/{package}")
        return found

    def edit(self, path: Path, old: str, new: str) -> None:
        """Replace the only occurrence of a text in a file."""
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path.name} has {text.count(old)} × {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the copy; programs come from the environment of the tests, packages from the copy."""
        program = Path(sys.executable).parent / argv[0]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, sorted(self.root.glob("*/*/src")))),
            "PYTHONUTF8": "1",
            "COLUMNS": "200",
        }
        return subprocess.run(
            [str(program) if program.exists() else argv[0], *argv[1:]],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A copy of this repository's sources and tools."""
    return Tree(tmp_path)
