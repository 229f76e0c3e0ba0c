"""`model.path=<adapter folder>`: the run starts from its factors, over its base, or one line says why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from api_runs import small_run, timeless
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from fedlit.config import MethodConfig, ModelConfig, RunConfig, load_config
from fedlit.config.adapter_base import base_of
from fedlit.errors import UserError
from fedlit.inputs import gather_inputs
from fedlit.methods import build_method
from fedlit.models import Backbone, load_backbone
from fedlit.planning import make_plan
from fedlit.recipes import RECIPES
from fedlit.sizing import measure

CORES = {"lora_core", "lora_heads"}
PAIRS = ("lora_dual", "lora_rest")
"""Two LoRAs side by side: an adapter's files hold one."""
STARTING = {name for name, recipe in RECIPES.items() if recipe.adapter.startswith("lora")} - {
    name for name, recipe in RECIPES.items() if recipe.adapter in (*CORES, *PAIRS)
}
"""The recipes that train LoRA factors and nothing else."""


@pytest.fixture
def base(small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    small_llama().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def make_adapter(base: Path, small_llama: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Return what writes an adapter with random factors as peft saves one."""

    def build(name: str = "one", **options: Any) -> Path:
        config = {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "o_proj"], "task_type": "CAUSAL_LM", **options}
        torch.manual_seed(5)
        model = get_peft_model(small_llama(), LoraConfig(**config))
        for key, parameter in model.named_parameters():
            if ".lora_" in key:
                nn.init.normal_(parameter, std=0.3)
        model.peft_config["default"].base_model_name_or_path = str(base)
        model.save_pretrained(tmp_path / name)
        return tmp_path / name

    return build


def load(folder: Path, **given: Any) -> Backbone:
    return load_backbone(ModelConfig(path=str(folder), max_length_tokens=32, **given))


def started(folder: Path, method: str = "fedit", **options: Any) -> nn.Module:
    """Return the model with the method's adapter, as it starts."""
    options = {"lora_rank": 3, "lora_alpha": 5.0, "target_modules": ["q_proj", "o_proj"], **options}
    parts = build_method(RunConfig(method=MethodConfig(name=method, options=options)))
    backbone = load(folder)
    assert backbone.start is not None
    parts.attach(backbone.model, backbone.projections)
    parts.adapter.start_from(backbone.model, backbone.start)
    return backbone.model


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    told = str(caught.value)
    assert "\n" not in told
    assert len(told) <= 400 + 2 * len(str(Path.cwd())) + 120, told
    return told


def edit(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("method", sorted(STARTING))
def test_the_factors_are_the_files_bit_for_bit(method: str, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    stored = load_file(folder / "adapter_model.safetensors")
    parameters = dict(started(folder, method).named_parameters())
    assert len(stored) == 8
    for key, tensor in stored.items():
        name = key.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        assert torch.equal(parameters[name], tensor)


@pytest.mark.parametrize("method", sorted(RECIPES.keys() - STARTING))
def test_who_trains_no_factors_says_how_to_merge(method: str, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    parts = build_method(RunConfig(method=MethodConfig(name=method)))
    backbone = load(folder)
    assert backbone.start is not None
    told = refused(lambda: parts.adapter.start_from(backbone.model, backbone.start))  # type: ignore[arg-type]
    assert "has no place for its factors; merge it into its base first (peft: merge_and_unload)" in told


def test_several_ranks_begin_with_the_best_directions(make_adapter: Callable[..., Path]) -> None:
    """A client of rank 1 takes the first row: that must be the first singular direction."""
    folder = make_adapter()
    name = "model.layers.0.self_attn.q_proj"
    plain, ordered = (dict(started(folder, "flexlora", lora_rank=rank).named_parameters()) for rank in (3, [3, 1]))
    products = [p[f"{name}.lora_B.default.weight"] @ p[f"{name}.lora_A.default.weight"] for p in (plain, ordered)]
    torch.testing.assert_close(*products, rtol=1e-5, atol=1e-5)
    first = ordered[f"{name}.lora_B.default.weight"][:, :1] @ ordered[f"{name}.lora_A.default.weight"][:1]
    values = torch.linalg.svdvals(products[0])
    assert torch.linalg.svdvals(products[0] - first)[0].item() == pytest.approx(values[1].item(), rel=1e-4)


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "rank": ({}, {"lora_rank": 4}, r"has rank 3 and scaling 1\.66667, and the method rank 4 and scaling 1\.25; "),
    "alpha": ({}, {"lora_alpha": 6.0}, r"give method\.lora_alpha=5, or, to keep the method's, merge it into"),
    "rslora": ({"use_rslora": True}, {}, r"give method\.use_rslora=true, or"),
    "plain": ({}, {"use_rslora": True}, r"give method\.use_rslora=false, or"),
    "both": ({}, {"lora_rank": 4, "lora_alpha": 2.0}, r"give method\.lora_rank=3 method\.lora_alpha=5, or"),
    "pattern": ({"rank_pattern": {"o_proj": 2}}, {}, r"has rank 2 to 3 and .* one for all layers; to keep"),
    "alphas": ({"alpha_pattern": {"o_proj": 2}}, {}, r"scaling 0\.666667 to 1\.66667.* one for all layers; to keep"),
    "targets": (
        {},
        {"target_modules": "qkv"},
        r"factors at 4 layers and method\.target_modules=qkv at 6 \(model\.layers\.0\.self_attn\.k_proj in the method "
        r"alone\); give method\.target_modules=\[o_proj,q_proj\], or merge it",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_other_ranks_scalings_and_layers(case: str, make_adapter: Callable[..., Path]) -> None:
    adapter, options, message = SETTINGS[case]
    folder = make_adapter(**adapter)
    with pytest.raises(UserError, match=message):
        started(folder, **options)


def test_what_the_line_says_is_what_helps(make_adapter: Callable[..., Path]) -> None:
    started(make_adapter("rs", use_rslora=True), use_rslora=True)
    started(make_adapter("other", r=4, lora_alpha=2), lora_rank=4, lora_alpha=2.0)
    # One scaling under two names is one start.
    started(make_adapter("same", use_rslora=True, r=4, lora_alpha=3), lora_rank=4, lora_alpha=6.0)


KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "has use_dora"),
    "saved": ({"modules_to_save": ["lm_head"]}, "trained whole beside its factors"),
    "bias": ({"bias": "lora_only"}, ""),
    "pissa": ({"init_lora_weights": "pissa"}, "changes the backbone"),
}


@pytest.mark.parametrize("kind", ["dora", "saved", "pissa"])
def test_other_kinds_of_adapters(kind: str, make_adapter: Callable[..., Path]) -> None:
    options, message = KINDS[kind]
    folder = make_adapter(**options)
    assert message in refused(lambda: load(folder))


def test_a_pickle_is_not_read(make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    told = refused(lambda: load(folder))
    assert "adapter_model.bin, a pickle, which may run code when it is read; save the adapter with" in told


def test_the_base(base: Path, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_adapter()
    assert load(folder).model.name_or_path == str(base)
    edit(folder, base_model_name_or_path="../base")
    monkeypatch.chdir(folder.parent / "one")
    assert load(folder).model.name_or_path == "../base"  # as peft takes it
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert Path(str(load(folder).model.name_or_path)).samefile(base)
    (folder / "base").mkdir()
    assert "is one folder seen from here and another seen from the adapter" in refused(lambda: load(folder))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (None, "names no base; write the model that it belongs to in base_model_name_or_path"),
        ("", "names no base"),
        (7, "names no base"),
        ("./nowhere", "over the base ./nowhere, which is no folder here; put it there, or write where it is"),
        ("ITSELF", "which is an adapter too"),
    ],
)
def test_a_base_that_is_not_there(named: Any, message: str, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter()
    edit(folder, base_model_name_or_path=str(folder) if named == "ITSELF" else named)
    assert message in refused(lambda: load(folder))


def test_a_name_of_the_hub_stays_a_name(tmp_path: Path) -> None:
    assert base_of("model.path=x", tmp_path, {"base_model_name_or_path": "owner/base"}) == "owner/base"


def test_another_base_than_the_adapters(base: Path, make_adapter: Callable[..., Path]) -> None:
    """Layers of the same names and another width."""
    folder = make_adapter()
    tensors = load_file(folder / "adapter_model.safetensors")
    changed = {key: torch.cat([t, t], 1) if ".lora_A." in key else t for key, t in tensors.items()}
    save_file(changed, folder / "adapter_model.safetensors")
    assert "(3, 48), and (3, 24) over the base" in refused(lambda: started(folder))


def test_random_weights_are_no_base(make_adapter: Callable[..., Path]) -> None:
    told = refused(lambda: load(make_adapter(), weights="random"))
    assert "model.weights=random draws the weights of the base" in told


def test_the_tokenizer_is_the_adapters_where_it_has_one(make_adapter: Callable[..., Path], tokenizer: Any) -> None:
    folder = make_adapter()
    assert load(folder).tokenizer.name_or_path != str(folder)
    tokenizer.save_pretrained(folder)
    assert load(folder).tokenizer.name_or_path == str(folder)
    assert load(folder, tokenizer="tiny").tokenizer.name_or_path != str(folder)


def going_on(folder: Path, adapter: Path, name: str = "on", **config: Any) -> Any:
    options = {"method.lora_rank": 3, "method.lora_alpha": 5, "method.target_modules": ["q_proj", "o_proj"]}
    return small_run(folder, name, config={**options, "model": {"path": str(adapter)}, **config}, quiet=True)


def test_a_run_resumes_and_knows_its_start(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_adapter()
    whole = going_on(tmp_path, folder, "whole")
    going_on(tmp_path, folder, num_rounds=1)
    longer = going_on(tmp_path, folder)
    assert timeless(longer) == timeless(whole)
    start = json.loads((longer.folder / "environment.json").read_text())["start"]
    assert start["adapter"] == str(folder)
    assert len(start["sha256"]) == 64
    exported = json.loads((longer.folder / "adapter" / "adapter_config.json").read_text())
    assert exported["base_model_name_or_path"] == start["base"] == str(tmp_path / "base")
    shutil.rmtree(folder)
    torch.manual_seed(6)
    make_adapter(r=3)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({key: 2 * tensor for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    told = refused(lambda: going_on(tmp_path, folder, num_rounds=3))
    assert "began with another adapter than model.path=" in told


def test_a_frozen_factor_is_the_adapters_on_every_side(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    """FFA-LoRA: A is in no checkpoint and never trained."""
    folder = make_adapter()
    result = going_on(tmp_path, folder, method="ffa_lora")
    before = load_file(folder / "adapter_model.safetensors")
    after = load_file(result.folder / "adapter" / "adapter_model.safetensors")
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor) == (".lora_A." in key)


def test_a_dry_run_tells_the_same(make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_adapter()
    words = ["method=fedit", "model=hf", f"model.path={folder}", "method.lora_alpha=5", f"run.dir={tmp_path}"]
    words += ["method.target_modules=[q_proj,o_proj]", "dry_run=true"]
    inputs = gather_inputs(load_config([*words, "method.lora_rank=3"]))
    assert any("the run starts from its factors" in line for line in measure(make_plan(inputs)).notices)
    with pytest.raises(UserError, match="has rank 3"):
        measure(make_plan(gather_inputs(load_config([*words, "method.lora_rank=2"]))))
