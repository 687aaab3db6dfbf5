"""The façade, the version promise and the README."""

import re
from pathlib import Path

import tcvq_codebook


def test_the_distribution_version_starts_with_the_interface_version():
    assert tcvq_codebook.__version__.startswith(tcvq_codebook.INTERFACE_VERSION + ".")


def test_every_exported_name_exists():
    assert all(hasattr(tcvq_codebook, name) for name in tcvq_codebook.__all__)


def test_the_readme_snippet_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
