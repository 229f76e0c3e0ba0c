"""`fedlit help` tells of a group, a section, a method, a part and a key, else it names the nearest word."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedlit import registry
from fedlit.commands.help import main as help_command
from fedlit.config.help import help_text, key_docs
from fedlit.config.schema import RunConfig
from fedlit.config.topics import help_on
from fedlit.data.reader import Reader
from fedlit.errors import UserError
from fedlit.options import option
from fedlit.ranges import FRACTION
from fedlit.round.rules import AggregationRule

OUTSIDE = Path(__file__).resolve().parents[2] / "outside"


@dataclass(frozen=True)
class Trimmed(AggregationRule):
    """Leaves out

    what is far.
    """

    trim: float = option(0.1, "share that is left out", range=FRACTION)
    plain: str | None = None
    needed: int = option(help="how many")

    def __call__(self, cohort: Any, server: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class HelpReader(Reader):
    """Reads notes."""

    file: str = option(help="the text file")

    def rows(self, data: Any) -> Iterator[Mapping[str, Any]]:
        raise NotImplementedError


@pytest.fixture
def trimmed() -> Iterator[None]:
    registry.register("rule", "help_trimmed", Trimmed)
    yield
    del registry._registered["rule"]["help_trimmed"]


def told(*words: str) -> str:
    return " ".join(help_on(words).split())


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("data", ["in 11 packages. (default)", "jsonl", "data.name=pydoc", "data.score_by=null"]),
        ("data=pydoc", ["The interpreter's own docstrings", "configs/data/pydoc.yaml sets: name=pydoc"]),
        ("local", ["What one client does in one round.", "local.steps=10", "an integer of at least 1, or null"]),
        ("local.lr", ["local.lr=0.001", "(a finite number above 0)"]),
        ("seed", ["seed=0", "root of every random stream"]),
        ("batch_size", ["local.batch_size=8", "eval.batch_size=16"]),
        ("method=fedit", ["method.adapter=lora", "method.rule=fedavg", "method.lora_rank=8", "method.weighting="]),
        ("method=fedex_lora", ["Singhal et al.", "method.residual_rank=null", "at least 0, or null", "=uniform"]),
        ("method=full", ["method.target_modules=model"]),
        ("method", ["method.adapter=null", "lora_train_b_receive_a", "transform: rank_scaling, rank_padding"]),
        ("rule=fedex_lora", ["rule=fedex_lora: W + scaling", "method.assignment=average"]),
        ("method.rule=fedavg", ["theta <- sum_i", "It has no options."]),
        ("transforms=[rotation]", ["transform=rotation: A_i, B_i"]),
        ("adapter", ["adapter: lora, lora_train_b"]),
        ("method.lora_rank", ["method.lora_rank=8", "adapter=lora_core method.lora_rank=16"]),
        ("galore", ["optimizer=galore, galore_shared method.galore.rank=16", "method.galore.proj_type=std"]),
        ("method.weighting", ["method.weighting=num_examples"]),
        ("partition.name", ["partition.name=dirichlet"]),
        ("server.lr local.lr", ["server.lr=null", "local.lr=0.001"]),
    ],
)
def test_a_word_is_told_of(words: str, parts: list[str]) -> None:
    text = told(*words.split())
    assert [part for part in parts if part not in text] == [], text
    assert max(len(line) for line in help_on(words.split()).splitlines()) <= 100


def test_without_words_it_is_everything() -> None:
    assert help_on([]) == help_text()


def test_a_part_from_outside_is_told_of(trimmed: None) -> None:
    text = told("rule=help_trimmed")
    assert "rule=help_trimmed: Leaves out" in text
    assert "method.trim=0.1 share that is left out (a number from 0 up to, not including, 1)" in text
    assert "method.plain=null (text or null)" in text and "method.needed=??? how many (integer)" in text
    assert "help_trimmed" in told("method")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("locl", ["no help on locl; did you mean 'local'?"]),
        ("local.lrr", ["did you mean 'local.lr'?"]),
        ("method=fedti", ["method=fedti", "'fedit'"]),
        ("rule=fedexlora", ["rule=fedexlora is not known", "did you mean fedex_lora?"]),
        ("method.lora_rnk", ["'method.lora_rank'"]),
        ("zzzz", ["no help on zzzz. Give a group", "transform=<name>"]),
        ("plugins=[nowhere_at_all]", ["nowhere_at_all cannot be imported"]),
    ],
)
def test_a_word_that_names_nothing_is_one_line_with_the_nearest(word: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        help_on([word])
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Letters(Reader):
    delimiter: str = option(",", "between two columns")

    def rows(self, data: Any) -> Any:
        raise NotImplementedError


def test_options_of_a_mapping_say_where_they_are_given_and_a_missing_docstring_is_told() -> None:
    registry.register("reader", "help_letters", Letters)
    try:
        text = told("reader=help_letters")
    finally:
        del registry._registered["reader"]["help_letters"]
    assert "reader=help_letters: a part without a docstring Options, given as data.source_options={name: value}" in text
    assert "delimiter=," in text


def test_a_kind_names_the_installed_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedlit.config.topics.describe_installed", lambda: ["mine: mine_parts (mine-parts 0.1)"])
    assert "listed with plugins=[module]: mine: mine_parts (mine-parts 0.1)" in told("reader")


def test_the_words_of_a_key_are_one_space_apart() -> None:
    assert [doc for doc in key_docs(RunConfig).values() if "  " in doc or "\n" in doc] == []


def test_torch_is_not_imported() -> None:
    code = (
        "import sys\nfrom fedlit.config.topics import help_on\n"
        "help_on([]); help_on(['method=fedftg', 'rule=fedsvd', 'adapter=lora', 'data'])\n"
        "print([name for name in ('torch', 'peft', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_key_that_names_a_part_from_outside_tells_of_the_part(trimmed: None) -> None:
    assert told("method.rule=help_trimmed") == told("rule=help_trimmed")
    registry.register("reader", "help_reader", HelpReader)
    try:
        assert told("data.source=help_reader") == told("reader=help_reader")
        assert "the text file" in told("data.source=help_reader")
    finally:
        del registry._registered["reader"]["help_reader"]


def test_no_line_of_help_has_a_gap_within_its_text() -> None:
    keys = help_text().partition("\nKeys (")[2]
    gaps = [line for line in keys.splitlines() if re.search(r"\S {2,}\S", line[40:])]
    assert not gaps


def test_help_looks_into_the_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEDLIT_CONFIG_PATH", "")
    (tmp_path / "method").mkdir()
    (tmp_path / "method/of_help.yaml").write_text("# of one's own\nname: fedit\nlora_rank: 3\n", encoding="utf-8")
    assert help_command(["--config-dir", str(tmp_path), "method=of_help"]) == 0
    assert "method.lora_rank=3" in capsys.readouterr().out
