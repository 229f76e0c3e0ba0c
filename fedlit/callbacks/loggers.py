"""Where a run's numbers go beside its record: the loggers that `logging.loggers` names."""

from pathlib import Path

from fedlit.callbacks import Callback
from fedlit.callbacks.wandb_run import WandbRun
from fedlit.config import RunConfig


def make_loggers(config: RunConfig, folder: Path) -> list[Callback]:
    """Return the callbacks of a run's loggers; `folder` is the run's."""
    return [WandbRun(config.logging)] if config.logging.wandb != "disabled" else []
