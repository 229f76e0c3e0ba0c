"""Shapes of the papers' models, from their published configurations: counts without a download.

All counts are of parameters. Widths: h hidden, m of the MLP; LoRA of rank r on a layer (out, in) has r (in + out).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Layer(NamedTuple):
    """A linear layer's outputs and inputs."""

    num_out: int
    num_in: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperModel:
    """A model with its head.

    total: all parameters without the head. head: of a classifier with two classes, 0 of a language model. vocabulary,
    hidden, width: V, h and m. blocks: their number. targets: linear layers of one block that get LoRA factors, by how
    the choice is called. up: the layer that FedFTG trains.
    """

    name: str
    total: int
    head: int
    vocabulary: int
    hidden: int
    width: int
    blocks: int
    targets: Mapping[str, tuple[Layer, ...]]
    up: Layer

    def lora(self, targets: str, rank: int) -> int:
        """Return the parameters of both factors of all blocks."""
        return self.blocks * rank * sum(layer.num_in + layer.num_out for layer in self.targets[targets])

    def lora_b(self, targets: str, rank: int) -> int:
        """Return the parameters of the factors B of all blocks."""
        return self.blocks * rank * sum(layer.num_out for layer in self.targets[targets])


def _roberta(name: str, hidden: int, blocks: int) -> PaperModel:
    """Return a RoBERTa (Liu et al., arXiv 1907.11692): 50,265 tokens, 514 positions, one type, m = 4 h, no pooler."""
    width, square = 4 * hidden, Layer(hidden, hidden)
    block = 4 * (hidden * hidden + hidden) + 2 * 2 * hidden + 2 * hidden * width + width + hidden
    embeddings = (50_265 + 514 + 1) * hidden + 2 * hidden
    return PaperModel(
        name=name,
        total=embeddings + blocks * block,
        head=hidden * hidden + hidden + 2 * hidden + 2,
        vocabulary=50_265,
        hidden=hidden,
        width=width,
        blocks=blocks,
        targets={"query, value": (square,) * 2, "query, key, value, output": (square,) * 4},
        up=Layer(width, hidden),
    )


def _gpt2() -> PaperModel:
    """Return the small GPT-2: 50,257 tokens, 1,024 positions, tied head; query, key and value are one layer."""
    hidden, width, blocks = 768, 3072, 12
    fused, output, down = Layer(3 * hidden, hidden), Layer(hidden, hidden), Layer(hidden, width)
    block = 4 * hidden + 3 * hidden * (hidden + 1) + hidden * (hidden + 1) + width * (hidden + 1) + hidden * (width + 1)
    return PaperModel(
        name="GPT-2",
        total=(50_257 + 1_024) * hidden + blocks * block + 2 * hidden,
        head=0,
        vocabulary=50_257,
        hidden=hidden,
        width=width,
        blocks=blocks,
        targets={"c_attn, both c_proj": (fused, output, down), "c_attn, attention's c_proj": (fused, output)},
        up=Layer(width, hidden),
    )


def _llama(
    name: str, *, vocabulary: int, hidden: int, width: int, blocks: int, query: int, key: int, tied: bool
) -> PaperModel:
    """Return a model of Llama's architecture without biases; `query` and `key` are the outputs of these projections."""
    attention = 2 * hidden * query + 2 * hidden * key
    block = attention + 3 * hidden * width + 2 * hidden
    return PaperModel(
        name=name,
        total=vocabulary * hidden * (1 if tied else 2) + blocks * block + hidden,
        head=0,
        vocabulary=vocabulary,
        hidden=hidden,
        width=width,
        blocks=blocks,
        targets={"query, key, value": (Layer(query, hidden), Layer(key, hidden), Layer(key, hidden))},
        up=Layer(width, hidden),
    )


ROBERTA_BASE = _roberta("RoBERTa-base", 768, 12)
ROBERTA_LARGE = _roberta("RoBERTa-large", 1024, 24)
GPT2 = _gpt2()
TINYLLAMA = _llama(
    "TinyLlama-1.1B", vocabulary=32_000, hidden=2048, width=5632, blocks=22, query=2048, key=256, tied=False
)
GEMMA_2B = _llama("Gemma-2B", vocabulary=256_000, hidden=2048, width=16_384, blocks=18, query=2048, key=256, tied=True)
