"""Record the public Python interface of every package, and fail where it changed without a new version.

The public interface is what a package's façade (``__init__.py``) and its ``interface.py`` offer: signatures, fields and
methods, read from the source without importing it. It is kept in ``packages/<dist>/interface.lock``, below the
``INTERFACE_VERSION`` that it belongs to:

    python tools/interface_lock.py --check    # fails where source and lock differ
    python tools/interface_lock.py --write    # records the source as it is
"""

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[1]
VERSION_NAME = "INTERFACE_VERSION"
WITHOUT_MEANING = {"__post_init__", "__repr__", "__str__", "__slots__", "__doc__", "__version__", "extra_repr"}


def is_public(name: str) -> bool:
    """Tell whether a member belongs to the interface: no leading underscore, or a special method."""
    special = name.startswith("__") and name.endswith("__")
    return (special or not name.startswith("_")) and name not in WITHOUT_MEANING


def resolve(package: griffe.Module, path: str) -> griffe.Object | None:
    """Return the object at a dotted path, None where it lives outside the package."""
    if not path.startswith(f"{package.name}."):
        return None
    found = package[path.removeprefix(f"{package.name}.")]
    if not isinstance(found, griffe.Alias):
        return found
    return resolve(package, found.target_path)


def describe(item: griffe.Object | griffe.Alias, name: str) -> Iterator[str]:
    """Yield one line for a public object and one for each of its public members."""
    if isinstance(item, griffe.Alias):
        item = item.final_target
    if isinstance(item, griffe.Class):
        decorators = "".join(f"@{decorator.value} " for decorator in item.decorators)
        yield f"{decorators}class {name}({', '.join(str(base) for base in item.bases)})"
        members = {**item.inherited_members, **item.members}
        for key in sorted(filter(is_public, members)):
            yield from describe(members[key], f"{name}.{key}")
    elif isinstance(item, griffe.Function):
        kind = "".join(f"@{label} " for label in sorted(item.labels & {"classmethod", "staticmethod", "async"}))
        for overload in item.overloads or []:
            yield f"@overload {overload.signature(name=name)}"
        yield f"{kind}{item.signature(name=name)}"
    elif isinstance(item, griffe.Module):
        yield f"module {name}"
    elif isinstance(item, griffe.Attribute):
        wiring = "instance-attribute" in item.labels and "class-attribute" not in item.labels  # self.x = … in a method
        if item.annotation is None and wiring:
            return
        kind = "@property " if "property" in item.labels else ""
        annotation = f": {item.annotation}" if item.annotation is not None else ""
        yield f"{kind}{name}{annotation}" + (f" = {item.value}" if item.value is not None and not wiring else "")


def public_lines(dist: Path) -> list[str]:
    """Return the interface of one distribution, the version line first.

    Raises:
        SystemExit: The façade exports a name that it does not define.
    """
    package = griffe.load(dist.name.replace("-", "_"), search_paths=[dist / "src"], allow_inspection=False)
    assert isinstance(package, griffe.Module)
    contract = package["interface"]
    exported = {str(name) for name in package.exports or []}
    defined = {name for name in contract.members if name not in contract.imports}
    places = [(package, name, name) for name in exported] + [
        (contract, name, f"interface.{name}") for name in defined - exported
    ]
    lines: list[str] = []
    seen: set[str] = set()
    for module, name, shown in sorted(filter(lambda place: is_public(place[1]), places), key=lambda place: place[2]):
        path = module.imports.get(name, f"{module.path}.{name}")
        try:
            found = resolve(package, path)
        except KeyError:
            raise SystemExit(f"{module.path}: `{name}` is exported but not defined") from None
        if found is None or found.path in seen:
            lines.append(f"{shown} = {path}")
        elif name != VERSION_NAME:
            seen.add(found.path)
            lines.extend(describe(found, shown))
    return [f"{VERSION_NAME} = {contract.members[VERSION_NAME].value}", *(" ".join(line.split()) for line in lines)]


def complaint(dist: Path) -> str | None:
    """Return what is wrong with a distribution's lock in words, None where nothing is."""
    lock = dist / "interface.lock"
    new = public_lines(dist)
    if not lock.exists():
        return f"{dist.name}: {lock.relative_to(ROOT)} is missing; run `python tools/interface_lock.py --write`"
    old = lock.read_text(encoding="utf-8").splitlines()
    if old == new:
        return None
    if old[0] != new[0]:
        return (
            f"{dist.name}: {VERSION_NAME} is new ({old[0].split()[-1]} → {new[0].split()[-1]}); "
            "run `python tools/interface_lock.py --write` and commit interface.lock"
        )
    changes = [
        line for line in difflib.unified_diff(old, new, lineterm="", n=0) if not line.startswith(("---", "+++", "@"))
    ]
    return (
        f"{dist.name}: public interface changed without a bump of {VERSION_NAME} (still {new[0].split()[-1]}); "
        "undo the change, or raise the version in interface.py, pyproject.toml and every pin:\n  "
        + "\n  ".join(changes)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the locks of all packages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="fail where a lock differs from the source")
    mode.add_argument("--write", action="store_true", help="record the source as it is")
    options = parser.parse_args(argv)
    dists = sorted(path.parents[2] for path in ROOT.glob("packages/*/src/*/interface.py"))
    if options.write:
        for dist in dists:
            (dist / "interface.lock").write_text("\n".join(public_lines(dist)) + "\n", encoding="utf-8")
        return 0
    complaints = [text for text in map(complaint, dists) if text]
    print("\n".join(complaints) or f"interface locks agree: {', '.join(dist.name for dist in dists)}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
