"""A run that starts from an adapter begins with the loss that peft computes of it, and with that of the run before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_runs import ROWS, small_run
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from fedlit.adapters.lora import Lora
from fedlit.cli import main
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS
from fedlit.models.adapter_folder import AdapterStart
from fedlit.rules import read_adapter_folder

TESTED = [
    {"prompt": f"twice {number} is", "response": f"{2 * number}" + ", of course" * (number % 3)} for number in range(7)
]


def small_gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=2048, n_embd=24, n_layer=2, n_head=4, n_inner=40, n_positions=256)
    model = GPT2LMHeadModel(replace_ids(config))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def replace_ids(config: GPT2Config) -> GPT2Config:
    config.bos_token_id, config.eos_token_id = 1, 2
    return config


def write_adapter(folder: Path, model: Any, base: Path, **options: Any) -> None:
    config = LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM", **options})
    torch.manual_seed(5)
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)


@torch.no_grad()
def peft_loss(folder: Path, base: Path, tokenizer: Any, dtype: torch.dtype) -> float:
    """Return the mean loss of the responses' tokens, as nothing but peft and transformers compute it."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), folder).eval()
    losses = []
    for row in TESTED:
        prompt = tokenizer(row["prompt"] + "\n")["input_ids"]
        ids = [*prompt, *tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        logits: Tensor = model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].float()
        losses.append(functional.cross_entropy(logits, torch.tensor(ids[len(prompt) :]), reduction="none"))
    return float(torch.cat(losses).double().mean())


CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": ["q_proj", "o_proj"]}, {}),
    "rslora": ("llama", {"target_modules": ["up_proj", "v_proj"], "use_rslora": True}, {"method.use_rslora": True}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}, {}),
    "bfloat16": ("llama", {"target_modules": ["q_proj", "down_proj"]}, {"model.dtype": "bfloat16"}),
}


ON_PUSH = {*((case, "fedit") for case in CASES), ("plain", "ffa_lora"), ("bfloat16", "fedex_lora")}
STARTED = [(case, method) for case in CASES for method in ("fedit", "ffa_lora", "fedex_lora")]


@pytest.mark.parametrize(
    ("case", "method"), [pair if pair in ON_PUSH else pytest.param(*pair, marks=pytest.mark.slow) for pair in STARTED]
)
def test_round_0_has_the_loss_of_peft(
    case: str, method: str, small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    kind, options, settings = CASES[case]
    model = small_llama() if kind == "llama" else small_gpt2()
    base, folder = tmp_path / "base", tmp_path / "adapter-of-peft"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    write_adapter(folder, model, base, **options)
    dtype = torch.bfloat16 if settings.get("model.dtype") == "bfloat16" else torch.float32
    config = {
        "method": method,
        "method.lora_rank": 3,
        "method.lora_alpha": 5,
        "method.target_modules": options["target_modules"],
        "model": {"path": str(folder), "max_length_tokens": 64},
        "num_rounds": 1,
        "eval": {"max_examples": None, "max_new_tokens": 2, "batch_size": 1},
        "data": {"template": "{prompt}\n"},
        **settings,
    }
    result = small_run(tmp_path, "on", config=config, rows=ROWS, test_rows=TESTED)
    expected = peft_loss(folder, base, tokenizer, dtype)
    assert result.records[0]["global/loss"] == pytest.approx(expected, rel=1e-6 if dtype == torch.float32 else 2e-3)
    assert result.records[1]["global/loss"] != result.records[0]["global/loss"]


@pytest.mark.parametrize("use_rslora", [False, True])
def test_in_float64_every_logit_is_that_of_peft(
    use_rslora: bool, small_llama: Callable[..., Any], tmp_path: Path
) -> None:
    options = {"target_modules": ["q_proj", "v_proj", "o_proj", "down_proj"], "use_rslora": use_rslora}
    write_adapter(tmp_path / "one", small_llama(), tmp_path, **options)
    ids = torch.arange(60).view(3, 20)
    loaded = PeftModel.from_pretrained(small_llama(dtype=torch.float64), tmp_path / "one")
    model = small_llama(dtype=torch.float64)
    lora = Lora(lora_rank=3, lora_alpha=5, **options)
    lora.attach(model, PROJECTIONS["llama"])
    start = AdapterStart(key="model.path=one", base="base", adapter=read_adapter_folder(tmp_path / "one"))
    before = model(input_ids=ids).logits
    lora.start_from(model, start)
    assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    assert not torch.allclose(before, model(input_ids=ids).logits)


@pytest.mark.parametrize(
    "method",
    [
        *("fedit", "rolora", "fedsvd", "hetlora"),
        *(pytest.param(method, marks=pytest.mark.slow) for method in ("ffa_lora", "flexlora", "centralized")),
    ],
)
def test_a_run_of_an_exported_adapter_begins_where_the_run_before_ended(method: str, tmp_path: Path) -> None:
    first = small_run(tmp_path, "first", config={"method": method})
    second = small_run(tmp_path, "second", config={"method": method, "model": {"path": str(first.folder / "adapter")}})
    assert second.records[0]["global/loss"] == first.records[-1]["global/loss"]
    assert second.records[0]["global/loss"] < first.records[0]["global/loss"]


@pytest.mark.parametrize("method", ["fedex_lora", "flora"])
def test_a_grown_adapter_goes_on_at_its_rank_or_merged(method: str, tmp_path: Path) -> None:
    """What was folded into the base becomes part of the exported adapter, whose rank is then above the method's."""
    first = small_run(tmp_path, "first", config={"method": method, "num_rounds": 1, "run.export": "adapter"})
    adapter = first.folder / "adapter"
    described = json.loads((adapter / "adapter_config.json").read_text())
    assert described["r"] > 8
    with pytest.raises(UserError, match=r"to keep the method's, merge it into its base first \(`fedlit merge` of its"):
        small_run(tmp_path, "refused", config={"method": method, "model": {"path": str(adapter)}})
    assert main(["merge", str(first.folder)]) == 0
    merged = {"method": method, "model": {"path": str(first.folder / "merged")}}
    second = small_run(tmp_path, "second", config=merged)
    assert second.records[0]["global/loss"] == pytest.approx(first.records[-1]["global/loss"], rel=1e-6)


def test_a_grown_adapter_of_one_rank_goes_on_at_that_rank(tmp_path: Path) -> None:
    first = small_run(tmp_path, "first", config={"method": "flora", "num_rounds": 1})
    described = json.loads((first.folder / "adapter" / "adapter_config.json").read_text())
    assert not described["rank_pattern"]
    config = {
        "method": "fedit",
        "method.lora_rank": described["r"],
        "method.lora_alpha": described["lora_alpha"],
        "model": {"path": str(first.folder / "adapter")},
    }
    second = small_run(tmp_path, "second", config=config)
    assert second.records[0]["global/loss"] == pytest.approx(first.records[-1]["global/loss"], rel=1e-6)


def test_every_client_of_a_personal_method_starts_from_the_same(tmp_path: Path) -> None:
    first = small_run(tmp_path, "first", config={"method": "fedsa_lora"})
    folder = first.folder / "adapter" / "client-00001"
    second = small_run(
        tmp_path, "second", config={"method": "fedsa_lora", "model": {"path": str(folder)}, "eval.on": "clients"}
    )
    assert second.records[0]["round"] == 0
