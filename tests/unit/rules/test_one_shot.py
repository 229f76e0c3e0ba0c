"""Folders of plain peft become one that plain peft loads, at the distance that a dense computation gives."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_folders import GPT2, LLAMA, changes, difference, gpt2, llama, mean, norm, save, truncated
from safetensors.torch import load_file, save_file

from fedlit.errors import UserError
from fedlit.rules import Outcome, Rule, aggregate_folders, read_adapter_folder

WEIGHTS = [3.0, 2.0, 1.0]
TOLERANCE = 1e-6
EQUAL = [{"r": 4, "lora_alpha": 6}] * 3
MIXED = [
    {"r": 4, "lora_alpha": 16},
    {"r": 8, "lora_alpha": 5, "use_rslora": True},
    {"r": 16, "lora_alpha": 16},
]
PATTERNED = [
    MIXED[0],
    {**MIXED[1], "rank_pattern": {"1.*(v_proj|c_attn)": 3}, "alpha_pattern": {".*(v_proj|c_attn)": 11}},
    {**MIXED[2], "rank_pattern": {"down_proj|c_proj": 2, "q_proj|c_attn": 5}},
]
MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {"llama": (llama, LLAMA), "gpt2": (gpt2, GPT2)}
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")


def folders(kind: str, options: list[dict[str, Any]], root: Path, **common: Any) -> list[Path]:
    build, targets = MODELS[kind]
    return [
        save(root / "abc"[number], build(), targets, seed=number, **each, **common)
        for number, each in enumerate(options)
    ]


def aggregate(
    paths: list[Path],
    weights: list[float],
    out: Path,
    *,
    rule: str,
    dtype: Any = None,
    backbone: Any = None,
    **sizes: Any,
) -> list[Outcome]:
    return aggregate_folders(paths, weights, out, Rule(name=rule, **sizes), dtype=dtype, backbone=backbone)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("options", [MIXED, PATTERNED], ids=["mixed", "patterned"])
def test_flexlora_is_the_best_at_its_rank(kind: str, options: list[dict[str, Any]], tmp_path: Path) -> None:
    paths = folders(kind, options, tmp_path)
    model = MODELS[kind][0]()
    outcomes = aggregate(paths, WEIGHTS, tmp_path / "out", rule="flexlora", rank=6)
    wanted = mean(paths, WEIGHTS, model)
    best = {name: truncated(matrix, 6) for name, matrix in wanted.items()}
    given = changes(tmp_path / "out", model)
    assert norm(difference(given, best)) < TOLERANCE * norm(wanted)
    assert outcomes[0].rule == "flexlora"
    assert outcomes[0].ranks == (6, 6)
    assert outcomes[0].distance == pytest.approx(norm(difference(given, wanted)) / norm(wanted), rel=TOLERANCE)
    assert outcomes[0].distance > 0.05


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("options", [MIXED, PATTERNED, EQUAL], ids=["mixed", "patterned", "equal"])
def test_flora_is_exact(kind: str, options: list[dict[str, Any]], tmp_path: Path) -> None:
    paths = folders(kind, options, tmp_path)
    model = MODELS[kind][0]()
    outcomes = aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora")
    wanted = mean(paths, WEIGHTS, model)
    assert norm(difference(changes(tmp_path / "out", model), wanted)) < TOLERANCE * norm(wanted)
    assert outcomes[0].distance is not None
    assert outcomes[0].distance < TOLERANCE


@pytest.mark.parametrize("kind", MODELS)
def test_fedex_is_exact_and_fedit_is_the_mean_of_the_factors(kind: str, tmp_path: Path) -> None:
    paths = folders(kind, EQUAL, tmp_path)
    model = MODELS[kind][0]()
    fedex = aggregate(paths, WEIGHTS, tmp_path / "fedex", rule="fedex")
    aggregate(paths, WEIGHTS, tmp_path / "fedit", rule="fedit")
    wanted = mean(paths, WEIGHTS, model)
    assert norm(difference(changes(tmp_path / "fedex", model), wanted)) < TOLERANCE * norm(wanted)
    assert fedex[0].ranks == (12, 12)
    tensors = [load_file(path / "adapter_model.safetensors") for path in paths]
    result = load_file(tmp_path / "fedit" / "adapter_model.safetensors")
    for key, tensor in result.items():
        exact = sum(w / 6 * each[key].double() for w, each in zip(WEIGHTS, tensors, strict=True))
        assert torch.equal(tensor, exact.float())
    given = norm(difference(changes(tmp_path / "fedit", model), wanted)) / norm(wanted)
    told = next(each.distance for each in fedex if each.rule == "fedit")
    assert told == pytest.approx(given, rel=1e-5)
    assert given > 0.1


def test_residual_of_fedex_is_cut_to_its_best(tmp_path: Path) -> None:
    paths = folders("llama", EQUAL, tmp_path)
    aggregate(paths, WEIGHTS, tmp_path / "fedit", rule="fedit")
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="fedex", residual_rank=2)
    wanted, model = mean(paths, WEIGHTS, llama()), llama()
    fedit = changes(tmp_path / "fedit", model)
    best = {name: fedit[name] + truncated(wanted[name] - fedit[name], 2) for name in wanted}
    assert norm(difference(changes(tmp_path / "out", model), best)) < TOLERANCE * norm(wanted)


def test_hetlora_pads_with_zeros(tmp_path: Path) -> None:
    """With one scaling everywhere its product is that of the padded means."""
    options = [{"r": rank, "lora_alpha": 2 * rank} for rank in (4, 8)]
    paths = folders("llama", options, tmp_path)
    aggregate(paths, [1, 1], tmp_path / "out", rule="hetlora")
    small, large, out = (load_file(path / "adapter_model.safetensors") for path in (*paths, tmp_path / "out"))
    for key, tensor in out.items():
        expected = large[key].double() / 2
        rank = 4
        if "lora_A" in key:
            expected[:rank] += small[key].double() / 2
        else:
            expected[:, :rank] += small[key].double() / 2
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)


def test_energy_chooses_a_rank_for_each_layer(tmp_path: Path) -> None:
    paths = folders("llama", PATTERNED, tmp_path)
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="flexlora", energy=0.9)
    adapter = read_adapter_folder(tmp_path / "out")
    wanted = mean(paths, WEIGHTS, llama())
    for name in adapter:
        kept = torch.linalg.svdvals(wanted[f"{name}.weight"]).square().cumsum(0)
        assert adapter[name].rank == 1 + int((kept < 0.9 * kept[-1]).sum())
    assert len({adapter[name].rank for name in adapter}) > 1


def test_the_type_is_the_adapters_own(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path, dtype=torch.bfloat16)
    aggregate(paths, WEIGHTS, tmp_path / "own", rule="flora")
    aggregate(paths, WEIGHTS, tmp_path / "fine", rule="flora", dtype=torch.float64)
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "own" / "adapter_model.safetensors").values()}
    assert kinds == {torch.bfloat16}
    wanted = mean(paths, WEIGHTS, llama())
    assert norm(difference(changes(tmp_path / "fine", llama()), wanted)) < 1e-12 * norm(wanted)


def test_modules_that_were_trained_whole_are_averaged(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path, modules_to_save=["lm_head"])
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora")
    wanted = mean(paths, WEIGHTS, llama())
    given = changes(tmp_path / "out", llama())
    assert "lm_head.weight" in given
    assert norm(difference(given, wanted)) < TOLERANCE * norm(wanted)


def test_biases_that_were_trained_are_averaged(tmp_path: Path) -> None:
    paths = folders("gpt2", MIXED, tmp_path, bias="lora_only")
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora")
    wanted = mean(paths, WEIGHTS, gpt2())
    given = changes(tmp_path / "out", gpt2())
    assert "transformer.h.0.attn.c_attn.bias" in given
    assert norm(difference(given, wanted)) < TOLERANCE * norm(wanted)


def test_one_adapter_and_weights_of_zero(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path)
    outcomes = aggregate(paths, [0, 5, 0], tmp_path / "out", rule="flora")
    assert outcomes[0].ranks == (8, 8)
    wanted = changes(paths[1], llama())
    assert norm(difference(changes(tmp_path / "out", llama()), wanted)) < TOLERANCE * norm(wanted)


def rewritten(path: Path, **changed: Any) -> None:
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, **changed}))


def retensored(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "dora": (lambda path: rewritten(path, use_dora=True), "use_dora: DoRA"),
    "kind": (lambda path: rewritten(path, peft_type="VERA"), "an adapter of kind VERA"),
    "start": (lambda path: rewritten(path, init_lora_weights="pissa"), "init_lora_weights=pissa"),
    "backbone": (lambda path: rewritten(path, base_model_name_or_path="other"), "was trained on other"),
    "rank": (lambda path: rewritten(path, r=5), "has rank 8 and adapter_config.json says 5"),
    "pattern": (lambda path: rewritten(path, rank_pattern={"(": 5}), "no regular expression"),
    "alpha": (lambda path: rewritten(path, lora_alpha=0), "lora_alpha=0"),
    "json": (lambda path: (path / "adapter_config.json").write_text("{"), "adapter_config.json"),
    "no config": (lambda path: (path / "adapter_config.json").unlink(), "no adapter_config.json"),
    "pickle": (
        lambda path: (path / "adapter_model.safetensors").rename(path / "adapter_model.bin"),
        "adapter_model.bin, a pickle",
    ),
    "cut": (
        lambda path: (path / "adapter_model.safetensors").write_bytes(
            (path / "adapter_model.safetensors").read_bytes()[:-8]
        ),
        "cannot be read",
    ),
    "nan": (lambda path: retensored(path, lambda t: t[KEY].fill_(torch.nan)), "holds a NaN"),
    "layer": (
        lambda path: retensored(path, lambda t: [t.pop(KEY), t.pop(KEY.replace("_A", "_B"))]),
        "has no layer model.layers.0.self_attn.q_proj",
    ),
    "factor": (lambda path: retensored(path, lambda t: t.pop(KEY)), "has B alone"),
    "shape": (
        lambda path: retensored(path, lambda t: t.update({KEY: torch.ones(8, 23)})),
        "layer model.layers.0.self_attn.q_proj is (32, 23) (out, in), in",
    ),
    "integers": (lambda path: retensored(path, lambda t: t.update({KEY: t[KEY].int()})), "no floating-point numbers"),
    "unknown": (lambda path: retensored(path, lambda t: t.update(extra=torch.ones(2))), "extra is neither"),
    "magnitude": (
        lambda path: retensored(path, lambda t: t.update({"x.lora_magnitude_vector": torch.ones(2)})),
        "DoRA's magnitude",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line_with_the_folder(case: str, tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path)
    for path in paths:
        rewritten(path, base_model_name_or_path="llama")
    damage, told = REFUSED[case]
    damage(paths[1])
    with pytest.raises(UserError) as refusal:
        aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora")
    assert told in str(refusal.value)
    assert str(paths[1]) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "b", "c"]


def test_another_name_of_the_model_may_be_given(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path)
    for path in paths:
        rewritten(path, base_model_name_or_path=f"/home/{path.name}/llama")
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora", backbone="llama")
    assert read_adapter_folder(tmp_path / "out").backbone == "llama"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path)
    with pytest.raises(UserError, match="exists already"):
        aggregate(paths, WEIGHTS, paths[0], rule="flora")


def test_ranks_that_a_rule_cannot_mix(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path)
    with pytest.raises(UserError, match="needs equal ranks, which are 4 and 8"):
        aggregate(paths, WEIGHTS, tmp_path / "out", rule="fedex")
    other = save(tmp_path / "d", llama(), LLAMA, seed=9, r=4, lora_alpha=8)
    with pytest.raises(UserError, match="needs equal scalings, which are 4 and 2"):
        aggregate([paths[0], other], [1, 1], tmp_path / "out", rule="fedit")


def test_a_result_too_large_for_its_type(tmp_path: Path) -> None:
    paths = folders("llama", MIXED, tmp_path)
    for path in paths:
        rewritten(path, lora_alpha=1e7)
    with pytest.raises(UserError, match=r"does not fit into torch\.float16; give --dtype=float32"):
        aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora", dtype=torch.float16)


def test_one_layer_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of the inputs are read when their layer's turn comes, each once."""
    from fedlit.rules.folders import AdapterFolder  # noqa: PLC0415

    paths = folders("llama", MIXED, tmp_path)
    read: list[str] = []
    tensor = AdapterFolder.tensor
    monkeypatch.setattr(AdapterFolder, "tensor", lambda self, key: read.append(key) or tensor(self, key))
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora")
    layers = [key.partition(".lora_")[0] for key in read]
    assert len(read) == 3 * 2 * len(set(layers))
    assert layers == [layer for layer in dict.fromkeys(layers) for _ in range(6)]


def test_a_warning_of_peft_is_none_of_ours(tmp_path: Path) -> None:
    """What is written fits the file's own configuration: peft neither misses a key nor finds one too many."""
    paths = folders("gpt2", PATTERNED, tmp_path)
    aggregate(paths, WEIGHTS, tmp_path / "out", rule="flora")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(changes(tmp_path / "out", gpt2())) == 6
