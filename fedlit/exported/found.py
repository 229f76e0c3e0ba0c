"""Where a run's result lies and what it is, seen without torch."""

from dataclasses import dataclass
from pathlib import Path

from fedlit.cards.files import PAIR
from fedlit.config import RunConfig, load_yaml
from fedlit.errors import UserError
from fedlit.outside.loading import load_plugins
from fedlit.store.layout import read_text
from fedlit.store.status import read_status


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run has exported.

    run: its folder. config: its configuration. folder: a PEFT adapter, two and their gate, or a whole model.
    client_id: whose it is, where every client has its own; None for the server's. unfinished: the run has not got
    there, and `folder` does not count: its newest checkpoint does (`fedlit.exported.unfinished`).
    """

    run: Path
    config: RunConfig
    folder: Path
    client_id: int | None = None
    unfinished: bool = False

    @property
    def is_adapter(self) -> bool:
        """Whether it is a PEFT adapter, which needs the run's backbone; else a whole model."""
        return (self.folder / "adapter_config.json").is_file()

    @property
    def is_pair(self) -> bool:
        """Whether it is two LoRAs and what weighs them, which need the run's backbone and this package."""
        return (self.folder / PAIR).is_file()


def find_result(run: Path, *, unfinished: bool = False, client_id: int | None = None) -> Result:
    """Return the result of a run folder.

    Args:
        run: the folder.
        unfinished: take the newest checkpoint of a run that is not done.
        client_id: whose, where every client has a result of its own.

    Raises:
        UserError: it is no run folder, the run is not done, it has no result, or one for each client.
    """
    if not run.is_dir():
        raise UserError(f"{run} is no folder; give the folder of a run, such as runs/NAME")
    stored = run / "config.yaml"
    if not stored.is_file():
        inside = sorted(path.parent.name for path in run.glob("*/config.yaml"))
        hint = f"give one of the runs in it, such as {run / inside[0]}" if inside else "give the folder of a run"
        raise UserError(f"{run} is no run folder (no config.yaml); {hint}")
    config = _read_config(stored)
    status = read_status(run)
    if status.state != "done" and not unfinished:
        done = f"{status.num_finished_rounds} of {config.num_rounds} rounds"
        raise UserError(
            f"{run} is not finished ({status.state}, {done}); run it to its end, or give --unfinished for its newest "
            "checkpoint"
        )
    if status.state != "done":
        return Result(run=run, config=config, folder=run / "adapter", client_id=client_id, unfinished=True)
    return Result(run=run, config=config, folder=_folder(run, client_id), client_id=client_id)


def _read_config(path: Path) -> RunConfig:
    try:
        config = load_yaml(read_text(path), str(path))
    except UserError:
        raise
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{path} is not the configuration of a run; mend it, or give another run") from None
    load_plugins(config.plugins)
    return config


def _folder(run: Path, client_id: int | None) -> Path:
    folder = run / "adapter"
    clients = sorted(path.name for path in folder.glob("client-*") if path.is_dir())
    if client_id is not None:
        name = f"client-{client_id:05d}"
        if name not in clients:
            has = f"has {clients[0]} to {clients[-1]}" if clients else "has one result for all clients"
            raise UserError(f"{run} has no result of client {client_id}: it {has}; give another --client, or none")
        folder /= name
    elif clients:
        ids = [int(name.removeprefix("client-")) for name in clients]
        raise UserError(
            f"{run} has a result for each client ({len(ids)} of them), as every client's model is its own; choose one "
            f"with --client, such as --client={ids[0]}"
        )
    if not any((folder / name).is_file() for name in ("adapter_config.json", PAIR, "config.json")):
        raise UserError(f"{run} has no result ({folder} is missing or empty); run it to its end")
    return folder
