"""Settings that a run does not look at: a warning each, since nothing is wrong with them but the hope."""

from collections.abc import Iterator

from fedlit.config.checks import has_own_test_set
from fedlit.config.choosing import brings_rows, has_validation
from fedlit.config.keys import show
from fedlit.config.privacy_checks import idle_privacy_keys
from fedlit.config.record import flat_values
from fedlit.config.schema import RunConfig
from fedlit.tasks.registry import task_spec


def no_effect_warnings(config: RunConfig) -> list[str]:
    """Return one line for every setting that differs from the schema's default and has no effect in this run."""
    values, defaults = flat_values(config), flat_values(RunConfig())
    idle = [*_idle_partition_keys(config), *_idle_evaluation_keys(config)]
    if config.server.optimizer == "none":
        idle += [(f"server.{name}", "server.optimizer=none") for name in ("lr", "beta1", "beta2", "tau")]
    if config.num_rounds == 1:
        idle += [(key, "num_rounds=1") for key in ("local.optimizer_state", "eval.every", "eval.patience")]
    if config.local.schedule == "constant" and config.local.warmup == 0:
        idle.append(("local.schedule_over", "local.schedule=constant and local.warmup=0.0"))
    elif config.num_rounds == 1:
        idle.append(("local.schedule_over", "num_rounds=1"))
    idle += [*_idle_logging_keys(config), *idle_privacy_keys(config)]
    return [f"{key}={show(values[key])} has no effect with {why}" for key, why in idle if values[key] != defaults[key]]


def _idle_logging_keys(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield what only W&B looks at, if this run does not log to it, and why."""
    keys = [f"logging.{name}" for name in ("project", "group", "tags", "samples_every", "artifact")]
    if config.logging.wandb == "disabled":
        yield from ((key, "logging.wandb=disabled") for key in keys)
    elif "wandb" not in config.logging.loggers:
        yield from ((key, f"logging.loggers={show(config.logging.loggers)}") for key in [*keys, "logging.wandb"])


def _idle_partition_keys(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of data and partition that this run does not look at, and why."""
    name, source = config.partition.name, config.data.source
    used_by = {
        "alpha": ("dirichlet", "quantity", "topics"),
        "column": ("natural",),
        "classes_per_client": ("pathological",),
        "num_topics": ("topics",),
        "path": ("file",),
        "key": ("file",),
    }
    for key, partitions in used_by.items():
        if name not in partitions:
            yield f"partition.{key}", f"partition.name={name}"
    if config.eval.on == "global" and source != "memory" and has_own_test_set(flat_values(config)):
        for key in ("test_fraction", "min_test_rows"):
            yield f"partition.{key}", "a test set of the data's own and eval.on=global"
    if source in ("pydoc", "digits"):
        yield "data.path", f"data.source={source}"
    if source != "hub":
        of_test = ("hub_test_split", "hub_test_id", "hub_test_config", "hub_validation_split")
        for key in ("hub_id", "hub_config", "hub_split", *of_test):
            yield f"data.{key}", f"data.source={source}"


def _idle_evaluation_keys(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield the keys of evaluation and local training that this run's task does not look at, and why."""
    generation = ("max_new_tokens", "num_beams", "length_penalty", "no_repeat_ngram_size", "stop")
    spec, why = task_spec(config.data.task), f"data.task={config.data.task}"
    if not spec.protocols:
        yield "eval.protocol", why
    if not spec.generates:
        yield from ((key, why) for key in ("local.loss_on", *(f"eval.{name}" for name in generation)))
    elif spec.name == "causal_lm" and config.data.text is not None:
        yield from ((key, "data.text") for key in ("local.loss_on", *(f"eval.{name}" for name in generation)))
    elif config.eval.protocol != "generate":
        for name in generation:
            yield f"eval.{name}", f"eval.protocol={config.eval.protocol}"
    elif config.eval.num_beams == 1:
        yield "eval.length_penalty", "eval.num_beams=1"
    if config.eval.patience is None and config.run.result == "last" and not has_validation(flat_values(config)):
        yield "eval.score", "eval.patience=null and run.result=last"
    values = flat_values(config)
    if not has_validation(values) and not brings_rows(values):
        yield "eval.test", "no validation set"
    elif config.eval.choose_on == "test":
        yield "eval.test", "eval.choose_on=test"
    if "forgetting" not in config.analysis:
        yield "eval.general", "analysis without forgetting"
