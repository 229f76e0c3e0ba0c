"""Images reach the model with the bits of its image processor, however often and in whatever batch they are seen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score
from torch import Tensor, nn
from transformers import AutoImageProcessor

from fedlit.config import DataConfig, LocalConfig, ModelConfig, RunConfig
from fedlit.data.images import ImageFile, digest
from fedlit.errors import UserError
from fedlit.models import PACKAGED, Backbone, Projections, Purpose, load_backbone
from fedlit.tasks.image_classification import task as image_classification
from fedlit.tasks.image_classification.task import ImageClassification, ImageExample, Preparation

CLASSES = ("meningioma", "glioma", "pituitary")
PROCESSORS: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {"size": {"height": 24, "width": 24}},
    "SiglipImageProcessor": {"size": {"height": 24, "width": 24}, "image_mean": [0.1, 0.5, 0.7]},
    "CLIPImageProcessor": {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 24}},
    "EfficientNetImageProcessor": {"size": {"height": 24, "width": 24}},
}


def some_pixels(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def rows_of(num: int) -> list[dict[str, Any]]:
    return [{"image": some_pixels(20, 30, seed=i), "label": CLASSES[i % 3]} for i in range(num)]


def load(name: str, **more: Any) -> Backbone:
    purpose = Purpose(task="image_classification", classes=CLASSES)
    return load_backbone(ModelConfig(path=name, weights="random", **more), purpose)


def config(**local: Any) -> RunConfig:
    return RunConfig(data=DataConfig(task="image_classification"), local=LocalConfig(**local))


@pytest.fixture(scope="module", params=["vit_small", "siglip_small"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load(request.param)


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return load("vit_small")


class Scripted(nn.Module):
    """A model whose scores are given; it looks up an image by its mean."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.config = type("Config", (), {"id2label": dict(enumerate(CLASSES))})()

    def forward(self, pixel_values: Tensor) -> Any:
        rows = (pixel_values.mean((1, 2, 3)) * 127.5 + 127.5).round().long()
        return type("Output", (), {"logits": self.logits[rows]})()


def plain_rows(num: int) -> list[dict[str, Any]]:
    """Row i is of value i all over, so that a scripted model knows it."""
    return [{"image": np.full((4, 4), i, dtype=np.uint8), "label": i % 3} for i in range(num)]


def processor(name: str, tmp_path: Path) -> Any:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name, **PROCESSORS[name]}))
    return AutoImageProcessor.from_pretrained(tmp_path, backend="pil")


# --- preparation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROCESSORS)
def test_values_are_those_of_the_image_processor(name: str, tmp_path: Path) -> None:
    given = processor(name, tmp_path)
    cells = [some_pixels(20, 30, 3), some_pixels(31, 17, 3, seed=1), some_pixels(24, 24, 3, seed=2)]
    preparation = Preparation(given)
    wanted = given(images=cells, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    for _ in range(2):  # the second time from what was kept
        values = preparation(cells)
        assert values.dtype == torch.float32
        assert torch.equal(values, wanted)
    assert preparation.shape(20, 30) == tuple(wanted.shape[1:]) == (3, 24, 24)


def test_two_steps_are_not_for_every_processor(tmp_path: Path) -> None:
    in_two = {name: Preparation(processor(name, tmp_path))._in_two_steps for name in PROCESSORS}
    assert in_two == {name: name != "EfficientNetImageProcessor" for name in PROCESSORS}


def test_the_image_of_every_kind_of_cell(vit: Backbone, tmp_path: Path) -> None:
    colour = some_pixels(20, 30, 3)
    image = Image.fromarray(colour)
    image.save(tmp_path / "x.png")
    grey = some_pixels(20, 30)
    values = Preparation(vit.image_processor)([colour, image, ImageFile(str(tmp_path / "x.png")), grey])
    wanted = vit.image_processor(images=[image, Image.fromarray(grey).convert("RGB")], return_tensors="pt")
    assert torch.equal(values, wanted["pixel_values"][[0, 0, 0, 1]])


def test_images_are_prepared_once_until_there_is_no_room(vit: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    whole = image_classification.pixels
    monkeypatch.setattr(image_classification, "pixels", lambda cell: looked.append(id(cell)) or whole(cell))
    monkeypatch.setattr(image_classification, "KEPT_BYTES", 2 * 3 * 64 * 64 + 5)
    cells = [some_pixels(20, 30, seed=i) for i in range(3)]
    preparation = Preparation(vit.image_processor)
    first = preparation(cells)
    assert looked == [id(cell) for cell in cells]
    assert torch.equal(preparation(cells[::-1]), first.flip(0))
    assert looked[3:] == [id(cells[2])]


def test_an_image_is_not_taken_for_one_that_is_gone(vit: Backbone) -> None:
    """Python gives an array that follows on a freed one the same identity."""
    preparation = Preparation(vit.image_processor)
    means = [float(preparation([np.full((9, 9), i, dtype=np.uint8)]).mean()) for i in range(20)]
    assert [round(mean * 127.5 + 127.5) for mean in means] == list(range(20))


def test_batches_do_not_share_memory_with_what_is_kept(vit: Backbone) -> None:
    preparation = Preparation(vit.image_processor)
    cell = some_pixels(20, 30)
    first = preparation([cell]).clone()
    preparation([cell]).zero_()
    assert torch.equal(preparation([cell]), first)


# --- rows, batches and loss ----------------------------------------------------------------------------------------


def test_rows_become_examples(backbone: Backbone) -> None:
    task = ImageClassification.build(config(), backbone)
    rows = rows_of(4)
    assert task.classes == CLASSES
    examples = task.encode(rows)
    assert [example.target for example in examples] == [0, 1, 2, 0]
    assert not any(example.truncated for example in examples)
    assert all(example.cell is row["image"] for example, row in zip(examples, rows, strict=True))
    assert task.encode([]) == []
    numbered = task.encode([{**row, "label": i} for i, row in enumerate(rows[:3])])
    assert [example.target for example in numbered] == [0, 1, 2]


def test_the_columns_are_the_configured_ones(vit: Backbone) -> None:
    given = replace(config(), data=DataConfig(task="image_classification", image="scan", target="finding"))
    (example,) = ImageClassification.build(given, vit).encode([{"scan": some_pixels(2, 3), "finding": "glioma"}])
    assert (example.target, example.cell.shape) == (1, (2, 3))


def test_test_examples_have_names(vit: Backbone) -> None:
    task = ImageClassification.build(config(), vit)
    rows = [*rows_of(1), {"image": ImageFile("scans/7.png"), "label": 2}]
    assert [example.name for example in task.evaluation_examples(rows)] == [
        f"image {digest(rows[0]['image'])[:8]}",
        "scans/7.png",
    ]


def test_a_batch(backbone: Backbone) -> None:
    task = ImageClassification.build(config(), backbone)
    rows = rows_of(5)
    batch = task.collate(task.encode(rows)).to(torch.device("cpu"))
    images = [Image.fromarray(row["image"]).convert("RGB") for row in rows]
    wanted = backbone.image_processor(images=images, return_tensors="pt")["pixel_values"]
    assert torch.equal(batch.pixel_values, wanted)
    assert batch.targets.tolist() == [0, 1, 2, 0, 1]
    assert batch.targets.dtype == torch.int64
    assert batch.num_targets == 5


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy(vit: Backbone, smoothing: float) -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    task = ImageClassification.build(config(label_smoothing=smoothing), vit)
    loss = task.loss(Scripted(logits), task.collate(task.encode(plain_rows(3))))
    log_p = np.log(np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True))
    targets = np.eye(3) * (1 - smoothing) + smoothing / 3
    assert float(loss) == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-6)
    assert loss.dtype == torch.float64


def test_the_loss_is_in_float32_under_bfloat16(backbone: Backbone) -> None:
    task = ImageClassification.build(config(), backbone)
    batch = task.collate(task.encode(rows_of(4)))
    exact = float(task.loss(backbone.model, batch))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.loss(backbone.model, batch)
    assert loss.dtype == torch.float32
    assert 0 < abs(float(loss) - exact) < 0.05


@pytest.mark.parametrize("name", ["vit_small", "siglip_small"])
def test_a_frozen_model_in_bfloat16(name: str) -> None:
    half = load(name, dtype="bfloat16")
    task = ImageClassification.build(config(), half)
    batch = task.collate(task.encode(rows_of(4)))
    assert batch.pixel_values.dtype == torch.float32
    assert task.loss(half.model, batch).dtype == torch.float32


def test_the_loss_is_that_of_transformers_and_reaches_every_weight(backbone: Backbone) -> None:
    task = ImageClassification.build(config(), backbone)
    batch = task.collate(task.encode(rows_of(4)))
    unused = ("vision_model.head.",)  # SigLIP's pooling, which its classifier does not look at
    for parameter in backbone.model.parameters():
        parameter.requires_grad_(True)
    loss = task.loss(backbone.model, batch)
    wanted = backbone.model(pixel_values=batch.pixel_values, labels=batch.targets).loss
    assert torch.allclose(loss, wanted)
    loss.backward()
    without = [name for name, parameter in backbone.model.named_parameters() if parameter.grad is None]
    backbone.model.zero_grad(set_to_none=True)
    backbone.model.requires_grad_(False)
    assert [name for name in without if not name.startswith(unused)] == []


# --- evaluation ----------------------------------------------------------------------------------------------------


def evaluated(
    task: ImageClassification, model: nn.Module, rows: list[dict[str, Any]], batch_size: int
) -> tuple[dict[str, Any], list[Any]]:
    metrics, samples = task.metrics(), []
    for batch in task.evaluation_batches(task.evaluation_examples(rows), batch_size):
        samples += task.evaluate(model, batch, metrics, torch.device("cpu"))
    return {"loss": metrics["loss"].compute(), **metrics["classes"].compute()}, samples


def test_evaluation_is_that_of_sklearn(vit: Backbone) -> None:
    rows = plain_rows(60)
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    task = ImageClassification.build(config(label_smoothing=0.3), vit)
    scores, samples = evaluated(task, Scripted(logits), rows, 7)
    targets, guesses = [row["label"] for row in rows], logits.argmax(1).tolist()
    for average in ("macro", "weighted", "micro"):
        assert float(scores[f"f1_{average}"]) == pytest.approx(f1_score(targets, guesses, average=average))
    assert scores["confusion_matrix"].tolist() == confusion_matrix(targets, guesses).tolist()
    unsmoothed = nn.functional.cross_entropy(logits, torch.tensor(targets))
    assert float(scores["loss"]) == pytest.approx(float(unsmoothed), rel=1e-6)
    assert [sample.reference for sample in samples] == [CLASSES[target] for target in targets]
    assert [sample.prediction for sample in samples] == [CLASSES[guess] for guess in guesses]
    assert samples[5].prompt == f"image {digest(rows[5]['image'])[:8]}"


def test_evaluation_is_the_same_for_any_batches_of_scores(vit: Backbone) -> None:
    rows = plain_rows(20)
    model = Scripted(torch.randn(20, 3, generator=torch.Generator().manual_seed(1)))
    task = ImageClassification.build(config(), vit)
    (first, samples), *others = [evaluated(task, model, rows, size) for size in (1, 3, 20, 64)]
    for scores, again in others:
        assert all(torch.equal(scores[name], value) for name, value in first.items())
        assert again == samples


def test_evaluation_of_a_model_hardly_depends_on_the_batches(backbone: Backbone) -> None:
    task = ImageClassification.build(config(), backbone)
    model = backbone.model.eval()
    (one, samples), (other, again) = [evaluated(task, model, rows_of(11), size) for size in (4, 11)]
    assert [replace(each, probability=None) for each in samples] == [replace(each, probability=None) for each in again]
    assert [each.probability for each in samples] == pytest.approx([each.probability for each in again], rel=1e-5)
    assert torch.equal(one["confusion_matrix"], other["confusion_matrix"])
    assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-5)


def test_all_examples_are_in_one_batch_each(vit: Backbone) -> None:
    task = ImageClassification.build(config(), vit)
    examples = task.evaluation_examples(rows_of(10))
    batches = task.evaluation_batches(examples, 4)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [example for batch in batches for example in batch] == examples
    assert task.evaluation_batches([], 4) == []


# --- models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "num_parameters"), [("vit_small", 498_819), ("siglip_small", 630_915)])
def test_the_packaged_models(name: str, num_parameters: int) -> None:
    first, again = load(name), load(name)
    assert sum(parameter.numel() for parameter in first.model.parameters()) == num_parameters
    assert first.image_processor.backend == "pil", "the same bits with torchvision and without"
    assert all(
        torch.equal(one, other) for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["vit_small", "siglip_small"])
def test_a_processor_of_another_size_than_the_model(name: str, tmp_path: Path) -> None:
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / file).write_text((PACKAGED[name] / file).read_text())
    changed = json.loads((tmp_path / "preprocessor_config.json").read_text())
    for size in ({"height": 48, "width": 64}, {"shortest_edge": 64}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(changed | {"size": size}))
        loaded = load(str(tmp_path))
        given = replace(config(), model=ModelConfig(path=str(tmp_path)))
        with pytest.raises(UserError, match=r"its model reads \(3, 64, 64\).*preprocessor_config.json"):
            ImageClassification.build(given, loaded)


def test_a_model_that_reads_any_size(tmp_path: Path) -> None:
    given = Backbone(
        model=Scripted(torch.zeros(1, 3)),
        image_processor=processor("ConvNextImageProcessor", tmp_path),
        projections=Projections(attention=(), mlp=()),
    )
    task = ImageClassification.build(config(), given)
    assert task.collate([ImageExample(cell=some_pixels(9, 9), target=0)]).pixel_values.shape == (1, 3, 24, 24)


def test_a_small_model_learns(backbone: Backbone) -> None:
    """Bright against dark, in a few steps from random weights."""
    task = ImageClassification.build(config(), backbone)
    rows = [{"image": np.full((8, 8), 40 + 80 * (i % 3), dtype=np.uint8), "label": i % 3} for i in range(12)]
    batch = task.collate(task.encode(rows))
    weights = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    backbone.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(backbone.model.parameters(), lr=1e-3)
    before = float(task.loss(backbone.model, batch).detach())
    for _ in range(30):
        optimizer.zero_grad()
        loss = task.loss(backbone.model, batch)
        loss.backward()
        optimizer.step()
    scores, _ = evaluated(task, backbone.model, rows, 12)
    backbone.model.load_state_dict(weights)
    backbone.model.zero_grad(set_to_none=True)
    backbone.model.requires_grad_(False)
    assert float(scores["accuracy"]) == 1.0
    assert float(loss.detach()) < before / 3
