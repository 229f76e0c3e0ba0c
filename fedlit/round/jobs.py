"""Between the round and its clients: jobs in, results out, in any order, however the clients are trained."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.data.prompts import Row
from fedlit.errors import DivergenceError
from fedlit.round.payload import Payload
from fedlit.round.plan import RoundPlan

GRADIENT_NORM = "grad_norm"
"""Name of the largest gradient of a client's local steps among its metrics, where it is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a client has from the server when its round begins.

    groups: the tensors that travel, as this client takes them up.
    offsets: by layer name, what this client's frozen weight has more than the server's; empty for most rules.
    own_share: weight (a scalar) that this client's own tensors have in the mean that it receives, for a client that
    takes them out again; None for most rules.
    """

    groups: Payload
    offsets: Mapping[str, LowRank] = field(default_factory=dict)
    own_share: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientState:
    """What stays with a client between its rounds, on the CPU.

    private: its private tensors. parts: what the parts of its local training keep, by group (SCAFFOLD's `control`).
    optimizer: the state_dict of its optimizer, if it is kept.
    under_way: of a client whose result comes in a later round, what it will bring (`fedlit.round.late`).
    """

    private: TensorDict = field(default_factory=dict)
    parts: dict[str, TensorDict] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None
    under_way: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientJob:
    """One client's work in a round."""

    client_id: int
    rows: Sequence[Row]
    start: Start
    state: ClientState
    plan: RoundPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientResult:
    """What came of a job.

    payload: what the client sends, before any transform; None if it sends nothing. peak: the largest magnitude in it,
    if that has been read from the device.
    state: what it keeps from now on; None to keep what it had.
    private: its trained private tensors on the device, which a simulation can look at and a server cannot.
    metrics: plain numbers for the record. seconds: of the client's own work.
    failure: why there is no payload.
    """

    client_id: int
    payload: Payload | None
    peak: float | None = None
    state: ClientState | None = None
    private: TensorDict = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    failure: DivergenceError | None = None


class Trainer(ABC):
    """Trains the clients that this process is given; serial, stacked or over several devices."""

    @abstractmethod
    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        """Yield a result for every job, in any order; jobs are taken up as they are needed.

        A client that fails is a result without a payload.

        Raises:
            StopAsked: the run is to stop; what the client did is lost.
        """

    def together(self, client_ids: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the clients of a round as groups whose jobs must come to one process, one after the other: by default
        each client alone. The groups depend on the clients alone, never on the number of processes.
        """
        return [(client_id,) for client_id in client_ids]

    @abstractmethod
    def num_steps(self, num_examples: int) -> int:
        """Return the optimizer steps of a client with so many training rows in one round."""


@dataclass(frozen=True, kw_only=True)
class LocalRound:
    """What a part of local training sees of one client's round.

    parameters: the trained tensors that travel, by name, live. trained: with them those that stay with the client.
    optimizer: of this round. start: what the server sent.
    kept: what this part kept for the client. plan: of the round. num_steps, lr: of the round's local steps.
    """

    parameters: Mapping[str, nn.Parameter]
    trained: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    start: Start
    kept: Mapping[str, Tensor]
    plan: RoundPlan
    num_steps: int
    lr: float


class Correction(Protocol):
    """Changes the gradients of a step, between backward and clipping."""

    def apply(self) -> None:
        """Add to the gradients in place; a parameter without a gradient is left alone."""
        ...


class LocalPart(ABC):  # noqa: B024  a part takes part where it wants to
    """What takes part in local training beside the optimizer, and may send a group of tensors of its own.

    group: name of the payload group that it sends and receives; empty for none.
    bears_noise: the group is still of use with noise of one size on all that a client sends.
    """

    group: ClassVar[str] = ""
    bears_noise: ClassVar[bool] = True

    def first(self, trained: Mapping[str, Tensor]) -> TensorDict:
        """Return the server's tensors of the group before the first round, which give names, shapes and types.

        `trained` are the trained tensors that travel.
        """
        return {}

    def first_kept(self, trained: Mapping[str, Tensor]) -> TensorDict:
        """Return what a client keeps before its first round."""
        return {}

    def begin(self, work: LocalRound) -> Correction | None:
        """Prepare a client's round; return what corrects its gradients, if anything does."""
        return None

    def end(self, work: LocalRound, trained: Mapping[str, Tensor]) -> tuple[TensorDict, TensorDict]:
        """Return what the client sends, in names and shapes of the server's group, and what it keeps from now on.

        `trained` are copies of the tensors that travel, after the last step.
        """
        return {}, {}

    def server_step(self, server: TensorDict, mean: TensorDict, share: float) -> TensorDict:
        """Return the server's next tensors of the group: by default the mean of what the clients sent.

        `share` is the part of the population's weight that the round's clients have.
        """
        return mean
