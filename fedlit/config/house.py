"""Values that follow from others, each with its reason as its origin, and values that others would hide."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlit.config.keys import show
from fedlit.config.layers import Pick
from fedlit.config.tree import Setting
from fedlit.errors import UserError

MISSING = "???"
"""What a YAML file writes where only the user knows the value."""


def with_house_rules(settings: Sequence[Setting], picks: Mapping[str, Pick]) -> list[Setting]:
    """Return the settings that have a value, and those that follow from them; refuse a key whose last one has none.

    Rows without a label are dealt alike; a backbone without a name takes the last part of its path, a data set or a
    backbone whose own file gives none that of the file.
    """
    last = {setting.key: setting for setting in settings}
    given = [setting for setting in settings if setting.value != MISSING]
    for key, setting in last.items():
        path = last.get("model.path")
        if setting.value != MISSING:
            continue
        if key == "model.name" and path is not None and path.value != MISSING:
            given.append(
                Setting(key, _short_name(Path(str(path.value))), f"the last part of model.path; {path.origin}")
            )
        elif key != "model.name":
            raise UserError(f"{key} is not given and {setting.origin} leaves it to you; add {key}=<value>")
    for group in ("data", "model"):
        if group in picks and f"{group}.name" not in last:
            pick = picks[group]
            given.append(Setting(f"{group}.name", Path(pick.choice).stem, f"the name of the file; {pick.origin}"))
    if "partition.name" not in last and "data.label" in last and last["data.label"].value is None:
        given.append(Setting("partition.name", "iid", "because data.label=null"))
    return given


def _short_name(path: Path) -> str:
    """Return the last part of a path; of a run's result the run's name too, since all results are called `adapter`."""
    of_client = path.name.startswith("client-") and path.parent.name == "adapter"
    result = path.parent if of_client else path
    if result.name != "adapter" or not result.parent.name:
        return path.name
    return "-".join([result.parent.name, *path.parts[len(result.parent.parts) :]])


def refuse_hidden_template(layers: Sequence[Mapping[str, Setting]], *, starts_whole: bool) -> None:
    """Refuse a template that is given where data.prompt, data.messages or data.text counts, in the same file or above:
    it would not be looked at.

    A template below, of the data set's file say, gives way. starts_whole: the first layer is a whole configuration,
    which has all of these keys.
    """
    task = next((layer["data.task"].value for layer in reversed(layers) if "data.task" in layer), "causal_lm")
    for key in ("data.prompt", "data.messages", "data.text") if task == "causal_lm" else ():
        _refuse_beside(key, layers, starts_whole=starts_whole)


def _refuse_beside(key: str, layers: Sequence[Mapping[str, Setting]], *, starts_whole: bool) -> None:
    column: Setting | None = None
    for layer in layers:
        column = layer.get(key, column)
    if column is None or column.value is None:
        return
    reached = False
    for number, layer in enumerate(layers):
        reached = reached or layer.get(key) is column
        hidden = ("data.template",) if key == "data.prompt" else ("data.template", "data.response", "data.required")
        for setting in (layer.get(name) for name in hidden):
            if setting is None or setting.value is None or (starts_whole and number == 0):
                continue
            if reached:
                raise UserError(
                    f"{setting.key}={show(setting.value)} ({setting.origin}) does nothing beside "
                    f"{key}={show(column.value)} ({column.origin}); leave it out, or give {key}=null"
                )
