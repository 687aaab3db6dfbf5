"""The merge gate: `nox` runs every session below that is not marked `default=False`; `nox -l` lists them."""

import os
import shutil
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv"
os.environ.setdefault("MPLBACKEND", "agg")

ROOT = Path(__file__).parent
JUNIT = ROOT / ".nox" / "junit"
PROJECTS = {path.parent.name: path.parent for path in sorted(ROOT.glob("*/tcvq-*/pyproject.toml"))}
SOURCES = [str(path.relative_to(ROOT) / "src") for path in PROJECTS.values()]


def sync(session: nox.Session, *args: str) -> None:
    """Make the session's environment hold exactly what the lock file says for these arguments."""
    where = {"UV_PROJECT_ENVIRONMENT": session.virtualenv.location}
    session.run_install("uv", "sync", "--quiet", "--locked", "--no-default-groups", *args, env=where)


def pytest(session: nox.Session, name: str, *args: str) -> None:
    """Run pytest, a file at a time in each of two processes of one thread; keep its counts for the session `total`."""
    how = ("--numprocesses=2", "--dist=loadfile", f"--junitxml={JUNIT / name}.xml")
    session.run("pytest", *how, *args, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Format, ruff, import rules, pins, sizes, interface locks and spelling (half a minute)."""
    sync(session, "--only-group", "lint")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": os.pathsep.join(SOURCES)})
    for tool in ("check_pins.py", "check_sizes.py", "interface_lock.py --check"):
        session.run("python", *f"tools/{tool}".split())
    session.run("codespell", "--skip", "uv.lock,*.json,*.svg,*.html", *SOURCES, "docs", "tests", "tools", "README.md")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Strict mypy over all sources in one environment."""
    sync(session, "--group", "typecheck", "--group", "lint")
    session.run("mypy", *SOURCES, "tools")


@nox.session
@nox.parametrize("package", list(PROJECTS), ids=list(PROJECTS))
def tests(session: nox.Session, package: str) -> None:
    """Unit tests of one package, in an environment that holds only that package and what it declares."""
    folder, alone = PROJECTS[package], ("--package", package, "--group", "test")
    sync(session, *alone)
    session.run("python", "tools/check_alone.py", package)
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).keys() - {"cuda12"}  # cuda13 is the same code
    repeated = extras and package != "tcvq-runner"  # whose extras change nothing but the trackers
    pytest(session, package, str(folder / "tests"), *(["-m", "not slow"] if repeated else []))
    if extras:
        sync(session, *alone, *(f"--extra={extra}" for extra in sorted(extras)))
        pytest(session, f"{package}-extras", str(folder / "tests"), *([] if repeated else ["-m", "extra"]))


@nox.session
def peers(session: nox.Session) -> None:
    """Compare neurons and codebooks with the libraries that others use; the warnings of these are let pass."""
    sync(session, "--group", "test", "--group", "peers")
    session.install("--quiet", "--no-deps", "braincog==0.2.7.19")  # its neuron needs none of its heavy dependencies
    pytest(session, "peers", "-m", "peer", "-W", "default", "packages")
    cases = ElementTree.parse(JUNIT / "peers.xml").iter("testcase")
    if skipped := [str(case.get("name")) for case in cases if case.find("skipped") is not None]:
        session.error(f"every peer is installed here, so nothing may be skipped: {', '.join(skipped)}")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build all wheels, install them into an empty environment, check their pins, run the conformance kits."""
    scratch = Path(session.create_tmp())
    built, frozen = scratch / "wheels", scratch / "others.txt"
    shutil.rmtree(built, ignore_errors=True)
    session.run_install("uv", "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(built))
    export = ("uv", "export", "--quiet", "--locked", "--no-default-groups", "--group", "test")
    session.run_install(*export, "--no-emit-workspace", "--no-hashes", "--output-file", str(frozen))
    session.install("--quiet", "--requirements", str(frozen))
    session.install("--quiet", "--no-deps", *map(str, sorted(built.glob("*.whl"))))
    session.run("uv", "pip", "check")
    session.run("python", "-c", "\n".join(f"import {name.replace('-', '_')}" for name in PROJECTS))
    pytest(session, "wheels", "tests/contracts")


@nox.session
def integration(session: nox.Session) -> None:
    """Tests of what no single package can test: contracts, golden numbers, the pipeline, docs, the architecture."""
    browser = ["--group", "browser"] if shutil.which("chromium") else []  # opens a report where there is a Chromium
    sync(session, "--group", "test", "--group", "lint", *browser)
    pytest(session, "integration", "tests")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link or reference fails."""
    sync(session, "--only-group", "docs")
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Tests that need a CUDA device."""
    sync(session, "--group", "test")
    pytest(session, "gpu", "--numprocesses=0", "-m", "gpu", "packages", "services", "tests")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run every benchmark of every package; each prints its own table."""
    sync(session, "--group", "peers")
    for path in sorted(ROOT.glob("packages/*/benchmarks/*.py")):
        session.run("python", str(path), *session.posargs)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """Unit tests with the oldest versions that the packages declare; their own warnings are let pass."""
    members = [part for path in PROJECTS.values() for part in ("--editable", str(path))]
    session.install("--resolution", "lowest-direct", "--group", "test", *members)
    pytest(session, "minimums", "-W", "default", *(str(path / "tests") for path in PROJECTS.values()))


@nox.session(venv_backend="none")
def total(session: nox.Session) -> None:
    """Add up the tests that the sessions before it ran."""
    suites = [suite for path in JUNIT.glob("*.xml") for suite in ElementTree.parse(path).iter("testsuite")]
    count = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    shutil.rmtree(JUNIT, ignore_errors=True)
    failed = count["failures"] + count["errors"]
    print(f"{count['tests'] - failed - count['skipped']} passed, {failed} failed, {count['skipped']} skipped")
