"""Which set chooses a run's best round and its rate: a validation set or, by name only, the test set."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedlit.errors import UserError

REMEDY = "give partition.validation_fraction=0.1 or data.validation_path=<file>, or eval.choose_on=test, which flatters"
REMEDY_FROM_PYTHON = (
    "give partition.validation_fraction=0.1 or validation_rows=, or eval.choose_on=test, which flatters"
)


def own_validation_key(values: Mapping[str, Any]) -> str | None:
    """Return the key that names a validation set which belongs to no client; None without one."""
    if values["data.validation_path"] is not None:
        return "data.validation_path"
    on_hub = values["data.path"] is None and values["data.hub_validation_split"] is not None
    return "data.hub_validation_split" if on_hub else None


def has_validation(values: Mapping[str, Any]) -> bool:
    """Tell whether a configuration asks for a validation set; rows from Python and a partition's file may bring one
    that it does not tell of.
    """
    return own_validation_key(values) is not None or bool(values["partition.validation_fraction"])


def brings_rows(values: Mapping[str, Any]) -> bool:
    """Tell whether only the rows say if there is a validation set: those from Python, or another run's parts."""
    return bool(values["data.source"] == "memory" or values["partition.name"] == "file")


def choosing_problems(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield two validation sets, and a choice of a round without any."""
    key, share = own_validation_key(values), values["partition.validation_fraction"]
    if share > 0 and key is not None:
        yield "partition.validation_fraction", f"is given beside {key}={values[key]}; leave one of them out"
    if not brings_rows(values):
        yield from _unfounded(values, found=has_validation(values), remedy=REMEDY)


def require_founded(values: Mapping[str, Any], *, found: bool) -> None:
    """Refuse a choice of a round without a validation set, where the rows have said whether there is one.

    Raises:
        UserError: there is none, and nobody asked to choose on the test set.
    """
    remedy = REMEDY_FROM_PYTHON if values["data.source"] == "memory" else REMEDY
    for key, problem in _unfounded(values, found=found, remedy=remedy):
        raise UserError(f"{key}={values[key]} {problem}")


def require_rates_founded(values: Mapping[str, Any]) -> None:
    """Refuse to choose among learning rates without a validation set.

    Raises:
        UserError: there is none, and nobody asked to choose on the test set.
    """
    if values["eval.choose_on"] != "test" and not has_validation(values) and not brings_rows(values):
        raise UserError(f"--lrs: a rate is chosen, and there is no validation set to choose on; {REMEDY}")


def _unfounded(values: Mapping[str, Any], *, found: bool, remedy: str) -> Iterator[tuple[str, str]]:
    if found or values["eval.choose_on"] == "test":
        return
    if values["run.result"] == "best":
        yield "run.result", f"chooses a round, and there is no validation set to choose on; {remedy}"
    if values["eval.patience"] is not None:
        yield "eval.patience", f"chooses a round, and there is no validation set to choose on; {remedy}"
