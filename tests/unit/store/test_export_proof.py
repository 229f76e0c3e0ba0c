"""Before anything is trained it is shown that the result can be written, and what it will be made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from fedlit.adapters import Adapter
from fedlit.adapters.dense import Dense
from fedlit.adapters.lora import Lora
from fedlit.adapters.lora_core import LoraCore
from fedlit.adapters.scl import Scl
from fedlit.algebra.tensors import TensorDict
from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import PACKAGED, Backbone, Purpose, head_parameters, load_backbone
from fedlit.round.server import ServerState
from fedlit.store.export import replacing, write_weights
from fedlit.store.export_proof import pretrained_shapes, require_exportable

CLASSES = ("no tumour", "glioma", "meningioma")
SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "roberta": {**SHAPE, "vocab_size": 2048, "max_position_embeddings": 64, "pad_token_id": 1},
    "vit": {**SHAPE, "image_size": 12, "patch_size": 4},
    "llama": {**SHAPE, "vocab_size": 2048, "pad_token_id": None, "eos_token_id": 2, "tie_word_embeddings": True},
}
CASES: list[tuple[str, Callable[[], Adapter]]] = [
    ("roberta", lambda: Lora(lora_rank=2, target_modules=["query", "value"])),
    ("roberta", lambda: Lora(lora_rank=2, target_modules=["attention.output.dense"])),
    ("roberta", lambda: LoraCore(lora_rank=2, target_modules="all", init="random")),
    ("roberta", lambda: Dense(target_modules=["word_embeddings", "LayerNorm"])),
    ("roberta", lambda: Scl(compression_dim=4)),
    ("vit", lambda: Lora(lora_rank=2, target_modules="all")),
    ("vit", lambda: LoraCore(lora_rank=2, target_modules="qkv", init="random")),
    ("vit", lambda: Dense(target_modules=["projection"])),
    ("vit", lambda: Dense(target_modules="model")),
    ("llama", lambda: Lora(lora_rank=2, target_modules="all")),
    ("llama", lambda: Dense(target_modules=["embed_tokens"])),
]


@dataclass
class Classifier:
    """A pretrained classifier on the disk."""

    kind: str
    folder: Path

    def load(self, *, weights: bool = True) -> Backbone:
        task = "image_classification" if self.kind == "vit" else "sequence_classification"
        config = ModelConfig(path=str(self.folder), max_length_tokens=32)
        return load_backbone(config, Purpose(task=task, classes=CLASSES), weights=weights)

    @property
    def inputs(self) -> dict[str, Tensor]:
        if self.kind == "vit":
            return {"pixel_values": torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))}
        words = torch.arange(5, 45).view(4, 10)
        words[1:, 7:] = 2
        mask = torch.ones_like(words)
        mask[1:, 7:] = 0
        return {"input_ids": words, "attention_mask": mask}


@pytest.fixture
def classifier(tmp_path: Path) -> Callable[[str], Classifier]:
    def build(kind: str) -> Classifier:
        folder = tmp_path / kind
        torch.manual_seed(0)
        if kind == "llama":
            model: Any = LlamaForSequenceClassification(LlamaConfig(**CONFIGS[kind], num_labels=5))
        else:
            auto = AutoModelForImageClassification if kind == "vit" else AutoModelForSequenceClassification
            model = auto.from_config(AutoConfig.for_model(kind, **CONFIGS[kind], num_labels=5))
        model.save_pretrained(folder)
        if kind == "vit":
            processor = '{"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}}'
            (folder / "preprocessor_config.json").write_text(processor)
        else:
            words = AutoTokenizer.from_pretrained(PACKAGED["tiny"])
            if kind == "llama":
                words.pad_token = None
            words.save_pretrained(folder)
        return Classifier(kind, folder)

    return build


def prove(adapter: Adapter, backbone: Backbone) -> None:
    pretrained = pretrained_shapes(backbone.model)
    with torch.device("meta"):
        adapter.attach(backbone.model, backbone.projections)
    head = {name: parameter.data for name, parameter in head_parameters(backbone.model).items()}
    require_exportable(adapter, backbone.model, pretrained, head)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(("kind", "make"), CASES)
def test_a_classifier_is_proved_and_leaves_with_the_logits_of_the_run(
    kind: str, make: Callable[[], Adapter], classifier: Callable[[str], Classifier], tmp_path: Path
) -> None:
    """Decoders too, which tell by the id of padding where a text ends."""
    given, adapter = classifier(kind), make()
    prove(make(), given.load(weights=False))
    backbone = given.load()
    model: Any = backbone.model
    if kind == "llama":
        model.config.pad_token_id = 2  # as the task does
    before = model(**given.inputs).logits
    adapter.attach(model, backbone.projections)
    head = {name: parameter.data for name, parameter in head_parameters(model).items()}
    torch.manual_seed(1)
    for tensor in {**adapter.shared(model), **head}.values():
        tensor.add_(torch.randn_like(tensor), alpha=0.1)
    model.eval()
    expected = model(**given.inputs).logits
    assert float((expected - before).abs().max()) > 1e-2
    server = ServerState(shared=adapter.shared(model), layers=adapter.layers(model))
    for form in ("adapter", "merged"):
        folder = tmp_path / "result"
        with replacing(folder) as partial:
            write_weights(
                adapter=adapter, model=model, server=server, folder=partial, form=form, reload=given.load, head=head
            )
        auto = AutoModelForImageClassification if kind == "vit" else AutoModelForSequenceClassification
        loaded, report = auto.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values())
        torch.testing.assert_close(loaded.eval()(**given.inputs).logits, expected, rtol=1e-4, atol=1e-4)
        assert loaded.config.id2label == dict(enumerate(CLASSES))
        if kind == "llama":
            assert AutoTokenizer.from_pretrained(folder).pad_token_id == 2


@pytest.mark.parametrize("kind", ["roberta", "vit"])
def test_a_convolution_or_an_embedding_has_no_factors(kind: str, classifier: Callable[[str], Classifier]) -> None:
    target, name = {"vit": ("projection", "Conv2d"), "roberta": ("word_embeddings", "Embedding")}[kind]
    with pytest.raises(UserError, match=rf"{target} is of type {name}, and LoRA stands beside linear layers only"):
        prove(Lora(target_modules=[target]), classifier(kind).load(weights=False))


class Renamed(Dense):
    """Gives its result under names that the pretrained model does not have."""

    def merged(self, model: nn.Module) -> TensorDict:
        return {f"wrapped.{name}": tensor for name, tensor in super().merged(model).items()}


class Wider(Dense):
    """Gives its result in another shape."""

    def merged(self, model: nn.Module) -> TensorDict:
        return {name: torch.cat([tensor, tensor]) for name, tensor in super().merged(model).items()}


@pytest.mark.parametrize(
    ("adapter", "fact"),
    [
        (
            Renamed(),
            r"adapter Renamed changes wrapped\.model.*up_proj\.weight, which the pretrained model does not have",
        ),
        (Wider(), r"adapter Wider makes model.*up_proj\.weight \(768, 128\), which is \(384, 128\) in the pretrained"),
    ],
)
def test_a_part_from_outside_whose_result_could_not_be_written(adapter: Adapter, fact: str) -> None:
    with pytest.raises(UserError, match=fact) as told:
        prove(adapter, load_backbone(ModelConfig(), weights=False))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) <= 400


def test_all_names_of_a_tied_weight_are_the_pretrained_models() -> None:
    shapes = pretrained_shapes(load_backbone(ModelConfig(), weights=False).model)
    assert shapes["lm_head.weight"] == shapes["model.embed_tokens.weight"] == (2048, 128)
