"""What watches a round: numbers for the record, never needed for the result.

An observer sees every result on the process that trained it and may leave a small note, which all processes get; after
the server's step it gives its part of the record.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedlit.round.cohort import Cohort
from fedlit.round.jobs import ClientJob, ClientResult
from fedlit.round.payload import Payload
from fedlit.round.plan import RoundPlan
from fedlit.round.server import ServerState

Notes = Mapping[int, Any]
"""What an observer noted of every client that returned, by client id."""


@dataclass(frozen=True, kw_only=True)
class RoundView:
    """A round that has happened, as an observer sees it; the same on every process.

    before, after: the server's states. cohort: who returned and with what weight. notes: this observer's.
    """

    plan: RoundPlan
    before: ServerState
    after: ServerState
    cohort: Cohort
    notes: Notes


class Observer(ABC):
    """Watches the rounds of one run."""

    def begin(self, plan: RoundPlan, server: ServerState) -> None:  # noqa: B027  may be left out
        """A round begins."""

    def see(self, job: ClientJob, result: ClientResult, sent: Payload) -> Any:
        """Look at a client on the process that trained it; return a small note that can be pickled, or None.

        `sent` is its payload after the transforms.
        """
        return None

    @abstractmethod
    def record(self, view: RoundView) -> dict[str, Any]:
        """Return numbers for the record. Every process calls it, so that it may use collectives; process 0's counts."""
