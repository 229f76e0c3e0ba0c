"""What `method.target_modules` may name is trained, folded, merged and loaded again; anything else is one line."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from peft import PeftModel
from tiny_federations import DEFAULTS, ROWS
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, Qwen2Config

from fedlit import assembly, planning
from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.inputs import Inputs
from fedlit.models import PACKAGED
from fedlit.partition.shards import make_shards
from fedlit.round.loop import Federation
from fedlit.sizing import describe_sizes

pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer is part of the adapter"),
]
SIZE = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "vocab_size": 2048}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
LLAMA = {**SIZE, **SPECIAL, "intermediate_size": 40, "num_key_value_heads": 2, "max_position_embeddings": 128}
CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen2-tied": lambda: Qwen2Config(**LLAMA, tie_word_embeddings=True),
    "llama-tied": lambda: LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "llama": lambda: LlamaConfig(**LLAMA),
    "gpt2-tied": lambda: GPT2Config(**SPECIAL, n_layer=2, n_embd=24, n_head=4, vocab_size=2048, n_positions=128),
}
BLOCK = {"qwen2-tied": "q_proj", "llama-tied": "q_proj", "llama": "q_proj", "gpt2-tied": "attn.c_attn"}
EMBEDDING = {"gpt2-tied": "wte"}
TOKENS = torch.arange(5, 53).view(3, 16) * 7


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def build(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(CONFIGS[name]()).save_pretrained(folder)
        AutoTokenizer.from_pretrained(PACKAGED["tiny"]).save_pretrained(folder)
        return folder

    return build


def plan_of(folder: Path, runs: Path, *options: str) -> planning.Plan:
    given = {option.split("=")[0] for option in options}
    defaults = [option for option in DEFAULTS if option.split("=")[0] not in given]
    model = [f"model.path={folder}", "model.max_length_tokens=64", f"run.dir={runs}"]
    config = load_config([*defaults, *model, *options])
    shards = make_shards(ROWS, config.data, config.partition, config.num_clients, config.seed)
    return planning.make_plan(Inputs(config=config, rows=ROWS, shards=shards))


def trained(plan: planning.Plan) -> Federation:
    federation, _ = assembly.assemble(plan, Fabric(accelerator="cpu", devices=1))
    federation.folder.prepare({}, "cpu")
    federation.resume()
    federation.run()
    return federation


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model.eval()(input_ids=TOKENS).logits
    return result


def exported(federation: Federation, form: str, pretrained: Path) -> Any:
    """Return the exported model, loaded by peft and transformers alone."""
    federation.exporter = replace(federation.exporter, form=form)
    federation.export()
    folder = federation.folder.adapter
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(pretrained), folder)
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model


RECIPES = {
    "fedit": ["method=fedit"],
    "ffa_lora": ["method=ffa_lora"],
    "fedex_lora": ["method=fedex_lora"],
    "flora": ["method=flora"],
    "fed_sb": ["method=fed_sb", "method.lora_rank=2"],
    "ravan": ["method=ravan", "method.lora_rank=2", "method.num_heads=2", "local.lr=0.1"],
    "dense": ["method=full", "model.dtype=float32"],
}


CASES = [
    *(("qwen2-tied", recipe, "lm_head") for recipe in RECIPES),
    *((name, recipe, f"{BLOCK[name]},lm_head") for name in ("llama-tied", "gpt2-tied") for recipe in RECIPES),
    *(("llama", recipe, "q_proj,lm_head") for recipe in ("fedit", "fedex_lora")),
]


@pytest.mark.parametrize(("name", "recipe", "targets"), CASES)
def test_the_output_projection_is_trained_and_leaves_in_both_forms(
    name: str, recipe: str, targets: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Where it is tied to the embedding, the embedding stays as it is; a dense change of it is one of both."""
    federation = trained(plan_of(model_folder(name), tmp_path, *RECIPES[recipe], f"method.target_modules=[{targets}]"))
    plain = AutoModelForCausalLM.from_pretrained(model_folder(name))
    expected, before = logits(federation.host.model), logits(plain)
    size = float(expected.abs().max())
    assert float((expected - before).abs().max()) > 1e-3 * size, "training changed nothing"
    for form in ("adapter", "merged"):
        result = exported(federation, form, model_folder(name))
        assert float((logits(result) - expected).abs().max()) <= 1e-4 * size
        embeddings = result.get_input_embeddings().weight
        untouched = recipe != "dense" or not name.endswith("tied")
        assert torch.equal(embeddings, plain.get_input_embeddings().weight) == untouched


@pytest.mark.parametrize("name", CONFIGS)
def test_an_embedding_is_trained_whole(name: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    embedding = EMBEDDING.get(name, "embed_tokens")
    plan = plan_of(model_folder(name), tmp_path, *RECIPES["dense"], f"method.target_modules=[{embedding}]")
    federation = trained(plan)
    for form in ("adapter", "merged"):
        assert torch.equal(logits(exported(federation, form, model_folder(name))), logits(federation.host.model))


@pytest.mark.parametrize("recipe", ["fedit", "fedex_lora", "fed_sb"])
@pytest.mark.parametrize("name", ["qwen2-tied", "llama", "gpt2-tied"])
def test_an_embedding_has_no_factors(
    name: str, recipe: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Told in a dry run and before the weights are read."""
    embedding = EMBEDDING.get(name, "embed_tokens")
    for targets in (embedding, f"{BLOCK[name]},{embedding}"):
        plan = plan_of(model_folder(name), tmp_path, *RECIPES[recipe], f"method.target_modules=[{targets}]")
        fact = rf"{embedding} is of type Embedding, and LoRA stands beside linear layers only.*adapter=dense"
        for start in (partial(describe_sizes, plan, 1), partial(trained, plan)):
            with pytest.raises(UserError, match=fact) as told:
                start()
            assert "\n" not in str(told.value)
            assert len(str(told.value)) <= 400


@pytest.mark.parametrize(
    ("recipe", "targets", "fact"),
    [
        ("fedit", "[input_layernorm]", "is of type LlamaRMSNorm"),
        ("fed_sb", "[q_proj,input_layernorm]", "is of type LlamaRMSNorm"),
        ("fedit", "[mlp]", "is of type LlamaMLP"),
        ("dense", "[act_fn]", "no module act_fn with parameters"),
        ("fedit", "[q_proj,lm_haed]", "no linear layer lm_haed"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_dry_run(
    recipe: str, targets: str, fact: str, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    plan = plan_of(model_folder("llama"), tmp_path, *RECIPES[recipe], f"method.target_modules={targets}")
    with pytest.raises(UserError, match=fact):
        describe_sizes(plan, 1)
