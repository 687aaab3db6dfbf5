"""The page of a report: text escaped, pictures inside, no script, no request to anywhere."""

import base64
import json
import math
from collections.abc import Mapping
from html import escape
from importlib import resources
from string import Template

from .report import Headline, Picture, Report, Section, Table, to_json

ARROWS = {"lower": "↓ lower is better", "higher": "↑ higher is better", "": ""}


def data_uri(data: bytes) -> str:
    """Return a PNG, SVG or GIF file as a data URI.

    Raises:
        ValueError: The bytes are none of these.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    elif data.startswith((b"GIF87a", b"GIF89a")):
        kind = "gif"
    elif b"<svg" in data[:1000]:
        kind = "svg+xml"
    else:
        raise ValueError(f"a report shows PNG, SVG and GIF pictures; these {len(data)} bytes start with {data[:8]!r}")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _number(value: int | float, digits: int) -> str:
    """Format a number for a reader; a dash where there is none."""
    return f"{value:,.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def _headline(item: Headline) -> str:
    lines = [text for text in (item.reference, ARROWS[item.better]) if text]
    notes = "".join(f"<small>{escape(line)}</small>" for line in lines)
    unit = f"<i>{escape(item.unit)}</i>" if item.unit else ""
    return f"<li><span>{escape(item.label)}</span><b>{_number(item.value, item.digits)}{unit}</b>{notes}</li>"


def _picture(picture: Picture) -> str:
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return f'<figure><img src="{data_uri(picture.data)}" alt="{escape(picture.alt)}">{caption}</figure>'


def _cell(value: object) -> str:
    """Format one value of a table: short numbers, text as it is, anything nested as JSON."""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "–"
    if value is None:
        return "–"
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    return json.dumps(to_json(value), ensure_ascii=False)


def _table(rows: Mapping[str, object]) -> str:
    body = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(_cell(v))}</td></tr>" for k, v in rows.items())
    return f'<div class="scroll"><table>{body}</table></div>' if rows else ""


def _wide_table(table: Table) -> str:
    """Return a table with headings; columns of numbers stand to the right."""
    numeric = [all(isinstance(row[i], int | float | None) for row in table.rows) for i in range(len(table.columns))]
    align = ["class=num" if number else "" for number in numeric]
    head = "".join(f"<th {a}>{escape(name)}</th>" for a, name in zip(align, table.columns, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td {a}>{escape(_cell(v))}</td>' for a, v in zip(align, row, strict=True))}</tr>"
        for row in table.rows
    )
    caption = f"<p class=note>{escape(table.caption)}</p>" if table.caption else ""
    head = f"<thead><tr>{head}</tr></thead>"
    shown = f'<div class="scroll"><table class=wide>{head}<tbody>{body}</tbody></table></div>{caption}'
    return _details(table.folded, shown) if table.folded else shown


def _flatten(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested mappings as one, with dotted names."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _section(section: Section) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    pictures = "".join(_picture(picture) for picture in section.pictures)
    tables = "".join(map(_wide_table, section.tables))
    return f"<section><h2>{escape(section.title)}</h2>{text}{pictures}{_table(section.table)}{tables}</section>"


def _details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def _timings(timings: Mapping[str, int | float]) -> str:
    if not timings:
        return ""
    total = sum(timings.values())
    rows = "".join(
        f'<tr><th>{escape(name)}</th><td class="num">{seconds:,.1f} s</td>'
        f'<td class="bar"><div style="width:{100 * seconds / total if total else 0:.1f}%"></div></td></tr>'
        for name, seconds in timings.items()
    )
    rows += f'<tr class="total"><th>total</th><td class="num">{total:,.1f} s</td><td></td></tr>'
    return f"<section><h2>Time</h2><table class=times>{rows}</table></section>"


def _commands(commands: Mapping[str, str]) -> str:
    items = "".join(f"<p>{escape(what)}</p><pre>{escape(command)}</pre>" for what, command in commands.items())
    return f"<section><h2>Commands</h2>{items}</section>" if items else ""


def _flatten_metrics(metrics: Mapping[str, object]) -> dict[str, object]:
    """Return all results as one table; long lists, which the JSON file holds, are left out."""
    tree = to_json(metrics)
    assert isinstance(tree, dict)
    return {k: v for k, v in _flatten(tree).items() if not (isinstance(v, list) and len(v) > 32)}


def report_html(report: Report) -> str:
    """Return the page as text.

    Raises:
        ValueError: A picture is neither PNG, SVG nor GIF.
        TypeError: A value has no JSON form.
    """
    assets = resources.files(__package__) / "assets"
    appendix = [
        _details("Configuration", _table(_flatten(report.config))),
        _details("Environment", _table(_flatten(report.environment))),
        _details("All numbers", _table(_flatten_metrics(report.metrics))),
    ]
    return Template((assets / "report.html").read_text("utf-8")).substitute(
        title=escape(report.title),
        summary=f"<p>{escape(report.summary)}</p>" if report.summary else "",
        style=(assets / "report.css").read_text("utf-8"),
        headlines=f"<ul class=headlines>{''.join(map(_headline, report.headlines))}</ul>" if report.headlines else "",
        sections="\n".join([*map(_section, report.sections), _timings(report.timings), _commands(report.commands)]),
        appendix="\n".join(appendix),
    )
