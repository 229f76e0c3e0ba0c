"""A merged folder is the backbone and the adapter added in float64 and rounded once; transformers alone loads it."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_runs import Finished, finish, write_rows
from safetensors.torch import load_file
from test_answers_of_results import REVIEWS
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)

from fedlit.errors import UserError
from fedlit.exported.found import find_result
from fedlit.exported.loading import load_base, load_model
from fedlit.exported.merging import DTYPES, merge_result
from fedlit.exported.unfinished import settled
from fedlit.models import PACKAGED
from fedlit.rules import read_adapter_folder

NO_ANSWERS = ["data.sample=150", "eval.max_examples=1", "eval.max_new_tokens=1"]  # weights are what is merged
TOKENS = torch.arange(5, 53).view(3, 16) * 7
HALF_STEP = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are stored as (in, out), and whose embedding and output projection are one."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=24, n_head=4, vocab_size=2048, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(PACKAGED["tiny"]).save_pretrained(folder)
    return folder


def exact(run: Finished) -> dict[str, Tensor]:
    """Return every weight of the merged model in float64, computed densely."""
    result = find_result(run.folder)
    model: Any = load_base(result).model
    weights = {name: parameter.double() for name, parameter in model.named_parameters(remove_duplicate=False)}
    for name, (a, b, scaling) in read_adapter_folder(result.folder).items():
        change = scaling * b.double() @ a.double()
        weight = weights[f"{name}.weight"]
        transposed = "Conv1D" in type(model.get_submodule(name)).__name__
        weights[f"{name}.weight"] = weight + (change.T if transposed else change)
    return weights


RUNS = {
    "fedit": ["method.target_modules=all"],
    "rslora": ["method.use_rslora=true"],
    "fedex": ["method=fedex_lora"],
    "bfloat16": ["model.dtype=bfloat16", "compute.precision=bf16-mixed"],
    "gpt2": ["model.path={gpt2}", "method.target_modules=all"],
    "tied": ["model.path={gpt2}", "method.target_modules=[c_attn,lm_head]"],
}


@pytest.mark.parametrize("name", RUNS)
def test_base_and_change_are_added_in_float64_and_rounded_once(name: str, gpt2_folder: Path, tmp_path: Path) -> None:
    run = finish(tmp_path, *NO_ANSWERS, *(word.format(gpt2=gpt2_folder) for word in RUNS[name]))
    wanted, base = exact(run), dict(load_base(find_result(run.folder)).model.named_parameters(remove_duplicate=False))
    for kind, dtype in DTYPES.items():
        merged = merge_result(find_result(run.folder), tmp_path / kind, kind)
        assert merged.num_layers > 1
        stored = load_file(tmp_path / kind / "model.safetensors")
        for key, tensor in stored.items():
            assert tensor.dtype == dtype
            limit = wanted[key].abs() * HALF_STEP[dtype] * (1 + 1e-6) + 2.0**-25
            assert ((tensor.double() - wanted[key]).abs() <= limit).all(), key
        assert len(stored) >= len({id(tensor) for tensor in base.values()})
        if name == "tied":
            assert not torch.equal(stored["lm_head.weight"], stored["transformer.wte.weight"])


def test_transformers_alone_loads_it_and_computes_the_same(tmp_path: Path) -> None:
    run = finish(tmp_path, *NO_ANSWERS)
    result = find_result(run.folder)
    merged = merge_result(result, run.folder / "merged")
    assert merged.loads[0] == "from transformers import AutoModelForCausalLM, AutoTokenizer"
    loaded = AutoModelForCausalLM.from_pretrained(run.folder / "merged")
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "merged")
    with torch.no_grad():
        ours = load_model(result).model.eval()(input_ids=TOKENS).logits
        plain = load_base(result).model(input_ids=TOKENS).logits
        torch.testing.assert_close(loaded(input_ids=TOKENS).logits, ours, rtol=1e-4, atol=1e-4)
    assert (plain - ours).abs().max() > 0.01
    assert loaded.generation_config.eos_token_id == tokenizer.eos_token_id
    assert {path.stat().st_mode & 0o777 for path in (run.folder / "merged").iterdir()} == {0o666 & ~umask()}


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_whole_model_is_copied_or_converted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", REVIEWS)
    run = finish(tmp_path, "data=texts", f"data.path={path}", "model=roberta-small")
    result = find_result(run.folder)
    merge_result(result, tmp_path / "same")
    for file in result.folder.iterdir():
        assert (tmp_path / "same" / file.name).read_bytes() == file.read_bytes()
    merge_result(result, tmp_path / "half", "float16")
    stored, half = (load_file(folder / "model.safetensors") for folder in (result.folder, tmp_path / "half"))
    assert stored.keys() == half.keys()
    for key, tensor in stored.items():
        assert torch.equal(half[key], tensor.half())
    classes = json.loads((tmp_path / "half" / "config.json").read_text())["id2label"]
    assert sorted(classes.values()) == ["blame", "neither", "praise"]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half", dtype=torch.float32)
    with torch.no_grad():
        whole = load_model(result).model.eval()(input_ids=TOKENS).logits
        torch.testing.assert_close(model(input_ids=TOKENS).logits, whole, rtol=0.01, atol=0.01)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finish(tmp_path_factory.mktemp("finished"), *NO_ANSWERS)


def test_nothing_is_overwritten_and_nothing_is_left(finished: Finished, tmp_path: Path) -> None:
    result = find_result(finished.folder)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there exists already; give another place with --output"):
        merge_result(result, tmp_path / "there")
    factor = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    assert factor in load_file(result.folder / "adapter_model.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


def test_a_weight_too_large_for_the_type(finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("config.yaml", "status.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes((finished.folder / name).read_bytes())
    path = run / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 1e9}))
    with pytest.raises(UserError, match=r"does not fit into torch.float16; give --dtype=float32"):
        merge_result(find_result(run), tmp_path / "out", "float16")
    assert list(tmp_path.iterdir()) == [run]


def test_a_backbone_in_4_bits_is_not_added_to(finished: Finished, tmp_path: Path) -> None:
    result = find_result(finished.folder)
    result.config.model.quantization = "nf4"
    with pytest.raises(UserError, match="a backbone in 4 bits, to which nothing can be added; load"):
        merge_result(result, tmp_path / "out")


def test_an_unfinished_run_is_its_newest_checkpoint(finished: Finished, tmp_path: Path) -> None:
    """A copy that was stopped after its last checkpoint and before its export gives what the run has exported."""
    run = tmp_path / "moved"
    shutil.copytree(finished.folder, run)
    shutil.rmtree(run / "adapter")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    with pytest.raises(UserError, match="not finished"):
        find_result(run)
    with settled(find_result(run, unfinished=True)) as result:
        assert result.is_adapter
        merge_result(result, tmp_path / "unfinished")
    assert not result.folder.exists()
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before
    merge_result(find_result(finished.folder), tmp_path / "finished")
    both = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("unfinished", "finished")]
    assert both[0] == both[1]
    with pytest.raises(UserError, match="one model for all clients"), settled(replace(result, client_id=1)):
        pass


def test_what_is_no_finished_run(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder; give the folder of a run"):
        find_result(tmp_path / "none")
    with pytest.raises(UserError, match="no run folder"):
        find_result(tmp_path)
    with pytest.raises(UserError, match="give one of the runs in it, such as"):
        find_result(finished.folder.parent)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes((finished.folder / "config.yaml").read_bytes())
    with pytest.raises(UserError, match=r"is not finished \(pending, 0 of 2 rounds\)"):
        find_result(run)
    with pytest.raises(UserError, match="has no checkpoint yet"), settled(find_result(run, unfinished=True)):
        pass
    (run / "config.yaml").write_text("{")
    with pytest.raises(UserError, match=r"config\.yaml"):
        find_result(run)
