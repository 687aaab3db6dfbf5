"""What the study of destruction says: its tables, figures, pictures and paragraph of numbers."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tcvq_eval import Headline, Picture, Table, destruction_plot, event_gif, event_strips, image_grid
from tcvq_runner.studies.result import Study, StudyFigure
from tcvq_runner.studies.yardstick import suite_table, time_words

if TYPE_CHECKING:
    from tcvq_runner.studies.destruction import Destroyed, Destruction

_SHOWN, _PLAYED = 10, 6
_RISE = 0.01  # of the error, below which there is nothing to divide
_MODES = ("reverse", "repeat", "empty")
_COLUMNS = (
    "run",
    "mode",
    "L1 to none, generated",
    "±",
    "L1 to none, test codes",
    "L1 to test data",
    "FD, generated",
    "FD, test codes",
    "KID, generated",
    "KID, test codes",
)


def study_of(found: Sequence["Destruction"]) -> Study:
    """Return the study of one run, or of several side by side."""
    first, others = found[0], found[1:]
    suffix = {each.name: f"-{each.name}" if others else "" for each in found}
    command = ["tcvq study destruction", str(first.folder.path), *(f"--against {each.folder.path}" for each in others)]
    return Study(
        name="destruction",
        title=f"Destruction of time: {first.folder.path}",
        question="How much of an image is in the order of its steps? The same generated codes are looked up once, and "
        "their steps are reversed, frozen or emptied before the decoder.",
        answer=" ".join([*(_answer(each, bool(others)) for each in found), *time_words(first.time)]),
        table=Table(
            columns=_COLUMNS,
            rows=[row for each in found for row in _rows(each)],
            caption="L1 in pixel values from -1 to 1; ± is the standard error. Tuned: the decoder was trained "
            f"{first.tune_steps} batches more on sequences in this mode. Real data: the noise floor.",
        ),
        figures=[_figure(each, suffix[each.name]) for each in found],
        pictures=[picture for each in found for picture in _pictures(each, suffix[each.name])],
        headlines=[
            Headline(
                label=f"L1 change, {mode}",
                value=first.generated[mode].change.mean().item(),
                digits=3,
                reference="none: 0 by construction",
            )
            for mode in _MODES
        ],
        metrics={each.name: _metrics(each) for each in found},
        commands={"make this again": " ".join([*command, f"--tune-steps {first.tune_steps}"])},
        tables=[_suite(each) for each in found if each.generated["none"].suite],
    )


def _rows(run: "Destruction") -> list[list[object]]:
    rows: list[list[object]] = []
    for mode, found in run.generated.items():
        codec = run.codec[mode]
        row: list[object] = [run.name, mode, *_mean(found.change), codec.change.mean().item(), codec.error]
        rows.append([*row, found.fd, codec.fd, found.kid, codec.kid])
    floor, kernel = run.ruler.floor, run.ruler.kernel_floor
    return [*rows, [run.name, "real data", None, None, None, None, floor, floor, kernel, kernel]]


def _suite(run: "Destruction") -> Table:
    """Return the suite for recordings, a column per mode."""
    headings, rows = suite_table({mode: found.suite for mode, found in run.generated.items()})
    return Table(
        columns=headings,
        rows=rows,
        caption=f"Generated recordings of {run.name}. W1: Wasserstein-1 distance of a statistic over recordings, in "
        "standard deviations of the real ones.",
    )


def _figure(run: "Destruction", suffix: str) -> StudyFigure:
    changes = {
        "generated codes": {mode: found.change.mean().item() for mode, found in run.generated.items()},
        "test codes": {mode: found.change.mean().item() for mode, found in run.codec.items()},
    }
    distances = {mode: found.fd for mode, found in run.generated.items()}
    return StudyFigure(
        name=f"destruction{suffix}",
        alt=f"Change of the images of {run.name} in every mode",
        draw=lambda kind: destruction_plot(changes, distances, run.ruler.floor, kind=kind),
        caption=f"{run.name}: mean absolute change of the decoded image, paired with none of the same decoder; right: "
        f"Fréchet distance of generated images in {run.ruler.space}, dashed: real against real.",
    )


def _answer(run: "Destruction", named: bool) -> str:
    generated, codec = run.generated, run.codec
    last = f"last-{run.n_steps}"
    same = torch.equal(generated["last-1"].images, generated["none"].images)
    frozen = torch.equal(generated[last].images, generated["repeat"].images)
    what = "recordings" if run.ruler.x.ndim == 5 else "images"

    def listed(value: Any, modes: Sequence[str], digits: int) -> str:
        return ", ".join(f"{mode} {value(mode):.{digits}f}" for mode in modes)

    text = [
        *([f"{run.name}:"] if named else []),
        f"Mean absolute change of {run.ruler.n} generated {what}, paired with none, pixels in [-1, 1]: "
        f"{listed(lambda mode: generated[mode].change.mean().item(), _MODES, 3)}.",
        f"On codes of test {what} the reconstruction error rises from {codec['none'].error:.3f} to "
        f"{listed(lambda mode: codec[mode].error, _MODES, 3)}.",
        f"Fréchet distance of the generated {what} in {run.ruler.space} (noise floor {run.ruler.floor:.2f}): "
        f"{listed(lambda mode: generated[mode].fd, ('none', *_MODES), 2)}.",
        f"last-1 is {'' if same else 'NOT '}bit equal to none, "
        f"{last} is {'' if frozen else 'NOT '}bit equal to repeat.",
    ]
    return " ".join([*text, _control(run)])


def _control(run: "Destruction") -> str:
    """Say which part of the drop is the decoder's surprise: what training it on frozen sequences takes away."""
    if not run.tune_steps:
        return "The decoder was trained on intact sequences: part of any drop is its surprise, not lost information."
    codec, generated = run.codec, run.generated
    surprised = codec["repeat"].error, codec["none"].error
    tuned = codec["repeat, tuned"].error, codec["none, tuned"].error
    assert None not in (*surprised, *tuned)
    drop, left = (a - b for a, b in (surprised, tuned))  # type: ignore[operator]  # test codes have an original
    text = (
        f"Control: after {run.tune_steps} more batches on frozen sequences the decoder's error on them is "
        f"{tuned[0]:.3f}, after as many on intact ones {tuned[1]:.3f} (Fréchet distance of generated "
        f"{generated['repeat, tuned'].fd:.2f} and {generated['none, tuned'].fd:.2f})."
    )
    if drop <= _RISE * surprised[1]:  # type: ignore[operator]  # as above: the assertion says so, mypy does not see it
        return f"{text} On test codes repeat raises the error by no more than {_RISE:.0%}: no rise to explain."
    return (
        f"{text} So {100 * (1 - left / drop):.0f} % of the rise by repeat was the decoder's surprise; the rest is what "
        "the earlier steps told and the last one does not."
    )


def _pictures(run: "Destruction", suffix: str) -> list[Picture]:
    """Return the same samples in every mode, one row per mode; of recordings the first one, and some as a GIF."""
    modes, first = list(run.generated), run.generated["none"].images
    chosen = torch.linspace(0, len(first) - 1, min(_SHOWN, len(first))).long()
    caption = f"The same generated codes of {run.name} in every row, chosen at equal distances, not by look."
    picture = partial(Picture, alt="The same samples in every mode")
    if first.ndim == 4:
        sheet = torch.cat([found.images[chosen] for found in run.generated.values()])
        data = image_grid(sheet, len(chosen), row_labels=modes, scale=2)
        return [picture(name=f"strip{suffix}", data=data, caption=caption)]
    shares = [(found.images[chosen[:_PLAYED]].clamp(-1, 1) + 1) / 2 for found in run.generated.values()]
    strips = event_strips(torch.stack([each[0] for each in shares]), row_labels=modes, scale=3)
    played = event_gif(torch.cat(shares), cols=len(shares[0]), scale=2, frame_ms=300)
    return [
        picture(name=f"strip{suffix}", data=strips, caption="The first recording, steps from left to right."),
        picture(name=f"played{suffix}", data=played, caption=f"{caption} Rows from above: {', '.join(modes)}."),
    ]


def _mean(values: Tensor) -> tuple[float, float]:
    spread = values.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
    return values.mean().item(), spread


def _metrics(run: "Destruction") -> dict[str, Any]:
    return {
        "space": run.ruler.space,
        "n": run.ruler.n,
        "fd_noise_floor": run.ruler.floor,
        "kid_noise_floor": run.ruler.kernel_floor,
        "time": run.time,
        "tune_steps": run.tune_steps,
        "generated": {mode: _numbers(found) for mode, found in run.generated.items()},
        "test_codes": {mode: _numbers(found) for mode, found in run.codec.items()},
    }


def _numbers(found: "Destroyed") -> Mapping[str, Any]:
    mean, error = _mean(found.change)
    return {
        "l1_to_none": mean,
        "standard_error": error,
        "fd": found.fd,
        "kid": found.kid,
        "l1_to_original": found.error,
        "suite": found.suite,
    }
