"""One W&B run per federation, through Lightning's WandbLogger, with `round` as the x axis.

Traps that this file keeps a user out of (wandb 0.31, lightning 2.6): the logger's own offline switch changes
WANDB_MODE for the whole process, so the run is made here and handed to it; wandb writes to disk every 15 s only, so a
killed run would leave nothing; offline runs look up a telemetry host.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from fedlit.callbacks import Callback, RunSummary
from fedlit.config import LoggingConfig
from fedlit.errors import UserError
from fedlit.tasks import Sample

_NUM_SAMPLES = 16


class WandbRun(Callback):
    """Logs every round's numbers, and at the end a table of generations; a resumed run continues under the same id."""

    def __init__(self, logging: LoggingConfig) -> None:
        self._logging = logging
        self._run: Any = None
        self._logger: Any = None
        self._samples: Sequence[Sample] = ()

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Start or continue the W&B run of this folder."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb  # noqa: PLC0415  takes a second, and only this callback needs it
        from lightning.pytorch.loggers import WandbLogger  # noqa: PLC0415

        config = summary.config
        try:
            self._run = wandb.init(
                mode=_mode(self._logging.wandb),  # type: ignore[arg-type]
                project=self._logging.project,
                group=self._logging.group,
                job_type=config.method.name,
                name=summary.folder.name,
                id=_run_id(summary),
                resume="allow",
                dir=str(summary.folder),
                config=dataclasses.asdict(config),
                settings=wandb.Settings(x_transaction_log_flush_interval=1.0, console="off"),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"W&B cannot start ({reason}); use logging.wandb=offline or disabled") from error
        self._run.define_metric("round")
        for prefix in ("global", "own", "client", "aggregation", "communication", "time"):
            self._run.define_metric(f"{prefix}/*", step_metric="round")
        self._logger = WandbLogger(experiment=self._run)

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Log the numbers of a round."""
        self._logger.log_metrics({key: value for key, value in record.items() if isinstance(value, int | float)})
        self._samples = samples or self._samples

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        """Log what the final model writes."""
        if self._samples:
            rows = [[sample.prompt, sample.reference, sample.prediction] for sample in self._samples[:_NUM_SAMPLES]]
            self._logger.log_table("samples", columns=["prompt", "reference", "prediction"], data=rows)

    def close(self) -> None:
        """Finish the run: what wandb still holds is written."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def _mode(choice: str) -> str:
    """Return wandb's mode: `auto` is online where there is a login, else offline; WANDB_MODE is respected."""
    if choice != "auto":
        return choice
    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    import wandb  # noqa: PLC0415

    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _run_id(summary: RunSummary) -> str:
    """Return an id that stays with this run folder: from its name and the moment its config.yaml was written."""
    created = (summary.folder / "config.yaml").stat().st_mtime_ns
    return hashlib.sha256(f"{summary.folder.name}/{created}".encode()).hexdigest()[:12]
