"""Ranges, valid values and combinations, checked before any model is loaded."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from fedlit.config.analysis import analysis_problems
from fedlit.config.choosing import choosing_problems
from fedlit.config.keys import SCHEMA, nearest, parts, run_options, show
from fedlit.config.parts import part_problems
from fedlit.config.privacy_checks import privacy_problems
from fedlit.config.reading import is_there
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.data.paths import DATA_PATHS
from fedlit.data.table_paths import missing
from fedlit.errors import UserError
from fedlit.lines import printable
from fedlit.options import REQUIRED, Option
from fedlit.ranges import LARGEST_COUNT
from fedlit.recipes import options_taken
from fedlit.registry import registered
from fedlit.tasks.registry import task_names, task_spec
from fedlit.tasks.spec import TaskSpec

NAMES = ("run.name", "run.dir", "data.name", "model.name", "logging.project", "logging.group")
"""What stands in messages, titles and paths."""

MAX_NAME_BYTES = 200
"""Of a name; a file's, with what is put before and after it, may have 255 on Linux."""

LOGGERS = SCHEMA["logging.loggers"].valid
"""What `logging.loggers` may name."""

Problem: TypeAlias = tuple[str, str]
"""A dotted key, and what is wrong with its value and what to do."""


def check(config: RunConfig, origins: Mapping[str, str] | None = None) -> None:
    """Raise UserError for the first value that is out of range, not valid or at odds with another.

    `origins` tells which file, or the command line, each dotted key's value came from.
    """
    values = flat_values(config)
    options = run_options(options_taken(config.method))
    for key, reason in _problems(values, options):
        origin = (origins or {}).get(key, "default")
        raise UserError(f"{key}={show(values.get(key))} ({origin}) {reason}")


def valid_values(task: str, options: Mapping[str, Option] = SCHEMA) -> dict[str, tuple[str, ...]]:
    """Return the values of every key that has a list of them, in a run of this task, known or not."""
    valid = {"data.task": task_names(), **{key: option.valid for key, option in options.items() if option.valid}}
    for key, kind in (("data.source", "reader"), ("partition.name", "partition")):
        valid[key] = (*valid[key], *registered(kind))
    protocols = task_spec(task).protocols if task in task_names() else ()
    return valid | {"eval.protocol": protocols} if protocols else valid


def _problems(values: Mapping[str, Any], options: Mapping[str, Option]) -> Iterator[Problem]:
    """Yield what is wrong, in the order of the options."""
    for key, valid in valid_values(values["data.task"], options).items():
        value = values.get(key)
        if isinstance(value, str) and value not in valid:
            free = ", or a list such as [q_proj, v_proj]" if list[str] in parts(options[key].hint) else ""
            yield key, f"is not valid{nearest(value, valid)} Valid values: {', '.join(valid)}{free}"
    for key, option in options.items():
        value = values.get(key)
        each: list[Any] = value if isinstance(value, list) else [value]
        allowed = option.range
        if allowed and value is not None and not all(type(e) in (int, float) and allowed.contains(e) for e in each):
            yield key, f"is out of range; give {allowed.text}"
    yield from _size_problems(values, options)
    yield from part_problems(values)
    yield from _combination_problems(values, options)
    yield from _path_problems(values)


def _size_problems(values: Mapping[str, Any], options: Mapping[str, Option]) -> Iterator[Problem]:
    """Yield integers that no tensor's shape could hold, of whatever option; and names with characters that act on a
    terminal.
    """
    for key, value in values.items():
        entries: list[Any] = value if isinstance(value, list) else [value]
        integers = [entry for entry in entries if type(entry) is int]
        bounded = key in options and options[key].range
        if not bounded and any(abs(entry) > LARGEST_COUNT for entry in integers):
            yield key, f"is out of range; give integers up to {LARGEST_COUNT}"
    for key in NAMES:
        if values[key] is not None and printable(values[key]) != values[key]:
            yield key, "holds a line break or another character that is not printable; leave it out"
        elif values[key] is not None and key != "run.dir" and len(values[key].encode()) > MAX_NAME_BYTES:
            yield key, f"is longer than {MAX_NAME_BYTES} bytes; give a shorter name"


def _combination_problems(values: Mapping[str, Any], options: Mapping[str, Option]) -> Iterator[Problem]:
    """Yield values that are at odds with one another."""
    num_clients, cohort_size = values["num_clients"], values["cohort_size"]
    if cohort_size is not None and not 1 <= cohort_size <= num_clients:
        yield "cohort_size", f"is out of range; give 1 to num_clients={num_clients}, or null for all"
    if values["cohort.over_selection"] > 1 and cohort_size is None:
        yield (
            "cohort.over_selection",
            "invites more clients than a round wants, and cohort_size=null wants all; give cohort_size=<number>",
        )
    if values["cohort.over_selection"] > 1 and values["cohort.availability"] == "buffered":
        yield (
            "cohort.over_selection",
            "has no meaning for cohort.availability=buffered, whose rounds are not drawn; give "
            "cohort.options={concurrency: <number>}",
        )
    if values["cohort.sampling"] != "fixed" and values["cohort.availability"] == "buffered":
        yield (
            "cohort.sampling",
            "draws the clients of a round, and cohort.availability=buffered draws a client whenever one is done; "
            "give cohort.sampling=fixed",
        )
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
    yield from choosing_problems(values)
    yield from _task_problems(values)
    yield from _method_problems(values, options)
    yield from privacy_problems(values)
    yield from analysis_problems(values)
    yield from _logging_problems(values)
    targets = values.get("method.target_modules")
    if targets == []:
        valid = ", ".join(options["method.target_modules"].valid)
        yield "method.target_modules", f"names no module; valid values: {valid}, or a list"


def has_own_test_set(values: Mapping[str, Any]) -> bool:
    """Tell whether the data set comes with a test set that belongs to no client."""
    reader = registered("reader").get(values["data.source"])
    if reader is not None and reader.has_test_rows:
        return True
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


def _method_problems(values: Mapping[str, Any], options: Mapping[str, Option]) -> Iterator[Problem]:
    """Yield options of local and server training that a method cannot take."""
    if values["server.optimizer"] in ("fedadam", "fedyogi", "fedadagrad") and values["server.lr"] is None:
        yield (
            "server.lr",
            (
                f"is not given, and server.optimizer={values['server.optimizer']} has no good default: its step is "
                "about this large in every element; give server.lr=<value>, 0.001 to begin with"
            ),
        )
    for key, option in options.items():
        if option.default == REQUIRED and key not in values:
            yield key, f"is not given and has no default; add {key}=<value>"
    ranks = values.get("method.lora_rank")
    if isinstance(ranks, list) and len(ranks) != values["num_clients"]:
        yield "method.lora_rank", f"has {len(ranks)} ranks for num_clients={values['num_clients']}; give one a client"
    num_steps = values["local.steps"] if values["local.schedule_over"] == "round" else values["num_rounds"]
    if values["local.warmup"] > 0 and values["local.steps"] == 1 and num_steps == 1:
        yield (
            "local.warmup",
            "begins at learning rate 0, and there is one step: nothing would be trained; give local.steps=2 or more, "
            "local.schedule_over=run over several rounds, or local.warmup=0",
        )
    if values["local.scaffold"]:
        plain = {"weight_decay": 0.0, "max_grad_norm": None, "momentum": 0.0, "schedule": "constant", "warmup": 0.0}
        for key, wanted in ((f"local.{name}", value) for name, value in plain.items()):
            if values.get(key, wanted) != wanted:
                yield key, f"is at odds with local.scaffold=true, which needs plain SGD; give {key}={show(wanted)}"


def _logging_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield loggers that do not exist or whose package is not there, and tags that W&B would refuse."""
    loggers = (*LOGGERS, *registered("logger"))
    for name in values["logging.loggers"]:
        if name not in loggers:
            yield "logging.loggers", f"names {name}{nearest(name, loggers)} Valid loggers: {', '.join(loggers)}"
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
    wanted = "an .npz file or a folder of images" if images else "a .jsonl, .csv or .parquet file, or another table"
    for key in DATA_PATHS:
        given = values[key]
        absent = None if given is None else missing(given)
        if given == []:
            yield key, f"names no file; give {wanted}, or null"
        elif absent is not None:
            which = "" if absent == given else f"names {show(absent)}, which "
            yield key, f"{which}is not there (seen from {Path.cwd()}); give the path of {wanted}"
    split = values["partition.path"]
    if split is not None and not is_there(split, Path.is_file):
        yield "partition.path", f"is not a file (seen from {Path.cwd()}); give a .json or .json.gz file of row numbers"
    if path is None and source in ("table", "jsonl", "images"):
        yield "data.source", f"needs a file; give data.path=<{wanted}>"
    if path is None and values["data.hub_id"] is None and source == "hub":
        yield "data.source", "needs a data set; give data.hub_id=<name on the hub> or data.path=<file.jsonl>"
    model = values["model.path"]
    if model.startswith(("/", "./", "../", "~")) and not is_there(model, Path.is_dir):
        yield "model.path", f"is not a folder (seen from {Path.cwd()}); give a model's folder or its id on the hub"
    if is_there(str(Path(model) / "config.yaml"), Path.is_file) and is_there(str(Path(model) / "adapter"), Path.is_dir):
        yield "model.path", f"is a run's folder; give its result, model.path={Path(model) / 'adapter'}"
    for key in ("run.name", "data.name", "model.name"):
        name = values[key]
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            yield key, "is part of a folder's name; give a name without path separators"
