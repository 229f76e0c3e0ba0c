"""The metrics of scores from outside."""

from torchmetrics import Metric

from fedlit.config import DataConfig
from fedlit.errors import UserError
from fedlit.registry import build_part, registered


def outside_metrics(data: DataConfig, *, of_numbers: bool = False) -> dict[str, Metric]:
    """Return fresh metrics of the scores from outside that a data set names, of classes and texts or of numbers.

    Raises:
        UserError: a score gives no metric.
    """
    parts = {name: registered("score")[name] for name in data.scores or () if name in registered("score")}
    chosen = [name for name, part in parts.items() if part.of_numbers == of_numbers]
    made = {name: build_part("score", name, data.score_options).metric() for name in chosen}
    for name, metric in made.items():
        if not isinstance(metric, Metric):
            raise UserError(
                f"data.scores names {name}, whose metric() returns {type(metric).__name__}, no torchmetrics.Metric; "
                "mend it"
            )
    return made
