"""What peft itself does with adapters in ways that one would not expect, and that the rules here do not follow."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from fedlit.errors import UserError
from fedlit.rules import Rule, aggregate_folders, read_adapter_folder

pytestmark = [pytest.mark.filterwarnings("ignore:Adapter name .* should not be contained in the prefix")]


class Layers(nn.Module):
    """Twelve linear layers, as many as a small model has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 6, bias=False) for _ in range(12)])


def randomized(model: Any) -> Any:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn_like(parameter)
    return model


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 16, "target_modules": r"layers\.\d+", **options})


def changes(model: Any, adapter: str) -> Tensor:
    """Return what an adapter adds to all weights, (12, out, in)."""
    return torch.stack([layer.get_delta_weight(adapter) for layer in model.base_model.model.layers]).detach()


@pytest.mark.parametrize("use_rslora", [False, True])
def test_rslora_is_no_factor_of_the_mean(use_rslora: bool, tmp_path: Path) -> None:
    """peft's `cat` and `svd` give sqrt(rank) times what they should with rsLoRA; a stack here is the mean."""
    model = get_peft_model(Layers(), lora(use_rslora=use_rslora), adapter_name="one")
    model.add_adapter("two", copy.deepcopy(lora(use_rslora=use_rslora)))
    model = randomized(model)
    model.save_pretrained(tmp_path)
    mean = (changes(model, "one") + changes(model, "two")) / 2
    model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "cat", combination_type="cat")
    torch.testing.assert_close(changes(model, "cat"), mean * (8**0.5 if use_rslora else 1), rtol=1e-4, atol=1e-4)
    model.add_weighted_adapter(["one", "two"], [0.5, 0.5], "svd", combination_type="svd", svd_rank=4)
    u, s, vh = torch.linalg.svd(mean)
    best = (u[..., :4] * s[:, None, :4]) @ vh[:, :4]
    torch.testing.assert_close(changes(model, "svd"), best * (2 if use_rslora else 1), rtol=1e-3, atol=1e-3)
    aggregate_folders([tmp_path / "one", tmp_path / "two"], [1, 1], tmp_path / "ours", Rule(name="flora"))
    ours = PeftModel.from_pretrained(Layers(), tmp_path / "ours")
    torch.testing.assert_close(changes(ours, "default"), mean, rtol=1e-4, atol=1e-4)


def test_adapters_named_by_numbers_lack_layers(tmp_path: Path) -> None:
    """peft leaves layer 1 out of the adapter "0" and layer 0 out of the adapter "1", without a word."""
    model = get_peft_model(Layers(), lora(), adapter_name="0")
    model.add_adapter("1", lora())
    model.save_pretrained(tmp_path)
    folders = [read_adapter_folder(tmp_path / name) for name in "01"]
    assert [12 - len(folder) for folder in folders] == [1, 1]
    with pytest.raises(UserError, match=r"no layer layers\.1, .*whose name is a number: save it under another name"):
        aggregate_folders([tmp_path / name for name in "01"], [1, 1], tmp_path / "out", Rule(name="flora"))


def test_alpha_of_overlapping_patterns_is_that_of_the_loaded_adapter(tmp_path: Path) -> None:
    """peft trains a layer by the pattern written first, and loads it by the one that is first in the alphabet."""
    patterns = {r"layers\.\d+": 3, "layers.3": 1}
    trained = randomized(get_peft_model(Layers(), lora(alpha_pattern=patterns)))
    trained.save_pretrained(tmp_path / "one")
    stored = json.loads((tmp_path / "one" / "adapter_config.json").read_text())["alpha_pattern"]
    assert list(stored) == sorted(patterns) != list(patterns)
    loaded: Any = PeftModel.from_pretrained(Layers(), tmp_path / "one")
    before, after = (model.base_model.model.layers[3].scaling["default"] for model in (trained, loaded))
    assert before != after
    told: list[str] = []
    aggregate_folders([tmp_path / "one"], [1], tmp_path / "out", Rule(name="flora"), notice=told.append)
    assert read_adapter_folder(tmp_path / "one")["layers.3"].scaling == after
    ours = PeftModel.from_pretrained(Layers(), tmp_path / "out")
    torch.testing.assert_close(changes(ours, "default"), changes(loaded, "default"), rtol=1e-5, atol=1e-5)
    assert len(told) == 1
    assert "fit layer layers.3; the first in the file counts" in told[0]


def test_ranks_of_overlapping_patterns_are_told(tmp_path: Path) -> None:
    """The same order makes files of peft's that peft cannot load."""
    patterns = {r"layers\.\d+": 2, "layers.3": 1}
    get_peft_model(Layers(), lora(rank_pattern=patterns)).save_pretrained(tmp_path / "one")
    with pytest.raises(RuntimeError, match="size mismatch"):
        PeftModel.from_pretrained(Layers(), tmp_path / "one")
    with pytest.raises(UserError, match=r"layers\.3 has rank 2 and adapter_config\.json says 1, so that peft cannot"):
        read_adapter_folder(tmp_path / "one")
