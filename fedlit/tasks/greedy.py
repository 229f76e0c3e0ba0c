"""Greedy decoding of a batch that a row leaves as soon as it has ended.

transformers' `generate` goes on until the last row has ended, and computes for all rows what it then throws away. Here
a row that has ended takes no part in the next step. What a row says is the same: its tokens are the argmax of the same
forward pass. A matrix product of fewer rows may differ in the last bit, which shows where two tokens are equally likely
to that precision.

Shapes: n rows, T tokens read so far, V vocabulary.
"""

import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.data.collation import pad_left
from fedlit.models.decoding import cache_with_room
from fedlit.models.rows_left import tell_rows_left


@dataclass(kw_only=True)
class StopFinder:
    """Finds the stop texts in what rows say, decoding only where one may have ended.

    Where a token ends a stop text, that token's own text has the last character of it. Should a tokenizer write it
    otherwise, a row says more than it had to, and the text is still cut at the stop.
    """

    texts: Sequence[str]
    tokenizer: Any
    _may_end: dict[int, bool] = field(default_factory=dict)

    def found_in(self, tokens: Sequence[int]) -> bool:
        """Tell whether the text of `tokens`, of which all but the last were looked at before, has a stop text."""
        last = tokens[-1]
        if last not in self._may_end:
            # Twice, since some tokenizers drop the space that begins a text. A part of a character is shown as \ufffd.
            [text] = self.tokenizer.batch_decode([[last, last]], skip_special_tokens=True)
            self._may_end[last] = "\ufffd" in text or any(stop[-1:] in text for stop in self.texts)
        if not self._may_end[last]:
            return False
        [text] = self.tokenizer.batch_decode([list(tokens)], skip_special_tokens=True)
        return any(stop in text for stop in self.texts)


@dataclass(kw_only=True)
class Rules:
    """What greedy decoding keeps to.

    end_ids: tokens after which a row says no more. no_repeat_ngram_size: n-grams of this length are said once by a row
    at most; 0 for no limit.
    """

    max_new_tokens: int
    end_ids: Collection[int]
    no_repeat_ngram_size: int = 0
    stop: StopFinder | None = None


class _Row:
    """What one row has said, and which token has followed which before."""

    def __init__(self, rules: Rules) -> None:
        self.tokens: list[int] = []
        self._rules = rules
        self._followers: dict[tuple[int, ...], list[int]] = {}

    def banned(self) -> Sequence[int]:
        """Return the tokens that would repeat an n-gram."""
        size = self._rules.no_repeat_ngram_size
        return self._followers.get(tuple(self.tokens[len(self.tokens) - size + 1 :]), ()) if size else ()

    def say(self, token: int) -> bool:
        """Add a token; return whether the row has ended."""
        size = self._rules.no_repeat_ngram_size
        self.tokens.append(token)
        if 0 < size <= len(self.tokens):
            self._followers.setdefault(tuple(self.tokens[-size:-1]), []).append(token)
        stop = self._rules.stop
        return token in self._rules.end_ids or (stop is not None and stop.found_in(self.tokens))


@torch.no_grad()
def decode(
    model: nn.Module, prompts: Sequence[Sequence[int]], rules: Rules, *, pad_id: int, device: torch.device
) -> list[list[int]]:
    """Return what follows each prompt, up to and with what ends it.

    The device is read once for each token: which rows go on must be known before the next step.
    """
    ids, mask = pad_left(prompts, pad_id)
    positions = (mask.cumsum(-1) - 1).clamp(min=0).to(device)
    # Without a mask where nothing is padded, as transformers' generate does it.
    seen = None if bool(mask.all()) else mask.to(device)
    ids = ids.to(device)
    rows = [_Row(rules) for _ in prompts]
    live, cache = rows, cache_with_room(model, rules.max_new_tokens)
    last_alone = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(type(model).forward).parameters else {}
    tell_rows_left(None, len(rows))
    for number in range(1, rules.max_new_tokens + 1):
        output = model(
            input_ids=ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **last_alone,
        )
        chosen = _likeliest(output.logits[:, -1].float(), live)
        kept = [
            place for place, (row, token) in enumerate(zip(live, chosen.tolist(), strict=True)) if not row.say(token)
        ]
        if not kept or number == rules.max_new_tokens:
            break
        positions = positions[:, -1:] + 1
        if len(kept) < (num_live := len(live)):
            live, places = [live[place] for place in kept], torch.tensor(kept, device=device)
            chosen, positions = chosen.index_select(0, places), positions.index_select(0, places)
            seen = None if seen is None else seen.index_select(0, places)
            cache.batch_select_indices(places)
            tell_rows_left(kept, num_live)
        ids = chosen.unsqueeze(1)
        seen = None if seen is None else torch.cat([seen, seen.new_ones((len(live), 1))], 1)
    tell_rows_left(None, len(rows))
    return [row.tokens for row in rows]


def _likeliest(scores: Tensor, rows: Sequence[_Row]) -> Tensor:
    """Return the token (n,) with the highest of `scores` (n, V) that a row may say."""
    banned = [(place, token) for place, row in enumerate(rows) for token in row.banned()]
    if banned:
        places, tokens = torch.tensor(banned, device=scores.device).unbind(1)
        scores = scores.index_put((places, tokens), scores.new_tensor(-torch.inf))
    return scores.argmax(-1)
