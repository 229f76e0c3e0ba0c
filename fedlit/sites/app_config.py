"""The configuration of a federation inside an app: written once, the same at the centre and at all sites."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fedlit.config import RunConfig, load_yaml, run_folder, to_yaml
from fedlit.data.chat_template import given_template
from fedlit.data.own_rows import SOURCE
from fedlit.data.paths import DATA_PATHS, given_paths
from fedlit.errors import UserError
from fedlit.inputs import gather_inputs
from fedlit.tasks.registry import task_spec

CONFIG = "config.yaml"
CHAT_TEMPLATE = "chat_template.md"
"""The text of data.chat_template beside it, under an ending that frameworks put into their bundles."""


def for_app(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Return the configuration as an app has it, and lines about what of it changes.

    Paths become absolute, since an app runs elsewhere; the centre's run folder gets a name of its own; names of classes
    are read from the rows, which no site has all of.

    Raises:
        UserError: rows that came from Python, or names of classes that are neither given nor to be read.
    """
    if config.data.source == SOURCE:
        raise UserError("data.source=memory: these rows were given from Python and no site has them; name a file")
    folder, notices = run_folder(config), []
    run = replace(config.run, dir=str(folder.parent.resolve()), name=f"{folder.name}-sites")
    given = {key.partition(".")[2]: getattr(config.data, key.partition(".")[2]) for key in DATA_PATHS}
    data = replace(config.data, **{name: _absolute(value) for name, value in given.items()})
    if task_spec(data.task).has_head and not data.regression and data.classes is None:
        names = gather_inputs(replace(config, dry_run=True)).classes
        data = replace(data, classes=list(names))
        notices.append(f"data.classes={','.join(names)}, as in the rows here: all sites number their classes so")
    local = config.local
    if local.clients_per_batch > 1:
        local = replace(local, clients_per_batch=1)
        notices.append("local.clients_per_batch=1: a site trains one client, which changes the last bits")
    if config.logging.loggers:
        notices.append(
            f"logging.loggers={','.join(config.logging.loggers)} is left out: the centre's folder has the record"
        )
    if config.analysis:
        notices.append("analysis=[]: it looks at every client's tensors where they are trained")
    settled = replace(config, analysis=[], logging=replace(config.logging, loggers=[]), dry_run=False)
    return replace(settled, run=run, data=data, local=local), notices


def _absolute(value: str | list[str] | None) -> Any:
    """Return what one of `DATA_PATHS` holds with absolute paths."""
    paths = [str(Path(path).expanduser().resolve()) for path in given_paths(value)]
    return paths[0] if isinstance(value, str) else paths or None


def write_config(config: RunConfig, folder: Path) -> None:
    """Write an app's configuration, and its chat template, into a folder."""
    (folder / CONFIG).write_text(to_yaml(config), encoding="utf-8")
    if (template := given_template(config.data)) is not None:
        (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")


def read_config(folder: Path) -> RunConfig:
    """Return the configuration in a folder of an app.

    Raises:
        UserError: it is damaged, or of another version.
    """
    path = folder / CONFIG
    config = load_yaml(path.read_text(encoding="utf-8"), str(path))
    template = folder / CHAT_TEMPLATE
    if not template.is_file():
        return config
    return replace(config, data=replace(config.data, chat_template=str(template)))
