"""Model and tokenizer that were given from Python as objects, in place of files.

The caller's objects stay as they are: a run trains a copy. What the copy computes is what a run of the files would
compute that the objects were loaded from.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from fedlit.algebra.tensors import checksum
from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models.backbone import Backbone, Purpose
from fedlit.models.loading import as_backbone, load_backbone, load_tokenizer, name_classes, require_end
from fedlit.models.notices import quiet
from fedlit.models.places import MEMORY

_LETTERS = 16
"""Of a checksum, as they stand in config.yaml: 64 bits, against mistakes."""


@dataclass(frozen=True, kw_only=True)
class OwnBackbone:
    """What a caller gives in place of `model.path` and `model.tokenizer`; None for what is loaded from files.

    model: of transformers, with its weights. reader: a tokenizer or, for a task with images, an image processor.
    """

    model: Any = None
    reader: Any = None

    def load(self, config: ModelConfig, purpose: Purpose, *, weights: bool = True) -> Backbone:
        """Return a backbone as `load_backbone`, from copies of the objects.

        Raises:
            UserError: as load_backbone, and a model of another kind than the task's.
        """
        reader = copy.deepcopy(self.reader)
        if self.model is None:
            return load_backbone(config, purpose, weights=weights, reader=reader)
        _require_task(config, purpose, self.model)
        if reader is None:
            reader = _reader_beside(config, purpose, self.model)
        require_end(config, purpose, reader)
        model = copied(self.model, weights=weights)
        name_classes(model.config, purpose)
        _prepare(config, model, weights=weights)
        return as_backbone(config, purpose, model, reader)

    def settings(self) -> dict[str, str]:
        """Return what the configuration holds of the objects: by their checksums another run with others is told.

        Raises:
            UserError: an object that no run could use.
        """
        found: dict[str, str] = {}
        if self.model is not None:
            _require_model(self.model)
            found["model.path"] = f"{MEMORY}:{_model_checksum(self.model)[:_LETTERS]}"
            found["model.name"] = Path(self.model.name_or_path or type(self.model).__name__).name
        if self.reader is not None:
            found["model.tokenizer"] = f"{MEMORY}:{_reader_checksum(self.reader)[:_LETTERS]}"
        return found


def copied(model: Any, *, weights: bool = True) -> Any:
    """Return a copy of a model in evaluation mode, its tensors on the CPU; without weights they are on the meta device.

    Tied tensors stay tied; gradients are left behind.
    """
    make: Callable[[Tensor], Tensor] = _to_cpu if weights else _to_meta
    memo = {id(tensor): make(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, memo).eval()


def _to_cpu(tensor: Tensor) -> Tensor:
    values = tensor.detach().to("cpu", copy=True)
    return nn.Parameter(values, requires_grad=False) if isinstance(tensor, nn.Parameter) else values


def _to_meta(tensor: Tensor) -> Tensor:
    values = torch.empty_like(tensor, device="meta")
    return nn.Parameter(values, requires_grad=False) if isinstance(tensor, nn.Parameter) else values


def _require_model(model: Any) -> None:
    """Refuse an object that is no whole model of transformers with weights to train beside or on."""
    if hasattr(model, "peft_config"):
        raise UserError(
            f"model= is a {type(model).__name__} with an adapter of PEFT in it, and the run brings its own; give the "
            "model below it, merge the two first (merge_and_unload), or go on from it: save_pretrained(<folder>) "
            'and model={"path": <folder>}'
        )
    if not isinstance(model, transformers.PreTrainedModel):
        raise UserError(
            f"model= is a {type(model).__name__}; give a transformers.PreTrainedModel, or the path of one as "
            'model={"path": ...}'
        )
    if getattr(model, "is_quantized", False) or getattr(model, "quantization_method", None) is not None:
        raise UserError(
            "model= is quantised; give the model that it was made from, or model.quantization=nf4 and its path"
        )
    if any(tensor.is_meta for tensor in model.parameters()):
        raise UserError(
            f"model= is a {type(model).__name__} whose weights are not in memory (meta device); load it whole"
        )


def _require_task(config: ModelConfig, purpose: Purpose, model: Any) -> None:
    """Refuse a model of another kind than the task's, and settings that would need files."""
    for key, value, plain in (("weights", config.weights, "pretrained"), ("quantization", config.quantization, None)):
        if value != plain:
            raise UserError(
                f"model.{key}={value} is for a model that is loaded from files; leave it out, or give model.path"
            )
    spec = purpose.spec
    known = getattr(transformers, spec.auto_class)._model_mapping.get(type(model.config), None)
    fitting: tuple[type, ...] = tuple(known) if isinstance(known, list | tuple) else () if known is None else (known,)
    if fitting and not isinstance(model, fitting):
        raise UserError(
            f"model= is a {type(model).__name__}, and data.task={spec.name} needs a {fitting[0].__name__}; load it "
            f"with transformers.{spec.auto_class}"
        )
    if spec.has_head and model.config.num_labels != purpose.num_outputs:
        raise UserError(
            f"model= has a head of {model.config.num_labels} outputs, and the rows have {purpose.num_outputs} classes; "
            f"load it with num_labels={purpose.num_outputs}"
        )


def _prepare(config: ModelConfig, model: Any, *, weights: bool) -> None:
    """Give a copy the type and the kernel that the configuration asks for, as loading from files would."""
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype]
    if model.dtype != dtype:
        kept = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name in model.state_dict():  # not what a model computes for itself, such as frequencies of positions
            if (tensor := kept.get(name)) is not None and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)
        model.config.dtype = dtype
    kernel = config.attention_implementation
    if weights and model.config._attn_implementation != kernel:
        try:
            with quiet():
                model.set_attn_implementation(kernel)
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"model= does not take model.attention_implementation={kernel} ({reason}); give "
                f"model.attention_implementation={model.config._attn_implementation}"
            ) from error


def _reader_beside(config: ModelConfig, purpose: Purpose, model: Any) -> Any:
    """Return the tokenizer that the configuration names, else the one that lies where the model came from."""
    place = config.tokenizer or model.name_or_path
    if not purpose.spec.reads_text or not place:
        what = "tokenizer" if purpose.spec.reads_text else "image processor"
        raise UserError(f"model= comes without its {what}; give it as tokenizer=<{what}>")
    return load_tokenizer(ModelConfig(path=place))


def _model_checksum(model: Any) -> str:
    """Return the SHA-256 of a model's weights and of the numbers that describe it, wherever it came from."""
    passing = {"transformers_version", "architectures"}
    described = {
        key: value for key, value in model.config.to_dict().items() if not key.startswith("_") and key not in passing
    }
    digest = hashlib.sha256(checksum(model.state_dict()).encode())
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _reader_checksum(reader: Any) -> str:
    """Return the SHA-256 of the files that a tokenizer or an image processor writes."""
    if not hasattr(reader, "save_pretrained") or isinstance(reader, nn.Module):
        raise UserError(
            f"tokenizer= is a {type(reader).__name__}; give a tokenizer of transformers (AutoTokenizer), or "
            "an image processor for images"
        )
    digest = hashlib.sha256()
    with TemporaryDirectory() as folder, quiet():
        reader.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(folder)}\n{_without_use(path)}".encode())
    return digest.hexdigest()


def _without_use(path: Path) -> str:
    """Return the text of a file, without where a tokenizer came from and how it cut or filled up its last texts."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json":
        return text
    content = json.loads(text)
    passing = {"truncation", "padding", "is_local", "local_files_only", "name_or_path"}
    kept = (
        {key: value for key, value in content.items() if key not in passing} if isinstance(content, dict) else content
    )
    return json.dumps(kept, sort_keys=True)
