"""LoRA-FAIR, FedRot and FedEx in two adapters on folders of peft, least distances, and adapters of other kinds."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.conversion import save_as_lora
from peft_folders import GPT2, LLAMA, changes, difference, gpt2, llama, mean, norm, save, truncated
from torch import nn

from fedlit import rules
from fedlit.errors import UserError
from fedlit.rules import Rule, aggregate_folders, read_adapter_folder

WEIGHTS = [3.0, 2.0, 1.0]
MODELS = {"llama": (llama, LLAMA), "gpt2": (gpt2, GPT2)}
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")


def alike(kind: str, root: Path, **options: Any) -> list[Path]:
    """Write three adapters of rank 4 and alpha 6."""
    build, targets = MODELS[kind]
    return [
        save(root / name, build(), targets, seed=seed, r=4, lora_alpha=6, **options) for seed, name in enumerate("abc")
    ]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("residual_rank", [None, 2])
def test_fedex_as_two_adapters_acts_as_the_one(kind: str, residual_rank: int | None, tmp_path: Path) -> None:
    paths, model = alike(kind, tmp_path, bias="lora_only" if kind == "gpt2" else "none"), MODELS[kind][0]()
    rule = Rule(name="fedex", residual_rank=residual_rank)
    one = aggregate_folders(paths, WEIGHTS, tmp_path / "one", rule)[0]
    two = aggregate_folders(paths, WEIGHTS, tmp_path / "out", rule, residual=tmp_path / "rest")[0]
    assert (two.rule, two.ranks, two.num_numbers) == ("fedex", one.ranks, one.num_numbers)
    assert two.distance == pytest.approx(one.distance, rel=1e-3, abs=1e-6)
    aggregate_folders(paths, WEIGHTS, tmp_path / "fedit", Rule(name="fedit"))
    assert not norm(difference(changes(tmp_path / "out", model), changes(tmp_path / "fedit", model)))
    loaded: Any = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "out", autocast_adapter_dtype=False)
    loaded.load_adapter(tmp_path / "rest", "rest", autocast_adapter_dtype=False)
    loaded.base_model.set_adapter(["default", "rest"])
    together = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "one", autocast_adapter_dtype=False)
    tokens = torch.arange(12)[None]
    expected = together.double().eval()(tokens).logits
    torch.testing.assert_close(loaded.double().eval()(tokens).logits, expected, rtol=1e-5, atol=1e-5)
    if residual_rank is None:
        wanted, given = mean(paths, WEIGHTS, model), changes(tmp_path / "out", model)
        for name, more in changes(tmp_path / "rest", model).items():
            given[name] = given[name] + more
        assert norm(difference(given, wanted)) < 1e-6 * norm(wanted)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("rule", [Rule(name="lora_fair", regularization=0.1), Rule(name="fedrot", align="b")])
def test_what_is_written_is_what_the_function_gives(rule: Rule, kind: str, tmp_path: Path) -> None:
    paths, model = alike(kind, tmp_path), MODELS[kind][0]()
    outcomes = aggregate_folders(paths, WEIGHTS, tmp_path / "out", rule)
    adapters = [read_adapter_folder(path) for path in paths]
    if rule.name == "lora_fair":
        made = rules.lora_fair(adapters, WEIGHTS, regularization=0.1)
    else:
        made = rules.fedrot(adapters, WEIGHTS, align="b")
    given = changes(tmp_path / "out", model)
    for name, factors in made.items():
        expected = factors.change().dense()
        shown = given[f"{name}.weight"]
        torch.testing.assert_close(shown.T if kind == "gpt2" else shown, expected, rtol=1e-5, atol=1e-6)
    assert outcomes[0].ranks == (4, 4)
    assert outcomes[0].distance == pytest.approx(rules.relative_distance(made, adapters, WEIGHTS), rel=1e-5)


def test_nothing_is_nearer_than_the_least_distance_of_its_rank(tmp_path: Path) -> None:
    paths, model = alike("llama", tmp_path), llama()
    outcomes = aggregate_folders(paths, WEIGHTS, tmp_path / "out", Rule(name="flexlora", rank=5))
    wanted = mean(paths, WEIGHTS, model)
    for each in outcomes:
        best = {name: truncated(matrix, each.ranks[0]) for name, matrix in wanted.items()}
        assert each.least == pytest.approx(norm(difference(best, wanted)) / norm(wanted), rel=1e-6, abs=1e-12)
        assert each.distance is not None
        assert each.least is not None
        assert each.distance > each.least - 1e-7
    by_name = {each.rule: each for each in outcomes}
    assert by_name["flexlora"].distance == pytest.approx(by_name["flexlora"].least, rel=1e-6)
    assert by_name["lora_fair"].distance < by_name["fedit"].distance  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rule", "residual", "told"),
    [
        (Rule(name="flora"), "rest", "--residual belongs to --rule=fedex, not to flora"),
        (Rule(name="fedex", residual_rank=0), "rest", "--residual-rank=0 leaves nothing"),
        (Rule(name="fedex"), "out", "are both"),
        (Rule(name="fedex"), "a", "a exists already; give another place with --residual"),
    ],
)
def test_a_residual_that_has_no_place(rule: Rule, residual: str, told: str, tmp_path: Path) -> None:
    paths = alike("llama", tmp_path)
    with pytest.raises(UserError, match=told):
        aggregate_folders(paths, WEIGHTS, tmp_path / "out", rule, residual=tmp_path / residual)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(8, 8, bias=False) for _ in range(2)])
        self.conv, self.emb = nn.Conv2d(3, 4, 3), nn.Embedding(10, 8)


LAYERS = r"layers\.\d+"
KINDS: dict[str, tuple[Any, str]] = {
    "dora": (peft.LoraConfig(r=2, use_dora=True, target_modules=LAYERS), "use_dora: DoRA, whose magnitudes"),
    "vera": (peft.VeraConfig(r=2, target_modules=LAYERS), "kind VERA: vectors between projections"),
    "oft": (peft.OFTConfig(oft_block_size=4, target_modules=LAYERS), "kind OFT: rotations, and a mean of rotations"),
    "adalora": (peft.AdaLoraConfig(total_step=9, target_modules=LAYERS), "kind ADALORA: singular values"),
    "ia3": (peft.IA3Config(target_modules=LAYERS, feedforward_modules=[]), "kind IA3: factors of activations"),
    "loha": (peft.LoHaConfig(r=2, target_modules=LAYERS), "kind LOHA: products of four factors"),
    "lokr": (peft.LoKrConfig(r=2, target_modules=LAYERS), "kind LOKR: Kronecker products"),
    "pissa": (peft.LoraConfig(r=2, init_lora_weights="pissa", target_modules=LAYERS), "init_lora_weights=pissa"),
    "conv": (peft.LoraConfig(r=2, target_modules=["conv"]), r"factors \(2, 3, 3, 3\) and .*, not matrices"),
    "bias": (peft.LoraConfig(r=2, lora_bias=True, target_modules=LAYERS), "lora_bias: biases of B"),
}


def trained(config: Any, folder: Path) -> Any:
    model: Any = peft.get_peft_model(Layers(), config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_another_kind_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    config, told = KINDS[kind]
    trained(config, tmp_path)
    with pytest.raises(UserError, match=told) as refusal:
        read_adapter_folder(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["vera", "loha", "lokr"])
def test_peft_makes_lora_of_those_of_which_the_error_says_so(kind: str, tmp_path: Path) -> None:
    config, _ = KINDS[kind]
    model = trained(config, tmp_path / "own")
    save_as_lora(tmp_path / "lora", model, rank=8)
    merged = model.merge_and_unload()
    adapter = read_adapter_folder(tmp_path / "lora")
    for number, (layer, plain) in enumerate(zip(merged.layers, Layers().layers, strict=True)):
        change = (layer.weight - plain.weight).detach().double()
        given = adapter[f"layers.{number}"].change().dense()
        torch.testing.assert_close(given, change, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="peft's save_as_lora makes a LoRA adapter of it"):
        read_adapter_folder(tmp_path / "own")


def test_an_embedding_is_averaged_and_told(tmp_path: Path) -> None:
    models = [trained(peft.LoraConfig(r=2, target_modules=["emb"]), tmp_path / name) for name in "ab"]
    told: list[str] = []
    aggregate_folders(
        [tmp_path / "a", tmp_path / "b"], [1, 1], tmp_path / "out", Rule(name="flora"), notice=told.append
    )
    loaded: Any = PeftModel.from_pretrained(Layers(), tmp_path / "out")
    expected = sum(model.base_model.model.emb.get_delta_weight("default") for model in models) / 2
    torch.testing.assert_close(loaded.base_model.model.emb.get_delta_weight("default"), expected, rtol=1e-5, atol=1e-5)
    assert "layer emb is an embedding; where it is tied to the output head" in told[0]
