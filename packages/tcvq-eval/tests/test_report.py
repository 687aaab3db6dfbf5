"""The report: everything inside, nothing from outside, text escaped, numbers that read back."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from tcvq_eval import (
    FashionFeatures,
    Headline,
    Picture,
    Report,
    Section,
    Table,
    code_usage,
    code_usage_plot,
    evaluate_samples,
    image_grid,
    nearest_section,
    sample_headlines,
    write_report,
)

EVIL = "<script>alert('x')</script> & \"$title\""


class Page(HTMLParser):
    """Collect tags with their attributes and the visible text."""

    VOID = frozenset({"meta", "img", "link", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture
def pictures_inside(pictures):
    return [
        Picture(name="samples", data=image_grid(pictures(4)), alt='a "grid"', caption="four"),
        Picture(name="usage", data=code_usage_plot([3, 2, 1]), alt="usage"),
    ]


@pytest.fixture
def report(pictures, pictures_inside):
    real = pictures(30)
    evaluation = evaluate_samples(pictures(12), torch.arange(12) % 10, real, FashionFeatures(), train=pictures(20))
    return Report(
        title=f"Run {EVIL}",
        summary=EVIL,
        headlines=[*sample_headlines(evaluation), Headline(label="PSNR", value=math.inf, unit="dB", better="higher")],
        sections=[
            Section(title=EVIL, text="text", pictures=pictures_inside, table={"rate": 0.5, EVIL: EVIL}),
            nearest_section(real, pictures(20), evaluation.memorisation),
        ],
        metrics={"codebook": code_usage(torch.arange(40), 64), "samples": evaluation, "psnr": math.inf},
        timings={"stage1": 12.0, "encode": 0.5, "eval": 2.0},
        config={"vqvae": {"width": 24, "note": EVIL, "path": Path("a/b")}, "flag": True},
        environment={"torch": torch.__version__, "threads": 2},
        commands={"repeat": "tcvq run --out 'a<b'"},
    )


def test_the_page_contains_every_picture_as_a_data_uri(report, pictures_inside, tmp_path):
    page = Page(write_report(tmp_path, report).html.read_text("utf-8"))
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 3
    assert all(re.match(r"data:image/(png|svg\+xml);base64,", source) for source in sources)
    assert base64.b64decode(sources[0].partition(",")[2]) == pictures_inside[0].data
    assert base64.b64decode(sources[1].partition(",")[2]) == pictures_inside[1].data


def test_the_page_asks_for_nothing_from_outside(report, tmp_path):
    text = write_report(tmp_path, report).html.read_text("utf-8")
    page = Page(text)
    assert {"script", "link", "iframe", "object", "form"}.isdisjoint(tag for tag, _ in page.tags)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(value.startswith("data:") for value in links)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_every_text_is_escaped(report, tmp_path):
    page = Page(write_report(tmp_path, report).html.read_text("utf-8"))
    assert page.open == []
    assert page.text.count(EVIL) >= 5
    assert not any(tag == "script" for tag, _ in page.tags)
    assert any(attributes.get("alt") == 'a "grid"' for _, attributes in page.tags)


def test_the_page_shows_headlines_timings_settings_and_commands(report, tmp_path):
    text = Page(write_report(tmp_path, report).html.read_text("utf-8")).text
    for expected in ("real against real", "lower is better", "12.0 s", "14.5 s", "vqvae.width", "a/b", "'a<b'"):
        assert expected in text
    assert "inf" not in re.sub(r"[A-Za-z]*inf[a-z]+", "", text)  # a dash, not the word
    assert "counts" not in text  # long lists are in the JSON file only


def test_the_page_follows_the_reader_s_colour_scheme_and_screen(report, tmp_path):
    text = write_report(tmp_path, report).html.read_text("utf-8")
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport" content="width=device-width' in text


def test_the_numbers_read_back(report, tmp_path):
    read = json.loads(write_report(tmp_path, report).json.read_text("utf-8"))
    assert read["schema"] == "tcvq.report/1"
    assert list(read)[:3] == ["schema", "title", "summary"]
    assert read["title"] == report.title
    assert read["metrics"]["samples"]["fidelity"]["fd"] == report.metrics["samples"].fidelity.fd
    assert read["metrics"]["codebook"]["counts"] == [1] * 40 + [0] * 24
    assert read["metrics"]["psnr"] is None
    assert read["config"]["vqvae"]["path"] == "a/b"
    assert list(read["timings"]) == ["stage1", "encode", "eval"]
    assert read["sections"][0]["pictures"][0]["name"] == "samples"


def test_the_same_report_gives_the_same_bytes(report, tmp_path):
    first, second = write_report(tmp_path / "a", report), write_report(tmp_path / "b", report)
    assert first.json.read_bytes() == second.json.read_bytes()
    assert first.html.read_bytes() == second.html.read_bytes()


def test_a_small_report_is_enough(tmp_path):
    files = write_report(tmp_path, Report(title="empty"))
    assert Page(files.html.read_text("utf-8")).open == []
    assert json.loads(files.json.read_text("utf-8"))["headlines"] == []


def test_a_report_that_cannot_be_written_leaves_the_old_one(report, tmp_path, monkeypatch):
    files = write_report(tmp_path, Report(title="old"))
    before = files.json.read_bytes(), files.html.read_bytes()
    monkeypatch.setattr("tcvq_eval.report.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "no space")))
    with pytest.raises(OSError, match="no space"):
        write_report(tmp_path, report)
    assert (files.json.read_bytes(), files.html.read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_a_value_without_a_json_form_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="a report cannot hold a set"):
        write_report(tmp_path, Report(title="bad", config={"x": {1, 2}}))
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_picture_are_refused(tmp_path):
    bad = Section(title="bad", pictures=[Picture(name="x", data=b"BM6", alt="x")])
    with pytest.raises(ValueError, match="PNG, SVG and GIF"):
        write_report(tmp_path, Report(title="bad", sections=[bad]))


def test_a_table_keeps_its_numbers_and_shortens_them_on_the_page(tmp_path):
    table = Table(
        columns=["mode", "L1"], rows=[["none", 0.0], ["reverse", 0.123456789], [EVIL, None]], caption="paired"
    )
    files = write_report(tmp_path, Report(title="t", sections=[Section(title="s", tables=[table])]))
    page = Page(files.html.read_text("utf-8"))
    assert page.open == []
    assert "0.1235" in page.text
    assert EVIL in page.text
    assert json.loads(files.json.read_text("utf-8"))["sections"][0]["tables"][0]["rows"][1] == ["reverse", 0.123456789]
    with pytest.raises(ValueError, match="a row of 1 values for 2 columns"):
        Table(columns=["a", "b"], rows=[[1]])
