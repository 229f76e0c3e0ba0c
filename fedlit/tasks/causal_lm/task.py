"""Causal language modelling: the response follows its prompt, or what was said, and only the response is scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from fedlit.config import DataConfig, EvalConfig, RunConfig
from fedlit.data.collation import Batch, Example, collate, join, segment_means
from fedlit.errors import UserError
from fedlit.metrics.exact import FixedPointMean
from fedlit.models import Backbone
from fedlit.tasks import Joined, Sample, Task
from fedlit.tasks.causal_lm.chats import ChatEncoder
from fedlit.tasks.causal_lm.encoder import Encoder
from fedlit.tasks.causal_lm.forms import form_of
from fedlit.tasks.causal_lm.prompts import PromptEncoder
from fedlit.tasks.causal_lm.texts import TextEncoder
from fedlit.tasks.contents import tokenizer_content
from fedlit.tasks.generation import cut_at_stop, decoding_parts, generate
from fedlit.tasks.likelihood import candidate_losses, label_logits, label_losses, likeliest
from fedlit.tasks.text_scores import (
    computed_scores,
    forced_metrics,
    make_metric,
    score_settings,
    signatures,
    update_texts,
)


@dataclass(frozen=True, kw_only=True)
class CausalLM(Task[Example, Batch]):
    """A decoder fine-tuned on prompt and response.

    max_length_tokens: of prompt and response together, at least 2. max_positions: tokens that the model can read, the
    generated ones included; None if it has no limit. end_ids: tokens that end an answer by the settings that came with
    the model.

    Raises:
        UserError: a length that leaves no room, or scores that the protocol does not compute.
    """

    packed_examples: ClassVar[type[Example]] = Example

    tokenizer: Any
    data: DataConfig
    eval: EvalConfig
    max_length_tokens: int
    loss_on: str
    label_smoothing: float = 0.0
    max_positions: int | None = None
    end_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_length_tokens < 2:
            raise UserError(
                f"model.max_length_tokens={self.max_length_tokens} leaves no room for a prompt and a response; "
                "give at least 2"
            )
        if self.longest_test_prompt < 1:
            raise UserError(
                f"eval.max_new_tokens={self.eval.max_new_tokens} leaves no room for a prompt: "
                f"{self.max_positions} tokens are all that the model reads; lower it"
            )
        computed_scores(self.data, self.protocol)

    @classmethod
    def build(cls, config: RunConfig, backbone: Backbone) -> Self:
        """Return the task of a configuration."""
        task = cls(
            tokenizer=backbone.tokenizer,
            data=config.data,
            eval=config.eval,
            max_length_tokens=config.model.max_length_tokens,
            loss_on=config.local.loss_on,
            label_smoothing=config.local.label_smoothing,
            max_positions=getattr(backbone.model.config, "max_position_embeddings", None),
            end_ids=backbone.end_ids,
        )
        backbone.require_readable(task.encoder.own_texts())
        return task

    @property
    def protocol(self) -> str:
        """How a test set is scored: `eval.protocol`, or of plain text the loss alone."""
        return self.eval.protocol if form_of(self.data).generates else "loss"

    @property
    def longest_test_prompt(self) -> int:
        """Tokens of a prompt at evaluation that leave room for what is generated."""
        if self.max_positions is None or self.eval.protocol != "generate":
            return self.max_length_tokens
        return min(self.max_length_tokens, self.max_positions - self.eval.max_new_tokens)

    @cached_property
    def encoder(self) -> Encoder:
        """What makes examples of rows of the configuration's form."""
        common: dict[str, Any] = {
            "tokenizer": self.tokenizer,
            "data": self.data,
            "longest": self.max_length_tokens,
            "longest_prompt": self.longest_test_prompt,
            "by_options": self.protocol == "options",
        }
        if self.data.messages is not None:
            return ChatEncoder(model_end_ids=self.end_ids, **common)
        return PromptEncoder(**common) if self.data.text is None else TextEncoder(**common)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return rows as token sequences that end with the end-of-text token, or as the chat template writes them.

        A row longer than max_length_tokens loses the start of its prompt down to half of that length, then the end of
        its response; the beginning-of-text token stays. A plain text loses its end.
        """
        return self.encoder.encode(rows)

    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Return test rows as examples, by `data.test_template` or by the chat template that asks for the last answer;
        see `evaluation_questions` for what becomes one. A plain text is one example.

        Of several references the first is the one whose loss is measured: it costs one row in a batch, and every
        prompt weighs alike. A prompt is cut at its start so that it leaves room for what is generated; the candidates
        of `eval.protocol=options` share one prompt, cut for the longest of them.

        Raises:
            UserError: as evaluation_questions.
        """
        return self.encoder.evaluation_examples(rows)

    def asked_example(self, row: Mapping[str, Any]) -> Example:
        """Return what a person has filled in, by the form's `asked`, as an example to be continued."""
        return self.encoder.asked(row)

    def check_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Refuse conversations that the chat template refuses."""
        self.encoder.check_rows(rows)

    def identity(self, example: Example) -> str:
        """Return the prompt and its right responses."""
        return json.dumps([example.prompt, *example.references])

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return the training batch of `examples`, on the CPU."""
        return collate(examples, self.pad_id, loss_on=self.loss_on)

    @property
    def pad_id(self) -> int:
        """Id that fills the padding; attention and labels go by position, so any id will do."""
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return int(end if pad is None else pad)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of the labels, nats per token, label smoothing included."""
        return functional.cross_entropy(
            label_logits(model, batch), batch.label_ids, label_smoothing=self.label_smoothing
        )

    def join(self, batches: Sequence[Batch]) -> Joined[Batch]:
        """Return clients' batches as one, padded to the longest row."""
        targets = tuple(batch.num_targets for batch in batches)
        return Joined(
            batch=join(batches, self.pad_id),
            rows=tuple(len(batch.token_ids) for batch in batches),
            targets=targets,
            widths=tuple(batch.token_ids.shape[1] for batch in batches),
            labels=targets,
        )

    def losses(self, model: nn.Module, joined: Joined[Batch]) -> Tensor:
        """Return each client's mean negative log-likelihood of its labels, as `loss` does."""
        batch = joined.batch
        each = functional.cross_entropy(
            label_logits(model, batch), batch.label_ids, reduction="none", label_smoothing=self.label_smoothing
        )
        return segment_means(each, joined.targets)

    def evaluation_batches(self, examples: Sequence[Example], batch_size: int) -> list[list[Example]]:
        """Return all examples sorted by prompt length, so that little is padded, in batches."""
        ordered = sorted(examples, key=lambda example: (example.num_prompt_tokens, len(example.token_ids)))
        return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]

    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics: loss (nats per response token, not smoothed) and the scores of `computed_scores`."""
        names = computed_scores(self.data, self.protocol)
        return {"loss": FixedPointMean()} | {name: make_metric(name, self.data) for name in names}

    def notes(self) -> dict[str, str]:
        """Return the signatures of the scores that compare texts."""
        return signatures(self.data, self.protocol)

    def protocol_parts(self) -> dict[str, Any]:
        """Return how a row becomes a question, how it is answered, and how the answer is scored."""
        data, ends = self.data, self.tokenizer.convert_ids_to_tokens(list(self.encoder.end_ids))
        parts: dict[str, Any] = {
            "task": ["causal_lm", type(form_of(data)).__name__],
            **self.encoder.protocol_parts(),
            "tokenizer": {**tokenizer_content(self.tokenizer), "ends": ends},
            "max_length_tokens": [self.max_length_tokens, self.longest_test_prompt],
            "references": data.multiple_references,
            "protocol": self.protocol,
            **score_settings(data, self.protocol),
        }
        return parts | (decoding_parts(self.eval) if self.protocol == "generate" else {})

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        """Score one batch by the protocol of the configuration.

        generate: continuation of the prompt, greedy or by beam search, up to the first stop text, against the
        references. teacher_forced: the argmax at each position of one pass over prompt and response, against the whole
        text, as in FedFTG's released code; its numbers are far higher, and those of `rouge_l_forced` and
        `bleu_4_forced`, which stand beside what generate gives. options: the likeliest candidate against the
        right one. Of plain text the loss alone.
        """
        protocols = {
            "generate": self._evaluate_generated,
            "teacher_forced": self._evaluate_forced,
            "options": self._evaluate_options,
            "loss": self._evaluate_loss,
        }
        references, predictions = protocols[self.protocol](model, examples, metrics, device)
        return [
            Sample(
                prompt=example.prompt,
                reference=reference,
                prediction=prediction,
                other_references=example.other_references,
                group=example.group,
            )
            for example, reference, prediction in zip(examples, references, predictions, strict=True)
        ]

    @torch.no_grad()
    def responses(self, model: nn.Module, examples: Sequence[Example], device: torch.device) -> list[str]:
        """Return what the model generates after each prompt, up to the first stop text."""
        prompts = [example.prompt_ids for example in examples]
        ends = self.encoder.end_ids
        sequences = generate(
            model, self.tokenizer, prompts, self.eval, pad_id=self.pad_id, device=device, end_ids=ends or None
        )
        return self._decode([_before(sequence, ends) for sequence in sequences], self.eval.stop)

    def _evaluate_loss(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> tuple[list[str], list[str]]:
        batch = collate(examples, self.pad_id, loss_on="response").to(device)
        _update_loss(metrics["loss"], label_losses(label_logits(model, batch), batch))
        return [example.response for example in examples], [""] * len(examples)

    def _evaluate_generated(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> tuple[list[str], list[str]]:
        if forced := forced_metrics(metrics):
            self._evaluate_forced(model, examples, {"loss": metrics["loss"], **forced}, device)
        else:
            self._evaluate_loss(model, examples, metrics, device)
        predictions = self.responses(model, examples, device)
        update_texts(metrics, examples, predictions, [example.references for example in examples])
        return [example.response for example in examples], predictions

    def _evaluate_forced(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> tuple[list[str], list[str]]:
        batch = collate(examples, self.pad_id, loss_on="all").to(device)
        logits = label_logits(model, batch)
        losses = label_losses(logits, batch)
        _update_loss(
            metrics["loss"],
            [loss[max(example.num_prompt_tokens, 1) - 1 :] for example, loss in zip(examples, losses, strict=True)],
        )
        guesses = [row.tolist() for row in torch.split(logits.argmax(-1).cpu(), list(batch.num_labels))]
        predictions = self._decode(guesses)
        seen = self._decode([list(example.token_ids) for example in examples])
        references = [
            [text, *(f"{example.prompt}{other}".strip() for other in example.other_references)]
            for text, example in zip(seen, examples, strict=True)
        ]
        update_texts(metrics, examples, predictions, references)
        return seen, predictions

    def _evaluate_options(
        self, model: nn.Module, examples: Sequence[Example], metrics: Mapping[str, Metric], device: torch.device
    ) -> tuple[list[str], list[str]]:
        losses = candidate_losses(model, examples, self.pad_id, device)
        right = [example.right_option for example in examples]
        _update_loss(metrics["loss"], [each[number] for each, number in zip(losses, right, strict=True)])
        chosen = [likeliest(each) for each in losses]
        correct = [number == truth for number, truth in zip(chosen, right, strict=True)]
        metrics["accuracy"].update(correct, [example.group for example in examples])
        names = [example.options for example in examples]
        return (
            [options[number] for options, number in zip(names, right, strict=True)],
            [options[number] for options, number in zip(names, chosen, strict=True)],
        )

    def _decode(self, sequences: Sequence[list[int]], stop: Sequence[str] = ()) -> list[str]:
        texts = self.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        return [cut_at_stop(text, stop).strip() for text in texts]


def _before(sequence: list[int], ends: Sequence[int]) -> list[int]:
    """Return the tokens up to the first that ends an answer, which need not be one that decoding skips."""
    return sequence[: next((place for place, number in enumerate(sequence) if number in ends), len(sequence))]


def _update_loss(metric: Metric, losses: Sequence[Tensor]) -> None:
    """Add each example's sum of token losses (nats) and its number of tokens."""
    metric.update(torch.stack([loss.double().sum() for loss in losses]), torch.tensor([len(loss) for loss in losses]))
