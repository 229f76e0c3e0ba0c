"""The pages of `docs/reference/` and `docs/methods/` take their tables from the package.

While the site is built, a line of the form `<!-- table: keys local -->` becomes Markdown that is made of what
`fedlit help` reads. No page can go stale.
"""

import re
from collections.abc import Callable, Mapping

import tables_of_commands
import tables_of_groups
import tables_of_keys
import tables_of_versions

TABLES: Mapping[str, Callable[..., str]] = {
    "keys": tables_of_keys.section,
    "options": tables_of_keys.part_options,
    "kinds": tables_of_keys.kinds,
    "method": tables_of_keys.method,
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
