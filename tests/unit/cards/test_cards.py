"""What a card says of configurations that no short run has, and what stands in its files."""

import ast
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoTokenizer

from fedlit.cards.facts import base_facts, result_facts
from fedlit.cards.files import Facts, adapter_ranks, read_facts
from fedlit.cards.folder import Reader, complete, generation_settings
from fedlit.cards.loading import loading_code
from fedlit.cards.text import card_text
from fedlit.config import DataConfig, EvalConfig, MethodConfig, ModelConfig, PartitionConfig, RunConfig, RunFolderConfig
from fedlit.data.chat_template import given_template
from fedlit.errors import UserError
from fedlit.store.folder import with_own_template

HUB = ModelConfig(name="tinyllama", path="TinyLlama/TinyLlama-1.1B")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
LORA = MethodConfig(name="fedit", options={"lora_rank": 8})
RECORDS: list[dict[str, Any]] = [
    {"round": 0, "global/loss": 3.0},
    {"round": 1, "global/loss": 2.0, "validation/loss": 2.5, "communication/uplink_bytes": 100},
    {"round": 2, "global/loss": 2.1, "validation/loss": 2.6, "communication/uplink_bytes": 100},
]


def facts(config: RunConfig, round_number: int = 1, **others: Any) -> Facts:
    return result_facts(config, round_number=round_number, records=RECORDS, **others)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("owner/name", "hub"),
        ("/models/mine", "folder"),
        ("~/mine", "folder"),
        ("memory:12", "memory"),
        ("tiny", "package"),
    ],
)
def test_only_a_name_on_the_hub_is_told(path: str, kind: str) -> None:
    told = base_facts(ModelConfig(name="/models/mine", path=path))
    assert (told["kind"], told["hub_id"], told["name"]) == (kind, path if kind == "hub" else None, "mine")


def test_a_folder_in_the_working_folder_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert base_facts(ModelConfig(path="owner/name"))["hub_id"] is None


def test_no_path_of_this_machine_is_a_fact() -> None:
    config = RunConfig(
        data=DataConfig(name="/data/mine", path="/data/mine.jsonl", chat_template="/data/chat.jinja"),
        model=ModelConfig(name="mine", path="/models/mine", tokenizer="/models/words"),
        method=replace(LORA, options={"lora_rank": 8, "target_modules": ["~/mine", "q"]}),
        partition=PartitionConfig(name="file", path="/data/partition.json"),
        run=RunFolderConfig(dir="/runs", name="secret-name"),
    )
    clients = [{"client_id": 0, "name": "/data/a.csv", "num_train": 3, "num_test": 1}]
    text = json.dumps(facts(config, partition={"clients": clients, "heterogeneity": {}}))
    for secret in ("/data", "/models", "/runs", "~", "secret-name"):
        assert secret not in text
    assert (
        text.count("a local path") == 2
    )  # in place of the name of the data and of a module; names of clients are not told


def test_the_scores_and_the_bytes_are_those_up_to_the_round() -> None:
    config = RunConfig(run=RunFolderConfig(result="best"), method=LORA, eval=EvalConfig(score="loss"))
    told = facts(config)
    assert {score["key"]: score["value"] for score in told["scores"]} == {"validation/loss": 2.5, "global/loss": 2.0}
    assert told["traffic"]["uplink"] == 100
    assert told["chosen"]["set"] == "validation"
    assert "the best round by loss on the validation set)" in card_text(told, ranks=None)
    on_test = facts(replace(config, eval=EvalConfig(score="loss", choose_on="test")))
    assert "on the test set, which flatters its scores there" in card_text(on_test, ranks=None)


FORMS = {
    "template": DataConfig(template='"{a}" ```\n{b} é\n'),
    "prompt": DataConfig(prompt="question"),
    "chat": DataConfig(messages="messages"),
    "text": DataConfig(text="text"),
    "pair": DataConfig(task="sequence_classification", text=["premise", "hypothesis"]),
    "number": DataConfig(task="sequence_classification", regression=True),
    "image": DataConfig(task="image_classification", image="picture"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("is_adapter", [True, False])
def test_every_form_of_a_row_has_code_that_is_python_and_a_card_that_the_hub_reads(
    form: str, is_adapter: bool, tmp_path: Path
) -> None:
    config = RunConfig(data=FORMS[form], model=HUB, method=LORA, eval=EvalConfig(stop=['"', "\n"]))
    told = facts(config)
    code = loading_code(told, is_adapter=is_adapter)
    assert code is not None
    ast.parse(code)
    text = card_text(told, ranks=(8, 8) if is_adapter else None, name="me/mine")
    assert code.splitlines()[0] in text
    (tmp_path / "README.md").write_text(text)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.base_model, card.data.library_name) == (HUB.path, "peft" if is_adapter else "transformers")
    assert card.content == text
    assert 'name = "me/mine"' in text


def test_the_code_makes_the_prompt_that_the_run_made() -> None:
    config = RunConfig(data=FORMS["template"], model=HUB, method=LORA)
    code = loading_code(facts(config), is_adapter=True)
    assert code is not None
    [row, prompt] = [line for line in code.splitlines() if line.startswith(("row = ", "prompt = "))]
    space: dict[str, Any] = {}
    exec(f"{row}\n{prompt}", space)
    assert space["prompt"] == '"..." ```\n... é\n'


@pytest.mark.parametrize("model", [ModelConfig(path="memory:12"), replace(HUB, weights="random")])
def test_a_base_that_is_in_the_run_alone_has_no_code(model: ModelConfig) -> None:
    told = facts(RunConfig(model=model, method=LORA))
    assert loading_code(told, is_adapter=True) is None
    assert "`fedlit merge` of the run's folder" in card_text(told, ranks=(8, 8))
    assert loading_code(told, is_adapter=False) is not None


def test_an_adapter_of_higher_rank_says_so(tmp_path: Path) -> None:
    described = {"r": 24, "rank_pattern": {"^a": 16}, "target_modules": ["a", "b"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(described))
    ranks = adapter_ranks(tmp_path)
    assert ranks == (16, 24)
    told = facts(RunConfig(method=replace(LORA, name="fedex_lora"), model=HUB))
    assert "The adapter has ranks 16 to 24, and 8 was trained" in card_text(told, ranks=ranks)
    assert "The adapter has rank 8 in every layer." in card_text(told, ranks=(8, 8))


def test_the_chat_template_that_was_given_is_the_tokenizers(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    config = RunConfig(data=DataConfig(messages="messages", chat_template=str(tmp_path / "mine.jinja")), method=LORA)
    template = given_template(with_own_template(config, tmp_path).data)
    reader = Reader(reader=tokenizer, is_tokenizer=True, end_ids=(7, 2), chat_template=template)
    before = tokenizer.chat_template
    (tmp_path / "result").mkdir()
    complete(tmp_path / "result", facts(config), reader)
    saved: Any = AutoTokenizer.from_pretrained(tmp_path / "result")
    assert (saved.chat_template, tokenizer.chat_template) == (TEMPLATE, before)
    assert json.loads((tmp_path / "result" / "generation_config.json").read_text())["eos_token_id"] == [2, 7]
    assert read_facts(tmp_path / "result") == facts(config)
    (tmp_path / "mine.jinja").unlink()
    with pytest.raises(UserError, match=r"^data.chat_template=.*mine.jinja is not there"):
        given_template(with_own_template(config, tmp_path).data)
    (tmp_path / "chat_template.jinja").write_text(f"{TEMPLATE}kept")
    assert given_template(with_own_template(config, tmp_path).data) == f"{TEMPLATE}kept"


def test_the_last_batch_of_a_tokenizer_is_not_saved(tmp_path: Path, tokenizer: Any) -> None:
    """A fast tokenizer writes how it padded and cut last into its file."""
    mine = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    for number, length in enumerate((4, 9)):
        mine(["a b c", "a"], padding=True, truncation=True, max_length=length)
        (tmp_path / str(number)).mkdir()
        Reader(reader=mine, is_tokenizer=True).save(tmp_path / str(number))
    first, second = ((tmp_path / str(number) / "tokenizer.json").read_bytes() for number in range(2))
    assert first == second
    assert json.loads(first)["truncation"] is None


def test_the_files_of_many_clients_are_one(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(reader=tokenizer, is_tokenizer=True)
    for number in range(3):
        partial, folder = tmp_path / f".{number}.partial", tmp_path / str(number)
        partial.mkdir()
        if number == 2:  # a file system without links
            monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
        reader.save(partial)
        partial.rename(folder)
        reader.lies_in(folder)
    nodes = [(tmp_path / str(number) / "tokenizer.json").stat().st_ino for number in range(3)]
    assert (nodes[0] == nodes[1], nodes[0] == nodes[2]) == (True, False)
    assert len({(tmp_path / str(number) / "tokenizer.json").read_bytes() for number in range(3)}) == 1


def test_beams_are_as_evaluated_and_other_rules_than_transformers_own_are_left_out() -> None:
    evaluation = EvalConfig(num_beams=4, length_penalty=0.8, no_repeat_ngram_size=4, max_new_tokens=20)
    told = facts(RunConfig(method=LORA, eval=evaluation))
    settings = generation_settings(told, {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}).to_diff_dict()
    assert (settings["num_beams"], settings["length_penalty"], settings["max_new_tokens"]) == (4, 0.8, 20)
    assert "no_repeat_ngram_size" not in settings
    assert "generation_config.json leaves it out" in card_text(told, ranks=None)
