"""What both sides of federation.py are given: a random Llama, and rows of an exact number of tokens for each client."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaConfig

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = REPOSITORY / "fedlit" / "tiny"
NUM_VOCAB = 4096
HEAD_SIZE = 64
LABELLED_SHARE = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A federation: its model, its clients, and what each does in a round.

    hidden, layers: of the Llama. rank: of LoRA on all seven projections. rows: of a client. num_tokens: of a row.
    """

    hidden: int
    layers: int
    rank: int
    clients: int
    steps: int
    batch_size: int
    num_tokens: int
    rows: int
    lr: float = 1e-4

    @property
    def trained(self) -> int:
        """Numbers that a client trains and sends."""
        inner = self.intermediate
        return self.layers * self.rank * (4 * 2 * self.hidden + 3 * (self.hidden + inner))

    @property
    def intermediate(self) -> int:
        """Width of the MLP."""
        return self.hidden * 8 // 3

    @property
    def tokens_of_round(self) -> int:
        """Tokens that all clients together train on in a round."""
        return self.clients * self.steps * self.batch_size * self.num_tokens


def write_model(folder: Path, shape: Shape) -> Any:
    """Write a model's config.json and its tokenizer, the packaged one, and return the tokenizer; no weights."""
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=NUM_VOCAB,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // HEAD_SIZE,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    return tokenizer


def write_rows(folder: Path, shape: Shape, tokenizer: Any) -> None:
    """Write the clients' rows as texts for fedlit (rows.jsonl, test.jsonl) and as tokens for the bare loop
    (clients.json: for each client, of each row its token ids and its labels).
    """
    draw = random.Random(0)
    words = _words(tokenizer)
    num_labels = max(round(shape.num_tokens * LABELLED_SHARE), 2)
    texts: list[dict[str, str]] = []
    clients = []
    for client in range(shape.clients):
        tokens = []
        for _ in range(shape.rows):
            prompt = _text(tokenizer, words, shape.num_tokens - num_labels, draw, end="\n")
            response = _text(tokenizer, words, num_labels - 1, draw, begin=False)  # the last label ends the text
            texts.append({"prompt": prompt, "response": response, "client": f"c{client:03d}"})
            asked = tokenizer(prompt + "\n")["input_ids"]
            answer = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            tokens.append([asked + answer, [-100] * len(asked) + answer])
        clients.append(tokens)
    (folder / "rows.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    (folder / "test.jsonl").write_text(json.dumps({**texts[0], "prompt": "one row"}) + "\n")
    (folder / "clients.json").write_text(json.dumps(clients))


def _words(tokenizer: Any) -> list[str]:
    """Return words that are one token each, wherever they stand after a space."""
    found = [text.strip() for text in tokenizer.batch_decode([[number] for number in range(len(tokenizer))])]
    known = sorted({text for text in found if text.isascii() and text.isalpha() and text.islower() and len(text) > 2})
    pair = [tokenizer(f"{word} {word}", add_special_tokens=False)["input_ids"] for word in known]
    return [word for word, ids in zip(known, pair, strict=True) if len(ids) == 2]


def _text(
    tokenizer: Any, words: list[str], num_tokens: int, draw: random.Random, *, end: str = "", begin: bool = True
) -> str:
    """Return words that are `num_tokens` tokens, with what stands at the end and the beginning."""
    for length in range(num_tokens, 0, -1):
        text = " ".join(draw.choices(words, k=length))
        if len(tokenizer(text + end, add_special_tokens=begin)["input_ids"]) == num_tokens:
            return text
    raise RuntimeError(f"no text of {num_tokens} tokens was found")
