"""Plain texts as token sequences."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.data.collation import Example
from fedlit.tasks.causal_lm.encoder import Encoder, Fit
from fedlit.tasks.causal_lm.forms import form_of


class TextEncoder(Encoder):
    """A text as the tokenizer begins it, with the end-of-text token after it; all of it is learned but the first token,
    before which there is nothing.
    """

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return rows as examples. Of a text that is too long the end is lost, and then it has no end-of-text token."""
        form = form_of(self.data)
        texts = [form.text(dict(row), self.data) for row in rows]
        return [self._example(text, ids) for text, ids in zip(texts, self._ids(texts), strict=True)]

    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return test rows as examples, as training has them."""
        return self.encode(rows)

    def asked(self, row: Mapping[str, Any]) -> Example:
        """Return the beginning of a text."""
        text = form_of(self.data).text(dict(row), self.data)
        ids, end = self._ids([text])[0], self.tokenizer.eos_token_id
        fit = Fit.of(
            ids, [[end]], longest=self.longest, longest_prompt=self.longest_prompt, begin=self.tokenizer.bos_token_id
        )
        prompt = fit.prompt(ids)
        return Example(
            token_ids=(*prompt, end), num_prompt_tokens=len(prompt), prompt=text, response="", truncated=fit.truncated
        )

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts without one that ends them."""
        if not texts:
            return []
        end, all_ids = self.tokenizer.eos_token_id, self.tokenizer(list(texts), verbose=False)["input_ids"]
        return [ids[:-1] if len(ids) > 1 and ids[-1] == end else ids for ids in all_ids]

    def _example(self, text: str, ids: Sequence[int]) -> Example:
        whole = (*ids, self.tokenizer.eos_token_id)
        kept = whole[: self.longest]
        return Example(token_ids=kept, num_prompt_tokens=1, prompt="", response=text, truncated=len(kept) < len(whole))
