"""Following a run from elsewhere: TensorBoard always, Weights & Biases and MLflow where a recipe asks for them.

Each gets what ``metrics.csv`` gets, under ``stage/metric`` and the step of that stage; the extras through Lightning.
"""

import hashlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tcvq_runner.config import Recipe, TrackConfig
from tcvq_runner.distributed import process_rank
from tcvq_runner.recipe import ConfigError, dump_recipe, flat_recipe
from tcvq_runner.run_dir import RunFolder

Log = Callable[[int, Mapping[str, float]], None]  # step, values by metric

_EXTRAS = ("wandb", "mlflow")
_MLFLOW_RUN = "mlflow_run.json"  # in the run folder: which run of MLflow continues it


def check_trackers(config: TrackConfig) -> None:
    """Check that the packages which a recipe's trackers need are installed, before anything starts.

    Raises:
        ConfigError: One is not; names the extra that brings it.
    """
    for name in _EXTRAS:
        if getattr(config, name) and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"track.{name} is true but {name} is not installed; install the extra tcvq-runner[{name}] (in a clone: "
                f"uv sync --all-packages --extra {name}), or set track.{name}=false"
            )


@contextmanager
def open_tracker(folder: RunFolder, recipe: Recipe, stage: str) -> Iterator[Log]:
    """Yield a function that sends values to every tracker of the recipe; it does nothing on other ranks than the first.

    Args:
        folder: The run.
        recipe: What is run.
        stage: The stage that is measured.

    Raises:
        ConfigError: A tracker's package is not installed, or its server refuses.
    """
    check_trackers(recipe.track)
    with _quiet():
        trackers = [] if process_rank()[0] else list(_trackers(folder, recipe, stage))

    def log(step: int, values: Mapping[str, float]) -> None:
        named = {f"{stage}/{name}": float(value) for name, value in values.items()}
        with _quiet():
            for tracker in trackers:
                tracker.log_metrics(named, step)

    status = "failed"
    try:
        yield log
        status = "success"
    finally:
        with _quiet():
            for tracker in trackers:
                tracker.finalize(status)
                _finish(tracker)


def _trackers(folder: RunFolder, recipe: Recipe, stage: str) -> Iterator[Any]:
    """Yield the loggers that the recipe asks for, each told what is run."""
    if recipe.track.tensorboard:
        from tcvq_runner.board import Board

        board = Board(folder.path / "tensorboard", stage)
        board.log_text(f"{stage}/recipe", f"```yaml\n{dump_recipe(recipe)}```")
        yield board
    if recipe.track.wandb:
        yield _wandb(folder, recipe)
    if recipe.track.mlflow:
        yield _mlflow(folder, recipe)


def _wandb(folder: RunFolder, recipe: Recipe) -> Any:
    """Open the run of Weights & Biases that belongs to the folder, new or continued."""
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    tracker = WandbLogger(
        name=f"{recipe.name}-{folder.path.name}",
        project=recipe.track.project,
        save_dir=folder.path,
        id=_identity(folder),
        offline=recipe.track.offline,
        settings=wandb.Settings(silent=True),
    )
    try:
        tracker.log_hyperparams(flat_recipe(recipe))
    except (wandb.errors.Error, OSError) as error:
        raise ConfigError(f"track.wandb: {error}; log in with wandb login, or set track.offline=true") from error
    return tracker


def _mlflow(folder: RunFolder, recipe: Recipe) -> Any:
    """Open the run of MLflow that belongs to the folder, new or continued."""
    from lightning.pytorch.loggers import MLFlowLogger

    from tcvq_data import write_json

    # Without a server MLflow writes files; it asks to be told that this is what one wants.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    known = folder.path / _MLFLOW_RUN
    run_id = json.loads(known.read_text("utf-8"))["run_id"] if known.is_file() else None
    server = recipe.track.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI")
    uri = (folder.path / "mlflow").resolve().as_uri() if recipe.track.offline or not server else server
    try:
        tracker = MLFlowLogger(
            experiment_name=recipe.track.project,
            run_name=f"{recipe.name}-{folder.path.name}",
            tracking_uri=uri,
            run_id=run_id,
        )
        if run_id is None:
            tracker.log_hyperparams(flat_recipe(recipe))
            write_json(known, {"run_id": tracker.run_id})
    except Exception as error:  # MLflow's own errors, those of its HTTP client, and OSError
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"track.mlflow: {uri} refuses: {reason}; set track.mlflow_uri or track.offline=true"
        ) from error
    return tracker


def _identity(folder: RunFolder) -> str:
    """Return a name that stays the same when a run is continued."""
    started = folder.environment().get("time", "")
    return hashlib.sha256(f"{folder.path.resolve()}/{started}".encode()).hexdigest()[:10]


def _finish(tracker: Any) -> None:
    """End what a logger of Lightning leaves open for the next training in the same process."""
    if type(tracker).__name__ == "WandbLogger":
        tracker.experiment.finish()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep remarks of the trackers' packages off the terminal; their errors are raised."""
    names = ("mlflow", "lightning.pytorch.loggers", "wandb")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
