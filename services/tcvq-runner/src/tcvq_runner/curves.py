"""Training curves of a run: the file ``metrics.csv``, one line per stage, step and metric."""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tcvq_data import write_text

_COLUMNS = ("stage", "step", "metric", "value")


@dataclass(kw_only=True)
class Curves:
    """Training curves of one stage, to be written into the run's ``metrics.csv``.

    Attributes:
        stage: Name of the stage.
        rows: (step, metric, value), in the order they were measured.
        listener: Is told of the same values as they come; not of those that a continued training had before.
    """

    stage: str
    rows: list[tuple[int, str, float]] = field(default_factory=list)
    listener: Callable[[int, Mapping[str, float]], None] | None = None

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values measured at a step."""
        self.rows.extend((step, name, value) for name, value in values.items())
        if self.listener is not None:
            self.listener(step, values)

    def write(self, path: Path) -> None:
        """Put the curves into the file in place of earlier ones of the same stage."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(row for row in read_metrics(path) if row[0] != self.stage)
        writer.writerows((self.stage, step, name, f"{value:.9g}") for step, name, value in self.rows)
        write_text(path, text.getvalue())


def read_metrics(path: Path) -> list[tuple[str, int, str, float]]:
    """Return the rows (stage, step, metric, value) of a ``metrics.csv``, none if there is no file.

    Raises:
        ValueError: The file is not one of ours.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    try:
        if tuple(rows[0]) != _COLUMNS:
            raise ValueError(f"its first line is {rows[0]}")
        return [(stage, int(step), name, float(value)) for stage, step, name, value in rows[1:]]
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, only the training curves are lost") from error
