"""What a model's files say of themselves, before anything is loaded: who wrote the code, in what form the weights are.

The files of a folder are read as they lie there; of a model of the hub the small files that transformers reads anyway.
Weights are looked at where they lie, by their header alone: a dry run needs none.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import cached_file

from fedlit.errors import UserError
from fedlit.tasks.spec import TaskSpec

DESCRIPTIONS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""The files in which a model may name code of its own."""
_INDEX = "model.safetensors.index.json"
_LFS = b"version https://git-lfs"
_FLOATS = {"F64", "F32", "F16", "BF16"}


def require_files(path: str, key: str) -> None:
    """Refuse a folder whose weights cannot be read; a model of the hub is what transformers finds there.

    Args:
        path: a folder, or a model id of the hub.
        key: how messages name it, such as `model.path=x`.

    Raises:
        UserError: pointers of Git LFS in place of files, or a missing shard.
    """
    folder = Path(path)
    require_no_pointers(path, key, "*.safetensors", "*.bin", "*.index.json")
    _require_shards(folder, key)


def require_architecture(path: str, key: str, spec: TaskSpec, *, weights: bool) -> None:
    """Refuse a model that, by its config.json, does not do a task or, with `weights`, has some that cannot be trained.

    Raises:
        UserError: an encoder in place of a decoder, or quantised weights.
    """
    described = description(path, "config.json")
    if weights:
        _require_plain_weights(described, key)
    if spec.generates:
        _require_decoder(described, key)


def require_no_pointers(path: str, key: str, *patterns: str) -> None:
    """Refuse files of a folder that are pointers of Git LFS, as a clone without its large files has them.

    Raises:
        UserError: names the first one.
    """
    for file in sorted(file for pattern in patterns for file in Path(path).glob(pattern)):
        if not file.is_file():
            continue
        with file.open("rb") as content:
            beginning = content.read(len(_LFS))
        if beginning == _LFS:
            raise UserError(
                f"{key}: {file.name} is a pointer of Git LFS, not the file itself; run `git lfs pull` in that folder, "
                "or download the model with `hf download`"
            )


def description(path: str, name: str) -> dict[str, Any]:
    """Return one of the small files of a folder or of a model of the hub; nothing if there is none or it is no JSON.

    What is wrong with it is told by whoever needs it.
    """
    try:
        found = Path(path) / name
        if not Path(path).is_dir():
            # What has been loaded is in the cache; a network that is gone would be asked for half a minute.
            cached = cached_file(path, name, local_files_only=True, _raise_exceptions_for_missing_entries=False)
            if cached is None:
                return {}
            found = Path(cached)
        content = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def own_code(path: str) -> Iterator[tuple[str, str]]:
    """Yield the files of a model that name code of its own, and that code: `AutoConfig: configuration_x.XConfig`."""
    for name in DESCRIPTIONS:
        named = description(path, name).get("auto_map")
        if isinstance(named, dict) and named:
            yield name, ", ".join(f"{auto}: {code}" for auto, code in sorted(named.items()))
        elif named:
            yield name, str(named)
    if (Path(path) / "custom_generate" / "generate.py").is_file():
        yield "custom_generate/generate.py", "generate"


def require_weights_fit(path: str, key: str, model: nn.Module) -> None:
    """Refuse weights, where they lie in a folder, of other sizes than config.json says or that are no numbers to train.

    Only their headers are read. Of the shapes that of the vocabulary is compared: transformers renames other tensors
    while it loads them, and says itself which do not fit.

    Raises:
        UserError: a file that is damaged, integers in place of weights, or another vocabulary.
    """
    folder = Path(path)
    if not folder.is_dir():
        return
    embedding: Any = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None  # type: ignore[operator]
    own = next((f"{name}.weight" for name, module in model.named_modules() if module is embedding), "")
    rows = tuple(embedding.weight.shape) if isinstance(embedding, nn.Embedding) else ()
    for file in sorted(folder.glob("model*.safetensors")):
        try:
            with safe_open(file, "pt") as tensors:
                stored = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  it is no mapping
                types = {name: tensor.get_dtype() for name, tensor in stored.items()}
                shapes = {name: tuple(tensor.get_shape()) for name, tensor in stored.items()}
        except Exception as error:
            reason = " ".join(str(error).split())[:80]
            raise UserError(f"{key}: {file.name} is damaged or incomplete ({reason}); download it again") from error
        whole = next((name for name, dtype in types.items() if _is_quantized(name, dtype)), None)
        if whole is not None:
            raise UserError(
                f"{key}: {whole} in {file.name} is stored as {types[whole]}, quantised, which cannot be trained here; "
                "give the model in bfloat16 or float32"
            )
        # A bare model is stored without the name of that part inside a larger one.
        for name in {own, own.partition(".")[2]} & shapes.keys() if rows else ():
            if shapes[name] != rows:
                raise UserError(
                    f"{key}: {name} in {file.name} is {'x'.join(map(str, shapes[name]))}, but config.json says "
                    f"{'x'.join(map(str, rows))}; give weights and config.json of one model"
                )


def _is_quantized(name: str, dtype: str) -> bool:
    """Return whether a stored tensor is a weight in integers or in 8 bits; masks and positions are buffers."""
    return name.endswith((".weight", ".qweight", ".weight_packed")) and dtype not in _FLOATS


def _require_shards(folder: Path, key: str) -> None:
    """Refuse an index whose files are not all there."""
    if (folder / "model.safetensors").is_file() or not (folder / _INDEX).is_file():
        return
    named = description(str(folder), _INDEX).get("weight_map")
    files = sorted(set(named.values())) if isinstance(named, dict) else []
    missing = [name for name in files if not (folder / str(name)).is_file()]
    if missing or not files:
        what = f"names {missing[0]}, which is not there ({len(missing)} files)" if missing else "names no files"
        raise UserError(f"{key}: {_INDEX} {what}; download the model again")


def _require_plain_weights(described: dict[str, Any], key: str) -> None:
    """Refuse weights that were quantised before they were stored."""
    quantized = described.get("quantization_config") or described.get("compression_config")
    if quantized:
        kind = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        raise UserError(
            f"{key} is quantised ({str(kind)[:40]}, quantization_config in config.json) and cannot be trained, folded "
            "or merged; give the model that it was made from, with model.quantization=nf4 if memory is short"
        )


def _require_decoder(described: dict[str, Any], key: str) -> None:
    """Refuse architectures that do not go on from a text: encoders, and encoders with a decoder."""
    kind = str(described.get("model_type"))[:40]
    remedy = "give a decoder, such as Llama, Qwen2 or GPT-2"
    if described.get("is_encoder_decoder"):
        raise UserError(f"{key} is an encoder-decoder ({kind}), and data.task=causal_lm trains decoders only; {remedy}")
    causal = described.get("is_decoder") or described.get("causal")  # the latter is XLM's name for it
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not causal:
        raise UserError(
            f"{key} is an encoder ({kind}), whose words see those that come after them, and data.task=causal_lm "
            f"trains decoders; {remedy}, or data.task=sequence_classification"
        )


def classifier(path: str) -> str | None:
    """Return the architecture of a checkpoint that was stored with a classification head; None of any other."""
    named = description(path, "config.json").get("architectures")
    names = [str(name) for name in named] if isinstance(named, list) else []
    return next((name for name in names if name.endswith("Classification")), None)
