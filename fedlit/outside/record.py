"""Which parts from outside a run uses, and of which code: recorded, so that a resumed run notices a change."""

import ast
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedlit.errors import UserError
from fedlit.outside.kinds import KINDS
from fedlit.outside.loading import installed_plugins, named_parts
from fedlit.registry import Recipe, origin, registered

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginRecord:
    """One module that a run has parts from.

    distribution, version: None for a module that no distribution brought. files: how many source files are in the
    hashes: the module's, of a package all its .py files. sha256: of their bytes and names. code_sha256: of their syntax
    trees without docstrings, which comments and layout do not change; python: the version whose trees these are.
    """

    module: str
    distribution: str | None
    version: str | None
    files: int
    sha256: str | None
    code_sha256: str | None
    python: str

    def differs(self, now: "PluginRecord") -> bool:
        """Tell whether the code of `now` may compute something else."""
        if self.sha256 == now.sha256:
            return False
        return not (self.python == now.python and self.code_sha256 == now.code_sha256 is not None)

    def __str__(self) -> str:
        told = f"{self.version}, " if self.version else ""
        return f"{told}code {(self.code_sha256 or self.sha256 or 'unknown')[:12]}"


def used_parts(config: Any) -> list[tuple[str, str]]:
    """Return kind and name of every part from outside that a run's configuration names, those of its recipe among
    them; config: the dataclass of the whole run.
    """
    named = dict.fromkeys(named_parts(asdict(config)))
    for _, name in [part for part in named if part[0] == "recipe"]:
        recipe: Recipe | None = registered("recipe").get(name)
        named |= dict.fromkeys(recipe.parts() if recipe else ())
    return [(kind, name) for kind, name in named if name in registered(kind)]


def require_named(config: Any) -> None:
    """Raise a UserError for a part that only this process knows: another process, or the run that goes on tomorrow,
    would look for it in vain.
    """
    for kind, name in used_parts(config):
        found, key = origin(kind, name), f"{KINDS[kind].keys[0]}={name}"
        if not found.modules and kind == "task":
            continue  # `register_task` is for a script of one's own too, which every process runs
        if not found.modules:
            raise UserError(
                f"{key} ({found.place}) was not registered by the import of a module, so that no other process and no "
                "resumed run would find it; put it into a module and give plugins=[<module>]"
            )
        if _source_of(found.modules, config.plugins) is None:
            raise UserError(
                f"{key} ({found.place}) comes from the module {found.modules[0]}, which plugins={config.plugins} does "
                f"not name; give plugins=[{found.modules[-1]}]"
            )


def _source_of(modules: Sequence[str], plugins: Sequence[str]) -> str | None:
    """Return the plugin, of those named or installed, whose import registered a part; `modules` were being imported."""
    for name in (*plugins, *(plugin.module for plugin in installed_plugins())):
        if any(f"{module}.".startswith(f"{name}.") for module in modules):
            return name
    return None


def plugin_records(config: Any) -> list[PluginRecord]:
    """Return the modules that a run has parts from: all that `plugins=` names, the installed ones whose parts it names,
    and the modules of these parts' classes.
    """
    modules = list(config.plugins)
    for kind, name in used_parts(config):
        source = _source_of(origin(kind, name).modules, config.plugins)
        modules += [] if source is None else [source]
        part = registered(kind)[name]
        modules.append(part.__module__ if isinstance(part, type) else type(part).__module__)
    kept: list[str] = []
    for module in dict.fromkeys(modules):
        if not any(f"{module}.".startswith(f"{other}.") for other in (*kept, "fedlit")):
            kept.append(module)
    return [_record(module) for module in kept]


_hashed: dict[str, tuple[Any, PluginRecord]] = {}


def _record(module: str) -> PluginRecord:
    """Return the record of a module as this process imported it: what is edited since is not what runs."""
    found = sys.modules.get(module)
    spec = None if found is None else found.__spec__  # a new one when the module is imported again
    if module not in _hashed or _hashed[module][0] is not spec:
        _hashed[module] = spec, _fresh_record(module)
    return _hashed[module][1]


def _fresh_record(module: str) -> PluginRecord:
    distribution = _distribution(module)
    files = _source_files(module)
    return PluginRecord(
        module=module,
        distribution=distribution,
        version=None if distribution is None else _version(distribution),
        files=len(files),
        sha256=_hash({name: path.read_bytes() for name, path in files.items()}),
        code_sha256=_hash({name: _code(path.read_bytes()) for name, path in files.items()}),
        python=PYTHON,
    )


def _source_files(module: str) -> dict[str, Path]:
    """Return the files of a module by name, of a package all its .py files by their place in it."""
    found = sys.modules.get(module)
    spec = found.__spec__ if found is not None else find_spec(module)
    if spec is None:
        return {}
    if spec.submodule_search_locations is not None:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        return {
            path.relative_to(folder).as_posix(): path
            for folder in folders
            for path in sorted(folder.rglob("*.py"))
            if path.is_file()
        }
    path = Path(spec.origin or "")
    return {path.name: path} if path.is_file() else {}


def _hash(contents: Mapping[str, bytes | None]) -> str | None:
    """Return the SHA-256 of files by name; None without one, or of one that has no content."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        if content is None:
            return None
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest() if contents else None


def _code(source: bytes) -> bytes | None:
    """Return a source as its syntax tree without docstrings; None for what is no Python source."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree).encode()


def _distribution(module: str) -> str | None:
    """Return what brought a module: by its entry point, or by its files."""
    top = module.partition(".")[0]
    for plugin in installed_plugins():
        if plugin.module.partition(".")[0] == top:
            return plugin.distribution
    return next(iter(_distributions().get(top, ())), None)


@cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def to_json(records: Sequence[PluginRecord]) -> list[dict[str, Any]]:
    """Return records as environment.json holds them."""
    return [asdict(record) for record in records]


def from_json(content: Any) -> list[PluginRecord] | None:
    """Return the records that environment.json holds; None if it holds none: of an older run, or damaged."""
    names = set(PluginRecord.__dataclass_fields__)
    if not isinstance(content, list) or not all(isinstance(each, dict) and names <= each.keys() for each in content):
        return None
    return [PluginRecord(**{name: each[name] for name in names}) for each in content]


def why_another_run(before: Sequence[PluginRecord], now: Sequence[PluginRecord]) -> str | None:
    """Return why a run that began with some plugins cannot go on with others, with a remedy; None if it can."""
    old, new = ({record.module: record for record in records} for records in (before, now))
    remedy = "bring the old one back, or choose another run.name"
    for module in sorted(old.keys() ^ new.keys()):
        with_it, there = ("with", "none") if module in old else ("without", "some")
        return f"began {with_it} parts of the plugin {module}, and now it has {there}; {remedy}"
    for module, record in old.items():
        if record.differs(new[module]):
            return (
                f"began with other code of the plugin {module} ({record}) than there is now ({new[module]}), and its "
                f"rounds would not be those of one run; {remedy} (comments and docstrings do not count)"
            )
    return None
