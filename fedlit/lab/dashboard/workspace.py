"""The dashboard of a sweep in Weights & Biases: saved views of its project, as code (wandb-workspaces).

A view draws the runs of one setting, a line for each method: the mean over its seeds with a band of one standard
deviation. Settings that do not compare, other data or another number of clients, get a view each, since a view has one
choice of runs for all of its panels. The choice is by the runs' names, which are those of their folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fedlit.config.keys import show
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, Entry, Group
from fedlit.lab.analysis.costs import COSTS
from fedlit.lab.analysis.slots import colours
from fedlit.scores import chosen_scores, headings
from fedlit.store.records import trained

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

_MIN_RUNS_IN_PANEL = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Facet:
    """Runs that compare with one another; `label` is blank if that is all of them."""

    label: str
    entries: tuple[Entry, ...]


def facets(collection: Collection) -> list[Facet]:
    """Return the runs in groups of one setting, methods and their options aside, in the order of their first."""
    keys = _telling_keys(collection, [key for key in collection.varied if not _is_of_method(key)])
    groups: dict[str, list[Entry]] = {}
    for entry in collection.entries:
        groups.setdefault(repr([entry.settings.get(key) for key in keys]), []).append(entry)
    return [
        Facet(label=Group(settings=entries[0].settings, entries=()).label(keys), entries=tuple(entries))
        for entries in groups.values()
    ]


def workspace_definition(collection: Collection, project: str, entity: str, facet: Facet | None = None) -> "Workspace":
    """Return the view of one facet, by default the first; neither a login nor a network is needed.

    Raises:
        UserError: wandb-workspaces is not installed, or no run has begun.
    """
    facet = facet or facets(collection)[0]
    workspaces, reports, expr = _libraries()
    options = _telling_keys(collection, ["method", *(key for key in collection.varied if key.startswith("method."))])
    options = [key for key in options if key != "method"]
    # A panel groups by one key; by several, as the table of runs does.
    grouped: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    grouped |= {"aggregate": True} if options else {"groupby": reports.Config("method.name")}
    methods = list(dict.fromkeys(method for entry in collection.entries if (method := _method(entry))))
    names = sorted({entry.name for entry in facet.entries})
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{collection.name}: {facet.label}" if facet.label else collection.name,
        sections=_sections(collection, facet, grouped),
        settings=workspaces.WorkspaceSettings(x_axis="round", max_runs=max(_MIN_RUNS_IN_PANEL, len(names))),
        runset_settings=workspaces.RunsetSettings(
            filters=expr.And(expr.Metric("Name").isin(names)),
            groupby=[expr.Config(key) for key in ("method.name", *options)],
            group_colors=colours(methods),
        ),
    )


def build_workspace(collection: Collection, project: str | None = None, entity: str | None = None) -> str:
    """Save a view for every facet and return the address of the first; the others stand beside it in the project.

    project: by default that of the runs. entity: user or team, by default the login's own.

    Raises:
        UserError: wandb-workspaces is not installed, there is no login, the server does not take the views, or no run
            has begun.
    """
    begun = [facet for facet in facets(collection) if any(entry.config for entry in facet.entries)]
    place = project or _project(collection), entity or ""
    views = [workspace_definition(collection, *place, facet) for facet in begun or facets(collection)]
    import wandb  # noqa: PLC0415  a second, and only saving needs it

    try:
        if not wandb.login(prompt=False, verify=False):
            raise UserError("there is no W&B login; run `wandb login`, or leave --wandb out for a page without account")
        for view in views:
            view.entity = view.entity or wandb.Api().default_entity
            view.save()
        return str(views[0].url)
    except (wandb.errors.Error, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"W&B does not take the dashboard of {collection.name} ({type(error).__name__}: {reason}); check entity, "
            "project and network, or leave --wandb out for a page without account"
        ) from error


def _libraries() -> tuple[ModuleType, ModuleType, ModuleType]:
    """Return the modules of workspaces, panels and expressions."""
    try:
        from wandb_workspaces import expr, workspaces  # noqa: PLC0415  an extra, and a second
        from wandb_workspaces.reports import v2  # noqa: PLC0415  as above
    except ImportError as error:
        raise UserError(
            f"the package {error.name or 'wandb-workspaces'} is not installed; pip install wandb-workspaces, or leave "
            "--wandb out for a page without account"
        ) from error
    return workspaces, v2, expr


def _sections(collection: Collection, facet: Facet, grouped: Mapping[str, Any]) -> "list[Section]":
    workspaces, reports, _ = _libraries()
    scores = _scores(collection, facet)
    costs = _costs(facet)

    def curve(title: str, x: str, x_title: str, y: str) -> Any:
        return reports.LinePlot(title=title, x=x, y=[y], title_x=x_title, **grouped)

    def bars(title: str, key: str) -> Any:
        return reports.BarPlot(title=title, metrics=[key], **grouped)

    def section(name: str, panels: Sequence[Any], *, is_open: bool = False) -> Any:
        return workspaces.Section(name=name, panels=list(panels), is_open=is_open)

    results = [bars(f"{heading}, last round", key) for key, heading in scores.items()]
    sections = [section("Results", results, is_open=True)]
    for i, (key, heading) in enumerate(scores.items()):
        panels = [curve(heading, "round", "rounds of training", key)]
        panels += [
            curve(f"{heading} against {COSTS[name].heading}", f"cost/{name}", COSTS[name].unit, key) for name in costs
        ]
        sections.append(section(heading[:1].upper() + heading[1:], panels, is_open=i == 0))
    title = "server's effective weights from the mean of the clients'"
    deviation = [
        curve(title, "round", "rounds of training", "lora/deviation"),
        reports.MediaBrowser(title="by layer", media_keys=["plots/deviation"], num_columns=2),
    ]
    if _any_record_has(facet, "lora/deviation"):
        sections.append(section("Deviations", deviation))
    sections.append(
        section(
            "Costs",
            [curve(f"{COSTS[name].heading}, {COSTS[name].unit}", "round", "rounds", f"cost/{name}") for name in costs],
        )
    )
    shards = reports.MediaBrowser(title="who holds what", media_keys=["plots/label_distribution"], num_columns=2)
    sections.append(section("Clients' data", [shards]))
    return sections


def _scores(collection: Collection, facet: Facet) -> dict[str, str]:
    """Return the keys of the facet's scores and their headings, the data set's main one first and the loss last."""
    chosen = [name for entry in facet.entries if entry.config for name in chosen_scores(entry.config.data)]
    if not chosen:
        where = f"{collection.name}, {facet.label}" if facet.label else collection.name
        raise UserError(f"no run of {where} has begun; a dashboard shows what runs have logged: start one first")
    found = headings({key for entry in facet.entries for record in entry.records for key in record})
    found = found or headings(f"global/{name}" for name in (*chosen, "loss"))
    names = [*dict.fromkeys(chosen)]

    def place(key: str) -> int:
        name = key.split("/")[1].removesuffix("_worst").removesuffix("_macro")
        return names.index(name) if name in names else len(names)

    return {key: found[key] for key in sorted(found, key=place)}


def _costs(facet: Facet) -> list[str]:
    """Return the names of the costs that the facet's runs tell, or before the first round will tell."""
    rounds = [record for entry in facet.entries for record in trained(entry.records)]
    if rounds:
        return [name for name, cost in COSTS.items() if any(cost.key in record for record in rounds)]
    is_private = any(entry.config.privacy.unit != "none" for entry in facet.entries if entry.config)
    return [name for name in COSTS if name != "epsilon" or is_private]


def _any_record_has(facet: Facet, key: str) -> bool:
    return any(key in record for entry in facet.entries for record in entry.records)


def _project(collection: Collection) -> str:
    projects = dict.fromkeys(entry.config.logging.project for entry in collection.entries if entry.config)
    if len(projects) > 1:
        raise UserError(f"the runs are in several W&B projects, {show(list(projects))}; give one with --project")
    return next(iter(projects), "fedlit")


def _is_of_method(key: str) -> bool:
    return key == "method" or key.startswith("method.")


def _method(entry: Entry) -> str | None:
    """Return the recipe of a run, None of a cell without a run in a sweep that does not vary it."""
    if "method" in entry.settings:
        return str(entry.settings["method"])
    return entry.config.method.name if entry.config else None


def _telling_keys(collection: Collection, keys: Sequence[str]) -> list[str]:
    """Return those keys that tell runs apart which the keys before them do not."""
    chosen: list[str] = []
    num_told_apart = 1
    for key in keys:
        values = {repr([entry.settings.get(k) for k in (*chosen, key)]) for entry in collection.entries}
        if len(values) > num_told_apart:
            chosen.append(key)
            num_told_apart = len(values)
    return chosen
