"""Every adapter on every kind of classifier: what starts, trains, travels, and leaves as a whole model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_encoders import CLASSES, IMAGES, LABELS, logits_of, losses_of, purpose_of, write_folder
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from fedlit.adapters import trainable
from fedlit.algebra.tensors import checksum, copy_into, snapshot
from fedlit.config import ModelConfig, load_config
from fedlit.methods import Method, build_method
from fedlit.models import Backbone, head_parameters, load_backbone
from fedlit.round.server import ServerState
from fedlit.seeding import torch_stream
from fedlit.store.export import replacing, write_weights

METHODS = {
    "lora": "fedit",
    "lora_all": "fedit method.target_modules=all",
    "train_b": "ffa_lora",
    "share_a": "fedsa_lora",
    "folds": "fedex_lora",
    "core": "fed_sb method.lora_rank=2",
    "scl": "scl method.compression_dim=3",
    "scl_whitened": "scl method.compression_dim=3 method.init=whitened",
    "galore": "fedftg method.galore.rank=2",
    "full": "full",
}


@pytest.fixture(scope="module")
def folders(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("models")

    def folder(kind: str) -> Path:
        path = root / kind
        return path if path.exists() else write_folder(kind, path, tokenizer)

    return folder


def load(kind: str, folder: Path, **given: Any) -> Backbone:
    kernel = "eager" if kind == "deberta-v2" else "sdpa"  # whose attention torch's fused kernel does not know
    config = ModelConfig(path=str(folder), max_length_tokens=32, attention_implementation=kernel, **given)
    return load_backbone(config, purpose_of(kind))


def prepare(method_name: str, kind: str, folder: Path, **given: Any) -> tuple[Method, Backbone, dict[str, float]]:
    name, *options = METHODS[method_name].split()
    method = build_method(load_config([f"method={name}", *options]))
    backbone = load(kind, folder, **given)
    with torch_stream(0, "adapter"):
        facts = method.attach(backbone.model, backbone.projections, losses_of(backbone.model, kind))
    return method, backbone, facts


def train(method: Method, model: nn.Module, kind: str, num_steps: int = 3) -> list[float]:
    optimizer = method.optimizer.build(trainable(model))
    losses = []
    for _ in range(num_steps):
        loss = nn.functional.cross_entropy(logits_of(model, kind).float(), LABELS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


IDLE = ("vision_model.head.", "k_proj.bias", "key.bias", "k_lin.bias")
"""What may stay where it is: SigLIP's pooling head is not used by a classifier, and attention does not depend on the
keys' bias."""
CASES = [
    *((name, kind) for kind in ("roberta", "siglip") for name in METHODS),
    *((name, kind) for kind in ("bert", "vit", "distilbert") for name in ("lora_all", "core", "scl", "galore")),
    ("lora_all", "deberta-v2"),
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_method_trains_an_encoder_and_its_result_loads_without_this_package(
    name: str, kind: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    method, backbone, facts = prepare(name, kind, folders(kind))
    model, adapter = backbone.model.eval(), method.adapter
    if name not in ("core", "scl", "scl_whitened"):
        torch.testing.assert_close(logits_of(model, kind), logits_of(load(kind, folders(kind)).model.eval(), kind))
    assert facts.keys() >= ({"init/loss_after"} if name.startswith("scl") else set())
    parameters = dict(model.named_parameters())
    layers = adapter.layers(model)
    assert {factor for layer in layers for factor in (*layer.factors, layer.weight)} <= parameters.keys()
    assert not any("head" in layer.name or layer.name.startswith("classifier") for layer in layers)
    before, whole = snapshot(trainable(model)), snapshot(parameters)
    losses = train(method, model, kind)
    assert losses[-1] < losses[0]
    moved = {key for key, value in parameters.items() if not torch.equal(value, whole[key])}
    assert moved <= before.keys()
    assert before.keys() - moved <= {key for key in before if any(word in key for word in IDLE)}

    server = ServerState(shared=method.shared(model), layers=layers, round_idx=1)
    merged = adapter.merged(model) | method.head(model)
    assert merged.keys() <= dict(load(kind, folders(kind)).model.named_parameters()).keys()
    with replacing(tmp_path / "adapter") as partial:
        write_weights(
            adapter=adapter,
            model=model,
            server=server,
            folder=partial,
            form="adapter",
            reload=lambda: load(kind, folders(kind)),
            head=method.head(model),
        )
    same_model(model, kind, tmp_path / "adapter", exact=name == "full")


def same_model(model: nn.Module, kind: str, folder: Path, *, exact: bool) -> None:
    """Load a folder by transformers alone, and compare."""
    auto: Any = AutoModelForImageClassification if kind in IMAGES else AutoModelForSequenceClassification
    loaded = auto.from_pretrained(folder).eval()
    assert loaded.config.id2label == dict(enumerate(CLASSES))
    assert loaded.config.label2id == {name: number for number, name in enumerate(CLASSES)}
    tolerance = 0.0 if exact else 1e-4
    torch.testing.assert_close(logits_of(loaded, kind), logits_of(model, kind), rtol=tolerance, atol=tolerance)
    reader: Any = AutoImageProcessor if kind in IMAGES else AutoTokenizer
    reader.from_pretrained(folder)
    other = {"preprocessor_config.json", "tokenizer.json"} - {
        "preprocessor_config.json" if kind in IMAGES else "tokenizer.json"
    }
    names = {path.name for path in folder.iterdir()}
    assert not other & names
    assert "generation_config.json" not in names


@pytest.mark.parametrize("kind", ["roberta", "bert", "vit", "siglip", "distilbert"])
@pytest.mark.parametrize("name", ["lora_all", "share_a"])
def test_a_bfloat16_encoder_has_float32_logits_without_autocast(
    name: str, kind: str, folders: Callable[[str], Path]
) -> None:
    """The head is float32 and takes what comes in its own type; the others keep theirs."""
    method, backbone, _ = prepare(name, kind, folders(kind), dtype="bfloat16")
    model = backbone.model.eval()
    logits = logits_of(model, kind)
    assert logits.dtype == torch.float32
    head = head_parameters(model)
    assert {parameter.dtype for parameter in head.values()} == {torch.float32}
    assert {
        parameter.dtype for key, parameter in model.named_parameters() if key not in head and ".lora_" not in key
    } == {torch.bfloat16}
    plain = prepare(name, kind, folders(kind))[1].model.eval()
    copy_into(head_parameters(plain), head)  # a new head is drawn in the backbone's type
    assert (logits - logits_of(plain, kind)).norm() < 0.1 * logits.norm()
    assert all(torch.isfinite(torch.tensor(train(method, model, kind))))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(logits_of(model, kind)).all()


@pytest.mark.parametrize("kind", ["roberta", "siglip"])
def test_the_result_of_a_random_model_is_built_on_the_same_random_model(
    kind: str, tokenizer: Any, tmp_path: Path
) -> None:
    """`reload` draws the weights again: from the seed, whatever the state of the generator."""
    folder = write_folder(kind, tmp_path / "model", tokenizer, with_weights=False)
    method, backbone, _ = prepare("lora", kind, folder, weights="random")
    model = backbone.model.eval()
    train(method, model, kind)
    torch.manual_seed(123)
    with replacing(tmp_path / "adapter") as partial:
        write_weights(
            adapter=method.adapter,
            model=model,
            server=ServerState(shared=method.shared(model), layers=method.adapter.layers(model)),
            folder=partial,
            form="adapter",
            reload=lambda: load(kind, folder, weights="random"),
            head=method.head(model),
        )
    same_model(model, kind, tmp_path / "adapter", exact=False)


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_a_head_over_other_classes_is_drawn_anew_from_the_seed(kind: str, folders: Callable[[str], Path]) -> None:
    """The folder has five outputs; the pretrained part is its own."""
    first, again = (load(kind, folders(kind)).model for _ in range(2))
    other = load_backbone(ModelConfig(path=str(folders(kind)), max_length_tokens=32), purpose_of(kind, seed=1)).model
    sums = [checksum(snapshot(head_parameters(model))) for model in (first, again, other)]
    assert sums[0] == sums[1] != sums[2]
    rest = [
        {key: value for key, value in snapshot(dict(model.named_parameters())).items() if "classifier" not in key}
        for model in (first, other)
    ]
    assert checksum(rest[0]) == checksum(rest[1])
    assert first.config.num_labels == len(CLASSES)  # type: ignore[union-attr]
