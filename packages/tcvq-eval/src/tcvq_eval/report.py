"""The report of a run: ``report.json`` for machines (schema ``tcvq.report/1``) and a self-contained ``report.html``."""

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor

SCHEMA = "tcvq.report/1"
Json: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One number at the top of the report.

    Attributes:
        label: What is measured.
        value: The value; a number that is not finite is shown as a dash.
        digits: Digits after the point.
        unit: Written after the value.
        reference: What the value has to be read against, such as ``noise floor 0.8``; empty if nothing.
        better: Which direction is better, if any.
    """

    label: str
    value: int | float
    digits: int = 2
    unit: str = ""
    reference: str = ""
    better: Literal["lower", "higher", ""] = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture inside the report.

    Attributes:
        name: Short name, unique in the report.
        data: Bytes of a PNG, SVG or GIF file.
        alt: What the picture shows, for readers who cannot see it.
        caption: Text under the picture.
    """

    name: str
    data: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of values under named columns.

    Attributes:
        columns: Headings.
        rows: Values, one per column; numbers are shortened for the page and exact in the JSON file.
        caption: Text under the table.
        folded: Title of a long table that the reader unfolds; empty shows it at once.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    folded: str = ""

    def __post_init__(self) -> None:
        """Reject rows that do not fit the headings."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of {len(row)} values for {len(self.columns)} columns ({', '.join(self.columns)})"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A titled part of the report.

    Attributes:
        title: Heading.
        text: One paragraph under it, or empty.
        pictures: Pictures, top to bottom.
        table: Rows of name and value, or none.
        tables: Tables with headings, under the pictures.
    """

    title: str
    text: str = ""
    pictures: Sequence[Picture] = ()
    table: Mapping[str, object] = field(default_factory=dict)
    tables: Sequence[Table] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that a report says; plain values, results of this package, and pictures as bytes.

    Attributes:
        title: What was run.
        summary: One or two sentences under the title.
        headlines: Numbers that stand first.
        sections: Parts of the page in reading order.
        metrics: All results by name: dataclasses of this package, or JSON values.
        timings: Seconds per stage, in the order of the run.
        config: The resolved configuration.
        environment: Versions, machine, devices, backends.
        commands: What each command does, and the command: first how to reproduce, then what to try next.
    """

    title: str
    summary: str = ""
    headlines: Sequence[Headline] = ()
    sections: Sequence[Section] = ()
    metrics: Mapping[str, object] = field(default_factory=dict)
    timings: Mapping[str, int | float] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportFiles:
    """Where a report was written.

    Attributes:
        json: Path of ``report.json``.
        html: Path of ``report.html``.
    """

    json: Path
    html: Path


def to_json(value: object) -> Json:
    """Turn results into JSON values: dataclasses and mappings become objects, tensors and sequences lists.

    Numbers that are not finite become null, since JSON has no word for them; pictures become name, text and hash.

    Raises:
        TypeError: The value has no JSON form.
    """
    if isinstance(value, Picture):
        digest = hashlib.sha256(value.data).hexdigest()
        return {"name": value.name, "alt": value.alt, "caption": value.caption, "sha256": digest}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> Json:
    """Turn a tensor, or one value that is not a container, into JSON."""
    if isinstance(value, Tensor):
        return to_json(value.tolist())
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(
        f"a report cannot hold a {type(value).__name__}; pass numbers, text, mappings, lists or dataclasses"
    )


def report_json(report: Report) -> str:
    """Return the text of ``report.json``: schema first, then the fields of ``Report``, keys sorted below the top."""
    body: dict[str, object] = {"schema": SCHEMA}
    for name, value in {f.name: getattr(report, f.name) for f in dataclasses.fields(report)}.items():
        body[name] = json.loads(json.dumps(to_json(value), sort_keys=name not in {"timings", "commands"}))
    return json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_report(folder: Path, report: Report) -> ReportFiles:
    """Write ``report.json`` and ``report.html`` into a folder, which is made if missing.

    Each file appears by an atomic rename; the page comes last, so that whoever sees it also finds the numbers.

    Raises:
        TypeError: A metric, setting or environment entry has no JSON form.
        ValueError: A picture is neither PNG, SVG nor GIF.
        OSError: The folder cannot be written.
    """
    from .report_html import report_html

    numbers, page = report_json(report), report_html(report)
    folder.mkdir(parents=True, exist_ok=True)
    files = ReportFiles(json=folder / "report.json", html=folder / "report.html")
    _write_atomically(files.json, numbers)
    _write_atomically(files.html, page)
    return files
