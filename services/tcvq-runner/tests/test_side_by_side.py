"""Runs side by side: what differs, what it is read against, and a warning where numbers do not compare."""

import json

import pytest

from tcvq_runner.cli import main


@pytest.fixture
def run_with(tmp_path):
    """Return a function that writes the report of a run."""

    def write(name, *, fd=0.75, n_real=1000, **settings):
        headlines = [
            {"label": "fd_fashion", "value": fd, "digits": 2, "unit": "", "reference": "real against real 0.09"},
            {"label": "PSNR", "value": None, "digits": 1, "unit": "dB", "reference": ""},
        ]
        tree = {
            "schema": "tcvq.report/1",
            "headlines": headlines,
            "config": {"seed": 0, "vqvae": {"n_embed": 512, **settings}},
            "metrics": {"samples": {"fidelity": {"fd": fd, "fingerprint": {"metric": "fd", "n_real": n_real}}}},
        }
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(tree), "utf-8")
        return tmp_path / name

    return write


def test_numbers_stand_beside_their_noise_floor_and_only_differing_settings_are_listed(run_with, capsys):
    runs = run_with("a"), run_with("b", fd=0.5, n_embed=256)
    assert main(["compare", *map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["a", "b"]
    assert "0.75 (real against real 0.09)" in lines[1]
    assert "0.50 (real against real 0.09)" in lines[1]
    assert lines[3].split() == ["vqvae.n_embed", "512", "256"]
    assert len(lines) == 4  # neither the seed nor a warning


def test_runs_that_were_not_measured_alike_come_with_a_warning(run_with, capsys, tmp_path):
    runs = run_with("a"), run_with("b", n_real=500)
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    assert "warning: distances of a and b must not be compared: n_real 1000 against 500" in capsys.readouterr().out
    assert "must not be compared" in (tmp_path / "out" / "report.html").read_text("utf-8")
    written = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert written["metrics"]["b"]["fingerprint"]["n_real"] == "500"


def test_what_cannot_be_compared_is_one_line(run_with, capsys, tmp_path):
    run = run_with("a")
    assert main(["compare", str(run)]) == 2
    assert "at least two runs" in capsys.readouterr().err
    assert main(["compare", str(run), str(tmp_path / "none")]) == 2
    assert "measure the run first: tcvq eval" in capsys.readouterr().err
    (run / "report.json").write_text("{", "utf-8")
    assert main(["compare", str(run), str(run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    from tcvq_runner.side_by_side import _names

    assert _names([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ("x/run", "y/run")
