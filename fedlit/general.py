"""The rows of a general set, on which a run's forgetting is measured: another data set, that nobody trains on."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlit.config import DataConfig, RunConfig, load_config_from
from fedlit.config.keys import show
from fedlit.data.prompts import Row
from fedlit.data.sources import load_rows, load_test_rows
from fedlit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class GeneralSet:
    """data: as the data set's own file describes it. rows: its test set, or all its rows where it has none."""

    data: DataConfig
    rows: Sequence[Row]


def general_set(config: RunConfig) -> GeneralSet | None:
    """Read the data set of `eval.general`; None without analysis=[forgetting].

    Raises:
        UserError: there is no such data set, it cannot be read, or it is of another task.
    """
    name = config.eval.general
    if name is None or "forgetting" not in config.analysis:
        return None
    try:
        data = load_config_from(overrides={"data": name}, origin="eval.general").data
        rows = (load_test_rows(data) or load_rows(data, config.seed)) if data.task == "causal_lm" else []
    except UserError as error:
        raise UserError(f"eval.general={show(name)}: {error}") from None
    if data.task != "causal_lm":
        raise UserError(f"eval.general={show(name)} is a data set of data.task={data.task}; give one of causal_lm")
    if not rows:
        raise UserError(f"eval.general={show(name)} has no rows; give another data set")
    return GeneralSet(data=data, rows=rows)
