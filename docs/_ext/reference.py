"""The pages of `docs/reference/` take their tables from the package: while the site is built, a line of the form
`<!-- table: keys local -->` becomes Markdown that is made of what `fedlit help` reads. No page can go stale.
"""

import re
from collections.abc import Callable, Mapping

import tables_of_commands
import tables_of_groups
import tables_of_keys
import tables_of_versions
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

FOLDER = "reference/"

TABLES: Mapping[str, Callable[..., str]] = {
    "keys": tables_of_keys.section,
    "options": tables_of_keys.part_options,
    "kinds": tables_of_keys.kinds,
    "commands": tables_of_commands.overview,
    "command": tables_of_commands.command,
    "choices": tables_of_groups.overview,
    "files": tables_of_groups.files,
    "projections": tables_of_groups.projections,
    "scores": tables_of_groups.scores,
    "versions": tables_of_versions.versions,
}
"""What may stand after `table:`, with its words."""

_MARK = re.compile(r"^<!-- table: ([a-z ._-]+) -->$", re.MULTILINE)


def expand(text: str) -> str:
    """Return a page with its tables."""

    def table(match: re.Match[str]) -> str:
        name, *words = match[1].split()
        return TABLES[name](*words)

    return _MARK.sub(table, text)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if not docname.startswith(FOLDER):
        return
    source[0] = expand(source[0])
    domain = app.env.domains["std"]
    for key in re.findall(r"^\| \[`([^`]+)`\]\{#", source[0], re.MULTILINE):  # found by the search, with its place
        domain.note_object("key", key, tables_of_keys.anchor(key))


def _outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Read all pages of the reference again: what they are made of is not among the files of the site."""
    return [name for name in env.found_docs if name.startswith(FOLDER)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks, and `key` as a kind of object."""
    app.add_object_type("key", "key", objname="configuration key")
    app.connect("source-read", _read)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
