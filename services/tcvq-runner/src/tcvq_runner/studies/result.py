"""What a study found, and how it is written: a table, figures as PNG and SVG, a page and its numbers."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tcvq_data import write_bytes, write_text
from tcvq_eval import Headline, Picture, Report, Section, Table, write_report
from tcvq_runner.wiring import Compute, environment

Draw = Callable[[Literal["png", "svg"]], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyFigure:
    """A figure of a study.

    Attributes:
        name: File name without its ending.
        alt: What it shows.
        draw: Returns its bytes as ``png`` or ``svg``.
        caption: Text under it.
    """

    name: str
    alt: str
    draw: Draw
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What a study found.

    Attributes:
        name: Name of the command.
        title: Heading of its report.
        question: What was asked, one or two sentences.
        answer: One paragraph of numbers, noise floor included.
        table: Its table, which is written as CSV.
        figures: Figures as PNG and SVG.
        pictures: Further pictures as PNG files, such as strips of images.
        headlines: Numbers that stand first.
        metrics: Everything that was measured.
        commands: What to type to see it again.
        tables: Further tables.
        shown: What the page shows instead of ``table``; None shows that.
    """

    name: str
    title: str
    question: str
    answer: str
    table: Table
    figures: Sequence[StudyFigure] = ()
    pictures: Sequence[Picture] = ()
    headlines: Sequence[Headline] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    shown: Table | None = None


def write_study(folder: Path, study: Study, compute: Compute) -> Path:
    """Write everything that a study found into a folder and return the path of the page.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for figure in study.figures:
        drawn = {kind: figure.draw(kind) for kind in ("png", "svg")}
        for kind, data in drawn.items():
            write_bytes(folder / f"{figure.name}.{kind}", data)
        smaller = min(drawn.values(), key=len)  # an SVG of a large raster is the larger file
        shown.append(Picture(name=figure.name, data=smaller, alt=figure.alt, caption=figure.caption))
    for picture in study.pictures:
        ending = "gif" if picture.data.startswith(b"GIF8") else "png"
        write_bytes(folder / f"{picture.name}.{ending}", picture.data)
    write_text(folder / "table.csv", _csv(study.table))
    write_text(folder / "answer.txt", study.answer + "\n")
    report = Report(
        title=study.title,
        summary=study.question,
        headlines=study.headlines,
        sections=[
            Section(title="Answer", text=study.answer, tables=[study.shown or study.table]),
            Section(title="Figure", pictures=shown),
            *([Section(title="Pictures", pictures=study.pictures)] if study.pictures else []),
            *([Section(title="Further numbers", tables=study.tables)] if study.tables else []),
        ],
        metrics=study.metrics,
        environment=environment(compute),
        commands=study.commands,
    )
    return write_report(folder, report).html


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return text.getvalue()
