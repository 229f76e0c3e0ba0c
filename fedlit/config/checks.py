"""Ranges, valid values and combinations, checked before any model is loaded."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from fedlit.config.keys import nearest, show
from fedlit.config.ranges import LARGEST_COUNT, RANGES
from fedlit.config.reading import is_there
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.errors import UserError
from fedlit.lines import printable
from fedlit.registry import option_names, registered
from fedlit.tasks.registry import task_names, task_spec
from fedlit.tasks.spec import TaskSpec

VALID_VALUES: Mapping[str, tuple[str, ...]] = {
    "data.source": ("pydoc", "digits", "jsonl", "images", "hub", "memory"),
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
    "partition.name": ("dirichlet", "quantity", "pathological", "natural", "topics", "iid", "file", "given"),
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

NAMES = ("run.name", "run.dir", "data.name", "model.name", "logging.project", "logging.group")
"""What stands in messages, titles and paths."""

MAX_NAME_BYTES = 200
"""Of a name; a file's, with what is put before and after it, may have 255 on Linux."""

LOGGERS = ("wandb", "tensorboard", "csv")
"""What `logging.loggers` may name."""

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
        if value is not None and not all(type(entry) in (int, float) and allowed.contains(entry) for entry in each):
            # No number: an option that a method's own file gives as text, whose type is then text.
            yield key, f"is out of range; give {allowed.text}"
    yield from _size_problems(values)
    yield from _cohort_problems(values)
    yield from _combination_problems(values)
    yield from _path_problems(values)


def _size_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield integers that no tensor's shape could hold, of whatever option; and names with characters that act on a
    terminal.
    """
    for key, value in values.items():
        entries: list[Any] = value if isinstance(value, list) else [value]
        integers = [entry for entry in entries if type(entry) is int]
        if key not in RANGES and any(abs(entry) > LARGEST_COUNT for entry in integers):
            yield key, f"is out of range; give integers up to {LARGEST_COUNT}"
    for key in NAMES:
        if values[key] is not None and printable(values[key]) != values[key]:
            yield key, "holds a line break or another character that is not printable; leave it out"
        elif values[key] is not None and key != "run.dir" and len(values[key].encode()) > MAX_NAME_BYTES:
            yield key, f"is longer than {MAX_NAME_BYTES} bytes; give a shorter name"


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
    # Whether rows that were given from Python came with test rows is known where they are (`fedlit/inputs.py`).
    return on_hub or values["data.test_path"] is not None or values["data.source"] == "memory"


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
    if values["eval.score"] is not None:
        yield from _score_problems(values, spec)
    yield from spec.problems(values)
    if "exact_match" in (values["data.scores"] or ()) and values["data.answer"] is None:
        yield "data.answer", "is not given, and data.scores has exact_match; give text, number, boxed or option"


def _score_problems(values: Mapping[str, Any], spec: TaskSpec) -> Iterator[Problem]:
    """Yield what is wrong with an eval.score that no record will have: patience would wait for it for ever. What only
    the rows tell, the groups of data.score_by, the first evaluation finds (`round/best_round.py`).
    """
    name, slash, _ = values["eval.score"].partition("/")
    whole = name if name in spec.scores else name.removesuffix("_macro")
    if whole not in ("loss", *spec.scores):
        yield "eval.score", f"is no score of data.task={spec.name}. Valid scores: loss, {', '.join(spec.scores)}"
    own_task = spec.task_class.startswith("fedlit.")  # a task from outside may tell scores apart by itself
    if (slash or whole != name) and own_task:
        if whole not in ("exact_match", "accuracy") or spec.has_head:
            yield "eval.score", f"names a part of {whole}, which has none; give eval.score={whole}"
        elif values["data.score_by"] is None:
            yield "eval.score", f"names a part of {whole}, but data.score_by=null; give eval.score={whole}, or a column"
    if spec.number_scores and (whole in spec.number_scores) != values["data.regression"] and whole != "loss":
        kept = [score for score in spec.scores if (score in spec.number_scores) == values["data.regression"]]
        yield (
            "eval.score",
            f"is not computed with data.regression={show(values['data.regression'])}; give loss, {', '.join(kept)}",
        )


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
        given = values[key]
        if given is not None and not (is_there(given, Path.is_file) or (images and is_there(given, Path.is_dir))):
            yield key, f"is not there (seen from {Path.cwd()}); give the path of {wanted}"
    split = values["partition.path"]
    if split is not None and not is_there(split, Path.is_file):
        yield "partition.path", f"is not a file (seen from {Path.cwd()}); give a .json or .json.gz file of row numbers"
    if path is None and source in ("jsonl", "images"):
        yield "data.source", f"needs a file; give data.path=<{wanted}>"
    if path is None and values["data.hub_id"] is None and source == "hub":
        yield "data.source", "needs a data set; give data.hub_id=<name on the hub> or data.path=<file.jsonl>"
    model = values["model.path"]
    if model.startswith(("/", "./", "../", "~")) and not is_there(model, Path.is_dir):
        yield "model.path", f"is not a folder (seen from {Path.cwd()}); give a model's folder or its id on the hub"
    for key in ("run.name", "data.name", "model.name"):
        name = values[key]
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            yield key, "is part of a folder's name; give a name without path separators"
