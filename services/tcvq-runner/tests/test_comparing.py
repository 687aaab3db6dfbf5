"""`tcvq eval --real A --fake B`: folders, npz files and saved features, with reasons where something is missing."""

import json

import numpy as np
import pytest
from PIL import Image

from tcvq_eval import KNOWN_WEIGHTS
from tcvq_runner.cli import main


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Write the same kind of noise as a folder and as an npz file, and hide weights that this machine may have."""
    monkeypatch.setenv("TCVQ_WEIGHTS", str(tmp_path / "weights"))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(pixels[:30]):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i:02}.png")
    np.savez(tmp_path / "set.npz", images=pixels[30:])
    return ["--real", str(tmp_path / "folder"), "--fake", str(tmp_path / "set.npz")]


def test_two_sets_are_compared_and_real_features_are_cached(sets, tmp_path, capsys):
    command = ["eval", *sets, "--extractor", "fashion", "--metric", "fd", "--metric", "recall", "--resamples", "2"]
    command += ["--cache", str(tmp_path / "cache")]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "tcvq.comparison/1"
    fd, recall = found["measurements"]
    assert fd["name"] == "fd_fashion"
    assert fd["value"] > 0
    assert fd["noise_floor"] > 0
    assert fd["n_floor"] == 15
    assert recall["fingerprint"]["n_real"] == 30
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert main(command) == 0
    assert f"{fd['value']:.6g}" in capsys.readouterr().out
    features = next((tmp_path / "cache").iterdir())
    assert main(["eval", "--real", str(features), *command[3:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measurements"][0]["value"] == fd["value"]


def test_missing_weights_skip_every_measure_with_the_command_that_gets_them(sets, capsys):
    assert main(["eval", *sets, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["measurements"]
    assert {each["value"] for each in found} == {None}
    assert all("tcvq weights download inception" in each["skipped"] for each in found)
    assert main(["eval", *sets]) == 0
    assert "skipped fid, kid, is, precision, recall, density, coverage: the weights" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--real", "a"], ["run", "--real", "a", "--fake", "b"]])
def test_it_takes_a_run_or_two_sets(arguments, capsys):
    assert main(["eval", *arguments]) == 2
    assert "give a RUN, or both --real SET and --fake SET" in capsys.readouterr().err


def test_weights_come_from_a_file_only_if_its_hash_is_on_the_list(sets, tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"other")
    assert main(["weights", "download", "inception", "--from", str(tmp_path / "w.pth")]) == 2
    assert f"have {KNOWN_WEIGHTS['inception'].sha256[:12]}" in capsys.readouterr().err
    assert main(["weights", "download", "incption"]) == 2
    assert "names: inception" in capsys.readouterr().err
    assert main(["weights", "list"]) == 0
    assert "not here" in capsys.readouterr().out
