"""LoRA: a frozen weight W (out, in) plus scaling * B @ A, with A (r, in), B (out, r).

Hu et al., LoRA, arXiv 2106.09685. Layers are peft's; scaling = alpha / r, or alpha / sqrt(r) with use_rslora. Which of
the two factors train and which travel makes FedIT (both, both), FFA-LoRA (B, B) and FedSA-LoRA (both, A).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from fedlit.errors import UserError
from fedlit.models import Projections
from fedlit.tensors import TensorDict


@dataclass(frozen=True, kw_only=True)
class Lora:
    """LoRA on the target modules; implements fedlit.adapters.Adapter.

    lora_rank, lora_alpha, lora_dropout, use_rslora: as in peft.
    target_modules: see Projections.select.
    trains, shares: `AB`, `A` or `B`: the factors that are trained, and of those the ones that travel. A factor that is
    not trained keeps its initial value, which every process draws from the same stream.
    """

    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    use_rslora: bool = False
    target_modules: str | Sequence[str] = "qkv"
    trains: str = "AB"
    shares: str = "AB"

    def __post_init__(self) -> None:
        if self.lora_rank < 1:
            raise UserError(f"method.lora_rank={self.lora_rank} must be 1 or more")
        if not self.lora_alpha > 0:
            raise UserError(f"method.lora_alpha={self.lora_alpha} must be above 0")
        if not 0 <= self.lora_dropout < 1:
            raise UserError(f"method.lora_dropout={self.lora_dropout} must be in [0, 1)")
        assert set(self.shares) <= set(self.trains) <= {"A", "B"}

    def peft_config(self, projections: Projections) -> LoraConfig:
        """Return the equal configuration of peft."""
        return LoraConfig(
            r=self.lora_rank,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            use_rslora=self.use_rslora,
            target_modules=list(projections.select(self.target_modules)),
            task_type="CAUSAL_LM",
        )

    def attach(self, model: nn.Module, projections: Projections) -> None:
        """Inject peft's LoRA layers; the adapter's tensors are float32 whatever the backbone's type."""
        try:
            with warnings.catch_warnings():
                # peft asks transformers by an old name; nothing a user of this package could change.
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
                get_peft_model(model, self.peft_config(projections))  # in place; the shell it returns is not needed
        except ValueError as error:
            raise UserError(
                f"method.target_modules={self.target_modules}: {str(error).splitlines()[0]}; "
                "give names of linear layers of this model"
            ) from error
        for name, parameter in model.named_parameters():
            factor = _factor(name)
            parameter.requires_grad_(factor is not None and factor in self.trains)
        adapted = [f".{name}" for name, _ in model.named_parameters() if _factor(name) == "A"]
        for target in projections.select(self.target_modules):
            # peft is content with a list of which one name exists; a misspelt one would go untrained without a word.
            if not any(f".{target}.lora_A." in name for name in adapted):
                raise UserError(
                    f"method.target_modules={self.target_modules}: this model has no linear layer {target}; "
                    "give names of linear layers of this model"
                )

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the factors that travel."""
        return self._factors(model, set(self.shares))

    def private(self, model: nn.Module) -> TensorDict:
        """Return the trained factors that do not travel."""
        return self._factors(model, set(self.trains) - set(self.shares))

    @staticmethod
    def _factors(model: nn.Module, factors: set[str]) -> TensorDict:
        return {name: parameter.data for name, parameter in model.named_parameters() if _factor(name) in factors}

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, which peft's PeftModel.from_pretrained reads."""
        folder.mkdir(parents=True, exist_ok=True)
        config: LoraConfig = model.peft_config["default"]  # type: ignore[index]
        # By default peft asks the hub whether the vocabulary has grown; no embedding is trained here.
        tensors: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
        # peft's files name a parameter from its PeftModel shell, two attributes above the model itself.
        named = {f"base_model.model.{name}": tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(named, folder / "adapter_model.safetensors")
        config.save_pretrained(folder)


def _factor(name: str) -> str | None:
    """Return `A` or `B` for a LoRA parameter, None for any other."""
    if ".lora_A." in name:
        return "A"
    return "B" if ".lora_B." in name else None
