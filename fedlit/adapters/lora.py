"""LoRA: a frozen weight W (out, in) plus scaling * B @ A, with A (r, in), B (out, r).

Hu et al., LoRA, arXiv 2106.09685. Layers are peft's; scaling = alpha / r, or alpha / sqrt(r) with use_rslora. Which of
the two factors train and which travel makes FedIT (both, both), FFA-LoRA (B, B), FedSA-LoRA (both, A) and FedSVD (B,
both). They may take turns, by round (RoLoRA) or by local step (LA-LoRA, Liu et al., arXiv 2602.19926).
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from fedlit.adapters.base import Adapter, Calibration
from fedlit.adapters.options import AlternatingOptions
from fedlit.adapters.peft_import import LoraConfig, PeftLayer, get_peft_model, without_bitsandbytes
from fedlit.adapters.starting import start_layers
from fedlit.adapters.targets import is_conv1d, linear_targets
from fedlit.algebra.lora_layer import LoraLayer
from fedlit.algebra.merging import merged_weights
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.models import AdapterStart, Projections


@dataclass(frozen=True, kw_only=True)
class Lora(AlternatingOptions, Adapter):
    """LoRA on the target modules.

    lora_rank: the rank of all clients, or a list with one for each client.
    lora_alpha, lora_dropout, use_rslora: as in peft; alpha is divided by each client's own rank.
    target_modules: see Projections.select and Projections.find; linear layers alone, the output projection among them.
    trains, shares: `AB`, `A` or `B`: the factors that are trained and those that travel. A factor that is not trained
    keeps its initial value, which every process draws from the same stream, unless the server sends another.
    alternates: one factor is trained in a round, B in the first (as B starts at zero, A has no gradient), then A, ...
    alternates_steps: one factor is trained in a local step, B in the first of every round, then A, ...
    low_pass: with alternates_steps, gradients are smoothed, B's along the outputs and A's along the inputs.
    """

    trains: str = "AB"
    shares: str = "AB"
    alternates: bool = False
    alternates_steps: bool = False

    def __post_init__(self) -> None:
        if not self.client_ranks and isinstance(self.lora_rank, Sequence):
            raise UserError("method.lora_rank=[] names no rank; give a number, or one for each client")
        if min(self.client_ranks or (self.rank,)) < 1:
            raise UserError(f"method.lora_rank={self.lora_rank} must be 1 or more")
        if not self.lora_alpha > 0:
            raise UserError(f"method.lora_alpha={self.lora_alpha} must be above 0")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"method.lora_dropout={self.lora_dropout} must be in [0, 1)")
        assert set(self.shares) | set(self.trains) <= {"A", "B"}

    @property
    def shares_backbone(self) -> bool:
        """The factors stand beside it."""
        return True

    @property
    def stands_beside(self) -> bool:
        """Nothing is done to the pretrained weights."""
        return True

    @property
    def client_ranks(self) -> tuple[int, ...]:
        """Rank of each client by its id; empty if all have the same."""
        return tuple(self.lora_rank) if isinstance(self.lora_rank, Sequence) else ()

    @property
    def rank(self) -> int:
        """The largest rank, which the model's layers have."""
        return max(self.client_ranks) if isinstance(self.lora_rank, Sequence) else self.lora_rank

    @property
    def sends(self) -> frozenset[str]:
        """The factors that are trained and sent."""
        return frozenset(self.trains) & frozenset(self.shares)

    @property
    def receives(self) -> frozenset[str]:
        """The factors that are sent to clients."""
        return frozenset(self.shares)

    def peft_config(self, model: nn.Module, projections: Projections) -> LoraConfig:
        """Return the equal configuration of peft, the target modules by their whole paths.

        Raises:
            UserError: as targets.linear_targets.
        """
        targets = linear_targets(model, projections, self.target_modules)
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            use_rslora=self.use_rslora,
            target_modules=list(targets),
            # GPT-2's layers store their weights as (in, out); peft says so on the console unless it is told.
            fan_in_fan_out=any(map(is_conv1d, targets.values())),
            # peft would look for the methods of a language model, and put a copy beside a classifier's head.
            task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None,
        )

    def attach(
        self, model: nn.Module, projections: Projections, calibration: Calibration | None = None
    ) -> dict[str, float]:
        """Inject peft's LoRA layers; the adapter's tensors are float32 whatever the backbone's type."""
        config = self.peft_config(model, projections)
        try:
            with warnings.catch_warnings(), without_bitsandbytes():
                # peft asks transformers by an old name; nothing a user of this package could change.
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
                # Targets of both layouts, GPT-2's blocks and its output projection: each layer is told apart by itself.
                warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
                get_peft_model(model, config)  # in place; the shell it returns is not needed
        except ValueError as error:
            raise UserError(
                f"method.target_modules={self.target_modules}: {str(error).splitlines()[0]}; "
                "give names of linear layers of this model"
            ) from error
        for name, parameter in model.named_parameters():
            factor = _factor(name)
            parameter.requires_grad_(factor is not None and factor in self.trains)
        return {}

    def start_from(self, model: nn.Module, start: AdapterStart) -> None:
        """Start from an adapter's factors, those that stay frozen among them.

        Raises:
            UserError: as start_layers.
        """
        start_layers(model, self.layers(model), self, start)

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the factors that travel."""
        return self._factors(model, set(self.shares))

    def private(self, model: nn.Module) -> TensorDict:
        """Return the trained factors that do not travel."""
        return self._factors(model, set(self.trains) - set(self.shares))

    def layers(self, model: nn.Module) -> tuple[LoraLayer, ...]:
        """Return the adapted layers in the model's order."""
        return tuple(
            LoraLayer(
                name=name,
                a=f"{name}.lora_A.default.weight",
                b=f"{name}.lora_B.default.weight",
                weight=f"{name}.base_layer.weight",
                rank=self.rank,
                alpha=self.lora_alpha,
                use_rslora=self.use_rslora,
                transposed=bool(getattr(layer, "fan_in_fan_out", False)),
                client_ranks=self.client_ranks,
            )
            for name, layer in _adapted(model)
        )

    @property
    def takes_turns(self) -> bool:
        """With `alternates`."""
        return self.alternates

    def turn(self, trained: frozenset[str], round_idx: int) -> frozenset[str]:
        """Return the factor whose turn it is, and whatever is no factor; all without turns."""
        if not self.alternates:
            return trained
        turn = "A" if round_idx % 2 else "B"
        return frozenset(name for name in trained if _factor(name) in (turn, None))

    @property
    def takes_turns_by_step(self) -> bool:
        """With `alternates_steps`."""
        return self.alternates_steps

    @property
    def smooths(self) -> bool:
        """With `alternates_steps` and `low_pass`."""
        return self.alternates_steps and self.low_pass

    def turn_of_step(self, trained: frozenset[str], step: int) -> frozenset[str]:
        """Return the factor of a local step, and whatever is no factor; all without `alternates_steps`."""
        if not self.alternates_steps:
            return trained
        turn = "A" if step % 2 else "B"
        return frozenset(name for name in trained if _factor(name) in (turn, None))

    def smoothed_along(self, name: str) -> int | None:
        """Return the outputs of B (out, r) and the inputs of A (r, in)."""
        return {"B": 0, "A": 1}.get(_factor(name) or "")

    def set_rank(self, model: nn.Module, *, client_id: int | None) -> None:
        """Scale by the client's own rank."""
        if self.client_ranks:
            for layer, (_, module) in zip(self.layers(model), _adapted(model), strict=True):
                module.scaling["default"] = layer.scaling(client_id)

    def merged(self, model: nn.Module) -> TensorDict:
        """Return W + scaling * B @ A of every adapted layer, computed and kept in float32 or finer."""
        return merged_weights(self.layers(model), dict(model.named_parameters()))

    @staticmethod
    def _factors(model: nn.Module, factors: set[str]) -> TensorDict:
        return {name: parameter.data for name, parameter in model.named_parameters() if _factor(name) in factors}


def _adapted(model: nn.Module) -> Iterator[tuple[str, PeftLayer]]:
    """Yield peft's layers and their names."""
    for name, module in model.named_modules():
        if isinstance(module, PeftLayer):
            yield name, module


def _factor(name: str) -> str | None:
    """Return `A` or `B` for a LoRA parameter, None for any other."""
    if ".lora_A." in name:
        return "A"
    return "B" if ".lora_B." in name else None
