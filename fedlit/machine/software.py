"""Python, fedlit and where it is installed, and the versions of what it needs held against the tested ones."""

import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import fedlit
from fedlit.errors import UserError
from fedlit.lines import cut
from fedlit.machine import Finding, note, problem
from fedlit.shipped import shipped

LEAST_PYTHON = (3, 11)
_NOTED = 6
"""Packages named in one line."""


def look_at_software() -> Iterator[Finding]:
    """Yield what is installed."""
    yield python(sys.version_info[:3], platform.platform())
    yield from own_installation()
    yield from versions(requirements(), tested_versions(), installed_versions())
    yield from plugins()


def python(version: Sequence[int], system: str) -> Finding:
    """Return which Python this is, on what."""
    text = f"{'.'.join(map(str, version))} ({sys.executable}), {system}"
    if tuple(version[:2]) < LEAST_PYTHON:
        return problem("python", text, f"install Python {'.'.join(map(str, LEAST_PYTHON))} or newer")
    return Finding("python", text)


def own_installation() -> Iterator[Finding]:
    """Yield fedlit's version and place, and what is not whole about them."""
    place = Path(fedlit.__file__).resolve().parent
    yield Finding("fedlit", f"{fedlit.__version__} in {place} ({_kind(place)})")
    try:
        shipped("configs")
    except UserError as error:
        yield problem("fedlit", str(error), "pip install --force-reinstall fedlit")


def _kind(place: Path) -> str:
    """Return how fedlit came to where it is."""
    try:
        distribution = metadata.distribution("fedlit")
    except metadata.PackageNotFoundError:
        return "not installed, read from a folder"
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        root = origin.get("url", "").removeprefix("file://")
        return "editable" if place.parent == Path(root) else f"PYTHONPATH goes before the editable one of {root}"
    if Path(str(distribution.locate_file("fedlit"))).resolve() != place:
        return f"goes before the installed {distribution.version}"
    return "installed from a wheel" if origin else "installed from an index"


def requirements() -> tuple[str, ...]:
    """Return what an installed fedlit requires without extras, as `peft>=0.18`; nothing where it is not installed."""
    try:
        required = metadata.requires("fedlit") or []
    except metadata.PackageNotFoundError:
        return ()
    return tuple(line for line in required if "extra ==" not in line)


def tested_versions() -> dict[str, str]:
    """Return the version of each package that the tests run with; nothing where the list is not there."""
    try:
        lines = shipped("constraints.txt").read_text(encoding="utf-8").splitlines()
    except (UserError, OSError):
        return {}
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {_plain(name): version.strip() for name, version in pairs}


def installed_versions() -> dict[str, str]:
    """Return the version of each package that this Python finds; of two of one name the one that is imported."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(_plain(name), distribution.version)
    return found


def versions(required: Sequence[str], tested: Mapping[str, str], installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is missing, too old, or another version than the tested one.

    Args:
        required: requirements of fedlit, such as `peft>=0.18`.
        tested: versions by name.
        installed: versions by name.
    """
    pin = "pip install -c constraints.txt fedlit (constraints.txt lies in the repository and in the wheel)"
    names = [_plain(re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]) for line in required]
    for name, line in zip(names, required, strict=True):
        if name not in installed:
            yield problem(name, "is not installed", f"pip install '{line}'")
        elif not _meets(installed[name], line):
            yield problem(name, f"{installed[name]} is not {line.removeprefix(name)}", f"pip install '{line}'")
    if not tested:
        yield note("versions", "the list of tested versions is not there", "pip install --force-reinstall fedlit")
        return
    own = set(names)
    for what, chosen in (
        ("dependencies", [name for name in tested if name in installed and name in own]),
        ("their own", [name for name in tested if name in installed and name not in own]),
    ):
        others = [name for name in chosen if not _equal(installed[name], tested[name])]
        told = f"{len(chosen) - len(others)} of {len(chosen)} are the tested versions"
        if not others:
            yield Finding(what, told)
            continue
        listed = ", ".join(f"{name} {installed[name]} (tested {tested[name]})" for name in others[:_NOTED])
        more = f" and {len(others) - _NOTED} more" if len(others) > _NOTED else ""
        yield note(what, f"{told}; other: {listed}{more}", pin)


def _meets(version: str, requirement: str) -> bool:
    """Return whether a version is one that a requirement allows; true where nobody can tell."""
    try:
        from packaging.requirements import Requirement  # noqa: PLC0415  a dependency's dependency, which may be missing

        return Requirement(requirement).specifier.contains(version, prereleases=True)
    except (ImportError, ValueError):
        return True


def _equal(version: str, tested: str) -> bool:
    """Return whether two versions are equal up to a build's name, as in `2.13.0+cpu`."""
    return version.partition("+")[0] == tested.partition("+")[0]


def _plain(name: str) -> str:
    """Return the name of a package in the form in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def plugins() -> Iterator[Finding]:
    """Yield the modules that other packages announce under `fedlit.plugins`; none of them is imported."""
    for point in metadata.entry_points(group="fedlit.plugins"):
        source = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown package"
        yield Finding("plugin", cut(f"{point.name}: {point.value} ({source})"))
