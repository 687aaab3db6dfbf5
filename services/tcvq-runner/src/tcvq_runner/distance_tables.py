"""Measured distances as the rows of a table in a report: each value beside real against real."""

from collections.abc import Sequence

from tcvq_eval import EventEvaluation, Measurement, TokenDistances


def distance_rows(found: Sequence[Measurement]) -> dict[str, str]:
    """Return measured distances as rows of a table: value, spread, and real against real."""
    rows = {}
    for each in found:
        if each.skipped:
            rows[each.name] = f"skipped: {each.skipped}"
            continue
        spread = "" if each.spread is None else f" ± {each.spread:.3g}"
        floor = "" if each.noise_floor is None else f"; real against real {each.noise_floor:.4g} (n = {each.n_floor})"
        rows[each.name] = f"{each.value:.4g}{spread}{floor}{'; ' + each.note if each.note else ''}"
    return rows


def event_rows(found: EventEvaluation) -> dict[str, str]:
    """Return the suite for recordings as rows of a table, each value beside real against real."""
    rows = distance_rows(found.measurements)
    worst = max(range(len(found.slice_fd)), key=found.slice_fd.__getitem__)
    mean, floor = (sum(each) / len(each) for each in (found.slice_fd, found.slice_floor))
    rows["fd per step, mean"] = f"{mean:.4g}; real against real {floor:.4g}"
    rows["fd per step, largest"] = (
        f"{found.slice_fd[worst]:.4g} (step {worst + 1}); real {found.slice_floor[worst]:.4g}"
    )
    if found.difference_fd is not None:
        rows["fd of frame differences"] = f"{found.difference_fd:.4g}; real against real {found.difference_floor:.4g}"
    for each in found.statistics:
        rows[f"{each.name.replace('_', ' ')}, W1 / KS"] = (
            f"{each.w1:.3g} / {each.ks:.3g}; real against real {each.w1_floor:.3g} / {each.ks_floor:.3g}"
        )
    for yard in found.temporal:
        seen = "seen" if yard.seen else "not seen: the distance says nothing about time"
        rows[f"real with time {yard.name}"] = f"fd {yard.fd:.4g}, {yard.ratio:.1f} noise floors, {seen}"
    rows["values no count can have"] = (
        f"{100 * found.counts.fractional:.1f} % (real after resizing {100 * found.real_counts.fractional:.1f} %)"
    )
    if found.accuracy is not None and found.real_accuracy is not None:
        rows["class agreement"] = f"{100 * found.accuracy:.1f} %; real {100 * found.real_accuracy:.1f} %"
    return rows


def token_rows(found: TokenDistances | None) -> dict[str, str]:
    """Return the distance of sampled from real codes as rows of a table, each beside real against real."""
    if found is None:
        return {}
    at = f"bits of 1; real against real {{:.4f}} (n = {found.n})"
    return {
        "sampled against test codes, histogram": f"{found.histogram:.4f} {at.format(found.histogram_floor)}",
        "sampled against test codes, neighbours": f"{found.bigram:.4f} {at.format(found.bigram_floor)}",
    }
