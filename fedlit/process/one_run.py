"""That the processes of a group belong to one run: an address and a port are all that brought them together."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from fedlit.config import RunConfig, fingerprint, run_folder
from fedlit.errors import MixedRuns
from fedlit.process import communication, slurm

_NO_ID = "none"
"""torchrun's own id where nobody gave one: with --master-addr, and so under `fabric run`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """What the processes of one launch share. launch: empty where the launcher gives nothing to tell it by.

    folder: as the configuration names it, since nodes may see one folder at several places.
    """

    folder: str
    settings: str
    launch: str

    def __str__(self) -> str:
        launch = f"{self.launch}, " if self.launch else ""
        path = PurePath(self.folder)
        return f"{PurePath(*path.parts[-2:])!s:.60} ({launch}settings {self.settings[:8]})"

    def may_be(self, other: "RunIdentity") -> bool:
        """Tell whether a process that calls itself so can belong to the same launch."""
        same_launch = self.launch == other.launch or "" in (self.launch, other.launch)
        return same_launch and (self.folder, self.settings) == (other.folder, other.settings)


def identity(config: RunConfig, environ: Mapping[str, str] = os.environ) -> RunIdentity:
    """Return what this process calls its run."""
    values = json.dumps(fingerprint(config), sort_keys=True, default=str)
    settings = hashlib.sha256(values.encode("utf-8", "surrogatepass")).hexdigest()
    return RunIdentity(folder=str(run_folder(config)), settings=settings, launch=_launch(environ))


def require_one_run(config: RunConfig) -> None:
    """Compare the runs of all processes: the first collective of a group.

    Raises:
        MixedRuns: on every process, if they are not of one run.
    """
    mine = identity(config)
    everyone = communication.gather_objects(mine)
    pairs = ((one, other) for one in everyone for other in everyone if not one.may_be(other))
    met = next(pairs, None)
    if met is None:
        return
    raise MixedRuns(
        process=communication.process_index(),
        num_processes=communication.num_processes(),
        address=f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}",
        runs=tuple(map(str, met)),
    )


def _launch(environ: Mapping[str, str]) -> str:
    """Return a name that the processes of one launch share, and no other launch has."""
    elastic = environ.get("TORCHELASTIC_RUN_ID", _NO_ID)
    if elastic != _NO_ID:
        return f"torchrun {elastic:.40}"
    step = slurm.step(environ) if slurm.makes_processes(environ) else None
    return "" if step is None else f"SLURM job {step}"
