"""Recordings from end to end: the study that trains both codebooks, destruction of both, and the report of one run."""

import io
import json
import re
from base64 import b64decode

from PIL import Image


def numbers(folder):
    return json.loads((folder / "report.json").read_text("utf-8"))


def test_a_study_of_recordings_measures_the_suite_of_samples_and_codec_beside_real_against_real(event_study):
    metrics = numbers(event_study)["metrics"]
    for (arm,) in (metrics["temporal"], metrics["vanilla"]):
        assert arm["space"] == "event-cnn/3"
        assert set(arm["time"]) == {"reverse", "shuffle", "last"}
        assert list(arm["samples"]) == list(arm["codec"])
        assert {"kid", "FD per step", "FD of frame differences", "rate, W1", "class agreement"} <= set(arm["samples"])
        assert all(len(pair) == 2 for pair in arm["samples"].values())
        assert 0 < arm["token_js_floor"] < arm["bigram_js_floor"] < 1
    assert metrics["temporal"][0]["samples"]["rate, W1"][1] == metrics["vanilla"][0]["samples"]["rate, W1"][1] > 0
    answer = (event_study / "answer.txt").read_text("utf-8")
    assert "in event-cnn/3, n = 20" in answer
    assert "What destroying time in real recordings costs in this space, in noise floors: reverse" in answer
    with Image.open(event_study / "played.gif") as played:
        assert played.n_frames == 2


def test_perceptual_distance_is_refused_for_recordings(event_study, tmp_path, tcvq):
    weights = tmp_path / "vgg16.pth"
    weights.write_bytes(b"")
    status, _, err = tcvq("eval", next((event_study / "runs").iterdir()), "--lpips", weights)
    assert status == 2
    assert "this run made recordings; leave it out" in err


def test_destruction_of_recordings_puts_two_codebooks_side_by_side_with_a_control(event_study, tmp_path, tcvq):
    temporal, vanilla = sorted((event_study / "runs").iterdir())
    options = ("--against", vanilla, "--tune-steps", "2", "--threads", "1", "--out", tmp_path / "d")
    status, out, err = tcvq("study", "destruction", temporal, *options)
    assert status == 0, err
    assert "temporal: Mean absolute change of 20 generated recordings" in out
    assert "vanilla: Mean absolute change" in out
    assert out.count("Control: after 2 more batches on frozen sequences") == 2
    metrics = numbers(tmp_path / "d")["metrics"]
    for run in (metrics["temporal"], metrics["vanilla"]):
        assert {"none", "reverse", "repeat", "empty", "last-2", "none, tuned", "repeat, tuned"} <= set(run["generated"])
        assert run["generated"]["none, tuned"]["l1_to_none"] == 0 < run["generated"]["repeat, tuned"]["l1_to_none"]
        assert run["generated"]["repeat, tuned"]["fd"] != run["generated"]["repeat"]["fd"]
        assert (
            run["generated"]["none"]["suite"]["FD per step"][1] == run["generated"]["empty"]["suite"]["FD per step"][1]
        )
    made = {path.name for path in (tmp_path / "d").iterdir()}
    assert {"destruction-temporal.svg", "strip-vanilla.png", "played-temporal.gif", "table.csv"} <= made


def test_the_report_of_recordings_plays_them_and_has_distance_codec_and_neighbours(event_run):
    report, page = numbers(event_run), (event_run / "report.html").read_text("utf-8")
    labels = {headline["label"]: headline for headline in report["headlines"]}
    assert re.fullmatch(r"real against real [\d.]+, codec [\d.]+", labels["fd[event-cnn/3], n = 20"]["reference"])
    assert "class agreement" in labels
    titles = [section["title"] for section in report["sections"]]
    assert {"Recordings against real ones", "Nearest training recordings"} <= set(titles)
    tokens = report["metrics"]["tokens"]
    assert 0 < tokens["histogram_floor"] < tokens["bigram_floor"]
    (gif,) = re.findall(r"data:image/gif;base64,([^\"]+)", page)
    with Image.open(io.BytesIO(b64decode(gif))) as played:
        assert played.n_frames == 2
