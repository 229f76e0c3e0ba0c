"""FedDPA's adapter: a global LoRA that travels and a local one that stays, mixed by how local an input looks.

Yang et al., Dual-Personalizing Adapter for Federated Foundation Models, NeurIPS 2024, arXiv 2403.19211. With D_g and
D_l the products B @ A of the two LoRAs,
    y = W x + s ((1 - a) D_g x + a D_l x).

The global LoRA trains by itself, as in FedIT: it minimises F(W + s D_g). The local one minimises the loss of the mix
with the fixed weight a = local_weight, in which the global one is frozen. Whoever asks the model gets a weight of each
instance (`mixing.Mixer`). FedDPA-T trains both in every round; FedDPA-F trains the global LoRA for `global_rounds`
rounds, and then each client its local LoRA, which begins as the global one.

Chosen here: in a step of FedDPA-T both take their gradients on the same batch, in two passes, where the released code
goes through the client's rows once for each; see docs/methods/feddpa.md.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedlit.adapters.lora_pair import PRIVATE, SHARED, LoraPair, PairLayer, is_factor, pair_layers, twin
from fedlit.adapters.mixing import Mixer, hidden_size
from fedlit.adapters.options import LoraDualOptions
from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError

_MIXER = "lora_mixer"
_REFERENCES = f"{_MIXER}.references"


class WeighedLayer(PairLayer):
    """A layer whose two LoRAs have the weights of the rows that it sees.

    mixer: of all layers of the model; not a part of this one.
    """

    def __init__(self, base_layer: nn.Module, rank: int, scaling: float, dropout: float, mixer: Mixer) -> None:
        super().__init__(base_layer, rank, scaling, dropout)
        self._mixer = (mixer,)

    def mixed(self, x: Tensor) -> Tensor | None:
        """Return the sum of both, the private one with the mixer's weight."""
        (mixer,) = self._mixer
        weight = mixer.weight
        if weight is None:
            return None
        dropped = self.lora_dropout["default"](x)
        shared = self.frozen_product if mixer.detached else self.product
        if isinstance(weight, float) and weight == 0.0:
            return shared(SHARED, dropped)
        if isinstance(weight, Tensor):
            if len(weight) != len(x):
                raise UserError(
                    f"method.adapter=lora_dual: a layer of this model sees {tuple(x.shape)}, which is not one entry "
                    f"for each of {len(weight)} inputs; give other method.target_modules, or method=fedalt"
                )
            weight = weight.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return shared(SHARED, dropped) * (1 - weight) + self.product(PRIVATE, dropped) * weight


@dataclass(frozen=True, kw_only=True)
class LoraDual(LoraDualOptions, LoraPair):
    """A global LoRA that travels, a local LoRA and references that stay.

    local_weight: weight of the local LoRA while it trains. similarity_scale, num_references: see Mixer. global_rounds:
    None for FedDPA-T, else the rounds of FedDPA-F in which the global LoRA trains.
    """

    @property
    def takes_up_own(self) -> bool:
        """With global_rounds: a local LoRA begins as the global one."""
        return self.global_rounds is not None

    @property
    def num_passes(self) -> int:
        """One for each LoRA, where both train."""
        return 2 if self.global_rounds is None else 1

    @property
    def has_own_steps(self) -> bool:
        """Passes differ in what they mix, and references are collected in them."""
        return True

    def put_into(self, model: nn.Module, names: tuple[str, ...] | list[str]) -> None:  # type: ignore[override]
        """Wrap the layers, and let the model look at what it is about to see."""
        last = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
        if last is not None and any(model.get_submodule(name) is last for name in names):
            raise UserError(
                "method.target_modules names the output projection, which sees labelled tokens of all rows in one "
                "line, and method.adapter=lora_dual weighs rows; leave it out"
            )
        weight = next(model.parameters())
        dtype = torch.promote_types(weight.dtype, torch.float32)
        mixer = Mixer(self.num_references, hidden_size(model), self.similarity_scale, dtype, weight.device)
        model.add_module(_MIXER, mixer)
        super().put_into(model, names)
        model.register_forward_pre_hook(mixer.before, with_kwargs=True)

    def layer_around(self, model: nn.Module, name: str) -> PairLayer:
        """Return a layer that asks the model's mixer; both LoRAs train."""
        return WeighedLayer(model.get_submodule(name), self.lora_rank, self.scaling, self.lora_dropout, mixer_of(model))

    def weighing(self, model: nn.Module) -> TensorDict:
        """Return the references."""
        return {_REFERENCES: mixer_of(model).references.data}

    def turn(self, trained: frozenset[str], round_idx: int) -> frozenset[str]:
        """Return both LoRAs' factors, or with global_rounds those of one; a head trains in every round."""
        if self.global_rounds is None:
            return trained
        turn = SHARED if round_idx < self.global_rounds else PRIVATE
        return frozenset(name for name in trained if not is_factor(name) or name.endswith(f".{turn}.weight"))

    def taken_up(
        self, received: Mapping[str, Tensor], private: Mapping[str, Tensor], own_share: Tensor | None
    ) -> tuple[TensorDict, TensorDict]:
        """Return both as they are; of a client that has trained no local LoRA yet it is the global one."""
        if private[_REFERENCES].any():
            return dict(received), dict(private)
        both = {**private, **received}  # without a rule both are private
        return dict(received), {
            name: both[twin(name)].to(tensor) if is_factor(name) and name.endswith(f".{PRIVATE}.weight") else tensor
            for name, tensor in private.items()
        }

    def begin(self, model: nn.Module) -> None:
        """Let references be collected, where the local LoRA trains."""
        mixer_of(model).begin(collects=_trains(model, PRIVATE))

    def passes(self, model: nn.Module) -> Iterator[AbstractContextManager[None]]:
        """Yield a pass for each LoRA that trains: the global one alone, then the mix, whose loss is told of."""
        mixer = mixer_of(model)
        if _trains(model, SHARED):
            yield mixer.weighing(0.0, detached=False)
        if _trains(model, PRIVATE):
            yield mixer.weighing(self.local_weight, detached=True)


def mixer_of(model: nn.Module) -> Mixer:
    """Return the mixer of a model with this adapter."""
    mixer = model.get_submodule(_MIXER)
    assert isinstance(mixer, Mixer)
    return mixer


def _trains(model: nn.Module, which: str) -> bool:
    _, layer = next(pair_layers(model))
    return any(parameter.requires_grad for parameter in layer.lora_B[which].parameters())
