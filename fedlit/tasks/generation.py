"""Responses by greedy decoding or beam search, each of which depends on its own prompt alone.

transformers' own `no_repeat_ngram_size` and `stop_strings` look at prompt and padding too, so that a response would
depend on what it was batched with; here both look at what was generated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.config import EvalConfig
from fedlit.data.collation import pad_left
from fedlit.models.decoding import decodes_alone
from fedlit.tasks.greedy import Rules, StopFinder, decode


@dataclass(frozen=True, kw_only=True)
class NoRepeatedNgrams:
    """A logits processor under which no n-gram of `size` is generated twice; the prompt's n-grams do not count.

    It is the rule of the GPT-2 code of Hu et al., "LoRA", arXiv 2106.09685, whose settings for E2E the papers use: the
    names in a prompt must be free to be said.
    """

    size: int
    num_prompt_tokens: int

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (rows, V) with -inf where a token would repeat an n-gram of input_ids (rows, T)."""
        scores = scores.clone()
        for row, tokens in enumerate(input_ids[:, self.num_prompt_tokens :].tolist()):
            start = len(tokens) - self.size + 1
            if start < 0:
                continue
            tail = tokens[start:]
            banned = [tokens[i + self.size - 1] for i in range(start) if tokens[i : i + self.size - 1] == tail]
            scores[row, banned] = -torch.inf
        return scores


@dataclass(frozen=True, kw_only=True)
class StopTexts:
    """A stopping criterion: a row is done once its generated text holds one of `texts`."""

    texts: tuple[str, ...]
    tokenizer: Any
    num_prompt_tokens: int

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows (rows,) of input_ids (rows, T) are done."""
        generated = self.tokenizer.batch_decode(
            input_ids[:, self.num_prompt_tokens :].tolist(), skip_special_tokens=True
        )
        done = [any(text in response for text in self.texts) for response in generated]
        return torch.tensor(done, device=input_ids.device)


def decoding_parts(settings: EvalConfig) -> dict[str, Any]:
    """Return how a response is generated, as parts of a task's protocol; what has no effect is left out."""
    told = {"num_beams": settings.num_beams, "no_repeat_ngram_size": settings.no_repeat_ngram_size}
    beams = {"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}
    return {"max_new_tokens": settings.max_new_tokens, "decoding": {**told, **beams, "stop": list(settings.stop)}}


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """Return the text up to the first place at which one of the stop texts begins."""
    return text[: min((place for place in map(text.find, stop) if place >= 0), default=len(text))]


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    settings: EvalConfig,
    *,
    pad_id: int,
    device: torch.device,
    end_ids: Sequence[int] | None = None,
) -> list[list[int]]:
    """Return what follows each prompt, at most settings.max_new_tokens tokens, padded after the token that ends it: the
    tokenizer's end-of-text token or, where they are given, one of `end_ids`.

    Under greedy decoding a row ends at a stop text as well, which saves time and changes nothing before it. A beam
    search goes on: ending a beam there would change which one wins.
    """
    ends = [tokenizer.eos_token_id] if end_ids is None else list(end_ids)
    if settings.num_beams == 1 and decodes_alone(model):
        rules = Rules(
            max_new_tokens=settings.max_new_tokens,
            end_ids=frozenset(ends),
            no_repeat_ngram_size=settings.no_repeat_ngram_size,
            stop=StopFinder(texts=settings.stop, tokenizer=tokenizer) if settings.stop else None,
        )
        rows = decode(model, prompts, rules, pad_id=pad_id, device=device)
        longest = max(map(len, rows))
        return [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    return _generate(model, tokenizer, prompts, settings, pad_id=pad_id, device=device, ends=ends)


def _generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    settings: EvalConfig,
    *,
    pad_id: int,
    device: torch.device,
    ends: list[int],
) -> list[list[int]]:
    """Return the same by transformers' `generate`, which knows beams and all kinds of models."""
    ids, mask = pad_left(prompts, pad_id)
    width = ids.shape[1]
    extra: dict[str, Any] = {}
    if settings.num_beams > 1:
        extra["length_penalty"] = settings.length_penalty
    elif settings.stop:
        stop = StopTexts(texts=tuple(settings.stop), tokenizer=tokenizer, num_prompt_tokens=width)
        extra["stopping_criteria"] = [stop]
    if settings.no_repeat_ngram_size:
        limit = NoRepeatedNgrams(size=settings.no_repeat_ngram_size, num_prompt_tokens=width)
        extra["logits_processor"] = [limit]
    output = model.generate(  # type: ignore[operator]
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        num_beams=settings.num_beams,
        # A backbone configured for training has use_cache=False, which generation would silently copy: 11 times slower.
        use_cache=True,
        eos_token_id=ends,
        pad_token_id=pad_id,
        **extra,
    )
    new_tokens: list[list[int]] = output[:, width:].tolist()
    return new_tokens
