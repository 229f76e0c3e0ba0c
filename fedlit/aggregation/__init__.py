"""How the server combines what the clients of a round trained."""

from typing import ClassVar, Protocol

from fedlit.cohort import Cohort
from fedlit.server import ServerState


class AggregationRule(Protocol):
    """A function of values, run on every process with the same result.

    stacks says whether the rule calls cohort.stack(), for which the clients' tensors are kept until the round ends.
    """

    stacks: ClassVar[bool]

    def __call__(self, cohort: Cohort, server: ServerState) -> ServerState:
        """Return the server's state after the round."""
        ...
