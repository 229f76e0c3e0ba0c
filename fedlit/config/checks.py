"""Ranges, valid values and combinations, checked before any model is loaded; what has no effect is a warning."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fedlit.config.keys import nearest, show
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.errors import UserError

VALID_VALUES: Mapping[str, tuple[str, ...]] = {
    "data.source": ("pydoc", "jsonl", "hub"),
    "model.dtype": ("float32", "bfloat16"),
    "model.attention_implementation": ("sdpa", "eager", "flash_attention_2"),
    "method.weighting": ("num_examples", "uniform"),
    "local.optimizer_state": ("reset", "keep"),
    "local.loss_on": ("response", "all"),
    "server.optimizer": ("none", "fedavgm", "fedadam", "fedyogi", "fedadagrad"),
    "run.export": ("adapter", "merged"),
    "partition.name": ("dirichlet", "iid", "natural"),
    "eval.protocol": ("generate", "teacher_forced"),
    "compute.accelerator": ("auto", "cpu", "cuda"),
    "compute.precision": ("32-true", "bf16-mixed"),
    "compute.backend": ("gloo", "nccl"),
    "logging.wandb": ("auto", "online", "offline", "disabled"),
}

TARGET_MODULES = ("qkv", "attention", "mlp", "all", "up", "model")
"""Sets of weights with a name (`up` and `model` are the dense adapter's); `method.target_modules` may be a list of
module names instead."""

PRECISION_ALIASES: Mapping[str, str] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", "64": "64-true"}
"""Short names that `fabric run --precision` accepts."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values a number may take, and how to say so."""

    contains: Callable[[float], bool]
    text: str


POSITIVE_COUNT = Range(lambda value: value >= 1, "an integer of at least 1")
COUNT = Range(lambda value: value >= 0, "an integer of at least 0")
POSITIVE = Range(lambda value: 0 < value < math.inf, "a finite number above 0")
NOT_NEGATIVE = Range(lambda value: 0 <= value < math.inf, "a finite number of at least 0")
FRACTION = Range(lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")

RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("num_clients", "num_rounds", "data.sample", "model.max_length_tokens"), POSITIVE_COUNT),
    **dict.fromkeys(("local.steps", "local.epochs", "local.batch_size"), POSITIVE_COUNT),
    **dict.fromkeys(("eval.every", "eval.max_examples", "eval.batch_size", "eval.max_new_tokens"), POSITIVE_COUNT),
    **dict.fromkeys(("compute.devices", "compute.num_nodes", "compute.threads", "compute.timeout_s"), POSITIVE_COUNT),
    **dict.fromkeys(("run.keep_checkpoints", "method.lora_rank"), POSITIVE_COUNT),
    **dict.fromkeys(("seed", "partition.min_test_rows"), COUNT),
    **dict.fromkeys(("partition.alpha", "local.lr", "local.max_grad_norm", "method.lora_alpha"), POSITIVE),
    **dict.fromkeys(("server.lr", "server.tau"), POSITIVE),
    **dict.fromkeys(("local.weight_decay", "local.prox_mu"), NOT_NEGATIVE),
    **dict.fromkeys(("partition.test_fraction", "method.lora_dropout", "local.momentum"), FRACTION),
    **dict.fromkeys(("server.beta1", "server.beta2"), FRACTION),
}
"""Null passes wherever the key's type allows it. Keys of `method.` apply to the recipes that have them."""

Problem: TypeAlias = tuple[str, str]
"""A dotted key, and what is wrong with its value and what to do."""


def check(config: RunConfig, origins: Mapping[str, str] | None = None) -> None:
    """Raise UserError for the first value that is out of range, not valid or at odds with another.

    `origins` tells which file, or the command line, each dotted key's value came from.
    """
    values = flat_values(config)
    for key, reason in _problems(values):
        origin = (origins or {}).get(key, "default")
        raise UserError(f"{key}={show(values.get(key))} ({origin}) {reason}")


def _problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong, in the order of the tables."""
    for key, valid in VALID_VALUES.items():
        value = values.get(key)
        if value is not None and value not in valid:
            yield key, f"is not valid{nearest(value, valid)} Valid values: {', '.join(valid)}"
    for key, allowed in RANGES.items():
        value = values.get(key)
        each: list[Any] = value if isinstance(value, list) else [value]
        if value is not None and not all(allowed.contains(entry) for entry in each):
            yield key, f"is out of range; give {allowed.text}"
    yield from _combination_problems(values)
    yield from _path_problems(values)


def _combination_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield values that are at odds with one another."""
    num_clients, cohort_size = values["num_clients"], values["cohort_size"]
    if cohort_size is not None and not 1 <= cohort_size <= num_clients:
        yield "cohort_size", f"is out of range; give 1 to num_clients={num_clients}, or null for all"
    steps, epochs = values["local.steps"], values["local.epochs"]
    if steps is not None and epochs is not None:
        yield "local.epochs", f"is given beside local.steps={steps}; leave one of them out"
    if steps is None and epochs is None:
        yield "local.steps", "leaves no length for local training; give local.steps=<number> or local.epochs=<number>"
    if values["partition.test_fraction"] == 0 and values["partition.min_test_rows"] == 0:
        yield (
            "partition.test_fraction",
            "leaves no row to test on; give it, or partition.min_test_rows, a value above 0",
        )
    if values["data.label"] is None and values["partition.name"] == "dirichlet":
        yield "partition.name", "skews labels, but data.label=null; give data.label=<column> or partition.name=iid"
    if values["data.label"] is None and values["partition.name"] == "natural" and values["partition.column"] is None:
        yield "partition.name", "needs a column; give partition.column=<column>"
    yield from _method_problems(values)
    targets = values.get("method.target_modules")
    if isinstance(targets, str) and targets not in TARGET_MODULES:
        yield (
            "method.target_modules",
            f"is no set of modules{nearest(targets, TARGET_MODULES)} "
            f"Valid values: {', '.join(TARGET_MODULES)}, or a list of module names such as [q_proj, v_proj]",
        )
    if targets == []:
        yield "method.target_modules", f"names no module; valid values: {', '.join(TARGET_MODULES)}, or a list"


def _method_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield options of local and server training that a method cannot take."""
    if values["server.optimizer"] in ("fedadam", "fedyogi", "fedadagrad") and values["server.lr"] is None:
        yield (
            "server.lr",
            (
                f"is not given, and server.optimizer={values['server.optimizer']} has no good default: its step is "
                "about this large in every element; give server.lr=<value>, 0.001 to begin with"
            ),
        )
    ranks = values.get("method.lora_rank")
    if isinstance(ranks, list) and len(ranks) != values["num_clients"]:
        yield "method.lora_rank", f"has {len(ranks)} ranks for num_clients={values['num_clients']}; give one a client"
    if values["local.scaffold"]:
        for key, wanted in (("local.weight_decay", 0.0), ("local.max_grad_norm", None), ("local.momentum", 0.0)):
            if values.get(key, wanted) != wanted:
                yield key, f"is at odds with local.scaffold=true, which needs plain SGD; give {key}={show(wanted)}"


def _path_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield paths that do not exist, sources without an address and names that are no folder name."""
    path, source = values["data.path"], values["data.source"]
    if path is not None and not Path(path).is_file():
        yield "data.path", f"is not a file (seen from {Path.cwd()}); give the path of a .jsonl or .jsonl.gz file"
    if path is None and source == "jsonl":
        yield "data.source", "needs a file; give data.path=<file.jsonl or file.jsonl.gz>"
    if path is None and values["data.hub_id"] is None and source == "hub":
        yield "data.source", "needs a data set; give data.hub_id=<name on the hub> or data.path=<file.jsonl>"
    model = values["model.path"]
    if model.startswith(("/", "./", "../")) and not Path(model).is_dir():
        yield "model.path", f"is not a folder (seen from {Path.cwd()}); give a model's folder or its id on the hub"
    for key in ("run.name", "data.name", "model.name"):
        name = values[key]
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            yield key, "is part of a folder's name; give a name without path separators"


def check_launcher(environ: Mapping[str, str], precision: str) -> None:
    """Refuse what `fabric run` was told and the federation decides for itself; `precision` is `compute.precision`.

    `fabric run` hands its options on as LT_STRATEGY, LT_PRECISION, ... (lightning/fabric/cli.py).
    """
    if strategy := environ.get("LT_STRATEGY"):
        raise UserError(f"--strategy={strategy}: the federation brings its own strategy; leave out --strategy")
    asked = environ.get("LT_PRECISION", precision)
    if PRECISION_ALIASES.get(asked, asked) != precision:
        raise UserError(
            f"--precision={asked} disagrees with compute.precision={precision}; "
            "leave out --precision and give compute.precision=<value> after the script"
        )


def no_effect_warnings(config: RunConfig) -> list[str]:
    """Return one line for every setting that differs from the schema's default and has no effect in this run."""
    values, defaults = flat_values(config), flat_values(RunConfig())
    idle: list[tuple[str, str]] = []
    partition, source = config.partition.name, config.data.source
    if partition != "dirichlet":
        idle.append(("partition.alpha", f"partition.name={partition}"))
    if partition != "natural":
        idle.append(("partition.column", f"partition.name={partition}"))
    if config.eval.protocol == "teacher_forced":
        idle.append(("eval.max_new_tokens", "eval.protocol=teacher_forced"))
    if config.server.optimizer == "none":
        idle += [(f"server.{name}", "server.optimizer=none") for name in ("lr", "beta1", "beta2", "tau")]
    if config.num_rounds == 1:
        idle.append(("local.optimizer_state", "num_rounds=1"))
        idle.append(("eval.every", "num_rounds=1"))
    if source == "pydoc":
        idle.append(("data.path", "data.source=pydoc"))
    if source != "hub":
        idle += [(key, f"data.source={source}") for key in ("data.hub_id", "data.hub_split")]
    if config.logging.wandb == "disabled":
        idle += [(key, "logging.wandb=disabled") for key in ("logging.project", "logging.group")]
    return [f"{key}={show(values[key])} has no effect with {why}" for key, why in idle if values[key] != defaults[key]]
