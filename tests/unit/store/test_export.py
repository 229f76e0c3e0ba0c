"""What leaves the house: peft and transformers alone load the files and give the logits of the trained model."""

import copy
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fedlit.adapters import Adapter
from fedlit.adapters.lora import Lora
from fedlit.adapters.lora_core import LoraCore
from fedlit.adapters.peft_files import write_peft_adapter
from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.tensors import TensorDict
from fedlit.client.folded import FoldedChanges
from fedlit.models import PROJECTIONS, Backbone
from fedlit.round.server import ServerState
from fedlit.store.export import replacing, write_merged_model, write_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
RANK, ALPHA = 3, 7.0
TOKENS = torch.arange(3, 33).view(3, 10)


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=24, n_head=4, vocab_size=2048, initializer_range=0.3, bos_token_id=1, eos_token_id=2
    )
    return GPT2LMHeadModel(config).requires_grad_(False)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model.eval()(input_ids=TOKENS).logits


@dataclass
class Result:
    """A trained model, its server, and the pretrained model on the disk."""

    adapter: Adapter
    model: Any
    server: ServerState
    pretrained: Path
    dtype: torch.dtype
    tokenizer: Any
    reloads: int = 0

    def plain(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.pretrained, dtype=self.dtype).requires_grad_(False)

    def reload(self) -> Backbone:
        self.reloads += 1
        model = self.plain()
        return Backbone(model=model, tokenizer=self.tokenizer, projections=PROJECTIONS[model.config.model_type])

    def export(self, folder: Path, form: str = "adapter", client_id: int | None = None) -> None:
        with replacing(folder) as partial:
            write_weights(
                adapter=self.adapter,
                model=self.model,
                server=self.server,
                folder=partial,
                form=form,
                reload=self.reload,
                client_id=client_id,
            )


@pytest.fixture
def trained(small_llama: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that builds the state of a run after its last round, with random factors."""

    def build(adapter: Adapter, *, kind: str = "llama", dtype: torch.dtype = torch.float32) -> Result:
        folder = tmp_path / "pretrained"
        (gpt2() if kind == "gpt2" else small_llama()).to(dtype).save_pretrained(folder)
        result = Result(adapter, None, ServerState(shared={}), folder, dtype, tokenizer)
        result.model = result.plain()
        adapter.attach(result.model, PROJECTIONS[kind])
        torch.manual_seed(1)
        for name, parameter in result.model.named_parameters():
            if ".lora_" in name or ".sb_" in name:
                parameter.data = torch.randn_like(parameter) * 0.3
        result.server = ServerState(
            shared=adapter.shared(result.model), round_idx=5, layers=adapter.layers(result.model)
        )
        return result

    return build


def fold(result: Result, rank: int = 4, size: float = 0.1, rounds: int = 5) -> None:
    """Fold a random change of this rank into the weights in each round, and let them take part in the model."""
    parameters = dict(result.model.named_parameters())
    server = result.server
    torch.manual_seed(2)
    for _ in range(rounds):
        changes = {}
        for layer in server.layers:
            stored = parameters[layer.weight]
            rows, columns = stored.T.shape if layer.transposed else stored.shape
            changes[layer.name] = LowRank(
                size * torch.randn(rows, rank, dtype=torch.float64), torch.randn(rank, columns, dtype=torch.float64)
            )
        server = server.fold(changes)
    FoldedChanges(result.model, server.layers).set(server.changes())
    result.server = replace(server, round_idx=rounds)


def load_with_peft(result: Result, folder: Path) -> Any:
    """Load by peft's public way; any warning is an error, also those of keys that are missing or unexpected."""
    plain = result.plain()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return PeftModel.from_pretrained(plain, folder)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


def same(loaded: Any, result: Result, tolerance: float = 1e-4) -> None:
    expected = logits(result.model)
    assert (logits(result.plain()) - expected).abs().max() > 100 * tolerance, "the adapter must matter"
    torch.testing.assert_close(logits(loaded).to(expected), expected, rtol=tolerance, atol=tolerance)


ADAPTERS = {
    "lora": lambda: Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="all"),
    "rslora": lambda: Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="all", use_rslora=True),
    "core": lambda: LoraCore(lora_rank=RANK, lora_alpha=ALPHA, target_modules="all", init="random"),
}


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_peft_loads_the_adapter(
    name: str, kind: str, folded: bool, trained: Callable[..., Result], tmp_path: Path
) -> None:
    result = trained(ADAPTERS[name](), kind=kind)
    if folded:
        fold(result)
    result.export(tmp_path / "adapter")
    same(load_with_peft(result, tmp_path / "adapter"), result)
    written = config_of(tmp_path / "adapter")
    assert sorted(written["target_modules"]) == written["target_modules"]
    assert written["fan_in_fan_out"] == (kind == "gpt2")
    assert written["base_model_name_or_path"] == str(result.pretrained)
    assert written["use_rslora"] == (name == "rslora" and not folded)
    assert result.reloads == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_transformers_loads_the_merged_model(
    name: str, kind: str, trained: Callable[..., Result], tmp_path: Path
) -> None:
    result = trained(ADAPTERS[name](), kind=kind)
    fold(result)
    result.export(tmp_path / "adapter", form="merged")
    same(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"), result)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "adapter")("def f(x):").input_ids
    assert tokens == result.tokenizer("def f(x):").input_ids


@pytest.mark.parametrize("use_rslora", [False, True])
def test_without_a_change_the_factors_are_written_bit_for_bit(
    use_rslora: bool, trained: Callable[..., Result], tmp_path: Path
) -> None:
    result = trained(Lora(lora_rank=RANK, lora_alpha=ALPHA, use_rslora=use_rslora))
    before = {name: value.clone() for name, value in result.model.named_parameters()}
    result.export(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    factors = {name: value for name, value in before.items() if ".lora_" in name}
    assert len(stored) == len(factors) == 2 * 2 * 3
    for name, value in factors.items():
        assert torch.equal(stored[f"base_model.model.{name.replace('.default', '')}"], value)
    written = config_of(tmp_path / "adapter")
    assert (written["r"], written["lora_alpha"], written["use_rslora"]) == (RANK, ALPHA, use_rslora)
    assert written["rank_pattern"] == written["alpha_pattern"] == {}
    assert all(torch.equal(value, before[name]) for name, value in result.model.named_parameters()), "nothing is merged"


def test_the_weight_is_that_of_float64(trained: Callable[..., Result], tmp_path: Path) -> None:
    """change + scaling * B @ A, layer by layer, at the rank that the sum has: some layers have no change at all."""
    result = trained(Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="attention"))
    layers, tensors = result.server.layers, dict(result.model.named_parameters())
    torch.manual_seed(3)
    changes = {}
    for index, layer in enumerate(layers[:5]):
        rows, columns = tensors[layer.weight].shape
        changes[layer.name] = LowRank(torch.randn(rows, index + 1), torch.randn(index + 1, columns))
    tmp_path = tmp_path / "adapter"
    tmp_path.mkdir()
    write_peft_adapter(tmp_path, layers, tensors, changes, backbone_path=str(result.pretrained))
    stored = load_file(tmp_path / "adapter_model.safetensors")
    loaded = load_with_peft(result, tmp_path).base_model.model
    for layer in layers:
        expected = layer.change(tensors).dense()
        if layer.name in changes:
            expected = expected + changes[layer.name].dense().double()
        module = loaded.get_submodule(layer.name)
        assert module.scaling["default"] == 1
        torch.testing.assert_close(module.get_delta_weight("default").double(), expected, rtol=1e-5, atol=1e-5)
        rank = RANK + (changes[layer.name].width if layer.name in changes else 0)
        assert stored[f"base_model.model.{layer.name}.lora_A.weight"].shape[0] == rank
        assert {stored[f"base_model.model.{layer.name}.lora_{factor}.weight"].dtype for factor in "AB"} == {
            torch.float32
        }


def test_the_accumulated_change_has_its_rank_again(trained: Callable[..., Result], tmp_path: Path) -> None:
    """8 directions of four rounds and the factors' own 3, or as many as the layer has."""
    result = trained(Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="all"))
    fold(result, rank=2, rounds=4, size=0.001)
    result.export(tmp_path / "adapter")
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for layer in result.server.layers:
        a, b = (stored[f"base_model.model.{layer.name}.lora_{factor}.weight"] for factor in "AB")
        assert a.shape[0] == min(8 + RANK, b.shape[0], a.shape[1])
    same(load_with_peft(result, tmp_path / "adapter"), result)


def test_a_bfloat16_backbone_is_merged_in_float32(trained: Callable[..., Result], tmp_path: Path) -> None:
    """A small change is below bfloat16's last bit, in a file of that type too."""
    result = trained(Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="all"), dtype=torch.bfloat16)
    fold(result, size=1e-4)
    result.export(tmp_path / "adapter", form="merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    weights = dict(loaded.named_parameters())
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    tensors = dict(result.model.named_parameters())
    plain = dict(result.plain().named_parameters())
    changes = result.server.changes()
    for layer in result.server.layers:
        change = changes[layer.name].to(torch.float64).dense()
        assert change.norm() > 0
        expected = plain[f"{layer.name}.weight"].double() + change + layer.change(tensors).dense()
        torch.testing.assert_close(weights[f"{layer.name}.weight"].double(), expected, rtol=1e-6, atol=1e-6)
    untouched = [name for name in plain if "norm" in name or "embed" in name]
    assert all(torch.equal(weights[name], plain[name].float()) for name in untouched)
    result.model.float()
    same(loaded, result)


def test_a_bfloat16_backbone_with_an_adapter(trained: Callable[..., Result], tmp_path: Path) -> None:
    """The adapter stays in float32; over the same backbone the logits are the same bits."""
    result = trained(Lora(lora_rank=RANK, lora_alpha=ALPHA, target_modules="all"), dtype=torch.bfloat16)
    result.export(tmp_path / "adapter")
    assert torch.equal(logits(load_with_peft(result, tmp_path / "adapter")), logits(result.model))


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_client_of_smaller_rank_leaves_with_its_own_scaling(
    form: str, use_rslora: bool, trained: Callable[..., Result], tmp_path: Path
) -> None:
    result = trained(Lora(lora_rank=[5, 2], lora_alpha=ALPHA, use_rslora=use_rslora))
    for name, parameter in result.model.named_parameters():
        if ".lora_A." in name:
            parameter.data[2:] = 0
        elif ".lora_B." in name:
            parameter.data[:, 2:] = 0
    result.adapter.set_rank(result.model, client_id=1)
    result.export(tmp_path / "adapter", form=form, client_id=1)
    if form == "merged":
        same(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"), result)
        return
    assert config_of(tmp_path / "adapter")["r"] == 2
    loaded = load_with_peft(result, tmp_path / "adapter")
    same(loaded, result)
    scaling = {module.scaling["default"] for module in loaded.modules() if hasattr(module, "lora_A")}
    assert scaling == {ALPHA / math.sqrt(2) if use_rslora else ALPHA / 2}


class AllWeights(Adapter):
    """Trains the backbone itself: nothing that peft could hold."""

    def attach(self, model: nn.Module, *_others: Any) -> dict[str, float]:
        return {}

    def shared(self, model: nn.Module) -> TensorDict:
        return {name: parameter.data for name, parameter in model.named_parameters()}

    def merged(self, model: nn.Module) -> TensorDict:
        return self.shared(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_lora_leaves_as_a_whole_model(
    dtype: torch.dtype, trained: Callable[..., Result], tmp_path: Path
) -> None:
    result = trained(AllWeights(), dtype=dtype)
    torch.manual_seed(4)
    for parameter in result.model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    result.export(tmp_path / "adapter", form="adapter")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert loaded.dtype == dtype
    assert torch.equal(logits(loaded), logits(result.model))


class LoraAndNorms(Lora):
    """LoRA with the last norm trained as well."""

    def shared(self, model: Any) -> TensorDict:
        return super().shared(model) | {"model.norm.weight": model.model.norm.weight.data}

    def merged(self, model: Any) -> TensorDict:
        return super().merged(model) | {"model.norm.weight": model.model.norm.weight.data}


def test_what_is_trained_beside_the_factors_is_not_lost(trained: Callable[..., Result], tmp_path: Path) -> None:
    result = trained(LoraAndNorms(lora_rank=RANK, lora_alpha=ALPHA))
    result.model.model.norm.weight.data *= 2
    result.export(tmp_path / "adapter", form="adapter")
    same(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"), result)


def test_a_merged_model_stops_at_the_end_of_text(trained: Callable[..., Result], tmp_path: Path) -> None:
    result = trained(ADAPTERS["lora"]())
    result.export(tmp_path / "adapter", form="merged")
    settings = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter").generation_config
    assert settings.eos_token_id == result.tokenizer.eos_token_id is not None
    assert settings.pad_token_id == result.tokenizer.pad_token_id


def test_a_weight_that_the_backbone_lacks_is_our_own_mistake(trained: Callable[..., Result], tmp_path: Path) -> None:
    result = trained(ADAPTERS["lora"]())
    with pytest.raises(AssertionError, match=r"base_layer"):
        write_merged_model(tmp_path, result.reload, {"model.layers.0.self_attn.q_proj.base_layer.weight": TOKENS})


def test_an_older_result_is_replaced_whole(trained: Callable[..., Result], tmp_path: Path) -> None:
    """Also one of the other form: a resumed run writes it again. What fails leaves the older one in place."""
    result = trained(ADAPTERS["lora"]())
    folder = tmp_path / "runs" / "adapter"
    result.export(folder, form="merged")
    assert (folder / "model.safetensors").is_file()
    result.export(folder)
    files = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "model.safetensors" not in files
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = copy.copy(result)
    broken.pretrained = tmp_path / "nowhere"
    with pytest.raises(OSError, match="nowhere"):
        broken.export(folder, form="merged")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    result.export(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["adapter"]


def test_exporting_a_folded_run_twice_gives_the_same_bytes(trained: Callable[..., Result], tmp_path: Path) -> None:
    result = trained(ADAPTERS["lora"]())
    fold(result)
    written = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        result.export(tmp_path / "adapter")
        written.append((tmp_path / "adapter" / "adapter_model.safetensors").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_colleagues_may_read_what_is_written(form: str, trained: Callable[..., Result], tmp_path: Path) -> None:
    """As far as the user lets them read new files: every file has the rights of a file that is made here."""
    result = trained(ADAPTERS["lora"]())
    (tmp_path / "new").write_text("")
    result.export(tmp_path / "adapter", form=form)
    rights = {path.name: path.stat().st_mode for path in (tmp_path / "adapter").iterdir()}
    assert rights == dict.fromkeys(rights, (tmp_path / "new").stat().st_mode)
