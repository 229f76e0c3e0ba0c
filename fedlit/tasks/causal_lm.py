"""Causal language modelling: the response follows its prompt, and only the response is scored.

The vocabulary projection is computed at the positions that have a label and nowhere else: with 30 % labelled tokens
and a vocabulary of 32,000 a step is nearly twice as fast, with the same loss.

Shapes: n rows, T tokens, L labelled positions, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from fedlit.config import DataConfig, EvalConfig
from fedlit.data.collation import Batch, Example, collate, pad_left
from fedlit.data.prompts import render
from fedlit.metrics.exact import FixedPointMean
from fedlit.metrics.text import Bleu4, RougeL
from fedlit.tasks import Sample


@contextmanager
def project_only(model: nn.Module, positions: Tensor) -> Iterator[None]:
    """Let the model compute logits at `positions` (L,), flat indices into n x T, alone; its logits become (1, L, V).

    The output projection's input is cut down, so that whatever the architecture does to logits afterwards (Gemma's
    soft cap, Cohere's scale) stays in place.
    """

    def select(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        (hidden,) = inputs
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions).unsqueeze(0),)

    handle = model.get_output_embeddings().register_forward_pre_hook(select)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True, kw_only=True)
class CausalLM:
    """A decoder fine-tuned on prompt and response; implements fedlit.tasks.Task."""

    tokenizer: Any
    data: DataConfig
    eval: EvalConfig
    max_length_tokens: int
    loss_on: str

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return rows as token sequences that end with the end-of-text token.

        A row longer than max_length_tokens loses the start of its prompt down to half of that length, then the end of
        its response; the beginning-of-text token stays.
        """
        texts = [render(dict(row), self.data) for row in rows]
        if not texts:
            return []
        prompts = self.tokenizer([prompt for prompt, _ in texts], verbose=False)["input_ids"]
        responses = self.tokenizer([response for _, response in texts], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return [
            self._example(text, prompt_ids, response_ids)
            for text, prompt_ids, response_ids in zip(texts, prompts, responses, strict=True)
        ]

    def _example(self, text: tuple[str, str], prompt_ids: list[int], response_ids: list[int]) -> Example:
        end = self.tokenizer.eos_token_id
        if len(prompt_ids) > 1 and prompt_ids[-1] == end:  # some tokenizers close every text
            prompt_ids = prompt_ids[:-1]
        response_ids = [*response_ids, end]
        longest = self.max_length_tokens
        truncated = len(prompt_ids) + len(response_ids) > longest
        if truncated:
            response_ids = response_ids[: max(longest - len(prompt_ids), longest // 2)]
            room = longest - len(response_ids)
            if len(prompt_ids) > room:
                head = prompt_ids[:1] if prompt_ids[0] == self.tokenizer.bos_token_id else []
                prompt_ids = [*head, *prompt_ids[len(prompt_ids) - room + len(head) :]]
        return Example(
            token_ids=(*prompt_ids, *response_ids),
            num_prompt_tokens=len(prompt_ids),
            prompt=text[0],
            response=text[1],
            truncated=truncated,
        )

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return the training batch of `examples`, on the CPU."""
        return collate(examples, self.pad_id, loss_on=self.loss_on)

    @property
    def pad_id(self) -> int:
        """Id that fills the padding; attention and labels go by position, so any id will do."""
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return int(end if pad is None else pad)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the labels, nats per token."""
        return functional.cross_entropy(self._logits(model, batch), batch.label_ids)

    @staticmethod
    def _logits(model: nn.Module, batch: Batch) -> Tensor:
        with project_only(model, batch.label_positions):
            output = model(input_ids=batch.token_ids, attention_mask=batch.attention_mask, use_cache=False)
        return output.logits.squeeze(0).float()  # type: ignore[no-any-return]

    def evaluation_batches(self, examples: Sequence[Example], batch_size: int) -> list[list[Example]]:
        """Return all examples sorted by prompt length, so that little is padded, in batches."""
        ordered = sorted(examples, key=lambda example: (example.num_prompt_tokens, len(example.token_ids)))
        return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]

    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics: loss (nats per response token), ROUGE-L (F1) and BLEU-4, the last two in [0, 1]."""
        return {"loss": FixedPointMean(), "rouge_l": RougeL(), "bleu_4": Bleu4()}

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        """Score one batch by the protocol of the configuration.

        generate: greedy continuation of the prompt against the response. teacher_forced: the argmax at each position of
        one pass over prompt and response, against the whole text, as in FedFTG's released code; its numbers are far
        higher.
        """
        everywhere = self.eval.protocol == "teacher_forced"
        batch = collate(examples, self.pad_id, loss_on="all" if everywhere else "response").to(device)
        logits = self._logits(model, batch)
        losses = torch.split(
            functional.cross_entropy(logits, batch.label_ids, reduction="none").cpu(), list(batch.num_labels)
        )
        scored = [
            loss[max(example.num_prompt_tokens, 1) - 1 :] if everywhere else loss
            for example, loss in zip(examples, losses, strict=True)
        ]
        metrics["loss"].update(
            torch.stack([loss.double().sum() for loss in scored]), torch.tensor([len(loss) for loss in scored])
        )
        if everywhere:
            guesses = [row.tolist() for row in torch.split(logits.argmax(-1).cpu(), list(batch.num_labels))]
            predictions = self._decode(guesses)
            references = self._decode([list(example.token_ids) for example in examples])
        else:
            predictions = self._decode(self._generate(model, examples, device))
            references = [example.response for example in examples]
        metrics["rouge_l"].update(predictions, references)
        metrics["bleu_4"].update(predictions, references)
        return [
            Sample(prompt=example.prompt, reference=reference, prediction=prediction)
            for example, reference, prediction in zip(examples, references, predictions, strict=True)
        ]

    def _decode(self, sequences: Sequence[list[int]]) -> list[str]:
        return [text.strip() for text in self.tokenizer.batch_decode(sequences, skip_special_tokens=True)]

    def _generate(self, model: nn.Module, examples: Sequence[Example], device: torch.device) -> list[list[int]]:
        prompts = [example.token_ids[: example.num_prompt_tokens] for example in examples]
        ids, mask = pad_left(prompts, self.pad_id)
        output = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=self.eval.max_new_tokens,
            do_sample=False,
            num_beams=1,
            # A backbone configured for training has use_cache=False, which generation would silently copy: 11 times
            # slower.
            use_cache=True,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.pad_id,
        )
        new_tokens: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return new_tokens
