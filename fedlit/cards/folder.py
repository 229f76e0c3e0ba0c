"""The files beside the weights: tokenizer or image processor, prompt, generation settings, facts and model card."""

import copy
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from fedlit.cards.files import CARD, FACTS, PAIR, PROMPT, Facts, adapter_ranks, as_json
from fedlit.cards.text import card_text
from fedlit.data.chat_template import CHAT_TEMPLATE

_CONFIGS = {True: "tokenizer_config.json", False: "preprocessor_config.json"}


@dataclass(kw_only=True)
class Reader:
    """What reads texts or images for a run's model, ready to be saved beside each of its results.

    reader: a tokenizer or an image processor. is_tokenizer: which of them. end_ids: tokens that end an answer; none for
    the tokenizer's own. chat_template: the text that was given in place of the tokenizer's own; None for that.
    """

    reader: Any
    is_tokenizer: bool
    end_ids: tuple[int, ...] = ()
    chat_template: str | None = None
    _saved: Path | None = None
    _names: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write its files. Those of a further client are links to the first's: a thousand adapters of a few kilobytes
        would have a thousand times the vocabulary beside them.
        """
        if (folder / _CONFIGS[self.is_tokenizer]).is_file():  # written with a whole model
            if self.chat_template is not None:
                (folder / CHAT_TEMPLATE).write_text(self.chat_template, encoding="utf-8")
            return
        if self._saved is None or not all((self._saved / name).is_file() for name in self._names):
            before = set(folder.iterdir())
            self.as_trained().save_pretrained(folder)
            self._saved, self._names = folder, tuple(sorted(path.name for path in {*folder.iterdir()} - before))
            return
        for name in self._names:
            try:
                os.link(self._saved / name, folder / name)
            except OSError:  # a file system without links
                shutil.copyfile(self._saved / name, folder / name)

    def lies_in(self, folder: Path) -> None:
        """Take note of the name that the folder has now which was written to last."""
        if self._saved is not None and not self._saved.is_dir():
            self._saved = folder

    def as_trained(self) -> Any:
        """Return a copy with the chat template of the run, and without the padding and cutting of its last batch, which
        a fast tokenizer would write into its file.
        """
        if not self.is_tokenizer:
            return self.reader
        tokenizer = copy.deepcopy(self.reader)
        fast = getattr(tokenizer, "backend_tokenizer", None)
        if fast is not None:
            fast.no_truncation()
            fast.no_padding()
        if self.chat_template is not None:
            tokenizer.chat_template = self.chat_template
        return tokenizer

    def ends(self) -> dict[str, Any]:
        """Return the ids that begin, end and pad a text, as generation settings."""
        end = self.reader.eos_token_id
        pad = self.reader.pad_token_id
        ends: Any = end if not self.end_ids else sorted({*self.end_ids})
        if isinstance(ends, list) and len(ends) == 1:
            [ends] = ends
        return {
            "bos_token_id": self.reader.bos_token_id,
            "eos_token_id": ends,
            "pad_token_id": end if pad is None else pad,
        }


def generation_settings(facts: Facts, ends: dict[str, Any]) -> GenerationConfig:
    """Return how an answer was decoded at evaluation; what transformers understands otherwise is left out."""
    evaluation = facts["evaluation"]
    beams = {}
    if evaluation["num_beams"] > 1:
        beams = {"num_beams": evaluation["num_beams"], "length_penalty": evaluation["length_penalty"]}
    return GenerationConfig(**ends, max_new_tokens=evaluation["max_new_tokens"], do_sample=False, **beams)


def complete(folder: Path, facts: Facts, reader: Reader) -> None:
    """Write all that belongs beside the weights which are in a folder."""
    reader.save(folder)
    if "max_new_tokens" in facts["evaluation"]:
        generation_settings(facts, reader.ends()).save_pretrained(folder)
    texts = {
        PROMPT: as_json(facts["prompt"]),
        FACTS: as_json(facts),
        CARD: card_text(
            facts, ranks=adapter_ranks(folder), is_pair=(folder / PAIR).is_file()
        ),  # in place of one that a library has written
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
