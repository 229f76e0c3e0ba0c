"""Sequence classification: a text, or a pair of texts, is given its class, or a number in a regression.

Any transformers model with a head will do. An encoder reads its answer off the first token, a decoder off the last one
that is not padding, which it tells by the id alone: the model and the batches must agree on that id.

Shapes: n rows, T tokens, C classes (1 output in a regression).
"""

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from fedlit.config import DataConfig, RunConfig
from fedlit.data.classes import class_index, target_number
from fedlit.data.collation import pad_right, pad_together, segment_means
from fedlit.data.columns import text_columns
from fedlit.errors import UserError
from fedlit.metrics.classification import Classification, Regression
from fedlit.metrics.exact import FixedPointMean
from fedlit.models import Backbone
from fedlit.models.masks import masks_as_given
from fedlit.tasks import Joined, Sample, Task
from fedlit.tasks.chosen_classes import chosen_classes
from fedlit.tasks.contents import tokenizer_content
from fedlit.tasks.outside_scores import outside_metrics
from fedlit.tasks.precision import at_least_float32

_TARGET = struct.Struct("=d")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextExample:
    """One row as tokens: its text, or both of a pair, with special tokens.

    segment_ids: 0 for the first text and 1 for the second, where the model tells them apart by that; else empty.
    target: number of the class, or the number to predict. text: what a person reads.
    """

    token_ids: tuple[int, ...]
    segment_ids: tuple[int, ...]
    target: float
    text: str
    truncated: bool

    @property
    def num_tokens(self) -> int:
        """Tokens of the text or texts, special ones included."""
        return len(self.token_ids)

    def packed(self) -> bytes:
        """Return all but the text: the target, then as 32-bit integers whether the target is a class, whether the
        example is truncated, the number of segment ids, these, and the tokens.
        """
        head = (isinstance(self.target, int), self.truncated, len(self.segment_ids))
        return _TARGET.pack(self.target) + array("i", (*head, *self.segment_ids, *self.token_ids)).tobytes()

    @classmethod
    def unpacked(cls, data: bytes) -> "TextExample":
        """Return the example of such bytes, without its text."""
        (target,) = _TARGET.unpack_from(data)
        numbers = array("i")
        numbers.frombytes(data[_TARGET.size :])
        is_class, truncated, num_segment_ids = numbers[:3]
        return cls(
            token_ids=tuple(numbers[3 + num_segment_ids :]),
            segment_ids=tuple(numbers[3 : 3 + num_segment_ids]),
            target=int(target) if is_class else target,
            text="",
            truncated=bool(truncated),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextBatch:
    """Rows padded on the right to one length.

    inputs: input_ids, attention_mask and where needed token_type_ids, all (n, T) int64. targets: (n,), int64 classes or
    float32 numbers. padded: whether a row is, or may be, shorter than another.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor
    padded: bool = True

    @property
    def num_targets(self) -> int:
        """Number of examples."""
        return len(self.targets)

    def to(self, device: torch.device) -> "TextBatch":
        """Return the batch on `device`, without its mask where nothing is padded."""
        inputs = {name: tensor for name, tensor in self.inputs.items() if self.padded or name != "attention_mask"}
        return TextBatch(
            inputs={name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()},
            targets=self.targets.to(device, non_blocking=True),
            padded=self.padded,
        )


@dataclass(frozen=True, kw_only=True)
class SequenceClassification(Task[TextExample, TextBatch]):
    """A model with a head over classes or for one number.

    classes: names in the order of their numbers; none in a regression. pad_id: fills the padding. has_segments: whether
    the model has embeddings of the first and the second text.
    """

    packed_examples: ClassVar[type[TextExample]] = TextExample

    tokenizer: Any
    data: DataConfig
    classes: tuple[str, ...]
    max_length_tokens: int
    pad_id: int
    has_segments: bool = False
    label_smoothing: float = 0.0

    @classmethod
    def build(cls, config: RunConfig, backbone: Backbone) -> Self:
        """Return the task of a configuration, and tell the model which id is padding.

        Raises:
            UserError: neither tokenizer nor model has a token for padding, or model.max_length_tokens has no room for a
                text.
        """
        architecture: Any = backbone.model.config
        regression = config.data.regression
        classes = () if regression else tuple(architecture.id2label[i] for i in range(architecture.num_labels))
        _require_room(config, backbone)
        pad_id = _padding_id(config, backbone)
        architecture.get_text_config().pad_token_id = pad_id
        return cls(
            tokenizer=backbone.tokenizer,
            data=config.data,
            classes=classes,
            max_length_tokens=config.model.max_length_tokens,
            pad_id=pad_id,
            has_segments=getattr(architecture, "type_vocab_size", 0) > 1,
            label_smoothing=config.local.label_smoothing,
        )

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[TextExample]:
        """Return rows as token sequences; of one longer than max_length_tokens the longer text loses its end.

        A tokenizer that puts nothing between the texts of a pair gets a line break there.
        """
        if not rows:
            return []
        texts = [[row[column] for row in rows] for column in text_columns(self.data)]
        if len(texts) == 2 and _num_special_tokens(self.tokenizer, 2) == _num_special_tokens(self.tokenizer, 1):
            texts[1] = [f"\n{text}" for text in texts[1]]
        whole = self._tokens(texts)
        return [
            self._example(dict(row), [part[i] for part in texts], {name: ids[i] for name, ids in whole.items()})
            for i, row in enumerate(rows)
        ]

    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[TextExample]:
        """Return test rows as examples."""
        return self.encode(rows)

    def _tokens(self, texts: Sequence[Sequence[str]], **cut: Any) -> Mapping[str, list[list[int]]]:
        """Return input_ids, and token_type_ids where there are segments, of every row."""
        encoded = self.tokenizer(
            *texts, return_token_type_ids=self.has_segments, return_attention_mask=False, verbose=False, **cut
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def _example(self, row: dict[str, Any], texts: Sequence[str], ids: Mapping[str, list[int]]) -> TextExample:
        """Return a row as an example: `ids` are its own, or are cut if there are too many of them."""
        truncated = len(ids["input_ids"]) > self.max_length_tokens
        if truncated:
            cut = self._tokens([[text] for text in texts], truncation=True, max_length=self.max_length_tokens)
            ids = {name: rows[0] for name, rows in cut.items()}
        return TextExample(
            token_ids=tuple(ids["input_ids"]),
            segment_ids=tuple(ids["token_type_ids"]) if self.has_segments else (),
            target=target_number(row, self.data) if self.data.regression else class_index(row, self.classes, self.data),
            text="\n".join(row[column] for column in text_columns(self.data)),
            truncated=truncated,
        )

    def identity(self, example: TextExample) -> str:
        """Return the text, or both of a pair, and what is right about it."""
        right = example.target if self.data.regression else self.classes[int(example.target)]
        return json.dumps([example.text, right])

    def collate(self, examples: Sequence[TextExample]) -> TextBatch:
        """Return the batch of `examples`, on the CPU."""
        token_ids, attention_mask = pad_right([example.token_ids for example in examples], self.pad_id)
        inputs = {"input_ids": token_ids, "attention_mask": attention_mask}
        if self.has_segments:
            inputs["token_type_ids"], _ = pad_right([example.segment_ids for example in examples], 0)
        dtype = torch.float32 if self.data.regression else torch.int64
        targets = torch.tensor([example.target for example in examples], dtype=dtype)
        return TextBatch(inputs=inputs, targets=targets, padded=not attention_mask.all())

    def loss(self, model: nn.Module, batch: TextBatch) -> Tensor:
        """Return the mean over a batch of the cross-entropy, in nats, or of the squared error."""
        outputs = self._outputs(model, batch)
        if self.data.regression:
            return functional.mse_loss(outputs, batch.targets)
        return functional.cross_entropy(outputs, batch.targets, label_smoothing=self.label_smoothing)

    def join(self, batches: Sequence[TextBatch]) -> Joined[TextBatch]:
        """Return clients' batches as one, padded to the longest row."""
        fill = {"input_ids": self.pad_id, "attention_mask": 0, "token_type_ids": 0}
        inputs = {
            name: pad_together([batch.inputs[name] for batch in batches], fill[name]) for name in batches[0].inputs
        }
        counts = tuple(batch.num_targets for batch in batches)
        return Joined(
            batch=TextBatch(inputs=inputs, targets=torch.cat([batch.targets for batch in batches])),
            rows=counts,
            targets=counts,
            widths=tuple(batch.inputs["input_ids"].shape[1] for batch in batches),
        )

    def losses(self, model: nn.Module, joined: Joined[TextBatch]) -> Tensor:
        """Return each client's mean loss, as `loss` does."""
        batch = joined.batch
        outputs = self._outputs(model, batch)
        if self.data.regression:
            each = functional.mse_loss(outputs, batch.targets, reduction="none")
        else:
            each = functional.cross_entropy(
                outputs, batch.targets, reduction="none", label_smoothing=self.label_smoothing
            )
        return segment_means(each, joined.targets)

    @masks_as_given()
    def _outputs(self, model: nn.Module, batch: TextBatch) -> Tensor:
        """Return logits (n, C) of classes, or numbers (n,), in float32."""
        logits = at_least_float32(model(**batch.inputs).logits)
        return logits.squeeze(-1) if self.data.regression else logits

    def evaluation_batches(self, examples: Sequence[TextExample], batch_size: int) -> list[list[TextExample]]:
        """Return all examples sorted by length, so that little is padded, in batches."""
        ordered = sorted(examples, key=lambda example: len(example.token_ids))
        return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]

    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics: loss (nats or squared error per example), and the scores of classes or of numbers."""
        if self.data.regression:
            return {"loss": FixedPointMean(), "numbers": Regression(), **outside_metrics(self.data, of_numbers=True)}
        return {"loss": FixedPointMean(), "classes": Classification(len(self.classes)), **outside_metrics(self.data)}

    def protocol_parts(self) -> dict[str, Any]:
        """Return the classes, and how the texts become tokens."""
        return {
            "task": ["sequence_classification", self.data.regression, len(text_columns(self.data))],
            "classes": list(self.classes),
            "tokenizer": tokenizer_content(self.tokenizer),
            "max_length_tokens": self.max_length_tokens,
        }

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, examples: Sequence[TextExample], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        """Score one batch: its likeliest classes, or its numbers. The loss is without label smoothing."""
        batch = self.collate(examples).to(device)
        outputs = self._outputs(model, batch)
        probabilities: Sequence[float | None] = [None] * len(examples)
        if self.data.regression:
            losses = functional.mse_loss(outputs, batch.targets, reduction="none")
            predicted = outputs
            predictions = [f"{number:.4g}" for number in outputs.tolist()]
            references = [f"{example.target:.4g}" for example in examples]
        else:
            losses = functional.cross_entropy(outputs, batch.targets, reduction="none")
            predicted = outputs.argmax(dim=-1)
            numbers, probabilities = chosen_classes(outputs, predicted)
            predictions = [self.classes[number] for number in numbers]
            references = [self.classes[int(example.target)] for example in examples]
        for name in metrics.keys() - {"loss"}:
            metrics[name].update(predicted, batch.targets)
        metrics["loss"].update(losses, torch.ones(len(examples), dtype=torch.int64))
        return [
            Sample(prompt=example.text, reference=reference, prediction=prediction, probability=probability)
            for example, reference, prediction, probability in zip(
                examples, references, predictions, probabilities, strict=True
            )
        ]


def _num_special_tokens(tokenizer: Any, num_texts: int) -> int:
    return int(tokenizer.num_special_tokens_to_add(pair=num_texts == 2))


def _require_room(config: RunConfig, backbone: Backbone) -> None:
    longest, num_texts = config.model.max_length_tokens, len(text_columns(config.data))
    fewest = _num_special_tokens(backbone.tokenizer, num_texts) + num_texts
    if longest < fewest:
        raise UserError(
            f"model.max_length_tokens={longest} leaves no room for a text beside the tokenizer's own tokens; give at "
            f"least {fewest}"
        )


def _padding_id(config: RunConfig, backbone: Backbone) -> int:
    """Return the id of padding: the tokenizer's, else the model's, else that of the end of a text."""
    architecture: Any = backbone.model.config
    candidates = (
        backbone.tokenizer.pad_token_id,
        architecture.get_text_config().pad_token_id,
        backbone.tokenizer.eos_token_id,
    )
    # Some checkpoints name -1, or a token that was added to the tokenizer and not to the embeddings.
    num_embeddings = backbone.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    for candidate in candidates:
        if candidate is not None and 0 <= candidate < num_embeddings:
            return int(candidate)
    raise UserError(
        f"model.path={config.model.path}: its tokenizer has neither a padding token nor an end-of-text token, and the "
        "texts of a batch are padded to one length; set pad_token in its tokenizer_config.json, or choose another "
        "model.tokenizer"
    )
