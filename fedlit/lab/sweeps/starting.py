"""How the processes of a run on this machine are started: their environment, and from what."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedlit.config import RunConfig
from fedlit.process.warm import Process, Starter, WarmParent, can_be_warm, start_cold
from fedlit.store.status import JOB_LOG_VARIABLE

COMMAND = ("fedlit", "run")
"""What stands between `python -m` and the arguments of a run."""

FOREIGN = ("SLURM_", "LT_", "TORCHELASTIC_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD", "GROUP_RANK")
"""Beginnings of environment variables of whatever launched this process, which a run of its own must not see."""


EVERY_RUN = ("fedlit.*", "nltk.stem.porter", "sacrebleu.metrics.bleu", "transformers.models.llama")
"""Words of warm_server for every sweep: the package, and what its libraries leave for later."""


class Beginner:
    """Begins runs: cold, or from a parent that has imported everything, once two processes or more will be needed.

    in_job: the runs are this SLURM job's own: they see its environment, and write to its console.
    """

    def __init__(
        self, configs: Sequence[RunConfig], say: Callable[[str], None], *, warm: bool, in_job: bool = False
    ) -> None:
        self._configs, self._say, self._in_job = configs, say, in_job
        self._warm = warm and can_be_warm()
        self._ports: set[int] = set()
        self._parent: WarmParent | None = None

    def begin(
        self, name: str, arguments: Sequence[str], console: Path, num_devices: int, mask: str | None, *, last: bool
    ) -> list[Process]:
        """Start the processes of a run.

        Args:
            name: of the run.
            arguments: `key=value`.
            console: where it writes, unless it is in a job.
            num_devices: processes.
            mask: the GPUs it sees; None for all.
            last: no other run will be begun.
        """
        common = self._environment()
        if not self._in_job:
            common |= {JOB_LOG_VARIABLE: str(console.resolve())}
        if mask is not None:
            common["CUDA_VISIBLE_DEVICES"] = mask
        starter = self._starter(needed=num_devices > 1 or not last)
        ranks = [{}] if num_devices == 1 else _ranks(name, num_devices, free_port(self._ports))
        out = None if self._in_job else console
        return [starter([*COMMAND, *arguments], {**common, **rank}, out) for rank in ranks]

    def close(self) -> None:
        """End what runs are started from."""
        if self._parent is not None:
            self._parent.close()

    def _environment(self) -> dict[str, str]:
        return {name: text for name, text in os.environ.items() if self._in_job or not name.startswith(FOREIGN)}

    def _starter(self, *, needed: bool) -> Starter:
        if not self._warm:
            return start_cold
        if self._parent is None and needed:
            self._parent = WarmParent(modules_of(self._configs), self._environment(), self._say, start_cold)
        return self._parent or start_cold


@contextmanager
def beginner(
    configs: Sequence[RunConfig], say: Callable[[str], None], *, warm: bool, in_job: bool = False
) -> Iterator[Beginner]:
    """Return what begins runs, as long as they go on."""
    found = Beginner(configs, say, warm=warm, in_job=in_job)
    try:
        yield found
    finally:
        found.close()


def modules_of(configs: Sequence[RunConfig]) -> tuple[str, ...]:
    """Return what runs of these configurations import, as words of warm_server.

    Parts from outside (`plugins`) are left to each run, and so is what looks for devices when it is imported.
    """
    late = {
        "wandb.sdk.launch.inputs.internal": any(config.logging.wandb != "disabled" for config in configs),
        "datasets": any(config.data.hub_id for config in configs),
        "sklearn.cluster": any(config.partition.name == "topics" for config in configs),
    }
    return (*EVERY_RUN, *(name for name, wanted in late.items() if wanted))


def free_port(taken: set[int]) -> int:
    """Return a port that nobody listens on and that no run of this process was given."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            taken.add(port)
            return port


def _ranks(name: str, num_devices: int, port: int) -> list[Mapping[str, str]]:
    """Return the environment of each process of a group, as torchrun makes it."""
    size = str(num_devices)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": name}
    common |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": "0"}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_devices)]
