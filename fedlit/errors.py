"""Ends of a run that are no bug. Each carries fields, and its one line (fact, value, remedy) is made of them: who knows
more adds a field, and nobody takes a line apart.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fedlit.lines import MAX_LINE_CHARACTERS, one_line

SMALLER_LOCAL_STEPS = "lower local.lr or set local.max_grad_norm"
SMALLER_STEPS = "lower server.lr or local.lr, or set local.max_grad_norm"
"""The remedy where a server optimizer steps too."""
BROKEN_BACKBONE = "nothing was trained yet: give a backbone with finite weights (model.path), or model.dtype=float32"
"""The remedy before the first round."""

LESS_MEMORY = (
    "lower local.batch_size (with local.accumulate), eval.batch_size or model.max_length_tokens, "
    "or set model.gradient_checkpointing=true"
)


class FedlitError(Exception):
    """What `fedlit.run` and its like raise for a reason that lies outside the package: a mistake in what was given, a
    loss that is not finite, memory, a lost process, a request to stop. `str(error)` is one line.

    An exception of another class is a bug of fedlit, or came out of a callback of the caller's own.
    """

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows, the line without frames: IPython asks an exception for this name."""
        return [f"{type(self).__name__}: {self}"]


class UserError(FedlitError, ValueError):
    """A mistake the user can mend. The message is one line: fact, value, remedy."""

    def __str__(self) -> str:
        return one_line(super().__str__(), MAX_LINE_CHARACTERS - len("error: "))


class ProcessError(UserError):
    """A UserError that one process may meet alone, on its own machine: each that does tells it."""


class StorageError(ProcessError):
    """The file system does not take what is to be written, or does not give what is there."""


@dataclass(kw_only=True, eq=False)
class FieldsError(FedlitError):
    """An exception with keyword fields, all of which go with it from process to process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), {field.name: getattr(self, field.name) for field in fields(self)})


def _rebuilt(kind: type[FieldsError], values: dict[str, Any]) -> FieldsError:
    return kind(**values)


@dataclass(kw_only=True, eq=False)
class DivergenceError(FieldsError, ArithmeticError):
    """A loss, an update, or something made of them, is not finite.

    what: `the loss`, a tensor's name, a set. value: what it is, if known. limit: the magnitude from which on a value
    counts as lost; `value` is then a magnitude. fact: the fact in words, where it is not that `what` is `value`.
    round_number: from 1, as told to users; client_id: None for the server, and client_name: '' where it has none; step:
    local, from 1; None where not known.
    checkpoint_round: the round whose checkpoint is intact.
    """

    what: str
    value: float | None = None
    limit: float | None = None
    fact: str | None = None
    round_number: int | None = None
    client_id: int | None = None
    step: int | None = None
    remedy: str = SMALLER_LOCAL_STEPS
    checkpoint_round: int | None = None
    client_name: str = ""

    def at(
        self,
        *,
        client_name: str = "",
        round_number: int | None = None,
        client_id: int | None = None,
        step: int | None = None,
        remedy: str | None = None,
        checkpoint_round: int | None = None,
    ) -> "DivergenceError":
        """Return a copy that also knows what is given."""
        return replace(
            self,
            round_number=self.round_number if round_number is None else round_number,
            client_id=self.client_id if client_id is None else client_id,
            step=self.step if step is None else step,
            remedy=self.remedy if remedy is None else remedy,
            checkpoint_round=self.checkpoint_round if checkpoint_round is None else checkpoint_round,
            client_name=client_name or self.client_name,
        )

    def __str__(self) -> str:
        known = (("round", self.round_number), ("client", self.client_id))
        place = ", ".join(f"{word} {number}" for word, number in known if number is not None)
        place += f" ({self.client_name})" if self.client_name and self.client_id is not None else ""
        step = "" if self.step is None else f" at local step {self.step}"
        line = f"{self._fact()}{step}; {self.remedy}{_intact(self.checkpoint_round)}"
        return f"{place}: {line}" if place else line

    def _fact(self) -> str:
        if self.fact is not None:
            return self.fact
        if self.value is None:
            return f"{self.what} is not finite"
        if self.limit is None:
            return f"{self.what} is {self.value}"
        return f"{self.what} has magnitude {self.value}, finite values below {self.limit:.0f} are needed"


@dataclass(kw_only=True, eq=False)
class OutOfMemory(FieldsError):
    """The device's memory, or the machine's, does not suffice.

    where: during what, on which process. reason: what torch or Python says. checkpoint_round: as of DivergenceError.
    """

    where: str
    reason: str
    checkpoint_round: int | None = None

    def at(self, *, checkpoint_round: int | None) -> "OutOfMemory":
        """Return a copy that knows the round whose checkpoint is intact."""
        return replace(self, checkpoint_round=checkpoint_round)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}; {LESS_MEMORY}{_intact(self.checkpoint_round)}"


@dataclass(kw_only=True, eq=False)
class Stopped(FieldsError):
    """The run was asked to stop before its last round: a signal, Ctrl-C, a callback that raised `fedlit.Stop`, or the
    time limit of a job. Everything up to the last finished round is saved, and the same call goes on from there.

    folder: the run's, which `fedlit.load_result` reads; None where it is not known.
    """

    folder: Path | None = None


@dataclass(kw_only=True, eq=False)
class LostPeer(FieldsError):
    """Another process of the run is gone, or has not answered in time, and this one cannot go on without it.

    process: this one's place among num_processes; None before there is a group. timeout_s: how long it waited, if the
    other did not answer. starting: the group was not complete yet. reason: what the failed operation says.
    saved_round: of the newest checkpoint.
    """

    process: int | None
    num_processes: int
    reason: str
    timeout_s: float | None = None
    starting: bool = False
    saved_round: int | None = None

    @property
    def fact(self) -> str:
        """The line for status.json, which is not about one process."""
        if self.timeout_s is None:
            return "another process of the run is gone; its console may say why"
        if self.starting:
            return (
                f"not all processes of the run were there after {self.timeout_s:.0f} s (compute.start_timeout_s); "
                "another one's console may say why"
            )
        return f"another process of the run gave no answer in {self.timeout_s:.0f} s; its console may say why"

    def __str__(self) -> str:
        name = "" if self.process is None else f"process {self.process} of {self.num_processes}: "
        after = f" after round {self.saved_round}" if self.saved_round else ""
        return f"{name}{self.fact} ({self.reason}); the same command goes on{after}"


@dataclass(kw_only=True, eq=False)
class MixedRuns(FieldsError):
    """Processes of several runs have met at one address and formed a group.

    process: this one's place among num_processes. address: host and port. runs: what they call themselves.
    """

    process: int
    num_processes: int
    address: str
    runs: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"process {self.process} of {self.num_processes}: processes of different runs have met at {self.address}: "
            f"{' and '.join(self.runs[:2])}; nothing was trained: start each again with a MASTER_PORT of its own"
        )


def _intact(checkpoint_round: int | None) -> str:
    return "" if checkpoint_round is None else f" (the checkpoint after round {checkpoint_round} is intact)"
