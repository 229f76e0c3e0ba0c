"""Where a run's numbers go beside its record: the loggers that `logging.loggers` names."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fedlit.config import LoggingConfig, RunConfig
from fedlit.lab.callbacks import Callback
from fedlit.lab.callbacks.csv_log import CsvLog
from fedlit.lab.callbacks.tensorboard_log import TensorBoardLog
from fedlit.lab.callbacks.wandb_run import WandbRun
from fedlit.registry import build_part

LOGGERS: Mapping[str, Callable[[LoggingConfig, Path], Callback]] = {
    "wandb": lambda logging, _: WandbRun(logging),
    "tensorboard": lambda _, folder: TensorBoardLog(folder / "tensorboard"),
    "csv": lambda _, folder: CsvLog(folder / "metrics.csv"),
}
"""By their names in `logging.loggers`, made for `logging` and the run folder."""


def make_loggers(config: RunConfig, folder: Path) -> list[Callback]:
    """Return the callbacks of a run's loggers; `folder` is the run's."""
    return [
        LOGGERS[name](config.logging, folder) if name in LOGGERS else build_part("logger", name, config.logging.options)
        for name in dict.fromkeys(config.logging.loggers)
        if (name, config.logging.wandb) != ("wandb", "disabled")
    ]
