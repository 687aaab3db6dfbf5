"""Malformed recipes through the whole command: one line, status 2, and no folder; or a recipe that can run.

``TCVQ_FUZZ=3000 pytest -s services/tcvq-runner/tests/test_fuzz.py`` tries as many inputs and prints what came of them.
"""

import os
from collections import Counter
from importlib import resources

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcvq_runner import pipeline
from tcvq_runner.cli import main
from tcvq_runner.layers import builtin_recipes
from tcvq_runner.recipe import flat_recipe, load_recipe

DEFAULT = 200
N = int(os.environ.get("TCVQ_FUZZ", DEFAULT))
RECIPE = load_recipe("debug")
KEYS = [key for key in flat_recipe(RECIPE) if key != "data.name"]  # other datasets are simulated first
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([10**30, -(10**30), 1e308, 1e-320, float("nan"), float("inf"), "${seed}", "${vqvae.width}", "${"])
    | st.floats(width=32)
    | st.text(max_size=6)
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
FOLDER = resources.files("tcvq_runner").joinpath("recipes")
SOURCES = [FOLDER.joinpath(f"{name}.yaml").read_bytes() for name in builtin_recipes()]
BASES = ["debug", "debug", "debug", *builtin_recipes(), "no-such", "fuzz.yaml", 3]


@st.composite
def changed(draw):
    """The recipe `debug` with some of its settings replaced by anything, sometimes on top of another recipe."""
    tree = {"extends": draw(st.sampled_from(BASES))}
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)):
        section, _, name = key.rpartition(".")
        below = tree.setdefault(section, {}) if section else tree
        below[name] = draw(TREES)
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw):
    """A built-in recipe with some of its bytes cut out, doubled or replaced."""
    text = bytearray(draw(st.sampled_from(SOURCES)))
    for _ in range(draw(st.integers(1, 5))):
        at, n = draw(st.integers(0, max(len(text) - 1, 0))), draw(st.integers(0, 12))
        text[at : at + n] = draw(st.sampled_from([b"", bytes(text[at : at + n]) * 2]) | st.binary(max_size=6))
    return bytes(text)


INPUTS = changed() | damaged() | TREES.map(lambda tree: yaml.safe_dump(tree).encode("utf-8", "surrogatepass"))
SETTINGS = st.lists(st.tuples(st.sampled_from(KEYS) | st.text(max_size=8), st.text(max_size=8)), max_size=2)


def test_no_recipe_leaves_a_traceback_or_a_folder_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "run", lambda *_: None)  # what can run is not run
    found: Counter[str] = Counter()

    @settings(
        max_examples=N, deadline=None, database=None, derandomize=N == DEFAULT, suppress_health_check=list(HealthCheck)
    )
    @given(INPUTS, SETTINGS)
    def attempt(content, given_settings):
        path, out = tmp_path / "fuzz.yaml", tmp_path / "out"
        path.write_bytes(content)
        pairs = [f"{key}={value}" for key, value in given_settings if key and "\0" not in key + value]
        typed = [pair for pair in pairs if not pair.startswith("-")]
        status = main(["run", str(path), "data.name=fashion-mini", "data.root=null", *typed, "--out", str(out)])
        said = capsys.readouterr()
        assert status in (0, 2), said.err
        assert "Traceback" not in said.err + said.out
        assert "unexpected" not in said.err
        if status == 0:
            found["can run"] += 1
            for item in sorted(out.rglob("*"), reverse=True):
                item.unlink() if item.is_file() else item.rmdir()
            out.rmdir()
        else:
            found["refused"] += 1
            assert len([line for line in said.err.splitlines() if line.startswith("tcvq: ")]) == 1, said.err
        assert sorted(item.name for item in tmp_path.iterdir()) == ["fuzz.yaml"]

    attempt()
    with capsys.disabled():
        print(f"\n{sum(found.values())} recipes: {dict(found)}; no traceback, nothing half-written")
    assert found["refused"]


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"a: &a [*a]", b"!!python/object:os.system {}", b"extends: fuzz.yaml"]
)
def test_the_classics_are_refused_too(content, tmp_path, capsys):
    (tmp_path / "fuzz.yaml").write_bytes(content)
    assert main(["run", str(tmp_path / "fuzz.yaml"), "vqvae.n_steps=0", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("tcvq: ")
    assert not (tmp_path / "out").exists()
