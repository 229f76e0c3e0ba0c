"""A result in memory and the same one read from its folder: records, tensors, models, exports."""

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import transformers
from api_runs import ROWS, same_tensors, small_run
from peft import PeftModel
from transformers import AutoModelForCausalLM

import fedlit
from fedlit import api
from fedlit.models import PACKAGED
from fedlit.store.manifest import round_folder

TOKENS = torch.arange(5, 21).view(1, 16)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    assert not model.training
    result: torch.Tensor = model(input_ids=TOKENS).logits
    return result


def exported(folder: Path) -> Any:
    if not (folder / "adapter_config.json").is_file():
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(PACKAGED["tiny"]), folder).eval()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> fedlit.Result:
    return small_run(tmp_path_factory.mktemp("runs"))


def test_records_frame_and_files(plain: fedlit.Result) -> None:
    assert [record["round"] for record in plain.records] == [0, 1, 2]
    frame = plain.frame
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["round"]) == [0, 1, 2]
    assert list(frame["global/loss"]) == [record["global/loss"] for record in plain.records]
    assert frame["aggregation/update_norm"].isna().tolist() == [True, False, False]
    assert plain.folder.is_absolute()
    assert plain.adapter == plain.folder / "adapter"
    assert plain.tokenizer("a text")["input_ids"]
    assert repr(plain).startswith("Result(run: done, last round 2, folder=")
    assert (plain.server.round_idx, len(plain.server.layers)) == (2, len(plain.server.shared) // 2)


def test_single_examples(plain: fedlit.Result) -> None:
    frame, lines = plain.examples(), plain.samples()
    assert isinstance(frame, pandas.DataFrame)
    last = plain.records[-1]
    assert frame["rouge_l"].mean() == pytest.approx(last["global/rouge_l"], abs=1e-12)
    assert frame["loss_sum"].sum() / frame["loss_count"].sum() == pytest.approx(last["global/loss"], abs=1e-12)
    assert plain.examples(0)["example"].tolist() == frame["example"].tolist()
    assert [line["round"] for line in lines] == [number for number in (0, 1, 2) for _ in range(len(frame))]
    assert plain.samples(1) == [line for line in lines if line["round"] == 1]
    with pytest.raises(fedlit.UserError, match="rounds 0, 1, 2 alone"):
        plain.examples(7)


# What is private, what is folded, whole models, frozen factors made from data, ranks.
CASES: dict[str, dict[str, Any]] = {
    "fedsa_lora": {},
    "fedex_lora": {"cohort_size": 1},
    "scl": {"method.init": "svd"},
    "fed_sb": {"local.lr": 0.05},
    "flexlora": {"method.lora_rank": [2, 4]},
}


@pytest.mark.parametrize("method", CASES)
def test_the_model_is_what_was_exported_and_what_the_folder_holds(tmp_path: Path, method: str) -> None:
    result = small_run(tmp_path, config={"method": method, **CASES[method]})
    there = fedlit.load_result(result.folder)
    assert there.config == result.config
    assert same_tensors(result, there)
    assert torch.equal(logits(result.model), logits(there.model))
    folders = sorted(result.adapter.glob("client-*"))
    if not folders:
        expected = logits(result.model)
        assert torch.allclose(logits(exported(result.adapter)), expected, atol=1e-4 * float(expected.abs().max()))
        with pytest.raises(fedlit.UserError, match=r"clients have no model of their own"):
            result.client_model(0)
        return
    seen = []
    for client_id, folder in enumerate(folders):
        expected = logits(result.client_model(client_id))
        assert torch.allclose(logits(exported(folder)), expected, atol=1e-4 * float(expected.abs().max()))
        assert torch.equal(logits(there.client_model(client_id)), expected)
        assert torch.equal(logits(result.model), expected) == (client_id == 0)
        seen.append(expected)
    assert not torch.equal(*seen)
    with pytest.raises(fedlit.UserError, match=r"'north' is none of this run; known are 0 to 1; give a number"):
        result.client_model("north")
    with pytest.raises(fedlit.UserError, match=r"client 2 is none of this run; known are 0 to 1$"):
        result.client_model(2)


def test_the_best_round_is_the_models(tmp_path: Path) -> None:
    config = {"run.result": "best", "local.lr": 1.0, "num_rounds": 3, "run.keep_checkpoints": 4, "eval.score": "loss"}
    config["eval.choose_on"] = "test"
    result = small_run(tmp_path, config=config)
    best = min(result.records[1:], key=lambda record: record["global/loss"])["round"]
    assert best < 3, "the rates are too large to get better"
    assert result.server.round_idx == best
    assert same_tensors(result, fedlit.load_result(result.folder))
    killed = Path(shutil.copytree(result.folder, tmp_path / "killed"))
    with (killed / "metrics.jsonl").open("a") as records:  # a better round, whose checkpoint was not yet written
        records.write(json.dumps({**result.records[-1], "round": 4, "global/loss": 0.0}) + "\n")
    assert same_tensors(result, fedlit.load_result(killed))
    again = small_run(tmp_path, config=config)
    assert again.server.round_idx == best


def test_classes_are_known_without_the_rows(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": ("no", "yes")[number % 2]} for number in range(20)]
    result = small_run(tmp_path, rows=rows, data={"task": "sequence_classification"}, eval={"max_new_tokens": 64})
    there = fedlit.load_result(result.folder)
    assert there.model.config.id2label == {0: "no", 1: "yes"}
    assert torch.equal(logits(result.model), logits(there.model))


def test_an_image_processor_is_a_reader(tmp_path: Path) -> None:
    result = fedlit.run(
        {"data": "digits", "model": "vit-small", "data.sample": 100, "eval.max_examples": 4, "method": "fedit"},
        num_clients=2,
        num_rounds=1,
        local={"steps": 1, "batch_size": 2},
        logging={"wandb": "disabled"},
        run={"dir": tmp_path},
    )
    assert "pixel_values" in result.tokenizer(images=[torch.zeros(3, 64, 64)], return_tensors="pt")
    assert type(fedlit.load_result(result.folder).tokenizer) is type(result.tokenizer)


def test_what_is_not_there(tmp_path: Path, plain: fedlit.Result) -> None:
    with pytest.raises(fedlit.UserError, match=r"is no run's folder \(no config\.yaml\)"):
        fedlit.load_result(tmp_path)
    result = small_run(tmp_path, num_rounds=1)
    for number in (0, 1):
        (result.folder / "checkpoints" / round_folder(number) / "manifest.json").unlink()
    with pytest.raises(fedlit.UserError, match=r"has no intact checkpoint, and so no model"):
        _ = fedlit.load_result(result.folder).model


def test_reading_a_model_prints_nothing(plain: fedlit.Result, capfd: pytest.CaptureFixture[str]) -> None:
    transformers.utils.logging.enable_progress_bar()
    assert same_tensors(fedlit.load_result(plain.folder), plain)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_records_need_no_torch(plain: fedlit.Result) -> None:
    code = (
        f"import sys, fedlit; result = fedlit.load_result({str(plain.folder)!r});"
        "print(len(result.records), result.status, result.config.method.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 done fedit False\n"


def test_the_examples_of_the_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testmod(api, optionflags=flags)
    assert found.failed == 0
    assert found.attempted >= 10


def test_the_callback_of_the_docstring_stops(tmp_path: Path) -> None:
    class UntilGood(fedlit.Callback):
        def on_round_end(self, record: dict[str, Any], samples: Any) -> None:
            if record.get("global/loss", 99.9) < 99.0:
                raise fedlit.Stop

    with pytest.raises(fedlit.Stopped):
        small_run(tmp_path, rows=ROWS, callbacks=[UntilGood()])
