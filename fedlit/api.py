"""Federations from Python: `fedlit.run`, `fedlit.load_config` and `fedlit.load_result`.

A configuration is what the command line takes, with the same names, checks and messages. It is a mapping whose keys are
dotted or nested; what follows as keywords wins, a section as a nested mapping:

    fedlit.run({"method": "fedit", "local.lr": 1e-3}, num_rounds=2, local={"steps": 5})
"""

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.commands.endings import is_first_process, tell
from fedlit.config import ComputeConfig, RunConfig, load_yaml
from fedlit.config.loading import load_config_from
from fedlit.config.reading import read_file
from fedlit.data.paths import DATA_PATHS
from fedlit.errors import UserError
from fedlit.process import slurm
from fedlit.process.interrupt import StopRequest
from fedlit.process.storage import storage_error
from fedlit.result import Result
from fedlit.running import Given, run_to_end
from fedlit.settings import Config, is_whole, values_of

if TYPE_CHECKING:
    from fedlit.data.own_rows import OwnRows

_one_at_a_time = threading.Lock()


def load_config(config: Config = None, /, **overrides: Any) -> RunConfig:
    """Return the checked configuration of a run.

    Args:
        config: a mapping, a list of 'key=value', the path of a YAML file or of a run's folder, a RunConfig, or nothing
            for the defaults.
        overrides: values that win over it.

    Raises:
        UserError: a key that is not known, a value of the wrong type or out of range; one line that says what is valid.

    >>> import fedlit
    >>> config = fedlit.load_config({"method": "flora", "local.lr": 1e-3}, num_clients=4, local={"steps": 5})
    >>> config.method.name, config.local.lr, config.local.steps, config.num_clients
    ('flora', 0.001, 5, 4)
    >>> fedlit.load_config(["method=fedit", "num_rounds=3"]).num_rounds
    3
    >>> fedlit.load_config(num_round=3)
    Traceback (most recent call last):
    ...
    fedlit.errors.UserError: unknown key 'num_round' (from Python); did you mean 'num_rounds'? ...
    """
    return _load(values_of(config, overrides))


def run(
    config: Config = None,
    /,
    *,
    rows: Any = None,
    test_rows: Any = None,
    validation_rows: Any = None,
    model: Any = None,
    tokenizer: Any = None,
    callbacks: Sequence[Any] = (),
    quiet: bool = True,
    **overrides: Any,
) -> Result:
    """Run a federation in this process, or go on with it, and return its result. A finished run is not trained again.

    Afterwards the process is as before: generators, threads, environment, signal handlers, warnings, log levels. Only
    freed memory is kept by the process. Several processes are several calls, under `torchrun`, `fabric run` or `srun`;
    `compute.devices` above 1 is for the command line.

    Args:
        config: as of `load_config`.
        rows: in place of data.path: mappings in a list or a `datasets.Dataset`, or one of these for each client, in a
            list or a mapping by the clients' names, which are numbered in this order; then nothing is dealt. data.label
            is null unless it is given.
        test_rows: a test set that belongs to no client or, like `rows`, one for each.
        validation_rows: the same of a validation set, on which rounds and rates are chosen (`Result.best`).
        model: a transformers model, of which a copy is trained; or text, for model=<choice>. Its weights are taken in
            `model.dtype`; in config.yaml stands their checksum.
        tokenizer: its tokenizer or image processor; the one that lies where the model came from, if it is left out.
        callbacks: objects of a class below `fedlit.Callback`.
        quiet: nothing is printed, by libraries neither; what a person should read is in `Result.notices`. False prints
            what the command prints.
        overrides: as of `load_config`.

    Raises:
        UserError: a mistake in what is given, one line; most are told before anything is loaded.
        Stopped: a signal, Ctrl-C (a notebook's button) or a callback ended the run after a step; the same call goes on.
        DivergenceError, OutOfMemory, LostPeer: as their names say; all of these are a `fedlit.FedlitError`.
        KeyboardInterrupt: a second Ctrl-C.

    >>> import fedlit
    >>> texts = [{"prompt": f"{n} + 1 =", "response": f"{n + 1}"} for n in range(30)]
    >>> result = fedlit.run(
    ...     {"method": "fedit", "local.lr": 1e-3}, rows=texts, num_rounds=1, num_clients=2, local={"steps": 1},
    ...     partition={"min_test_rows": 2}, eval={"max_new_tokens": 2}, logging={"wandb": "disabled"})
    >>> result.status, len(result.records), result.frame["global/loss"].notna().tolist()
    ('done', 2, [True, True])
    >>> sorted(path.name for path in result.adapter.glob("adapter*"))
    ['adapter_config.json', 'adapter_model.safetensors']
    >>> type(result.model).__name__, result.server.round_idx
    ('LlamaForCausalLM', 1)
    """
    own, own_test, own_validation = _all_own_rows(rows, test_rows, validation_rows)
    if isinstance(model, str | Mapping):
        overrides, model = {**overrides, "model": model}, None
    values = values_of(config, overrides)
    if own is not None:
        values = _with_rows(values, own, fixed=set(values_of(None, overrides)) if is_whole(config) else set(values))
    if model is not None or tokenizer is not None:
        values = _with_model(values, model, tokenizer)
    loaded = _load(values)
    _require_this_process(loaded.compute)
    if loaded.dry_run:
        raise UserError(
            "dry_run=true prints sizes, and fedlit.run returns a result; use the command: fedlit run dry_run=true"
        )
    given = Given(
        rows=own,
        test_rows=own_test,
        validation_rows=own_validation,
        model=model,
        tokenizer=tokenizer,
        callbacks=tuple(callbacks),
        console=not quiet,
    )
    return _run(loaded, given, quiet=quiet)


def load_result(folder: str | os.PathLike[str], *, model: Any = None, tokenizer: Any = None) -> Result:
    """Return what lies in a run's folder, finished or not; its model is built from the checkpoint once it is asked for.

    Args:
        folder: of the run, as `Result.folder` or `Stopped.folder`.
        model: the object that the run was given, if it was given one; likewise `tokenizer`.

    Raises:
        UserError: there is no run; or, of the model, what `restore` misses.

    >>> import fedlit
    >>> fedlit.load_result("runs/none")
    Traceback (most recent call last):
    ...
    fedlit.errors.UserError: runs/none is no run's folder (no config.yaml); give one, such as runs/<name>
    """
    path = Path(folder).expanduser()
    stored = path / "config.yaml"
    if not stored.is_file():
        raise UserError(f"{path} is no run's folder (no config.yaml); give one, such as runs/<name>")
    config = load_yaml(read_file(stored, str(stored)), str(stored))
    config.run.dir, config.run.name = str(path.absolute().parent), path.absolute().name

    def trained() -> Any:
        _quiet_bars()
        from fedlit.caller import lent_process  # noqa: PLC0415  torch: seconds that records do not need
        from fedlit.models import OwnBackbone  # noqa: PLC0415
        from fedlit.restoring import restore  # noqa: PLC0415

        own = OwnBackbone(model=model, reader=tokenizer)
        for key, value in own.settings().items():
            recorded = getattr(config.model, key.partition(".")[2])
            if key != "model.name" and value != recorded:
                raise UserError(f"{key}={value} is what is given, and the run has {recorded}; give the run's own")
        with lent_process(quiet=True):
            return restore(config, own)

    return Result(path, config, trained)


def _load(values: Mapping[str, Any]) -> RunConfig:
    """The one place where a configuration from Python meets the loader of the command line."""
    return load_config_from(None, values, origin="from Python")


def _quiet_bars() -> None:
    """Import tqdm first, which warns in a notebook without ipywidgets; nobody asked for its bars."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module("tqdm.auto")


def _run(config: RunConfig, given: Given, *, quiet: bool) -> Result:
    if not _one_at_a_time.acquire(blocking=False):
        raise UserError("another fedlit.run is under way in this process; wait for its end, or use another process")
    try:
        _quiet_bars()
        from fedlit import launch  # noqa: F401, PLC0415  what an import leaves behind is no change of a run's
        from fedlit.caller import lent_process  # noqa: PLC0415  torch: not before the configuration is right
        from fedlit.process.communication import require_no_group  # noqa: PLC0415
        from fedlit.restoring import Trained  # noqa: PLC0415

        require_no_group()
        notices: list[str] = []

        def warn(line: str) -> None:
            notices.append(line)
            if not quiet and is_first_process():
                tell(f"warning: {line}")

        stop = StopRequest()
        with lent_process(quiet=quiet), stop.listening():
            try:
                federation = run_to_end(config, stop, warn, given)
            except OSError as error:  # as the command tells it
                raise storage_error(error, Path.cwd()) or error from error
        assert federation is not None
        trained = Trained.of(federation)
        return Result(federation.folder.path, config, lambda: trained, notices, status="done")
    finally:
        _one_at_a_time.release()


def _all_own_rows(*given: Any) -> "tuple[OwnRows | None, OwnRows | None, OwnRows | None]":
    """Return the rows of training, test and validation that were given, None for those that were not."""
    names = ("rows", "test_rows", "validation_rows")
    found = [None if rows is None else _own_rows(rows, name) for name, rows in zip(names, given, strict=True)]
    for name, rows in zip(names[1:], found[1:], strict=True):
        if found[0] is None and rows is not None:
            path = name.replace("rows", "path")
            raise UserError(f"{name}= is given without rows=; give both, or data.{path}=<file>")
    return found[0], found[1], found[2]


def _own_rows(given: Any, argument: str) -> "OwnRows":
    from fedlit.data.own_rows import own_rows  # noqa: PLC0415  NumPy, which a configuration does not need

    return own_rows(given, argument)


def _with_rows(values: dict[str, Any], rows: "OwnRows", fixed: set[str]) -> dict[str, Any]:
    """Return the settings of a run whose rows are given; `fixed` are the keys that the caller has chosen."""
    settings = dict(values)
    if not {"data", "experiment", "data.source"} & values.keys():
        settings = {"data": "jsonl", "data.label": None, **settings}
    if "data.name" not in settings:
        settings["data.name"] = "memory"
    settings |= {"data.source": "memory", "data.hub_split": "train"}
    settings |= dict.fromkeys((*DATA_PATHS, "data.hub_id", "data.hub_config", "data.hub_validation_split"), None)
    settings |= dict.fromkeys(("data.hub_test_split", "data.hub_test_id", "data.hub_test_config"), None)
    if rows.is_dealt:
        chosen = {"partition.name": "given", "num_clients": len(rows.parts)}
        settings |= {key: value for key, value in chosen.items() if key not in fixed}
    return settings


def _with_model(values: dict[str, Any], model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the settings of a run whose model is given: what stands for it are checksums."""
    from fedlit.models import OwnBackbone  # noqa: PLC0415  who has a model has imported torch

    settings = OwnBackbone(model=model, reader=tokenizer).settings()
    if "model.name" in values:
        settings.pop("model.name", None)
    return values | settings


def _require_this_process(compute: ComputeConfig) -> None:
    """Refuse more processes than a launcher has made: a notebook cannot be started a second time."""
    made = os.environ.keys() & {"TORCHELASTIC_RUN_ID", "LT_CLI_USED"} or slurm.makes_processes(os.environ)
    if not made and compute.devices * compute.num_nodes > 1:
        number = compute.devices
        raise UserError(
            f"compute.devices={number}, compute.num_nodes={compute.num_nodes}: fedlit.run works in this process; "
            f"write a script and start it with `torchrun --nproc-per-node={number} script.py`, or use fedlit run"
        )
