"""The loss on texts that nobody trains on is that of a plain pass over them, after every round."""

import json
from pathlib import Path

import pytest
import torch
from tiny_federations import Builder
from torch.nn import functional

from fedlit.config import load_config, no_effect_warnings
from fedlit.errors import UserError
from fedlit.general import general_set
from fedlit.round.loop import Federation

LINES = [f"The {word} of number {number} is not far from the sea." for number in range(7) for word in ("house", "road")]


@pytest.fixture
def general(tmp_path: Path) -> Path:
    """Return the file of a data set of plain texts."""
    rows = tmp_path / "lines.jsonl"
    rows.write_text("".join(json.dumps({"line": line}) + "\n" for line in LINES), encoding="utf-8")
    told = tmp_path / "general.yaml"
    told.write_text(f"name: lines\nsource: table\npath: {rows}\ntext: line\nlabel: null\n", encoding="utf-8")
    return told


@torch.no_grad()
def plain_loss(federation: Federation) -> float:
    """Return nats per token of the model as it stands over the chosen texts, one at a time."""
    scorer = federation.evaluator.general
    assert scorer is not None
    total, count = 0.0, 0
    model = federation.host.model.eval()
    for batch in scorer.batches:
        for example in batch:
            ids = torch.tensor([list(example.token_ids)])
            logits = model(input_ids=ids).logits[0, :-1]
            total += float(functional.cross_entropy(logits.double(), ids[0, 1:], reduction="sum"))
            count += ids.shape[1] - 1
    return total / count


def words(general: Path, *more: str) -> list[str]:
    return [f"eval.general={general}", "analysis=[forgetting]", "eval.max_examples=5", *more]


def test_the_loss_is_that_of_a_plain_pass(tmp_path: Path, general: Path) -> None:
    federation = Builder(tmp_path, num_layers=2).run("run", "method=full", *words(general, "eval.every=1"))
    records = federation.folder.records()
    losses = [record["general/loss"] for record in records]
    assert len(losses) == 3 and len(set(losses)) == 3
    scorer = federation.evaluator.general
    assert scorer is not None and scorer.num_examples == 5
    assert losses[-1] == pytest.approx(plain_loss(federation), rel=1e-5)
    assert not any(key.startswith("general/") and key != "general/loss" for record in records for key in record)
    assert {key for key in records[0] if key.startswith("global/")} == {
        "global/loss",
        "global/rouge_l",
        "global/bleu_4",
    }


def test_it_is_scored_when_anything_is(tmp_path: Path, general: Path) -> None:
    federation = Builder(tmp_path, num_layers=2).run("run", *words(general, "eval.every=2", "num_rounds=3"))
    assert ["general/loss" in record for record in federation.folder.records()] == [True, False, True, True]


def test_clients_with_models_of_their_own_are_scored_each(tmp_path: Path, general: Path) -> None:
    federation = Builder(tmp_path, num_layers=2).run("run", "method=fedsa_lora", *words(general))
    last = federation.folder.records()[-1]
    own = [last[f"client/{client_id}/general/loss"] for client_id in range(3)]
    assert last["general/loss"] == pytest.approx(sum(own) / 3) and len(set(own)) == 3
    assert last["general/loss_std"] > 0
    federation.load_client(2)
    assert own[2] == pytest.approx(plain_loss(federation), rel=1e-5)


def test_prompts_and_responses_may_be_general_too(tmp_path: Path) -> None:
    config = load_config(["eval.general=pydoc", "analysis=[forgetting]"])
    found = general_set(config)
    assert found is not None and found.data.name == "pydoc" and len(found.rows) > 100
    federation = Builder(tmp_path, num_layers=2).run("run", *words(Path("pydoc"), "num_rounds=1"))
    assert federation.folder.records()[-1]["general/loss"] > 0


def test_other_rows_are_read_only_where_they_are_asked_for(general: Path) -> None:
    asked = [f"eval.general={general}"]
    assert general_set(load_config(asked)) is None
    assert any(line.startswith("eval.general=") for line in no_effect_warnings(load_config(asked)))
    assert not any(
        "eval.general" in line for line in no_effect_warnings(load_config([*asked, "analysis=[forgetting]"]))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["eval.general=nowhere"], "eval.general=nowhere: unknown choice data=nowhere (eval.general)"),
        (["eval.general=digits"], "is a data set of data.task=image_classification; give one of causal_lm"),
    ],
)
def test_a_data_set_that_is_none_is_told_before_the_model(options: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        general_set(load_config(["analysis=[forgetting]", *options]))
    assert message in str(caught.value)
