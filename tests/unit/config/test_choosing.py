"""A round or a rate is chosen on a validation set, or by name on the test set; old runs mean what they meant."""

from pathlib import Path

import pytest

from fedlit.config import RunConfig, load_config
from fedlit.config.choosing import require_founded, require_rates_founded
from fedlit.config.record import differences, flat_values, load_yaml, read_stored, to_yaml
from fedlit.errors import UserError
from fedlit.round.best_round import BestRound
from fedlit.scores import CHOSEN_ON_TEST, choice_key, chosen_mark, chosen_on, headings

REMEDY = "give partition.validation_fraction=0.1 or data.validation_path=<file>, or eval.choose_on=test, which flatters"


@pytest.mark.parametrize("word", ["run.result=best", "eval.patience=2"])
def test_a_choice_without_a_validation_set_is_one_line(word: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config([word])
    told = f"{word} (command line) chooses a round, and there is no validation set to choose on; {REMEDY}"
    assert str(caught.value) == told
    for remedy in ("partition.validation_fraction=0.1", "eval.choose_on=test"):
        load_config([word, remedy])


def test_a_split_on_the_hub_counts_where_the_hub_is_read(tmp_path: Path) -> None:
    words = ["run.result=best", "data.source=hub", "data.hub_id=some/rows", "data.hub_validation_split=validation"]
    load_config(words)
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(UserError, match=r"run\.result=best"):
        load_config([*words, f"data.path={tmp_path / 'rows.jsonl'}"])


def test_two_validation_sets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(
        UserError, match=r"^partition\.validation_fraction=0\.1 .* beside data\.validation_path=.*leave"
    ):
        load_config(["partition.validation_fraction=0.1", f"data.validation_path={tmp_path / 'rows.jsonl'}"])


def test_rows_from_python_are_looked_at_first() -> None:
    config = load_config(["run.result=best", "data.source=memory"])
    require_founded(flat_values(config), found=True)
    with pytest.raises(UserError, match=r"^run\.result=best chooses .*validation_rows=, or eval\.choose_on=test"):
        require_founded(flat_values(config), found=False)
    config.eval.choose_on = "test"
    require_founded(flat_values(config), found=False)


def test_rates_need_a_validation_set_too() -> None:
    with pytest.raises(UserError, match=r"^--lrs: a rate is chosen, and there is no validation set to choose on; give"):
        require_rates_founded(flat_values(load_config([])))
    for word in ("partition.validation_fraction=0.1", "eval.choose_on=test", "data.source=memory"):
        require_rates_founded(flat_values(load_config([word])))


def before_there_was_validation(config: RunConfig) -> str:
    """Return a configuration as it was stored."""
    new = ("choose_on:", "test: ", "validation_fraction:", "validation_path:", "hub_validation_split:")
    return "\n".join(line for line in to_yaml(config).splitlines() if not line.strip().startswith(new)) + "\n"


@pytest.mark.parametrize("read", [load_yaml, read_stored])
def test_an_old_run_chose_on_the_test_set_and_goes_on(read: object) -> None:
    config = load_config([])
    config.run.result, config.eval.patience = "best", 2
    stored = read(before_there_was_validation(config), "config.yaml")  # type: ignore[operator]
    assert stored.eval.choose_on == "test"
    assert all(key.startswith("global/") for key in BestRound.of(stored).keys)
    asked = load_config(["run.result=best", "eval.patience=2", "eval.choose_on=test"])
    assert differences(stored, asked) == []


def test_an_old_run_that_chose_nothing_goes_on_as_it_is() -> None:
    stored = load_yaml(before_there_was_validation(load_config([])))
    assert differences(stored, load_config([])) == []
    assert differences(stored, load_config(["eval.test=every"])) == []
    (line,) = [
        line for line in differences(stored, load_config(["partition.validation_fraction=0.1"])) if "part" in line
    ]
    assert line == "partition.validation_fraction: 0.0 in the folder, 0.1 asked for"


def test_what_chooses_belongs_to_a_run_with_a_validation_set() -> None:
    one, other = (load_config(["partition.validation_fraction=0.1", *words]) for words in ([], ["eval.choose_on=test"]))
    assert differences(one, other) == ["eval.choose_on: validation in the folder, test asked for"]
    assert differences(one, load_config(["partition.validation_fraction=0.1", "eval.test=every"])) != []


def test_the_mark_is_of_what_was_chosen_on_the_test_set() -> None:
    config = RunConfig()
    key = choice_key(config.data, config.eval, {"global/rouge_l", "global/loss"})
    assert (key, chosen_on(str(key)), chosen_mark(key)) == ("global/rouge_l", "test", CHOSEN_ON_TEST)
    key = choice_key(config.data, config.eval, {"validation/loss", "global/rouge_l"})
    assert (key, chosen_on(str(key)), chosen_mark(key)) == ("validation/loss", "validation", "")
    assert choice_key(config.data, config.eval, set()) is None
    assert chosen_mark(None) == ""
    found = headings(["validation/accuracy", "validation/accuracy/boolq", "global/accuracy", "validation/accuracy_std"])
    assert found == {
        "global/accuracy": "accuracy",
        "validation/accuracy": "validation accuracy",
        "validation/accuracy/boolq": "validation accuracy boolq",
    }
