"""Load a pretrained backbone with its tokenizer or image processor, or build it without weights."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import is_flash_attn_2_available

from fedlit.config import ModelConfig
from fedlit.errors import UserError
from fedlit.models import folder, vocabulary
from fedlit.models.adapter_folder import with_base
from fedlit.models.backbone import LANGUAGE_MODEL, Backbone, Purpose, tokenizer_key
from fedlit.models.notices import notices, quiet
from fedlit.models.places import location
from fedlit.models.projections import HEADS, PROJECTIONS, Projections, head_parameters
from fedlit.models.quantization import quantization_options
from fedlit.seeding import torch_stream


def load_tokenizer(config: ModelConfig) -> Any:
    """Return the tokenizer of a backbone; of an adapter its own or, where it has none, its base's."""
    config, _ = with_base(config)
    key = tokenizer_key(config)
    path = location(config.tokenizer or config.path, key)
    folder.require_no_pointers(path, key, "*.json", "*.txt", "*.model", "*.jinja")
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        raise _not_loadable(path, key, "tokenizer", error) from error


def load_backbone(
    config: ModelConfig, purpose: Purpose = LANGUAGE_MODEL, *, weights: bool = True, reader: Any = None
) -> Backbone:
    """Return a backbone with every parameter frozen; with weights=False it is built on the meta device, without memory.

    On the meta device neither quantisation nor an attention kernel makes a difference, and what they need is not asked
    for: sizes can be computed on any machine.

    Code that comes with a model is never run and nobody is asked to allow it. `reader` is a tokenizer, or an image
    processor, in place of the one that would be loaded. Where `config.path` is an adapter, the backbone is its base,
    and its factors are the backbone's `start`.

    Raises:
        UserError: the model, its tokenizer or its image processor cannot be loaded or needs code of its own, its
            weights lack more than a head, its tokenizer has more tokens than it, its projections are not known, or the
            device cannot do what the configuration asks for.
    """
    config, start = with_base(config)
    path, key = location(config.path), f"model.path={config.path}"
    pretrained = config.weights == "pretrained"
    folder.require_no_pointers(path, key, "config.json")
    if pretrained:
        folder.require_files(path, key)
    if reader is None:
        reader = load_tokenizer(config) if purpose.spec.reads_text else _load_image_processor(config)
    require_end(config, purpose, reader)
    folder.require_architecture(path, key, purpose.spec, weights=pretrained)
    model = _load_model(config, purpose, weights=weights)

    def check_files(model: nn.Module) -> None:
        if pretrained and not weights:
            folder.require_weights_fit(path, key, model)

    backbone = as_backbone(config, purpose, model, reader, check_files)
    if start is None:
        return backbone
    return replace(backbone, start=start, notices=(*start.notices(), *backbone.notices))


def require_end(config: ModelConfig, purpose: Purpose, reader: Any) -> None:
    """Refuse a tokenizer under which a response has no end."""
    if purpose.spec.generates and reader.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {config.path} has no end-of-text token; choose a model whose tokenizer has one"
        )


def as_backbone(
    config: ModelConfig,
    purpose: Purpose,
    model: Any,
    reader: Any,
    check_files: Callable[[nn.Module], None] = lambda _: None,
) -> Backbone:
    """Return a model, which is changed in place, as the backbone of a run: frozen, decoding greedily, fit for its
    texts.

    Args:
        config: of the run.
        purpose: what the model is for.
        model: with the head that `purpose` needs.
        reader: its tokenizer or its image processor.
        check_files: held against the model where that is due.

    Raises:
        UserError: as load_backbone, of all that is known once the model is there.
    """
    model.requires_grad_(False)
    end_ids: tuple[int, ...] = ()
    if purpose.spec.generates:
        end_ids = _end_ids(model)
        # A checkpoint may come with generation settings, a repetition penalty say, under which decoding is not greedy.
        model.generation_config = GenerationConfig()
    unwritten: Mapping[str, int] = {}
    tokenizer = reader if purpose.spec.reads_text else None
    if tokenizer is not None:
        _require_length(config, model)
        unwritten = vocabulary.without_rows(tokenizer, model, tokenizer_key(config))
    if purpose.spec.has_head and not head_parameters(model):
        raise UserError(
            f"the head of architecture {model.config.model_type} of model.path={config.path} is not known, so that it "
            f"would stay as it is; choose another model (known are heads called {', '.join(HEADS)})"
        )
    check_files(model)
    _feed_head_in_its_type(model)
    if config.gradient_checkpointing:
        _enable_checkpointing(config, model)
    return Backbone(
        model=model,
        tokenizer=tokenizer,
        image_processor=None if purpose.spec.reads_text else reader,
        projections=_projections(config, model),
        notices=tuple(notices(config, purpose, model, tokenizer, unwritten)),
        unwritten=unwritten,
        end_ids=end_ids,
    )


def _end_ids(model: Any) -> tuple[int, ...]:
    """Return the tokens that end a generation by the settings that came with a model, such as a chat's end of turn."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return tuple(ids) if isinstance(ids, list | tuple) else () if ids is None else (ids,)


def _load_model(config: ModelConfig, purpose: Purpose, *, weights: bool) -> Any:
    """Return the model with the head that `purpose` needs, new weights drawn from streams with names."""
    path, auto_class = location(config.path), getattr(transformers, purpose.spec.auto_class)
    options: dict[str, Any] = {
        "dtype": {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.dtype],
        "trust_remote_code": False,
    }
    flash = config.attention_implementation == "flash_attention_2"
    if weights and flash:
        _require_flash_attention(config)
    if weights or not flash:
        options["attn_implementation"] = config.attention_implementation
    # Before anything is read, and outside the error that says what cannot be read.
    quantized = quantization_options() if config.quantization and weights else {}
    try:
        with quiet():
            architecture = _architecture(path, purpose)
            if not weights:
                with torch.device("meta"):
                    return auto_class.from_config(architecture, **options)
            with torch_stream(purpose.seed, "backbone"):
                if config.weights == "random":
                    return auto_class.from_config(architecture, **options)
                model, report = auto_class.from_pretrained(
                    path,
                    config=architecture,
                    # The head of a checkpoint may be one over other classes.
                    ignore_mismatched_sizes=purpose.spec.has_head,
                    output_loading_info=True,
                    **options,
                    **quantized,
                )
    except Exception as error:
        raise _not_loadable(path, f"model.path={config.path}", "model", error) from error
    lacking = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    _require_complete(config, model, lacking)
    return model


def _architecture(path: str, purpose: Purpose) -> Any:
    """Return the model's configuration, with the classes of a classification in it."""
    architecture = AutoConfig.from_pretrained(path, trust_remote_code=False)
    name_classes(architecture, purpose)
    text = architecture.get_text_config()
    padding, num_rows = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if padding is not None and num_rows is not None and padding >= num_rows:
        text.pad_token_id = None  # padding is masked, but no embedding could be built with an id beyond its rows
    return architecture


def name_classes(architecture: Any, purpose: Purpose) -> None:
    """Write the classes of a classification into a model's configuration."""
    if purpose.spec.has_head:
        architecture.num_labels = purpose.num_outputs
        if purpose.classes:
            architecture.id2label = dict(enumerate(purpose.classes))
            architecture.label2id = {name: number for number, name in enumerate(purpose.classes)}
        architecture.problem_type = "regression" if purpose.regression else "single_label_classification"


def _require_complete(config: ModelConfig, model: nn.Module, lacking: Collection[str]) -> None:
    """Refuse weights that would leave a frozen part of the model at random values."""
    frozen = sorted(name for name in lacking if name.split(".", maxsplit=1)[0] not in HEADS)
    if frozen:
        kind = model.config.model_type  # type: ignore[union-attr]
        raise UserError(
            f"the weights of model.path={config.path} lack {frozen[0]} of architecture {kind} in its shape "
            f"({len(frozen)} tensors), which would stay random; give weights that fit its config.json"
        )


def _require_flash_attention(config: ModelConfig) -> None:
    reason = None
    if not torch.cuda.is_available():
        reason = "needs a CUDA device and there is none"
    elif config.dtype != "bfloat16":
        reason = f"needs model.dtype=bfloat16, which is {config.dtype}"
    elif not is_flash_attn_2_available():
        reason = "needs the package flash-attn, which is not installed"
    if reason is not None:
        raise UserError(f"model.attention_implementation=flash_attention_2 {reason}; choose sdpa")


def _require_length(config: ModelConfig, model: nn.Module) -> None:
    """Refuse texts longer than the model has positions for."""
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is None or longest < 1:  # XLNet says -1 for no limit
        return
    offset: int | None = next(
        (module.padding_idx for name, module in model.named_modules() if name.endswith("position_embeddings")), None
    )
    if isinstance(offset, int):  # RoBERTa counts from the position after that of padding
        longest -= offset + 1
    if config.max_length_tokens > longest:
        raise UserError(
            f"model.max_length_tokens={config.max_length_tokens} but {config.path} reads {longest} tokens; lower it"
        )


def _feed_head_in_its_type(model: nn.Module) -> None:
    """Let a classification head take its input in its own type: it is trained in float32 over a bfloat16 backbone."""
    for name, module in model.named_children():
        if name in HEADS and any(True for _ in module.parameters()):
            module.register_forward_pre_hook(_in_own_type)


def _in_own_type(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(tensor.to(dtype) for tensor in inputs)


def _enable_checkpointing(config: ModelConfig, model: Any) -> None:
    """Let the blocks keep their inputs alone in training mode; dropout draws the same values both times."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(
            f"model.gradient_checkpointing=true is not possible with architecture {model.config.model_type} "
            f"of {config.path}; leave it out"
        )
    # transformers has renamed it; the only argument is that of torch.utils.checkpoint.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def _load_image_processor(config: ModelConfig) -> Any:
    """Return the image processor of a backbone."""
    path = location(config.path)
    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)
    except Exception as error:
        raise _not_loadable(path, f"model.path={config.path}", "image processor", error) from error


def _projections(config: ModelConfig, model: nn.Module) -> Projections:
    kind: str = model.config.model_type  # type: ignore[union-attr, assignment]
    known = PROJECTIONS.get(kind)
    if known is None and (config.attention is None or config.mlp is None):
        raise UserError(
            f"the projections of architecture {kind} are not known; name them with model.attention=[q,k,v,out] "
            f"and model.mlp=[up,down] (known: {', '.join(sorted(PROJECTIONS))})"
        )
    return Projections(
        attention=tuple(config.attention) if config.attention else known.attention,  # type: ignore[union-attr]
        mlp=tuple(config.mlp) if config.mlp else known.mlp,  # type: ignore[union-attr]
    )


def _not_loadable(path: str, key: str, what: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    if "trust_remote_code" in str(error):
        file, code = next(folder.own_code(path), ("one of its files", "auto_map"))
        return UserError(
            f"{key} needs code of its own, which is never run: {file} names {code[:120]}; choose a model whose "
            "architecture and tokenizer transformers knows"
        )
    remedy = "check the name, or download it first and give its folder"
    if what == "image processor":
        remedy = f"{remedy}; for images give a model of images, such as model=vit-small"
    if "attention implementation" in reason:  # an architecture without torch's fused kernel
        remedy = "give model.attention_implementation=eager"
    if "Unrecognized configuration class" in reason:  # followed by the names of all architectures that do
        reason, remedy = "its architecture does not do this data.task", "choose another model or another data.task"
    return UserError(f"the {what} of {key} cannot be loaded ({type(error).__name__}: {reason}); {remedy}")
