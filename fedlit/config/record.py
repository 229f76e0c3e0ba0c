"""A configuration as text and back, the part of it that determines the result, and the run folder it belongs to."""

from collections.abc import Hashable, Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints

from fedlit.config.choosing import has_validation
from fedlit.config.keys import METHOD_FIELDS, SCHEMA, describe, is_list, is_mapping, parts, run_keys, show
from fedlit.config.older import modern
from fedlit.config.options import stored_hints
from fedlit.config.reading import dump_yaml, parse_yaml
from fedlit.config.schema import RunConfig
from fedlit.config.tree import assemble, flatten, settle_layer
from fedlit.data.columns import text_columns
from fedlit.data.paths import DATA_PATHS
from fedlit.data.prompts import template_columns
from fedlit.errors import UserError
from fedlit.options import flat
from fedlit.process.storage import user_path

WITHOUT_INFLUENCE = (
    "run.",
    "logging.",
    "analysis",  # what is measured beside the run
    "dry_run",
    *DATA_PATHS,  # a file may move; its rows are compared by their checksum
    "compute.devices",
    "compute.num_nodes",
    "compute.backend",
    "compute.timeout_s",
    "compute.start_timeout_s",
)
"""Keys, or beginnings of keys, that cannot change a run's weights or scores."""


def nested_values(config: RunConfig) -> dict[str, Any]:
    """Return the tree as nested dictionaries whose paths are the dotted keys of the command line."""
    tree = asdict(config)
    options = tree["method"].pop("options")
    assert not METHOD_FIELDS & options.keys(), "an option has the name of a field of MethodConfig"
    tree["method"] |= options
    return tree


def flat_values(config: RunConfig) -> dict[str, Any]:
    """Return every dotted key, the recipe's options among them, and its value."""
    tree = nested_values(config)
    keys = [*SCHEMA, *(f"method.{name}" for name in flat(config.method.options))]
    return {setting.key: setting.value for setting in flatten(tree, "", dict.fromkeys(keys), "configuration")}


def to_yaml(config: RunConfig) -> str:
    """Return the whole configuration as YAML; `load_yaml` gives it back equal."""
    return dump_yaml(nested_values(config))


def load_yaml(text: str, origin: str = "config.yaml") -> RunConfig:
    """Return the configuration that `to_yaml` wrote. Files that it names need not exist any more.

    Raises UserError for an unknown key, a wrong type or text that is not YAML; `origin` names the text in the message.
    """
    content = parse_yaml(text, origin)
    if not isinstance(content, dict) or not isinstance(content.get("method", {}), dict):
        raise UserError(f"{origin} is not the configuration of a run; it must hold the sections that `to_yaml` writes")
    content = modern(content)
    keys = {**run_keys({}), **stored_hints(content.get("method", {}))}
    layer = settle_layer(flatten(content, "", keys, origin))
    return assemble(layer.values(), keys, {})


def read_stored(text: str, origin: str) -> RunConfig:
    """Return the configuration of a finished run to look at, in less time than `load_yaml`.

    For a program that reads hundreds of run folders: ranges and combinations are not checked, and a key of another
    version of the schema is passed over.

    Raises:
        UserError: it is no configuration, or a value is of a type that its key cannot have.
    """
    content = parse_yaml(text, origin)
    if not isinstance(content, dict) or not isinstance(content.get("method"), dict):
        raise UserError(f"{origin} is not the configuration of a run; leave the folder out")
    content = modern(content)
    method = content["method"]
    options = {key: value for key, value in method.items() if key not in METHOD_FIELDS}
    common = {key: value for key, value in method.items() if key in METHOD_FIELDS}
    return _filled(RunConfig, {**content, "method": {**common, "options": options}}, origin)


Section = TypeVar("Section")


def _filled(section: type[Section], values: Any, origin: str) -> Section:
    """Return a dataclass with these values of its fields."""
    if not isinstance(values, Mapping):
        raise UserError(f"{origin} has {show(values)} in place of a section; mend it, or leave the folder out")
    known: dict[str, Any] = {}
    for name, hint in _hints(cast(Hashable, section)).items():
        if name in values:
            value = values[name]
            if is_dataclass(hint) and isinstance(hint, type):
                known[name] = _filled(hint, value, origin)
            elif _fits(value, hint):
                known[name] = value
            else:
                raise UserError(f"{origin}: {name} is {show(value)}, not {describe(hint)}; leave the folder out")
    return section(**known)


@cache
def _hints(section: Any) -> Mapping[str, Any]:
    return get_type_hints(section)


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of the type that its key has, as far as a look at it tells."""
    accepted = parts(hint)
    if isinstance(value, list):
        return any(is_list(each) and all(_fits(entry, get_args(each)[0]) for entry in value) for each in accepted)
    if isinstance(value, dict):
        return any(is_mapping(each) for each in accepted)
    return Any in accepted or type(value) in accepted or (type(value) is int and float in accepted)


def fingerprint(config: RunConfig) -> dict[str, Any]:
    """Return the dotted keys that determine the result; two runs with equal fingerprints must give the same bits."""
    values = flat_values(config)
    if config.data.required is not None and template_columns(config.data.template) == config.data.required[:1]:
        values["data.required"] = None  # of one column, which is required, named or not
    if config.data.task == "sequence_classification":
        values["data.text"] = text_columns(config.data)  # null is the column text
    if not has_validation(values):  # all is chosen on the test set, which is scored at every evaluation
        values |= dict.fromkeys(("eval.choose_on", "eval.test"), "no validation set")
    return {key: value for key, value in values.items() if not key.startswith(WITHOUT_INFLUENCE)}


def differences(in_folder: RunConfig, asked_for: RunConfig) -> list[str]:
    """Return one line for every key that determines the result and has another value in the run folder."""
    old, new = fingerprint(in_folder), fingerprint(asked_for)
    return [
        f"{key}: {show(old[key]) if key in old else 'absent'} in the folder, "
        f"{show(new[key]) if key in new else 'absent'} asked for"
        for key in {**old, **new}
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def why_no_more_rounds(in_folder: RunConfig, num_rounds: int, *, reached_last: bool) -> str | None:
    """Return why a run cannot be given more rounds, with a remedy; None if the rounds up to now are those of the longer
    run.

    reached_last: the run's last round is done, which was evaluated for being the last.
    """
    old, local, every, privacy = in_folder.num_rounds, in_folder.local, in_folder.eval.every, in_folder.privacy
    if privacy.unit != "none" and privacy.noise_multiplier is None:
        return (
            f"the noise of its rounds was made for privacy.epsilon={show(privacy.epsilon)} in num_rounds={old}, and "
            f"more rounds ask for more noise in all of them; choose another run.name for num_rounds={num_rounds}"
        )
    if local.schedule_over == "run" and (local.schedule != "constant" or local.warmup > 0):
        return (
            f"with local.schedule_over=run the learning rate of every step depends on num_rounds={old}; "
            f"choose another run.name for num_rounds={num_rounds}"
        )
    if reached_last and old % every:
        return (
            f"round {old} was evaluated for being the last, which eval.every={every} does not do in a run of "
            f"{num_rounds}; choose another run.name, or give num_rounds={old}"
        )
    return None


def run_folder(config: RunConfig) -> Path:
    """Return the folder the run writes to, named after method, data, model and seed unless `run.name` is given."""
    name = config.run.name or f"{config.method.name}-{config.data.name}-{config.model.name}-seed{config.seed}"
    return user_path(config.run.dir) / name
