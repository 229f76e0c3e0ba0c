"""Which tensors of a model exist, train, travel and stay."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import AdapterStart, Projections

Calibration = Callable[[], Iterator[Tensor]]
"""Yields the mean loss of the model on a few training batches, one after the other: with hooks on its layers an adapter
sees their inputs, with backward() their gradients."""


class Adapter(ABC):
    """Decides what a client trains. Tensors it does not mark as trainable are frozen."""

    @property
    def sends(self) -> frozenset[str]:
        """LoRA factors, of `A` and `B`, or heads, `H`, that clients train and send; empty for other adapters."""
        return frozenset()

    @property
    def receives(self) -> frozenset[str]:
        """LoRA factors that travel from the server to the clients."""
        return self.sends

    @property
    def client_ranks(self) -> tuple[int, ...]:
        """LoRA rank of each client by its id; empty where all have the same."""
        return ()

    @property
    def takes_turns(self) -> bool:
        """Whether only one of the factors that travel is trained, and sent, in a round."""
        return False

    @property
    def takes_turns_by_step(self) -> bool:
        """Whether only one of the factors is trained in a local step; see `turn_of_step`."""
        return False

    @property
    def smooths(self) -> bool:
        """Whether gradients are low-pass filtered before they are stepped."""
        return False

    @property
    def needs_autocast(self) -> bool:
        """Whether a bfloat16 backbone runs with this adapter under autocast only."""
        return False

    @property
    def stands_beside(self) -> bool:
        """Whether the adapter only stands beside the pretrained weights, which may then be quantized."""
        return False

    @property
    def shares_backbone(self) -> bool:
        """Whether all that a client has of its own are weights of linear layers beside a backbone that is the same for
        all, so that several clients can go through it in one pass.
        """
        return False

    @property
    def looks_at_rows(self) -> bool:
        """Whether `attach` makes the first tensors from clients' rows, the calibration batches. Facts for the record
        that are only measured on them do not count.
        """
        return False

    @property
    def mixes_by_input(self) -> bool:
        """Whether a model weighs parts of the adapter by what it sees, so that no weight holds them together."""
        return False

    @property
    def takes_up_own(self) -> bool:
        """Whether what a client makes of what it received depends on what it kept (`taken_up`)."""
        return False

    @property
    def sends_own(self) -> bool:
        """Whether a client sends private tensors, under the names of those that travel (`sent`)."""
        return False

    @property
    def num_passes(self) -> int:
        """Forward passes of one local step over one batch."""
        return 1

    @property
    def has_own_steps(self) -> bool:
        """Whether a local step is more than one pass over a batch, so that only one client at a time can take it."""
        return False

    @abstractmethod
    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Put the adapter's modules into `model` in place, initialised from torch's global generator.

        Without `calibration` (a model on the meta device) nothing may depend on data.

        Returns:
            What the record should hold of the initialisation, by name.
        """

    def start_from(self, model: nn.Module, start: AdapterStart) -> None:
        """Make the factors of an adapter's files the first state of the modules that `attach` has put into `model`.

        On the meta device it is only told whether they can be.

        Raises:
            UserError: this adapter has no place for them, as by default, or other ones.
        """
        raise UserError(
            f"{start.key} is a LoRA adapter, and {type(self).__name__}, what this method trains, has no place for its "
            f"factors; {start.merge}"
        )

    @abstractmethod
    def shared(self, model: nn.Module) -> TensorDict:
        """Return the live tensors that travel between server and clients."""

    def private(self, model: nn.Module) -> TensorDict:
        """Return the live trained tensors that stay with their client."""
        return {}

    def taken_up(
        self, received: Mapping[str, Tensor], private: Mapping[str, Tensor], own_share: Tensor | None
    ) -> tuple[TensorDict, TensorDict]:
        """Return the tensors that travel and those that stay as a client's model holds them, of what it received and
        kept; by default these. own_share: see `Start`.
        """
        return dict(received), dict(private)

    def sent(self, shared: Mapping[str, Tensor], private: Mapping[str, Tensor]) -> TensorDict:
        """Return what a client sends of what it has, under the names of the tensors that travel; by default those."""
        return dict(shared)

    def begin(self, model: nn.Module) -> None:  # noqa: B027  most keep nothing of single steps
        """Let a client's local training begin, with its tensors in the model."""

    def passes(self, model: nn.Module) -> Iterable[AbstractContextManager[None]]:
        """Yield what is around each forward pass of a local step; the gradients of all passes are added up, and the
        loss of the last is the step's.
        """
        return (nullcontext(),)

    def fixed(self, model: nn.Module) -> TensorDict:
        """Return the adapter's own tensors that nobody trains and that data determine, for the checkpoint."""
        return {}

    def layers(self, model: nn.Module) -> tuple[LoraLayer, ...]:
        """Return the LoRA layers in the model's order; none for other adapters."""
        return ()

    def products(self, model: nn.Module) -> tuple[LoraLayer, ...]:
        """Return the pairs of trained factors whose product is what counts, in the model's order, for those who look at
        them: the LoRA layers. Of a pair that stands in a weight's place, the product is the whole weight, scaling 1.
        """
        return self.layers(model)

    def turn(self, trained: frozenset[str], round_idx: int) -> frozenset[str]:
        """Return which of the trained parameters train in a round: all, unless they take turns."""
        return trained

    def turn_of_step(self, trained: frozenset[str], step: int) -> frozenset[str]:
        """Return which of the parameters that train in a round are stepped in a local step, counted from 0 in every
        round: all, unless they take turns.
        """
        return trained

    def smoothed_along(self, name: str) -> int | None:
        """Return the dimension along which a parameter's gradient is filtered, where it `smooths`; None for none."""
        return None

    def set_rank(self, model: nn.Module, *, client_id: int | None) -> None:  # noqa: B027  most have one rank
        """Give the model's layers a client's rank, or the server's (client_id None), where that makes a difference."""

    @abstractmethod
    def merged(self, model: nn.Module) -> TensorDict:
        """Return the weights that differ from the pretrained model, by their names in the pretrained architecture."""


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that a client's optimizer steps, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
