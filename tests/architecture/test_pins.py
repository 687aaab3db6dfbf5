"""Packages pin each other by interface version; a wrong pin is noticed in the sources and again in built wheels."""

import re
from importlib import import_module, metadata

import pytest

PROVIDERS = ["tcvq_neurons", "tcvq_codebook", "tcvq_data", "tcvq_vqvae", "tcvq_prior", "tcvq_eval"]
NOW = {package: import_module(f"{package}.interface").INTERFACE_VERSION for package in PROVIDERS}
OTHER = "0.99"  # an interface version that no package has


@pytest.mark.parametrize("package", PROVIDERS)
def test_the_distribution_version_starts_with_the_interface_version(package):
    interface_version = import_module(f"{package}.interface").INTERFACE_VERSION
    assert re.fullmatch(r"\d+\.\d+", interface_version)
    assert import_module(package).__version__ == metadata.version(package.replace("_", "-"))
    assert metadata.version(package.replace("_", "-")).startswith(f"{interface_version}.")


def test_the_pins_of_this_repository_agree(tree):
    result = tree.run("python", "tools/check_pins.py")
    assert result.returncode == 0, result.stdout


def test_a_pin_on_another_interface_version_fails(tree):
    right, wrong = f"tcvq-codebook~={NOW['tcvq_codebook']}.0", f"tcvq-codebook~={OTHER}.0"
    tree.edit(tree.root / "packages/tcvq-vqvae/pyproject.toml", right, wrong)
    result = tree.run("python", "tools/check_pins.py")
    assert result.returncode == 1
    assert f"packages/tcvq-vqvae/pyproject.toml: pin {wrong} should be {right}" in result.stdout


def test_a_pin_that_would_admit_the_next_interface_fails(tree):
    now = NOW["tcvq_neurons"]
    tree.edit(
        tree.root / "services/tcvq-runner/pyproject.toml", f"tcvq-neurons[cpu]~={now}.0", f"tcvq-neurons[cpu]~={now}"
    )
    result = tree.run("python", "tools/check_pins.py")
    assert result.returncode == 1
    assert f"pin tcvq-neurons~={now} should be tcvq-neurons~={now}.0" in result.stdout


def test_a_raised_interface_version_fails_every_consumer_that_still_pins_the_old_one(tree):
    now = NOW["tcvq_data"]
    tree.edit(
        tree.source("tcvq_data") / "interface.py", f'INTERFACE_VERSION = "{now}"', f'INTERFACE_VERSION = "{OTHER}"'
    )
    result = tree.run("python", "tools/check_pins.py")
    assert result.returncode == 1
    assert f"version {now}.0 does not start with its INTERFACE_VERSION, {OTHER}" in result.stdout
    for consumer in ("packages/tcvq-vqvae", "packages/tcvq-prior", "services/tcvq-runner"):
        assert f"{consumer}/pyproject.toml: pin tcvq-data~={now}.0 should be tcvq-data~={OTHER}.0" in result.stdout


def built_and_checked(tree):
    """Build and install tcvq-prior and tcvq-neurons as the nox session `wheels` does; return what `uv pip check` says.

    Nothing else is installed, torch least of all: the check then also lists what is missing, and each test looks only
    for the sentence about the pin.
    """
    for package in ("tcvq-prior", "tcvq-neurons"):
        built = tree.run("uv", "build", "--wheel", "--out-dir", "wheels", f"packages/{package}")
        assert built.returncode == 0, built.stderr
    wheels = [str(path) for path in sorted((tree.root / "wheels").glob("*.whl"))]
    assert len(wheels) == 2
    steps = (["uv", "venv", "empty"], ["uv", "pip", "install", "--python", "empty", "--no-deps", *wheels])
    for step in steps:
        done = tree.run(*step)
        assert done.returncode == 0, done.stderr
    return tree.run("uv", "pip", "check", "--python", "empty").stderr


def test_built_wheels_with_the_right_pin_satisfy_each_other(tree):
    assert "requires `tcvq-neurons" not in built_and_checked(tree)


def test_built_wheels_with_a_wrong_pin_fail_the_check_of_the_wheels_session(tree):
    now = NOW["tcvq_neurons"]
    tree.edit(tree.root / "packages/tcvq-prior/pyproject.toml", f"tcvq-neurons~={now}.0", f"tcvq-neurons~={OTHER}.0")
    said = built_and_checked(tree)
    assert "`tcvq-prior` requires `tcvq-neurons" in said
    assert f"`{now}.0` is installed" in said
