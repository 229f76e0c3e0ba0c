"""What peft 0.21.2 does with LoRA, VeRA, OFT and DoRA that one would not guess: rows of docs/howto/results.md.

Each test is red where a later version behaves otherwise.
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.conversion import save_as_lora
from peft.utils.hotswap import hotswap_adapter
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTForImageClassification

from fedlit import rules
from fedlit.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Adapter name .* should not be contained in the prefix"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


class Layers(nn.Module):
    def __init__(self, num_layers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = nn.ModuleList([nn.Linear(8, 6, bias=False) for _ in range(num_layers)])


LAYERS = r"layers\.\d+"


def randomized(model: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_" in name or ".vera_lambda_" in name:
            parameter.data = torch.randn_like(parameter)
    return model


def changes(model: Any, adapter: str = "default") -> Tensor:
    """Return what an adapter adds to all weights, (layers, out, in)."""
    return torch.stack([layer.get_delta_weight(adapter) for layer in model.base_model.model.layers]).detach()


def scalings(model: Any) -> list[float]:
    return [layer.scaling["default"] for layer in model.base_model.model.layers]


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_the_version_is_the_one_that_the_page_names() -> None:
    assert peft.__version__ == "0.21.2"


def test_linear_multiplies_the_factors_by_roots_of_the_weights() -> None:
    """Two times the mean where both adapters are the same, and twice FedIT at equal weights."""
    model = get_peft_model(Layers(), LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS), adapter_name="one")
    model.add_adapter("two", LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS))
    model = randomized(model)
    own = {
        name: rules.from_state_dict(
            get_peft_model_state_dict(model, adapter_name=name), model.peft_config[name].to_dict()
        )
        for name in ("one", "two")
    }
    for weights in ([0.5, 0.5], [0.75, 0.25]):
        model.add_weighted_adapter(["one", "two"], weights, "linear", combination_type="linear")
        given = changes(model, "linear")
        fedit = rules.fedit(list(own.values()), weights)
        fedit_changes = torch.stack([factors.change().dense() for factors in fedit.values()]).float()
        mean = weights[0] * changes(model, "one") + weights[1] * changes(model, "two")
        assert relative(given, mean) > 0.5
        if weights[0] == weights[1]:
            torch.testing.assert_close(given, 2 * fedit_changes, rtol=1e-4, atol=1e-4)
        else:
            assert relative(given, fedit_changes) > 0.5
        model.delete_adapter("linear")
    model.add_weighted_adapter(["one", "one"], [0.5, 0.5], "same", combination_type="linear")
    torch.testing.assert_close(changes(model, "same"), 2 * changes(model, "one"), rtol=1e-4, atol=1e-4)


def test_adapters_named_by_all_numbers_keep_one_layer_each(tmp_path: Path) -> None:
    """Adapter "0" is layer 0 alone where each layer's number is another adapter's name; peft tells when it loads."""
    model = get_peft_model(Layers(), LoraConfig(r=4, target_modules=LAYERS), adapter_name="0")
    for name in "12":
        model.add_adapter(name, LoraConfig(r=4, target_modules=LAYERS))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save_pretrained(tmp_path)
    assert list(rules.read_adapter_folder(tmp_path / "0")) == ["layers.0"]
    with pytest.warns(UserWarning, match="Found missing adapter keys"):
        PeftModel.from_pretrained(Layers(), tmp_path / "0")


def test_a_hot_swap_forgets_the_patterns(tmp_path: Path) -> None:
    """Every layer gets alpha / r, also where the adapter that is swapped in is the one that is there."""
    config = LoraConfig(r=4, lora_alpha=16, target_modules=LAYERS, rank_pattern={"1": 2}, alpha_pattern={"2": 2})
    randomized(get_peft_model(Layers(), config)).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(Layers(), tmp_path)
    assert scalings(loaded) == [4, 8, 0.5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hotswap_adapter(loaded, str(tmp_path), "default")
    assert scalings(loaded) == [4, 4, 4]
    assert [factors.scaling for factors in rules.read_adapter_folder(tmp_path).values()] == [4, 8, 0.5]


def test_oft_s_rotations_are_none_by_default() -> None:
    """With the Cayley-Neumann series neither an adapter's own rotation nor one of mean parameters is orthogonal."""
    errors = {}
    for series in (True, False):
        config = peft.OFTConfig(oft_block_size=4, target_modules=LAYERS, use_cayley_neumann=series)
        model: Any = get_peft_model(nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(8, 8)])}), config)
        rotation = model.base_model.model["layers"][0].oft_R["default"]
        first, second = torch.tensor([[0.5, -0.5, 0.5, 0.5, -0.5, 0.5]]), torch.tensor([[0.5] * 6])
        for name, weight in {"first": first, "mean": (first + second) / 2}.items():
            rotation.weight.data = weight.repeat(2, 1)
            made = rotation.get_weight().detach()
            errors[series, name] = float((made @ made.T - torch.eye(8)).abs().max())
    assert errors[True, "first"] == pytest.approx(0.129, abs=1e-3)
    assert errors[True, "mean"] == pytest.approx(0.4375, abs=1e-4)
    assert max(errors[False, "first"], errors[False, "mean"]) < 1e-6


def test_projections_of_vera_travel_with_the_state_dict() -> None:
    """Another client's state dict brings its projections: a client's own vectors then mean another change."""
    one, other = (
        randomized(get_peft_model(Layers(), peft.VeraConfig(r=4, target_modules=LAYERS, projection_prng_key=key)), key)
        for key in (0, 7)
    )
    before, own = changes(one), get_peft_model_state_dict(one)
    vectors = {key: tensor.clone() for key, tensor in own.items() if "vera_lambda" in key}
    projections = {key: tensor for key, tensor in get_peft_model_state_dict(other).items() if key not in vectors}
    assert sorted(projections) == ["base_model.vera_A", "base_model.vera_B"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        set_peft_model_state_dict(one, {**vectors, **projections})
    assert relative(changes(one), before) > 0.5
    with pytest.raises(UserError, match="kind VERA: vectors between projections that adapters need not share"):
        rules.from_state_dict(own, one.peft_config["default"].to_dict())


@pytest.mark.parametrize("ensure_weight_tying", [False, True])
@pytest.mark.filterwarnings("ignore:Model.* `?tie_word_embeddings=True")
@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`")
def test_merging_on_tied_embeddings_changes_the_head(ensure_weight_tying: bool) -> None:
    """What merging changes beside the adapter's effect is more than that effect."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    plain: Any = LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)).eval()
    tokens = torch.arange(10)[None]
    before = plain(tokens).logits.detach()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["embed_tokens"], ensure_weight_tying=ensure_weight_tying)
    model: Any = get_peft_model(plain, config).eval()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.05 * torch.randn_like(parameter)
    adapted = model(tokens).logits.detach()
    merged = model.merge_and_unload()(tokens).logits.detach()
    effect, beside = (adapted - before).norm(), (merged - adapted).norm()
    assert effect > 0.01
    assert beside > effect


def test_save_as_lora_drops_the_magnitude_of_dora(tmp_path: Path) -> None:
    """peft says that DoRA can be converted; what it writes is scaling * B @ A."""
    model = randomized(get_peft_model(Layers(), LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=LAYERS)))
    for name, parameter in model.named_parameters():
        if "lora_magnitude_vector" in name:
            parameter.data = parameter.data.abs() + 1
    assert model.supports_lora_conversion()
    save_as_lora(tmp_path, model, rank=6)
    given = torch.stack([factors.change().dense() for factors in rules.read_adapter_folder(tmp_path).values()]).float()
    torch.testing.assert_close(given, changes(model), rtol=1e-4, atol=1e-4)
    merged = copy.deepcopy(model).merge_and_unload()
    wanted = torch.stack([layer.weight for layer in merged.layers]) - torch.stack(
        [layer.weight for layer in Layers().layers]
    )
    assert relative(given, wanted.detach()) > 0.3


def test_a_lora_of_vit_from_transformers_4_is_refused(tmp_path: Path) -> None:
    """As transformers 4.57.6 names its layers; a whole ViT is read by 4 and 5 alike, as was seen once."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model: Any = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **sizes))
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    assert "vit.layers.0.attention.q_proj" in names  # in 4: vit.encoder.layer.0.attention.attention.query
    LoraConfig(r=2, target_modules=["query", "value"], peft_type="LORA").save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"Target modules .* not found in the base model"):
        PeftModel.from_pretrained(model, tmp_path)
