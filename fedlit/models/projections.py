"""Names of the linear layers inside transformer blocks, and which modules of a model a name stands for.

The names are those of transformers 5. One name can end the paths of several modules: RoBERTa's MLP has `output.dense`
and its attention `attention.output.dense`; SigLIP's pooling head has an MLP of the same shape and names as its blocks,
which a classifier does not use. `Projections.find` is the one rule for all adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fedlit.errors import UserError

HEADS = ("classifier", "score", "pre_classifier", "pooler")
"""Attributes under which transformers keeps the head of a classification model, beside the pretrained part: BERT's
pooler, which is pretrained, is inside that part and no head; DeBERTa's is new and beside it.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Projections:
    """Module names of the linear layers inside a transformer block.

    attention: query, key, value and output projection in this order (fewer where an architecture fuses them).
    mlp: the MLP's projections, the down projection last.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]

    def select(self, target: str | Sequence[str]) -> tuple[str, ...]:
        """Return the module names that `target` stands for: `qkv`, `attention`, `mlp`, `all`, or names as they are."""
        if not isinstance(target, str):
            return tuple(target)
        groups = {
            "qkv": self.attention[:-1],
            "attention": self.attention,
            "mlp": self.mlp,
            "all": (*self.attention, *self.mlp),
        }
        if target not in groups:
            raise UserError(
                f"method.target_modules={target} is not known; valid are {', '.join(groups)} or a list of names"
            )
        return groups[target]

    def find(self, model: nn.Module, name: str) -> dict[str, nn.Module]:
        """Return the modules that a name stands for by their paths, in the model's order; none if there are none.

        They are inside the transformer blocks and their paths end in the name. A path that ends in several of this
        architecture's names belongs to the longest; a name that is none of them stands for all paths that end in it,
        as in peft. A name that no block has is looked for in the rest of the model.

        Raises:
            UserError: the name is that of the classification head or a part of it.
        """
        ending = {
            path: module
            for path, module in model.named_modules()
            if f".{path}".endswith(f".{name}") and self._called(path, name)
        }
        blocks = _blocks(model)
        inside = {path: module for path, module in ending.items() if _is_below(path, blocks)}
        if not inside and any(path.split(".", maxsplit=1)[0] in HEADS for path in ending):
            raise UserError(
                f"method.target_modules names {name}, a classification head, which is trained anyway; leave it out"
            )
        return inside or ending

    def _called(self, path: str, name: str) -> bool:
        """Return whether no longer name of a projection ends this path, if `name` is one."""
        names = (*self.attention, *self.mlp)
        return name not in names or name == max((own for own in names if f".{path}".endswith(f".{own}")), key=len)


def _blocks(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the entries of all lists of modules, a dot after each."""
    return tuple(
        f"{path}.{number}."
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        for number in range(len(module))
    )


def _is_below(path: str, blocks: tuple[str, ...]) -> bool:
    return path.startswith(blocks)


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model's classification head by name; none of a language model."""
    return {name: parameter for name, parameter in model.named_parameters() if name.split(".", maxsplit=1)[0] in HEADS}


_LLAMA = Projections(attention=("q_proj", "k_proj", "v_proj", "o_proj"), mlp=("gate_proj", "up_proj", "down_proj"))
_BERT = Projections(
    attention=("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    mlp=("intermediate.dense", "output.dense"),
)
_VIT = Projections(
    attention=("attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"),
    mlp=("mlp.fc1", "mlp.fc2"),
)
_SIGLIP = Projections(
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"),
    mlp=("mlp.fc1", "mlp.fc2"),
)

PROJECTIONS = {
    **dict.fromkeys(
        ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "olmo2", "smollm3"), _LLAMA
    ),
    "gpt2": Projections(attention=("attn.c_attn", "attn.c_proj"), mlp=("mlp.c_fc", "mlp.c_proj")),
    "gpt_neox": Projections(attention=("query_key_value", "dense"), mlp=("dense_h_to_4h", "dense_4h_to_h")),
    "opt": Projections(attention=("q_proj", "k_proj", "v_proj", "out_proj"), mlp=("fc1", "fc2")),
    "phi3": Projections(attention=("qkv_proj", "o_proj"), mlp=("gate_up_proj", "down_proj")),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": Projections(
        attention=("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
        mlp=("ffn.lin1", "ffn.lin2"),
    ),
    "deberta-v2": Projections(
        attention=(
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
            "attention.output.dense",
        ),
        mlp=("intermediate.dense", "output.dense"),
    ),
    "vit": _VIT,
    "dinov2": _VIT,
    "siglip": _SIGLIP,
    "siglip2": _SIGLIP,
}
"""By model_type of an architecture's configuration."""
