"""Who may import whom: the rules of .importlinter notice a breach, and packages meet only at their façades."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {path.name: path for path in sorted(ROOT.glob("*/tcvq-*/src/tcvq_*"))}
DOORS = {"interface", "testing"}


def test_this_repository_keeps_the_import_rules(tree):
    result = tree.run("lint-imports", "--no-cache")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("tcvq_neurons/config.py", "import tcvq_codebook", "Layers look down only"),
        ("tcvq_vqvae/model.py", "from tcvq_prior import SpikingPrior", "Layers look down only"),
        ("tcvq_data/registry.py", "import tcvq_runner", "Layers look down only"),
        ("tcvq_eval/reconstruction.py", "import tcvq_codebook", "tcvq_eval needs nothing of ours"),
        ("tcvq_prior/sampling.py", "import tcvq_codebook", "tcvq_prior knows codes, not codebooks"),
        ("tcvq_vqvae/model.py", "import lightning.pytorch", "Lightning only in"),
        ("tcvq_data/registry.py", "import click", "Command line and recipe libraries"),
        ("tcvq_eval/reconstruction.py", "import matplotlib.pyplot", "matplotlib only in"),
        ("tcvq_codebook/nearest.py", "import numba", "numba and cupy only in"),
    ],
)
def test_a_forbidden_import_breaks_its_rule(tree, module, line, broken):
    package, _, name = module.partition("/")
    path = tree.source(package) / name
    path.write_text(f"{path.read_text(encoding='utf-8')}\n\ndef _breach() -> None:\n    {line}\n", encoding="utf-8")
    result = tree.run("lint-imports", "--no-cache")
    assert result.returncode == 1
    (verdict,) = [text for text in result.stdout.splitlines() if text.startswith(broken) and "BROKEN" in text]
    assert verdict


def exported(package: str) -> set[str]:
    """Return the names in a façade's ``__all__``."""
    for node in ast.parse((OURS[package] / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{package}/__init__.py has no __all__")


def back_doors(package: str, text: str) -> list[str]:
    """Return the imports in a source text that reach behind the façade of another package of ours."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            other, _, inner = node.module.partition(".")
            names = {alias.name for alias in node.names}
            allowed = inner in DOORS or (not inner and other in OURS and names <= exported(other) | DOORS)
        elif isinstance(node, ast.Import):
            other, _, inner = node.names[0].name.partition(".")
            allowed = inner in DOORS or not inner
        else:
            continue
        if other in OURS and other != package and not allowed:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("package", OURS)
def test_a_package_enters_others_only_through_facade_interface_or_testing(package):
    breaches = {
        str(path.relative_to(ROOT)): found
        for path in sorted(OURS[package].rglob("*.py"))
        if (found := back_doors(package, path.read_text(encoding="utf-8")))
    }
    assert not breaches


@pytest.mark.parametrize(
    ("line", "is_breach"),
    [
        ("from tcvq_neurons import LIF", False),
        ("from tcvq_neurons.interface import Neuron", False),
        ("from tcvq_neurons.testing import check_neuron", False),
        ("from tcvq_vqvae.blocks import anything", False),  # its own
        ("from tcvq_neurons.dynamics import charge", True),
        ("from tcvq_neurons import dynamics", True),
        ("import tcvq_neurons.backends.torch", True),
    ],
)
def test_the_back_door_rule_tells_a_facade_from_an_inner_module(line, is_breach):
    assert bool(back_doors("tcvq_vqvae", line)) == is_breach
