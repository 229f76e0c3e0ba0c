"""One self-contained HTML page about a collection of runs: it opens from disk and asks no network for anything.

Charts are drawn by plotly.js, which stands in the page as it comes with the Python package. A content security policy
names the page's own scripts by their checksums and forbids every connection, so nothing that a run's files say can load
or run anything.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from fedlit.lab.analysis.collection import Collection
from fedlit.lab.analysis.versions import WARNING
from fedlit.lab.dashboard.data import PageData, page_data
from fedlit.lab.report.over_draws.claims import build_claims
from fedlit.lab.report.over_draws.sections import sections_of
from fedlit.lab.report.table import Table, build_table
from fedlit.process.storage import write_atomically

SCRIPTS = ("panels.js", "charts.js", "tables.js", "clients.js", "claims.js", "options.js", "page.js", "samples.js")

DRAWN = frozenset(
    {
        "name",
        "repeat",
        "factors",
        "scores",
        "costs",
        "groups",
        "labels",
        "clients",
        "claims",
        "options",
        "samples",
        "shades",
    }
)
"""What of the page's data its script reads."""

KINDS: Mapping[str, str] = {
    "done": "good",
    "running": "busy",
    "pending": "idle",
    "stopped": "wait",
    "requeued": "wait",
    "stale": "wait",
    "unknown": "wait",
    "timed_out": "bad",
    "out_of_memory": "bad",
    "diverged": "bad",
    "failed": "bad",
    "killed": "bad",
}
"""How a state is marked."""

STATE_NAMES: Mapping[str, str] = {"pending": "missing", "timed_out": "timed out", "out_of_memory": "out of memory"}
"""Where a state is called otherwise than its name; a pending run is one that nothing is there of."""


def write_page(collection: Collection, path: Path) -> None:
    """Write the page of a collection, atomically; its folder is made if it is not there."""
    claims, table = build_claims(collection), build_table(collection)
    page, sections = page_data(collection, claims), sections_of(claims)
    versions = [note.removeprefix("Warning: ") for note in table.notes if note.startswith(WARNING)]
    page = replace(page, warnings=[*page.warnings, *(f"{note[0].upper()}{note[1:]}" for note in versions)])
    html = render(page, table, sections, made_at=datetime.now(UTC))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, html)


def render(page: PageData, table: Table, sections: Sequence[tuple[str, Table]] = (), *, made_at: datetime) -> str:
    """Return the page; everything that comes from files is escaped, also inside the JSON that the script reads.

    sections: of the statistics, a name and a table each.
    """
    environment = Environment(
        loader=PackageLoader("fedlit.lab.dashboard", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    sources = {name: _source(environment, name) for name in ("watch.js", "style.css", *SCRIPTS)}
    scripts = {
        "watch": sources["watch.js"],
        "page": "\n".join(sources[name] for name in SCRIPTS),
        "plotly": get_plotlyjs(),
    }
    assert not any("</script" in text.lower() or "\r" in text for text in scripts.values())
    return environment.get_template("index.html").render(
        page=page,
        table=table,
        sections=sections,
        drawn=_drawn(page),
        kinds=KINDS,
        state_names={state: STATE_NAMES.get(state, state) for state in KINDS},
        made=made_at.strftime("%Y-%m-%d %H:%M UTC"),
        policy=_policy(scripts.values()),
        style=Markup(sources["style.css"]),
        scripts={name: Markup(text) for name, text in scripts.items()},
    )


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _drawn(page: PageData) -> dict[str, Any]:
    """Return what the script reads; the rest of the page is there as HTML."""
    return {key: value for key, value in asdict(page).items() if key in DRAWN}


def _policy(scripts: Iterable[str]) -> str:
    checksums = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{checksum}'" for checksum in checksums)
    # Styles: plotly.js writes its own. Images: its button that saves a chart. The last two do not fall back to
    # default-src; frame-ancestors, which does not either, means nothing in a page's own head.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
