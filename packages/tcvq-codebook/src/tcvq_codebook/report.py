"""The result of codebook statistics: full tensors, and the numbers of a log taken from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from jaxtyping import Float, Int64
from torch import Tensor

from tcvq_codebook.usage import dead_fraction, perplexity, used_fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookReport:
    """Statistics of a codebook; tensors are on the CPU, and None where nothing was given to compute them from.

    Attributes:
        counts: How often each code was chosen since the reset, for each index map (each step of a vanilla codebook).
        window_counts: The same over the window.
        shared: Whether all maps name entries of one codebook.
        error: Mean of (z − e)² per element, for each step.
        relative_error: Σ(z − e)² / Σz², for each step.
        neighbours: ``[0, i, j]`` counts code j right of code i, ``[1, i, j]`` below it.
        norm: ‖e_t‖, for each step, mean over entries weighted by use.
        change: ‖e_t − e_{t−1}‖, for each step but the first, weighted by use.
        variance_share: Temporal variance share, see `temporal_profile`.
        drift: Movement of each entry since the snapshot, see `entry_drift`.
    """

    counts: Int64[Tensor, "maps K"]
    window_counts: Int64[Tensor, "maps K"]
    shared: bool = True
    error: Float[Tensor, "T"] | None = None
    relative_error: Float[Tensor, "T"] | None = None
    neighbours: Int64[Tensor, "2 K K"] | None = None
    norm: Float[Tensor, "T"] | None = None
    change: Float[Tensor, "changes"] | None = None
    variance_share: Float[Tensor, ""] | None = None
    drift: Float[Tensor, "K"] | None = None

    def as_dict(self, *, prefix: str = "", min_usage: float = 0.1) -> dict[str, float]:
        """Return the numbers of a log, flat.

        ``used_fraction``, ``dead_fraction``, ``perplexity`` and ``tokens`` are those of all maps together, or means
        over the maps of different codebooks, since the reset, and over the ``window/``. ``…/map_0`` … hold each map's
        where there are several, ``…/step_0`` … each step's.

        Args:
            prefix: Put before every name, such as ``codebook/``.
            min_usage: A code is dead below this fraction of uniform use.
        """
        return {prefix + name: value for name, value in self._numbers(min_usage)}

    def _numbers(self, min_usage: float) -> Iterator[tuple[str, float]]:
        for part, counts in (("", self.counts), ("window/", self.window_counts)):
            maps = [_usage(row, min_usage) for row in counts]
            whole = _usage(counts.sum(0), min_usage) if self.shared else _mean(maps)
            yield from ((part + name, value) for name, value in whole.items())
            if len(maps) > 1:
                for number, use in enumerate(maps):
                    yield from ((f"{part}{name}/map_{number}", value) for name, value in use.items())
        for name in ("error", "relative_error", "norm", "change"):
            values: Tensor | None = getattr(self, name)
            if values is not None:
                first = 1 if name == "change" else 0
                yield from ((f"{name}/step_{t}", value) for t, value in enumerate(values.tolist(), first))
        if self.variance_share is not None:
            yield "variance_share", self.variance_share.item()
        if self.drift is not None:
            yield "drift/mean", self.drift.mean().item()
            yield "drift/max", self.drift.max().item()
        if self.neighbours is not None:
            for name, table in zip(("right", "below"), self.neighbours, strict=True):
                yield f"same_as_{name}", (table.trace() / table.sum().clamp(min=1)).item()


def _usage(counts: Int64[Tensor, "K"], min_usage: float) -> dict[str, float]:
    return {
        "used_fraction": used_fraction(counts).item(),
        "dead_fraction": dead_fraction(counts, min_usage).item(),
        "perplexity": perplexity(counts.double()).item(),
        "tokens": float(counts.sum()),
    }


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(row[name] for row in rows) for name in rows[0]}
