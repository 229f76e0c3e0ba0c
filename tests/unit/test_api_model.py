"""A model and a tokenizer given as objects: the bits of their files, and the caller's objects as they were."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from api_runs import same_tensors, small_run, timeless
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

import fedlit
from fedlit.config import ModelConfig
from fedlit.models import PACKAGED, OwnBackbone, Purpose, load_backbone

TINY = PACKAGED["tiny"]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(TINY)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY)


def state(model: Any) -> dict[str, Any]:
    """Return what a run could change in a model."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "trains": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [len(module._forward_pre_hooks) for module in model.modules()],
        "classes": [type(module) for module in model.modules()],
        "training": model.training,
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
    }


def test_it_gives_the_bits_of_its_path_and_stays_as_it_was(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    model.train()
    before, told = state(model), copy.deepcopy(tokenizer.special_tokens_map)
    whole = {"run": {"export": "merged"}}
    given = small_run(tmp_path, "given", model=model, **copy.deepcopy(whole))
    of_path = small_run(tmp_path, "path", config={"model.path": TINY}, **copy.deepcopy(whole))
    assert same_tensors(given, of_path)
    assert timeless(given) == timeless(of_path)
    files = [path.name for path in of_path.adapter.iterdir()]
    assert "model.safetensors" in files
    for name in set(files) - {"README.md", "fedlit.json"}:  # which name the model as it was given
        assert (given.adapter / name).read_bytes() == (of_path.adapter / name).read_bytes(), name
    after = state(model)
    assert all(torch.equal(after["tensors"][name], tensor) for name, tensor in before.pop("tensors").items())
    assert {key: after[key] for key in before} == before
    assert given.model is not model
    assert given.config.model.path.startswith("memory:")
    assert (given.config.model.name, given.config.model.tokenizer) == ("tiny", None)
    # A tokenizer of its own counts too, and is not changed either.
    other = small_run(tmp_path, "tokenizer", model=model, tokenizer=tokenizer)
    assert same_tensors(other, of_path)
    assert tokenizer.special_tokens_map == told
    assert str(other.config.model.tokenizer).startswith("memory:")


def test_another_model_is_another_run(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    result = small_run(tmp_path, model=model, tokenizer=tokenizer, num_rounds=1)
    assert small_run(tmp_path, model=model, tokenizer=tokenizer, num_rounds=1).status == "done"
    changed = copy.deepcopy(model)
    changed.lm_head.weight.data[0, 0] += 1
    with pytest.raises(fedlit.UserError, match=r"belongs to another configuration \(model\.path: memory:"):
        small_run(tmp_path, model=changed, tokenizer=tokenizer, num_rounds=1)
    longer = copy.deepcopy(tokenizer)
    longer.pad_token = longer.eos_token
    with pytest.raises(fedlit.UserError, match=r"belongs to another configuration \(model\.tokenizer: memory:"):
        small_run(tmp_path, model=model, tokenizer=longer, num_rounds=1)
    # Its result is read with the object that it was given, and with no other.
    again = fedlit.load_result(result.folder, model=model, tokenizer=tokenizer)
    assert same_tensors(result, again)
    assert same_model(result, again)
    with pytest.raises(fedlit.UserError, match=r"model\.path=memory:.* is what is given, and the run has memory:"):
        _ = fedlit.load_result(result.folder, model=changed, tokenizer=tokenizer).model
    with pytest.raises(fedlit.UserError, match=r"was given from Python as an object"):
        _ = fedlit.load_result(result.folder).model


def same_model(left: fedlit.Result, right: fedlit.Result) -> bool:
    one, other = left.model.state_dict(), right.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_using_a_tokenizer_does_not_make_it_another(tokenizer: Any, model: Any) -> None:
    before = OwnBackbone(model=model, reader=tokenizer).settings()
    tokenizer("a text", truncation=True, max_length=3, padding="max_length")
    model.eval()
    assert OwnBackbone(model=model, reader=tokenizer).settings() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("loaded", [torch.float16, torch.float32])
def test_the_configuration_says_the_type(dtype: str, loaded: torch.dtype) -> None:
    own = OwnBackbone(model=AutoModelForCausalLM.from_pretrained(TINY, dtype=loaded))
    config = ModelConfig(dtype=dtype, path="memory:x")
    made, wanted = own.load(config, Purpose()), load_backbone(ModelConfig(dtype=dtype))
    for one, other in ((made.model.state_dict(), wanted.model.state_dict()), (buffers(made), buffers(wanted))):
        assert one.keys() == other.keys()
        assert all(
            tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
        )
    on_meta = own.load(config, Purpose(), weights=False).model
    assert all(parameter.is_meta for parameter in on_meta.parameters())
    assert {name: tensor.shape for name, tensor in on_meta.state_dict().items()} == {
        name: tensor.shape for name, tensor in wanted.model.state_dict().items()
    }


def buffers(backbone: Any) -> dict[str, torch.Tensor]:
    return dict(backbone.model.named_buffers())


def test_the_kernel_is_the_configurations(model: Any) -> None:
    made = OwnBackbone(model=model).load(ModelConfig(attention_implementation="eager", path="memory:x"), Purpose())
    assert made.model.config._attn_implementation == "eager"  # type: ignore[union-attr]
    assert model.config._attn_implementation == "sdpa"


def classifier(num_labels: int) -> LlamaForSequenceClassification:
    return LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=2048,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=256,
            num_labels=num_labels,
            pad_token_id=0,
        )
    )


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda model: nn.Linear(2, 2), {}, r"model= is a Linear; give a transformers\.PreTrainedModel"),
        (lambda model: 3, {}, r"model= is a int; give a transformers\.PreTrainedModel"),
        (
            lambda model: get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["q_proj"])),
            {},
            r"model= is a PeftModel.*merge",
        ),
        (lambda model: copy.deepcopy(model).to("meta"), {}, r"weights are not in memory \(meta device\)"),
        (
            lambda model: AutoModel.from_pretrained(TINY),
            {},
            r"is a LlamaModel, and data\.task=causal_lm needs a LlamaForCausalLM",
        ),
        (lambda model: classifier(3), {}, r"is a LlamaForSequenceClassification, and data\.task=causal_lm"),
        (
            lambda model: model,
            {"model.weights": "random"},
            r"model\.weights=random is for a model that is loaded from files",
        ),
        (
            lambda model: model,
            {"model.quantization": "nf4"},
            r"model\.quantization=nf4 is for a model that is loaded from files",
        ),
    ],
)
def test_what_is_no_model_for_the_run(
    tmp_path: Path, model: Any, tokenizer: Any, make: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(fedlit.UserError, match=message) as caught:
        small_run(tmp_path, config=options, model=make(model), tokenizer=tokenizer)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 400


def test_a_head_of_another_number_of_classes(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": f"text {number}", "label": number % 2} for number in range(20)]
    data = {"task": "sequence_classification"}
    with pytest.raises(fedlit.UserError, match=r"a head of 3 outputs, and the rows have 2 classes.*num_labels=2"):
        small_run(tmp_path, rows=rows, data=data, model=classifier(3), tokenizer=tokenizer, eval={"max_new_tokens": 64})
    result = small_run(
        tmp_path, "two", rows=rows, data=data, model=classifier(2), tokenizer=tokenizer, eval={"max_new_tokens": 64}
    )
    assert result.status == "done"
    assert type(result.model).__name__ == "LlamaForSequenceClassification"


def test_a_tokenizer_is_missing_or_none(tmp_path: Path, model: Any) -> None:
    nameless = copy.deepcopy(model)
    nameless.name_or_path = ""
    with pytest.raises(fedlit.UserError, match=r"model= comes without its tokenizer; give it as tokenizer=<tokenizer>"):
        small_run(tmp_path, model=nameless)
    with pytest.raises(fedlit.UserError, match=r"tokenizer= is a int; give a tokenizer of transformers"):
        small_run(tmp_path, model=model, tokenizer=3)


def test_the_adapter_goes_on_the_callers_model(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    result = small_run(tmp_path, model=model, tokenizer=tokenizer)
    tokens = torch.arange(5, 21).view(1, 16)
    with torch.no_grad():
        expected = result.model(input_ids=tokens).logits
        adapted = PeftModel.from_pretrained(copy.deepcopy(model).eval(), result.adapter)
        assert torch.allclose(adapted(input_ids=tokens).logits, expected, atol=1e-4)
        assert not torch.allclose(model(input_ids=tokens).logits, expected, atol=1e-4)
