"""Ranges, valid values and combinations, checked before any model is loaded."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from fedlit.config.keys import nearest, show
from fedlit.config.record import flat_values
from fedlit.config.schema import ComputeConfig, RunConfig
from fedlit.errors import UserError
from fedlit.process import slurm
from fedlit.process.storage import user_path
from fedlit.registry import option_names, registered
from fedlit.tasks.registry import task_names, task_spec

VALID_VALUES: Mapping[str, tuple[str, ...]] = {
    "data.source": ("pydoc", "digits", "jsonl", "images", "hub"),
    "data.answer": ("text", "number", "boxed", "option"),
    "model.weights": ("pretrained", "random"),
    "model.quantization": ("nf4",),
    "model.dtype": ("float32", "bfloat16"),
    "model.attention_implementation": ("sdpa", "eager", "flash_attention_2"),
    "method.weighting": ("num_examples", "uniform"),
    "local.optimizer_state": ("reset", "keep"),
    "local.schedule": ("constant", "linear", "cosine"),
    "local.schedule_over": ("round", "run"),
    "cohort.failures": ("stop", "drop"),
    "local.loss_on": ("response", "all"),
    "server.optimizer": ("none", "fedavgm", "fedadam", "fedyogi", "fedadagrad"),
    "run.export": ("adapter", "merged"),
    "run.result": ("last", "best"),
    "partition.name": ("dirichlet", "quantity", "pathological", "natural", "topics", "iid", "file"),
    "eval.protocol": ("generate", "teacher_forced", "options"),
    "eval.on": ("global", "clients", "both"),
    "compute.accelerator": ("auto", "cpu", "cuda"),
    "compute.precision": ("32-true", "bf16-mixed"),
    "compute.backend": ("gloo", "nccl"),
    "logging.wandb": ("auto", "online", "offline", "disabled"),
}
"""The tasks and the protocols of a task with its own are added by `valid_values`."""

COHORT_PARTS: Mapping[str, tuple[str, ...]] = {"sampling": ("fixed", "poisson"), "availability": ("always",)}
"""The package's own parts of a round's plan."""

TARGET_MODULES = ("qkv", "attention", "mlp", "all", "up", "model")
"""Sets of weights with a name (`up` and `model` are the dense adapter's); `method.target_modules` may be a list of
module names instead."""

LOGGERS = ("wandb", "tensorboard", "csv")
"""What `logging.loggers` may name."""

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
    **dict.fromkeys(("local.steps", "local.epochs", "local.batch_size", "local.accumulate"), POSITIVE_COUNT),
    **dict.fromkeys(("partition.classes_per_client", "eval.num_beams", "eval.patience"), POSITIVE_COUNT),
    **dict.fromkeys(("eval.every", "eval.max_examples", "eval.batch_size", "eval.max_new_tokens"), POSITIVE_COUNT),
    **dict.fromkeys(("compute.devices", "compute.num_nodes", "compute.threads"), POSITIVE_COUNT),
    **dict.fromkeys(("compute.timeout_s", "compute.start_timeout_s"), POSITIVE_COUNT),
    **dict.fromkeys(("run.keep_checkpoints", "method.lora_rank", "logging.samples_every"), POSITIVE_COUNT),
    **dict.fromkeys(("seed", "partition.min_test_rows", "eval.no_repeat_ngram_size"), COUNT),
    "partition.num_topics": Range(lambda value: value >= 2, "an integer of at least 2"),
    "eval.length_penalty": Range(lambda value: -math.inf < value < math.inf, "a finite number"),
    **dict.fromkeys(("partition.alpha", "local.lr", "local.max_grad_norm", "method.lora_alpha"), POSITIVE),
    **dict.fromkeys(("server.lr", "server.tau"), POSITIVE),
    **dict.fromkeys(("local.weight_decay", "local.prox_mu"), NOT_NEGATIVE),
    **dict.fromkeys(("partition.test_fraction", "method.lora_dropout", "local.momentum"), FRACTION),
    **dict.fromkeys(("local.warmup", "local.label_smoothing"), FRACTION),
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


def valid_values(task: str) -> dict[str, tuple[str, ...]]:
    """Return the values of every key that has a list of them, in a run of this task, known or not."""
    valid = {"data.task": task_names(), **VALID_VALUES}
    protocols = task_spec(task).protocols if task in task_names() else ()
    return valid | {"eval.protocol": protocols} if protocols else valid


def _problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong, in the order of the tables."""
    for key, valid in valid_values(values["data.task"]).items():
        value = values.get(key)
        if value is not None and value not in valid:
            yield key, f"is not valid{nearest(value, valid)} Valid values: {', '.join(valid)}"
    for key, allowed in RANGES.items():
        value = values.get(key)
        each: list[Any] = value if isinstance(value, list) else [value]
        if value is not None and not all(allowed.contains(entry) for entry in each):
            yield key, f"is out of range; give {allowed.text}"
    yield from _cohort_problems(values)
    yield from _combination_problems(values)
    yield from _path_problems(values)


def _cohort_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield parts of the round's plan that nobody knows, and options that nobody takes."""
    taken: set[str] = set()
    for kind, own in COHORT_PARTS.items():
        name, others = values[f"cohort.{kind}"], registered(kind)
        if name not in (*own, *others):
            yield f"cohort.{kind}", f"is not valid{nearest(name, own)} Valid values: {', '.join([*own, *others])}"
        elif name in others:
            taken |= set(option_names(others[name]))
    for option in values["cohort.options"].keys() - taken:
        known = ", ".join(sorted(taken)) or "none"
        yield "cohort.options", f"has {show(option)}, which no part takes; known are: {known}"


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
    has_test_parts = values["partition.test_fraction"] > 0 or values["partition.min_test_rows"] > 0
    if not has_test_parts and (values["eval.on"] != "global" or not has_own_test_set(values)):
        yield (
            "partition.test_fraction",
            "leaves no row to test on; give it, or partition.min_test_rows, a value above 0",
        )
    yield from _partition_problems(values)
    yield from _task_problems(values)
    yield from _method_problems(values)
    yield from _logging_problems(values)
    targets = values.get("method.target_modules")
    if isinstance(targets, str) and targets not in TARGET_MODULES:
        yield (
            "method.target_modules",
            f"is no set of modules{nearest(targets, TARGET_MODULES)} "
            f"Valid values: {', '.join(TARGET_MODULES)}, or a list of module names such as [q_proj, v_proj]",
        )
    if targets == []:
        yield "method.target_modules", f"names no module; valid values: {', '.join(TARGET_MODULES)}, or a list"


def has_own_test_set(values: Mapping[str, Any]) -> bool:
    """Tell whether the data set comes with a test set that belongs to no client."""
    on_hub = values["data.path"] is None and values["data.hub_test_split"] is not None
    return on_hub or values["data.test_path"] is not None


def _partition_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what a partition lacks."""
    name, num_shards = values["partition.name"], values["partition.num_shards"]
    if num_shards is not None and num_shards < values["num_clients"]:
        yield "partition.num_shards", f"is below num_clients={values['num_clients']}; give as many or more, or null"
    if values["data.label"] is None and name in ("dirichlet", "pathological"):
        yield "partition.name", "deals labels, but data.label=null; give data.label=<column> or partition.name=iid"
    if values["data.label"] is None and name == "natural" and values["partition.column"] is None:
        yield "partition.name", "needs a column; give partition.column=<column>"
    task = values["data.task"]
    if name == "topics" and not task_spec(task).reads_text:
        yield "partition.name", f"clusters texts, and data.task={task} has none; choose another partition"
    if name == "file" and values["partition.path"] is None:
        yield "partition.name", "needs the row numbers of every client; give partition.path=<file.json>"


def _task_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield scores and options that the data set's task does not have."""
    task = values["data.task"]
    spec = task_spec(task)
    valid = spec.scores
    for name in values["data.scores"] or ():
        if name not in valid:
            yield "data.scores", f"names {name}, no score of data.task={task}. Valid scores: {', '.join(valid)}"
    if values["data.scores"] == []:
        yield "data.scores", f"names no score; give null for the task's own, or some of {', '.join(valid)}"
    score = values["eval.score"]
    if score is not None and score.split("/")[0] not in ("loss", *valid):
        yield "eval.score", f"is no score of data.task={task}. Valid scores: loss, {', '.join(valid)}"
    yield from spec.problems(values)
    if "exact_match" in (values["data.scores"] or ()) and values["data.answer"] is None:
        yield "data.answer", "is not given, and data.scores has exact_match; give text, number, boxed or option"


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
        plain = {"weight_decay": 0.0, "max_grad_norm": None, "momentum": 0.0, "schedule": "constant", "warmup": 0.0}
        for key, wanted in ((f"local.{name}", value) for name, value in plain.items()):
            if values.get(key, wanted) != wanted:
                yield key, f"is at odds with local.scaffold=true, which needs plain SGD; give {key}={show(wanted)}"


def _logging_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield loggers that do not exist or whose package is not there, and tags that W&B would refuse."""
    for name in values["logging.loggers"]:
        if name not in LOGGERS:
            yield "logging.loggers", f"names {name}{nearest(name, LOGGERS)} Valid loggers: {', '.join(LOGGERS)}"
    if "tensorboard" in values["logging.loggers"] and find_spec("tensorboard") is None:
        yield (
            "logging.loggers",
            "needs the package tensorboard, which is not installed; pip install tensorboard, or leave it out",
        )
    for tag in values["logging.tags"]:
        if not 1 <= len(tag) <= 64:
            yield "logging.tags", f"holds a tag of {len(tag)} characters; W&B takes 1 to 64"


def _path_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield paths that do not exist, sources without an address and names that are no folder name."""
    path, source = values["data.path"], values["data.source"]
    images = task_spec(values["data.task"]).local_source == "images"
    wanted = "an .npz file or a folder of images" if images else "a .jsonl or .jsonl.gz file"
    for key in ("data.path", "data.test_path"):
        given = None if values[key] is None else user_path(values[key])
        if given is not None and not (given.is_file() or (images and given.is_dir())):
            yield key, f"is not there (seen from {Path.cwd()}); give the path of {wanted}"
    split = values["partition.path"]
    if split is not None and not user_path(split).is_file():
        yield "partition.path", f"is not a file (seen from {Path.cwd()}); give a .json or .json.gz file of row numbers"
    if path is None and source in ("jsonl", "images"):
        yield "data.source", f"needs a file; give data.path=<{wanted}>"
    if path is None and values["data.hub_id"] is None and source == "hub":
        yield "data.source", "needs a data set; give data.hub_id=<name on the hub> or data.path=<file.jsonl>"
    model = values["model.path"]
    if model.startswith(("/", "./", "../", "~")) and not user_path(model).is_dir():
        yield "model.path", f"is not a folder (seen from {Path.cwd()}); give a model's folder or its id on the hub"
    for key in ("run.name", "data.name", "model.name"):
        name = values[key]
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            yield key, "is part of a folder's name; give a name without path separators"


def check_launcher(environ: Mapping[str, str], compute: ComputeConfig) -> None:
    """Refuse what a launcher was told and the federation decides for itself, and SLURM tasks that are not one for each
    device, before torch is imported.

    `fabric run` hands its options on as LT_STRATEGY, LT_PRECISION, ... (lightning/fabric/cli.py).
    """
    if strategy := environ.get("LT_STRATEGY"):
        raise UserError(f"--strategy={strategy}: the federation brings its own strategy; leave out --strategy")
    asked = environ.get("LT_PRECISION", compute.precision)
    if PRECISION_ALIASES.get(asked, asked) != compute.precision:
        raise UserError(
            f"--precision={asked} disagrees with compute.precision={compute.precision}; "
            "leave out --precision and give compute.precision=<value> after the script"
        )
    if slurm.makes_processes(environ):
        _check_tasks(environ, compute)


def _check_tasks(environ: Mapping[str, str], compute: ComputeConfig) -> None:
    """Refuse SLURM tasks with which Fabric would hang, raise an error of its own or run another number of processes."""
    num_tasks, (per_node, num_nodes) = slurm.num_tasks(environ), slurm.task_shape(environ)
    wanted = compute.devices if compute.devices > 1 else per_node
    if num_tasks > 1 and not slurm.is_srun_task(environ):
        raise UserError(
            f"this is one process of an allocation of {num_tasks} SLURM tasks; "
            "start it with srun, or with fabric run for processes of its own"
        )
    if num_tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ:
        raise UserError(
            f"SLURM started {num_tasks} tasks without a number per node; "
            f"use --ntasks-per-node={max(num_tasks // num_nodes, 1)} in place of --ntasks"
        )
    if num_tasks != per_node * num_nodes:
        raise UserError(
            f"SLURM started {num_tasks} tasks, not --ntasks-per-node={per_node} on each of {num_nodes} nodes; "
            "leave out srun's own --ntasks and --nodes"
        )
    if per_node != wanted:
        raise UserError(
            f"compute.devices={compute.devices} but SLURM starts {per_node} tasks on a node; "
            f"use srun --ntasks-per-node={wanted}, or leave out compute.devices"
        )
    if compute.num_nodes not in (1, num_nodes):
        raise UserError(
            f"compute.num_nodes={compute.num_nodes} but SLURM gives {num_nodes} nodes; "
            f"use sbatch --nodes={compute.num_nodes}, or leave out compute.num_nodes"
        )
