"""What `tcvq sample` does: from wishes to a draw, and from the draw to files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from tcvq_runner.completion import Completion, parse_completion
from tcvq_runner.distributed import process_rank
from tcvq_runner.drawing import draw, prepare
from tcvq_runner.recipe import ConfigError
from tcvq_runner.sample_files import check_wishes, write_files
from tcvq_runner.sample_target import sample_folder
from tcvq_runner.session import ComputeOptions, old_session, shared_session


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a user asks of a draw.

    Attributes:
        settings: Changes of the recipe, as ``key=value``.
        out: Folder for the files.
        classes: Names or numbers of classes.
        complete: Images to complete, such as ``8x8``.
        keep: What is given of them, such as ``upper:0.5``.
        grid: Columns and rows of a sheet.
        gif: Make a film.
        unfold: Show all steps.
        formats: Further file formats.
        workers: Processes.
        part: Number of this part, and how many there are.
    """

    settings: tuple[str, ...] = ()
    out: Path | None = None
    classes: tuple[str, ...] = ()
    complete: str | None = None
    keep: str | None = None
    grid: tuple[int, int] | None = None
    gif: bool = False
    unfold: bool = False
    formats: tuple[str, ...] = ()
    workers: int = 1
    part: tuple[int, int] | None = None

    @property
    def fresh(self) -> bool:
        """Whether the draw is another one than the run's own."""
        return bool(self.settings or self.classes or self.complete)


def sample_run(run: Path, wishes: Wishes, **options: Unpack[ComputeOptions]) -> Iterator[str]:
    """Draw from a run, write files, and yield lines that say which.

    Args:
        run: The run folder.
        wishes: What is asked for.
        options: What to compute with.

    Raises:
        ConfigError: Wishes contradict each other or the run.
        RunFolderError: A folder is in use, or holds something else.
        ArtifactError: A model is damaged.
        OSError: A file cannot be written.
    """
    completion = _completion(wishes)
    session = old_session(run, **options) if wishes.part is None else shared_session(run, **options)
    with session as at:
        drawing = prepare(
            at.folder,
            at.folder.recipe(wishes.settings),
            at.compute,
            classes=wishes.classes,
            completion=completion,
        )
        check_wishes(drawing, wishes.formats)
        rank, world_size = process_rank()
        part = wishes.part if world_size == 1 else (rank, world_size)
        shared = part is not None
        if shared and wishes.out is None:
            raise ConfigError("several processes that draw together need --out FOLDER, the same for all")
        with sample_folder(at.folder, wishes.out, drawing.plan, fresh=wishes.fresh, shared=shared) as target:
            explicit = options["threads"] is not None
            found = draw(
                drawing,
                target,
                at.compute,
                at.reporter,
                workers=wishes.workers,
                part=part,
                explicit_threads=explicit,
            )
            if found is None:
                assert part is not None
                yield f"part {part[0]} of {part[1]} is done; the last one to finish writes {target.samples}"
                return
            yield f"wrote {target.samples} and {target.samples_png}"
            made = write_files(
                target.path,
                found,
                drawing,
                at.compute,
                formats=wishes.formats,
                grid=wishes.grid,
                gif=wishes.gif,
                unfold=wishes.unfold,
            )
            yield from (f"wrote {path}" for path in made)


def _completion(wishes: Wishes) -> Completion | None:
    """Check what only makes sense together."""
    if wishes.part is not None and (wishes.out is None or wishes.workers > 1):
        raise ConfigError("--part needs --out FOLDER, the same for all parts, and draws in one process")
    if wishes.complete is None:
        if wishes.keep is not None:
            raise ConfigError(f"--keep {wishes.keep} says what is given of images to complete; add --complete IMAGES")
        return None
    if wishes.classes or any(setting.startswith("sample.n=") for setting in wishes.settings):
        raise ConfigError("--complete says how many images and of which classes; leave -n and --class out")
    return parse_completion(wishes.complete, wishes.keep or "upper")
