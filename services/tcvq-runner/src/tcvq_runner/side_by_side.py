"""Runs side by side: headline numbers, settings that differ, and whether the numbers compare."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcvq_eval import Report, Section, Table
from tcvq_runner.layers import ConfigError

_LIST = 12  # settings that the terminal shows; the page shows all


@dataclass(frozen=True, kw_only=True, slots=True)
class SideBySide:
    """Several runs compared.

    Attributes:
        names: Names of the runs.
        headlines: Label, then each run's value with its reference.
        settings: Dotted key, then each run's value; only what differs.
        warnings: Why numbers of these runs must not be compared, empty if they may.
        sources: The numbers and fingerprint of every run.
    """

    names: tuple[str, ...]
    headlines: tuple[tuple[str, ...], ...]
    settings: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]
    sources: Mapping[str, Any]

    def report(self, paths: Sequence[Path]) -> Report:
        """Return the comparison as a report."""
        text = " ".join(self.warnings) or "All runs were measured alike: their numbers may be compared."
        return Report(
            title="Runs side by side",
            summary=", ".join(self.names),
            sections=[
                Section(title="Numbers", text=text, tables=[Table(columns=("", *self.names), rows=self.headlines)]),
                Section(title="Settings that differ", tables=[Table(columns=("", *self.names), rows=self.settings)]),
            ],
            metrics=self.sources,
            commands={"make this again": " ".join(["tcvq compare", *map(str, paths)])},
        )

    def lines(self) -> list[str]:
        """Return the comparison for a terminal."""
        rows = [("", *self.names), *self.headlines, *self.settings[:_LIST]]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self.names) + 1)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        hidden = len(self.settings) - _LIST
        lines += [f"… and {hidden} more settings that differ"] if hidden > 0 else []
        return lines + [f"warning: {warning}" for warning in self.warnings]


def side_by_side(paths: Sequence[Path]) -> SideBySide:
    """Compare runs by their ``report.json``.

    Raises:
        ConfigError: There are fewer than two runs, or one has no readable report.
    """
    if len(paths) < 2:
        raise ConfigError(f"tcvq compare puts at least two runs side by side; got {len(paths)}")
    reports = [_read(path) for path in paths]
    names = _names(paths)
    values = [{h["label"]: _headline(h) for h in report["headlines"]} for report in reports]
    labels = list(dict.fromkeys(label for headline in values for label in headline))
    flat = [_flat(report["config"]) for report in reports]
    keys = [
        key for key in dict.fromkeys(key for tree in flat for key in tree) if len({t.get(key, "–") for t in flat}) > 1
    ]
    prints = [_fingerprint(report) for report in reports]
    return SideBySide(
        names=names,
        headlines=tuple((label, *(v.get(label, "–") for v in values)) for label in labels),
        settings=tuple((key, *(tree.get(key, "–") for tree in flat)) for key in keys),
        warnings=tuple(_warnings(names, prints)),
        sources={
            name: {"headlines": report["headlines"], "fingerprint": found}
            for name, report, found in zip(names, reports, prints, strict=True)
        },
    )


def _warnings(names: Sequence[str], prints: Sequence[dict[str, str]]) -> list[str]:
    """Say for each run in what its measurements differ from those of the first."""
    warnings = []
    for name, found in zip(names[1:], prints[1:], strict=True):
        differ = [key for key in prints[0] | found if prints[0].get(key) != found.get(key)]
        if differ:
            what = ", ".join(f"{key} {prints[0].get(key, 'none')} against {found.get(key, 'none')}" for key in differ)
            warnings.append(f"distances of {names[0]} and {name} must not be compared: {what}.")
    return warnings


def _read(path: Path) -> dict[str, Any]:
    file = path / "report.json"
    try:
        tree = json.loads(file.read_text("utf-8"))
        if tree["schema"] != "tcvq.report/1" or not {"headlines", "config", "metrics"} <= set(tree):
            raise ValueError(f"its schema is {tree['schema']}")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} has no report.json; measure the run first: tcvq eval {path}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); measure the run again: tcvq eval {path}") from error
    return dict(tree)


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the shortest ends of the paths that tell the runs apart."""
    parts = [path.resolve().parts for path in paths]
    for n in range(1, max(map(len, parts)) + 1):
        names = tuple("/".join(part[-n:]) for part in parts)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{path} ({i + 1})" for i, path in enumerate(paths))


def _headline(item: Mapping[str, Any]) -> str:
    value = "–" if item["value"] is None else f"{item['value']:.{item['digits']}f}{item['unit'] and ' ' + item['unit']}"
    return f"{value} ({item['reference']})" if item["reference"] else value


def _fingerprint(report: Mapping[str, Any]) -> dict[str, str]:
    """Return what two distances must share, flat; empty where none was measured."""
    fidelity = (report["metrics"].get("samples") or {}).get("fidelity") or {}
    return _flat(fidelity.get("fingerprint") or {})


def _flat(tree: Mapping[str, Any], at: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{at}{key}.") if isinstance(value, Mapping) else {f"{at}{key}": str(value)}
    return flat
