"""Everything there is to say about one run: the facts of ``tcvq runs show``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tcvq_runner.progress import clock
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.runs import run_facts


def details(path: Path) -> dict[str, Any]:
    """Return state, steps with their hashes, environment and headline numbers of a run, as JSON types.

    Raises:
        RunFolderError: The folder is no run, or its record is damaged.
        ConfigError: Its recipe is damaged.
    """
    folder = RunFolder(path)
    recipe = folder.recipe()
    report = _read(folder.report_json)
    headlines = [each for each in report.get("headlines", []) if isinstance(each, dict) and "label" in each]
    return run_facts(path).as_json() | {
        "seed": recipe.seed,
        "dataset": recipe.data.name,
        "steps": folder.steps(),
        "environment": _read(folder.env),
        "numbers": {
            each["label"]: each.get("value") for each in headlines if isinstance(each, dict) and "label" in each
        },
        "files": {str(item.relative_to(path)): _size(item) for item in sorted(path.iterdir()) if item.name[0] != "."},
    }


def lines(tree: dict[str, Any]) -> Iterator[str]:
    """Yield the details for people."""
    env = tree["environment"]
    yield f"{'run':<14}{tree['path']}"
    yield f"{'recipe':<14}{tree['recipe']}, seed {tree['seed']}, data {tree['dataset']}"
    yield f"{'state':<14}{tree['state']}{': ' + tree['now'] if tree['now'] else ''}"
    if env:
        yield f"{'started':<14}{env.get('time', '?')} with {' '.join(map(str, env.get('command', [])))}"
        dirty = " with changes" if env.get("git_dirty") else ""
        yield f"{'machine':<14}{env.get('device')}, {env.get('precision')}, {env.get('threads')} threads"
        yield f"{'revision':<14}{env.get('git') or 'not in a checkout'}{dirty}"
    for name, facts in tree["steps"].items():
        made = "  ".join(f"{key} {value[:12]}" for key, value in facts.items() if isinstance(value, str))
        yield f"{name:<14}{clock(float(facts.get('seconds', 0))):>8}  {made}".rstrip()
    for name, value in tree["numbers"].items():
        yield f"{'':<14}{name}: {value:.4g}" if isinstance(value, int | float) else f"{'':<14}{name}: {value}"
    for name, size in tree["files"].items():
        yield f"{'file':<14}{name:<26}{size / 1e6:>10.2f} MB"


def _size(path: Path) -> int:
    """Return the bytes of a file, or of everything in a folder."""
    return (
        sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) if path.is_dir() else path.stat().st_size
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}
