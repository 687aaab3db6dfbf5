"""Every Python block of the documentation runs as it stands."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("README.md"), *ROOT.glob("*/tcvq-*/README.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks():
    """Yield page, line number and code of every block."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield pytest.param(page, line, match[1], id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize(("page", "line", "code"), list(blocks()))
def test_a_python_block_of_the_documentation_runs(page, line, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n" * line + code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("readme", sorted(ROOT.glob("packages/*/README.md")), ids=lambda path: path.parent.name)
def test_the_readme_of_a_package_shows_how_to_use_it(readme):
    assert BLOCK.search(readme.read_text(encoding="utf-8")), f"{readme} has no python block"


@pytest.mark.parametrize("package", sorted(ROOT.glob("packages/*/src/tcvq_*")), ids=lambda path: path.name)
def test_a_public_function_named_like_its_module_has_its_own_entry_in_the_api_page(package):
    """The page of a façade leaves such a function out, because the module hides it."""
    page = (ROOT / "docs/api" / f"{package.name.removeprefix('tcvq_')}.md").read_text(encoding="utf-8")
    modules = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    hidden = modules & set(importlib.import_module(package.name).__all__)
    assert {name for name in hidden if f"::: {package.name}.{name}.{name}\n" not in page} == set()
