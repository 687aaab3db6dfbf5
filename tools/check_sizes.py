"""Check that files and functions stay small enough to read in one go.

Hard limits fail: 350 lines for a source file, 60 for a function (docstring and decorators not counted); a few
documents have limits of their own. ``-v`` also prints what is over the soft limits, 200 and 30.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = ("packages/*/src/**/*.py", "services/*/src/**/*.py", "tools/*.py")
FILE, FUNCTION = (200, 350), (30, 60)  # soft, hard
SPECIAL = {"README.md": 150, "CONTRIBUTING.md": 80, "noxfile.py": 140}


class Size(NamedTuple):
    """One measured thing and its limits, in lines."""

    what: str
    lines: int
    soft: int
    hard: int


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines from ``def`` to the end, without the docstring."""
    assert node.end_lineno is not None
    docstring = node.body[0] if ast.get_docstring(node, clean=False) is not None else None
    skipped = docstring.end_lineno - docstring.lineno + 1 if docstring and docstring.end_lineno else 0
    return node.end_lineno - node.lineno + 1 - skipped


def sizes() -> Iterator[Size]:
    """Measure every source file, every function in it, and the documents with a limit."""
    for path in sorted(found for pattern in SOURCES for found in ROOT.glob(pattern)):
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        yield Size(str(name), text.count("\n"), *FILE)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Size(f"{name}:{node.lineno} {node.name}()", body_lines(node), *FUNCTION)
    for document, limit in SPECIAL.items():
        if (ROOT / document).exists():
            yield Size(document, (ROOT / document).read_text(encoding="utf-8").count("\n"), limit, limit)


def main() -> int:
    """Print what is too long; return the exit code."""
    measured = list(sizes())
    broken = [size for size in measured if size.lines > size.hard]
    for size in broken:
        print(f"{size.what}: {size.lines} lines, at most {size.hard}; split it")
    if "-v" in sys.argv:
        for size in measured:
            if size.soft < size.lines <= size.hard:
                print(f"{size.what}: {size.lines} lines, more than {size.soft} (soft limit)")
    if not broken:
        print(f"sizes within limits: {len(measured)} files and functions")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
