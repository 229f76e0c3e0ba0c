"""The tables of `docs/reference/` and `docs/methods/` are made while the site is built (`page_tables`), and every key
of the reference can be searched.
"""

import re

from page_tables import expand
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from tables_of_keys import anchor

FOLDERS = ("reference/", "methods/")

_BY_HAND = re.compile(r"^((?:\|.*\n)+)", re.MULTILINE)
"""A table in the source of a page."""


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if not docname.startswith(FOLDERS):
        return
    source[0] = expand(_BY_HAND.sub(r":::{container} names\n\n\1\n:::\n\n", source[0]))
    domain = app.env.domains["std"]
    for key in re.findall(r"^\| \[`([^`]+)`\]\{#", source[0], re.MULTILINE):  # found by the search, with its place
        domain.note_object("key", key, anchor(key))


def _outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Read all these pages again: what they are made of is not among the files of the site."""
    return [name for name in env.found_docs if name.startswith(FOLDERS)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the hooks, and `key` as a kind of object."""
    app.add_object_type("key", "key", objname="configuration key")
    app.connect("source-read", _read)
    app.connect("env-get-outdated", _outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
