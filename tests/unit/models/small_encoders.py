"""Random classifiers of two layers, saved with their tokenizer or image processor, and batches for them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

from fedlit.models import Purpose

CLASSES = ("no tumour", "glioma", "meningioma")
HIDDEN, INNER, NUM_LAYERS = 24, 40, 2
SHAPE = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
TEXT = {"vocab_size": 2048, "max_position_embeddings": 64}
IMAGE = {"image_size": 12, "patch_size": 4}
CONFIGS: Mapping[str, dict[str, Any]] = {
    "roberta": {**SHAPE, **TEXT, "pad_token_id": 1},
    "bert": {**SHAPE, **TEXT},
    "deberta-v2": {**SHAPE, **TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "distilbert": {"dim": HIDDEN, "hidden_dim": INNER, "n_layers": NUM_LAYERS, "n_heads": 4, **TEXT},
    "vit": {**SHAPE, **IMAGE},
    "siglip": {"vision_config": {**SHAPE, **IMAGE}},
}
IMAGES = ("vit", "siglip")
LABELS = torch.tensor([0, 1, 2, 1])


def purpose_of(kind: str, seed: int = 0) -> Purpose:
    task = "image_classification" if kind in IMAGES else "sequence_classification"
    return Purpose(task=task, classes=CLASSES, seed=seed)


def write_folder(kind: str, folder: Path, tokenizer: Any, *, with_weights: bool = True, **given: Any) -> Path:
    """Write a pretrained model whose biases are not zero, and whose head has as many outputs as `num_labels` says."""
    config = AutoConfig.for_model(kind, **{**CONFIGS[kind], "num_labels": 5, **given})
    if kind in IMAGES:
        processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "preprocessor_config.json").write_text(str(processor).replace("'", '"'))
    else:
        tokenizer.save_pretrained(folder)
    if not with_weights:
        config.save_pretrained(folder)
        return folder
    auto = AutoModelForImageClassification if kind in IMAGES else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


def inputs_of(kind: str) -> dict[str, Tensor]:
    """Return four rows."""
    if kind in IMAGES:
        return {"pixel_values": torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))}
    return {"input_ids": torch.arange(5, 45).view(4, 10), "attention_mask": torch.ones(4, 10, dtype=torch.long)}


def logits_of(model: Any, kind: str) -> Tensor:
    return model(**inputs_of(kind)).logits


def losses_of(model: Any, kind: str) -> Callable[[], Any]:
    """Return the calibration of an adapter: one batch."""

    def losses() -> Any:
        yield nn.functional.cross_entropy(logits_of(model, kind).float(), LABELS)

    return losses
