"""Image classification: an encoder with a head over classes, ViT or SigLIP say, on images of any size and colour.

Preparing an image costs more than a small model's step on it (2 to 6 ms at 224 x 224), and every client sees its images
again in every round. Cropping and resizing are therefore done once and kept as bytes; what follows, rescaling and
normalising, is a function of single values and is looked up for all 256 of them, with the image processor's own bits.

Shapes: n images, C channels, H height, W width, K classes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import Metric

from fedlit.config import DataConfig, RunConfig
from fedlit.data.classes import class_index
from fedlit.data.collation import segment_means
from fedlit.data.images import ImageFile, digest, pixels
from fedlit.errors import UserError
from fedlit.metrics.classification import Classification
from fedlit.metrics.exact import FixedPointMean
from fedlit.models import Backbone
from fedlit.tasks import Joined, Sample, Task
from fedlit.tasks.chosen_classes import chosen_classes
from fedlit.tasks.contents import image_processor_content
from fedlit.tasks.outside_scores import outside_metrics
from fedlit.tasks.precision import at_least_float32

KEPT_BYTES = 2**30
"""Prepared images that a process keeps at most; those beyond are prepared each time, to the same result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageExample:
    """One row: its image as the row holds it, the number of its class, and what the image is called in samples."""

    cell: Any
    target: int
    name: str = ""
    truncated: bool = False
    num_tokens: None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBatch:
    """pixel_values (n, C, H, W) float32 as the model takes them; targets (n,) int64, the classes' numbers."""

    pixel_values: Tensor
    targets: Tensor

    @property
    def num_targets(self) -> int:
        """Images, over which the loss is a mean."""
        return len(self.targets)

    def to(self, device: torch.device) -> "ImageBatch":
        """Return the batch on `device`."""
        return ImageBatch(
            pixel_values=self.pixel_values.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
        )


class Preparation:
    """Images as a model takes them, with the bits of its image processor."""

    def __init__(self, image_processor: Any) -> None:
        self.image_processor = image_processor
        self._kept: dict[int, tuple[Any, np.ndarray[Any, Any]]] = {}
        self._num_bytes = 0
        every_value = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=0)  # (3, 256, 1)
        self._table = np.asarray(self._process(every_value, "channels_first", do_resize=False, do_center_crop=False))
        self._in_two_steps = self._table.shape == every_value.shape and self._steps_agree()

    def __call__(self, cells: Sequence[Any]) -> Tensor:
        """Return the images of rows' cells as (n, C, H, W) float32."""
        return torch.from_numpy(np.stack([self._finished(self._kept_or_prepared(cell)) for cell in cells]))

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape (C, H, W) that an image of a size is brought to."""
        return tuple(self._in_one_step(np.zeros((height, width, 3), dtype=np.uint8)).shape)

    def _kept_or_prepared(self, cell: Any) -> np.ndarray[Any, Any]:
        # Known by identity, since to compare contents would be to read them all; what is kept here is not freed.
        known = self._kept.get(id(cell))
        if known is not None:
            return known[1]
        prepared = self._prepared(pixels(cell))
        if self._num_bytes + prepared.nbytes <= KEPT_BYTES:
            self._num_bytes += prepared.nbytes
            self._kept[id(cell)] = (cell, prepared)
        return prepared

    def _prepared(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the image cropped and resized, bytes (C, H, W); where two steps will not do it is finished."""
        if not self._in_two_steps:
            return self._in_one_step(image)
        return np.ascontiguousarray(self._process(image, "channels_last", do_rescale=False, do_normalize=False))

    def _finished(self, prepared: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a prepared image rescaled and normalised."""
        if not self._in_two_steps:
            return prepared
        return np.stack([self._table[channel, values, 0] for channel, values in enumerate(prepared)])

    def _in_one_step(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(self._process(image, "channels_last"), dtype=np.float32)

    def _steps_agree(self) -> bool:
        """Return whether two steps give what the processor gives in one, tried on noise.

        They do not where it does more than crop, resize, rescale and normalise: EfficientNet's normalises twice.
        """
        noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (61, 83, 3), dtype=np.uint8)
        self._in_two_steps = True
        prepared = self._prepared(noise)
        return prepared.dtype == np.uint8 and np.array_equal(self._finished(prepared), self._in_one_step(noise))

    def _process(self, image: np.ndarray[Any, Any], layout: str, **steps: bool) -> Any:
        output = self.image_processor(images=[image], input_data_format=layout, return_tensors="np", **steps)
        return output["pixel_values"][0]


@dataclass(frozen=True, kw_only=True)
class ImageClassification(Task[ImageExample, ImageBatch]):
    """An encoder with a head over classes.

    classes: their names in the order of their numbers.
    """

    preparation: Preparation
    data: DataConfig
    classes: tuple[str, ...]
    label_smoothing: float = 0.0

    @classmethod
    def build(cls, config: RunConfig, backbone: Backbone) -> Self:
        """Return the task of a configuration.

        Raises:
            UserError: the image processor does not bring every image to the size that the model reads.
        """
        preparation = Preparation(backbone.image_processor)
        model_config: Any = backbone.model.config
        _require_size(preparation, model_config, config.model.path)
        names: Mapping[int, str] = model_config.id2label
        return cls(
            preparation=preparation,
            data=config.data,
            classes=tuple(names[number] for number in range(len(names))),
            label_smoothing=config.local.label_smoothing,
        )

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[ImageExample]:
        """Return rows as examples; an image is decoded when it first stands in a batch."""
        return [
            ImageExample(cell=row[self.data.image], target=class_index(dict(row), self.classes, self.data))
            for row in rows
        ]

    def evaluation_examples(self, rows: Sequence[Mapping[str, Any]]) -> list[ImageExample]:
        """Return test rows as examples with names: a file's path, or the start of its content's SHA-256."""
        return [replace(example, name=_name(example.cell)) for example in self.encode(rows)]

    def identity(self, example: ImageExample) -> str:
        """Return the digest of the image's content, and its class."""
        return json.dumps([digest(example.cell), self.classes[example.target]])

    def collate(self, examples: Sequence[ImageExample]) -> ImageBatch:
        """Return the batch of `examples`, on the CPU."""
        return ImageBatch(
            pixel_values=self.preparation([example.cell for example in examples]),
            targets=torch.tensor([example.target for example in examples]),
        )

    def loss(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """Return the mean cross entropy over the classes, nats per image, its targets smoothed if so configured."""
        return functional.cross_entropy(self._logits(model, batch), batch.targets, label_smoothing=self.label_smoothing)

    def join(self, batches: Sequence[ImageBatch]) -> Joined[ImageBatch]:
        """Return clients' batches as one."""
        counts = tuple(batch.num_targets for batch in batches)
        batch = ImageBatch(
            pixel_values=torch.cat([batch.pixel_values for batch in batches]),
            targets=torch.cat([batch.targets for batch in batches]),
        )
        return Joined(batch=batch, rows=counts, targets=counts)

    def losses(self, model: nn.Module, joined: Joined[ImageBatch]) -> Tensor:
        """Return each client's mean cross entropy, as `loss` does."""
        logits, targets = self._logits(model, joined.batch), joined.batch.targets
        each = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        return segment_means(each, joined.targets)

    @staticmethod
    def _logits(model: nn.Module, batch: ImageBatch) -> Tensor:
        """Return the scores of the classes (n, K), float32 under any lower precision."""
        return at_least_float32(model(pixel_values=batch.pixel_values).logits)

    def evaluation_batches(self, examples: Sequence[ImageExample], batch_size: int) -> list[list[ImageExample]]:
        """Return all examples in batches, in their order: prepared images have one size."""
        return [list(examples[start : start + batch_size]) for start in range(0, len(examples), batch_size)]

    def metrics(self) -> dict[str, Metric]:
        """Return fresh metrics: loss (nats per image, without smoothing) and the scores of classes."""
        return {"loss": FixedPointMean(), "classes": Classification(len(self.classes)), **outside_metrics(self.data)}

    def protocol_parts(self) -> dict[str, Any]:
        """Return the classes, and what is done to an image."""
        return {
            "task": ["image_classification"],
            "classes": list(self.classes),
            "image": image_processor_content(self.preparation.image_processor),
        }

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, examples: Sequence[ImageExample], metrics: Mapping[str, Metric], device: torch.device
    ) -> list[Sample]:
        """Score one batch: the class with the largest score is predicted."""
        batch = self.collate(examples).to(device)
        logits = self._logits(model, batch)
        losses = functional.cross_entropy(logits, batch.targets, reduction="none")
        metrics["loss"].update(losses, torch.ones_like(batch.targets))
        predictions = logits.argmax(-1)
        for name in metrics.keys() - {"loss"}:
            metrics[name].update(predictions, batch.targets)
        return [
            Sample(
                prompt=example.name,
                reference=self.classes[example.target],
                prediction=self.classes[number],
                probability=probability,
            )
            for example, number, probability in zip(examples, *chosen_classes(logits, predictions), strict=True)
        ]


def _name(cell: Any) -> str:
    return cell.path if isinstance(cell, ImageFile) else f"image {digest(cell)[:8]}"


def _require_size(preparation: Preparation, model_config: Any, path: str) -> None:
    """Raise UserError unless images of any size come out as the model reads them, where it says how."""
    reads = getattr(model_config, "vision_config", model_config)
    size = getattr(reads, "image_size", None)
    if size is None:  # convolutions and their like read any
        return
    height, width = (size, size) if isinstance(size, int) else size
    wanted, found = (getattr(reads, "num_channels", 3), height, width), preparation.shape(48, 64)
    if found != wanted:
        raise UserError(
            f"model.path={path}: its image processor turns an image into {found}, its model reads {wanted} (channels, "
            "height, width); give a folder whose preprocessor_config.json and config.json agree"
        )
