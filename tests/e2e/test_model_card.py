"""What lies beside the weights of a result: it loads by the code of its own card, which says what the record says."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoImageProcessor, AutoTokenizer, GenerationConfig

from fedlit.cli import main
from fedlit.exported.answers import load_answers
from fedlit.exported.found import find_result
from fedlit.store.records import read_records

SMALL = [
    *("num_clients=2", "num_rounds=2", "local.steps=2", "local.batch_size=4", "logging.loggers=[csv]"),
    *("eval.max_examples=4", "eval.max_new_tokens=8", "eval.batch_size=4", "compute.accelerator=cpu"),
]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
RUNS = {
    "adapter": ["local.lr=0.02"],
    "own": ["method=fedsa_lora", "eval.on=clients"],
    "folded": ["method=fedex_lora", "local.lr=0.02", "run.result=best", "eval.choose_on=test"],
    "whole": ["run.export=merged", "eval.stop=[' the']"],
    "texts": ["data=texts", "data.path=texts.jsonl", "model=bert-small", "model.weights=random"],
    "images": ["data=digits", "model=vit-small"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of every kind of result."""
    folder = tmp_path_factory.mktemp("cards")
    rows = [{"text": f"a {word} film {i}", "label": word} for i in range(40) for word in ("good", "bad")]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, words in RUNS.items():
        with contextlib.chdir(folder):
            assert main(["run", *SMALL, *words, f"run.name={name}"]) == 0, name
    return folder / "runs"


def code_of(folder: Path) -> str:
    """Return the only block of Python in a card."""
    [code] = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text(), flags=re.DOTALL)
    return str(code)


def said(folder: Path) -> str:
    """Run the code of a card in its folder, as somebody would who copied it, and return what it prints."""
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        exec(code_of(folder), {})
    return out.getvalue().strip()


FOLDERS = {
    "adapter": "adapter/adapter",
    "own": "own/adapter/client-00001",
    "folded": "folded/adapter",
    "whole": "whole/adapter",
    "texts": "texts/adapter",
    "images": "images/adapter",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_result_is_whole(name: str, runs: Path) -> None:
    folder = runs / FOLDERS[name]
    files = {path.name for path in folder.iterdir()}
    assert {"README.md", "fedlit.json", "prompt_template.json"} <= files
    if name == "images":
        assert AutoImageProcessor.from_pretrained(folder, backend="pil").size == {"height": 64, "width": 64}
    else:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        assert tokenizer("def read(file)")["input_ids"]
        described = json.loads((folder / "tokenizer.json").read_text())
        assert (described["truncation"], described["padding"]) == (None, None)  # of no batch that was read last
    if name not in ("images", "texts"):
        settings = GenerationConfig.from_pretrained(folder)
        assert (settings.max_new_tokens, settings.do_sample) == (8, False)
        assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (1, 2, 0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", FOLDERS)
def test_the_code_of_a_card_says_what_chat_says(name: str, runs: Path) -> None:
    folder = runs / FOLDERS[name]
    told = said(folder)
    if name == "images":
        assert told in [str(digit) for digit in range(10)]
        return
    result = find_result(runs / name, client_id=1 if name == "own" else None)
    row = {"text": "..."} if name == "texts" else {"prompt": "..."}
    answer = load_answers(result).answer(row).text
    assert told == (answer.split(" (")[0] if name == "texts" else answer)
    assert told


def test_a_card_says_what_the_record_says(runs: Path) -> None:
    card = ModelCard.load(runs / "adapter" / "adapter" / "README.md")
    last = read_records(runs / "adapter")[-1]
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {"ROUGE-L": last["global/rouge_l"], "BLEU-4": last["global/bleu_4"]}
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-generation")
    assert card.data.base_model is None  # it has no name on the hub
    assert f"| loss | {last['global/loss']:.4f} |" in card.text
    records = read_records(runs / "adapter")
    sent = sum(record.get("communication/uplink_bytes", 0) for record in records)
    assert f"({sent} bytes)" in card.text
    assert "Zhang et al., arXiv 2305.05644" in card.text


def test_the_card_of_the_best_round_has_its_scores_and_says_who_chose(runs: Path) -> None:
    facts = json.loads((runs / "folded" / "adapter" / "fedlit.json").read_text())
    record = next(each for each in read_records(runs / "folded") if each["round"] == facts["round"])
    assert {score["key"]: score["value"] for score in facts["scores"]}["global/loss"] == record["global/loss"]
    text = (runs / "folded" / "adapter" / "README.md").read_text()
    assert "the best round by ROUGE-L on the test set, which flatters" in text
    ranks = re.search(r"The adapter has ranks? (\d+)", text)
    assert ranks is not None
    assert "8 was trained: what the server folded into the frozen weights is a part of it" in text


def test_a_client_has_its_own_scores(runs: Path) -> None:
    text = (runs / "own" / "adapter" / "client-00001" / "README.md").read_text()
    own = read_records(runs / "own")[-1]["client/1/own/loss"]
    assert f"| this client's loss | {own:.4f} |" in text
    assert "the model of client 1 alone" in text


@pytest.mark.parametrize("name", FOLDERS)
def test_no_place_of_this_machine_is_in_a_card(name: str, runs: Path) -> None:
    folder = runs / FOLDERS[name]
    texts = [
        path for path in folder.iterdir() if path.suffix in (".md", ".json") and path.name != "adapter_config.json"
    ]
    for path in texts:
        for place in (str(runs.parent), str(Path.cwd()), str(Path(__file__).parents[2])):
            assert place not in path.read_text(), (path, place)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_merged_model_has_all_of_it_too(dtype: str | None, runs: Path, tmp_path: Path) -> None:
    given = [] if dtype is None else ["--dtype", dtype]
    assert main(["merge", str(runs / "adapter"), "--output", str(tmp_path / "merged"), *given]) == 0
    card = ModelCard.load(tmp_path / "merged" / "README.md")
    assert card.data.library_name == "transformers"
    for name in ("generation_config.json", "prompt_template.json", "fedlit.json", "tokenizer.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (runs / "adapter" / "adapter" / name).read_bytes(), name
    if dtype is None:
        assert said(tmp_path / "merged") == said(runs / "adapter" / "adapter")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_result_of_an_older_version_is_asked_and_merged(
    runs: Path, tmp_path: Path, copied: Callable[[Path], Path]
) -> None:
    """It has the two files of peft alone."""
    run = copied(runs / "adapter")
    for path in (run / "adapter").iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
    answers = [load_answers(find_result(folder)).answer({"prompt": "class A"}) for folder in (run, runs / "adapter")]
    assert answers[0] == answers[1]
    assert main(["merge", str(run), "--output", str(tmp_path / "merged")]) == 0
    own = json.loads((tmp_path / "merged" / "fedlit.json").read_text())
    assert own == json.loads((runs / "adapter" / "adapter" / "fedlit.json").read_text())
    assert GenerationConfig.from_pretrained(tmp_path / "merged").max_new_tokens == 8


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_the_tokenizer_beside_an_adapter_is_the_one_that_is_asked(runs: Path, copied: Callable[[Path], Path]) -> None:
    run = copied(runs / "adapter")
    tokenizer: Any = AutoTokenizer.from_pretrained(run / "adapter")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(run / "adapter")
    answers: Any = load_answers(find_result(run))
    assert answers._model.backbone.tokenizer.chat_template == TEMPLATE


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that copies what a finished run is asked from."""

    def copy(run: Path) -> Path:
        return shutil.copytree(run, tmp_path / "copied", ignore=shutil.ignore_patterns("checkpoints", "plots"))

    return copy
