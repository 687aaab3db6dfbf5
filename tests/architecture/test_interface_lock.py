"""A public signature cannot change unless the interface version changes with it."""

from importlib import import_module

import pytest


@pytest.fixture
def locked(tree):
    """A copy of the sources whose locks are up to date."""
    assert tree.run("python", "tools/interface_lock.py", "--write").returncode == 0
    assert check(tree).returncode == 0
    return tree


def check(tree):
    return tree.run("python", "tools/interface_lock.py", "--check")


def bump(tree, package, new):
    """Raise the interface version and return what it was."""
    old = import_module(f"{package}.interface").INTERFACE_VERSION
    tree.edit(tree.source(package) / "interface.py", f'INTERFACE_VERSION = "{old}"', f'INTERFACE_VERSION = "{new}"')
    return old


def test_a_changed_protocol_method_without_a_bump_fails_and_names_the_lines(locked):
    interface = locked.source("tcvq_codebook") / "interface.py"
    locked.edit(interface, "def lookup(self, indices:", "def lookup(self, codes:")
    result = check(locked)
    assert result.returncode == 1
    assert "tcvq-codebook: public interface changed without a bump of INTERFACE_VERSION" in result.stdout
    assert "-Quantizer.lookup(indices: " in result.stdout
    assert "+Quantizer.lookup(codes: " in result.stdout


def test_a_new_result_field_without_a_bump_fails(locked):
    interface = locked.source("tcvq_codebook") / "interface.py"
    locked.edit(interface, '    perplexity: Float[Tensor, ""]\n', '    perplexity: Float[Tensor, ""]\n    age: int\n')
    result = check(locked)
    assert result.returncode == 1
    assert "+Quantized.age: int" in result.stdout


def test_a_changed_default_behind_the_facade_without_a_bump_fails(locked):
    locked.edit(locked.source("tcvq_neurons") / "config.py", "tau: float = 2.0", "tau: float = 3.0")
    result = check(locked)
    assert result.returncode == 1
    assert "-LIFConfig.tau: float = 2.0" in result.stdout
    assert "+LIFConfig.tau: float = 3.0" in result.stdout


def test_a_name_that_leaves_the_facade_fails(locked):
    locked.edit(locked.source("tcvq_neurons") / "__init__.py", '    "QuadraticGate",\n', "")
    result = check(locked)
    assert result.returncode == 1
    assert "QuadraticGate" in result.stdout


def test_a_changed_signature_with_a_bump_asks_for_the_new_lock_and_then_passes(locked):
    interface = locked.source("tcvq_codebook") / "interface.py"
    locked.edit(interface, "def lookup(self, indices:", "def lookup(self, codes:")
    old = bump(locked, "tcvq_codebook", "0.99")
    result = check(locked)
    assert result.returncode == 1
    assert f"'{old}' → '0.99'" in result.stdout
    assert "--write" in result.stdout
    assert locked.run("python", "tools/interface_lock.py", "--write").returncode == 0
    assert check(locked).returncode == 0


def test_a_private_function_or_a_docstring_is_not_interface(locked):
    interface = locked.source("tcvq_codebook") / "interface.py"
    locked.edit(interface, '"""Return the entries that the indices name."""', '"""Look the entries up."""')
    with interface.open("a", encoding="utf-8") as file:
        file.write("\n\ndef _helper(x: int) -> int:\n    return x\n")
    assert check(locked).returncode == 0
