"""The commands `tcvq runs …`: arguments to calls, nothing else."""

import json
from pathlib import Path

import click

from tcvq_runner.options import FOLDER, debug_option, json_option, run_argument


@click.group()
def runs() -> None:
    """Look at runs: which there are, what they reached, whether they are whole."""


@runs.command("list")
@click.argument("root", type=FOLDER, default=Path("runs"), metavar="[FOLDER]")
@json_option
@debug_option
def list_(root: Path, as_json: bool) -> None:
    """List the runs in a folder (default: runs) and below it."""
    from tcvq_runner.progress import clock
    from tcvq_runner.runs import STEPS, find_runs

    found = find_runs(root)
    if as_json:
        click.echo(json.dumps({"runs": [facts.as_json() for facts in found]}, indent=2))
        return
    width = max([len(str(facts.path)) for facts in found] + [3])
    click.echo(f"{'run':<{width}}  {'recipe':<20}{'state':<10}{'steps':<7}{'time':>8}  result")
    for facts in found:
        steps, result = f"{len(facts.done)}/{len(STEPS)}", facts.headline
        if facts.now:
            result = f"{facts.now}{f'; {facts.headline}' if facts.headline else ''}"
        row = (
            f"{facts.path!s:<{width}}  {facts.recipe:<20}{facts.state:<10}{steps:<7}{clock(facts.seconds):>8}  {result}"
        )
        click.echo(row)


@runs.command()
@run_argument
@json_option
@debug_option
def show(run: Path, as_json: bool) -> None:
    """Show one run: its state, steps, artifacts, environment and numbers."""
    from tcvq_runner.run_details import details, lines

    tree = details(run)
    click.echo(json.dumps(tree, indent=2) if as_json else "\n".join(lines(tree)))


@runs.command()
@run_argument
@json_option
@debug_option
def verify(run: Path, as_json: bool) -> None:
    """Hash every artifact of a run again and check that each was made from the others; status 2 on damage."""
    from tcvq_data import ArtifactError
    from tcvq_runner.verifying import verify_run

    checks = verify_run(run)
    if as_json:
        rows = [{"name": c.name, "problem": c.problem, "sha256": c.sha256} for c in checks]
        click.echo(json.dumps({"run": str(run), "ok": not any(c.problem for c in checks), "checks": rows}, indent=2))
    else:
        for check in checks:
            state = "not made" if check.problem is None else check.problem or f"whole  {check.sha256[:12]}".rstrip()
            click.echo(f"{check.name:<35} {state}")
    bad = [check for check in checks if check.problem]
    if bad:
        raise ArtifactError(
            f"{run}: {bad[0].name} {bad[0].problem}"
            + (f" (and {len(bad) - 1} more)" if len(bad) > 1 else "")
            + "; make it again with the command of its step, or bring the copy that belongs here"
        )
