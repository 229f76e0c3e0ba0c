"""The pages of `docs/reference/` say what the package is: no key, command, choice, file or exit code is missing."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_runs import small_run

import fedlit
from fedlit import plugins, rules
from fedlit.cli import COMMANDS
from fedlit.commands import endings
from fedlit.config.keys import SCHEMA
from fedlit.config.loading import CONFIG_DIR, list_choices
from fedlit.lab.analysis.costs import COSTS
from fedlit.outside.kinds import KINDS
from fedlit.recipes import TABLES, parts_of
from fedlit.result import Result
from fedlit.scores import _OWN as OWN_SCORES
from fedlit.store.clients import read_clients
from fedlit.store.layout import FILES
from fedlit.store.records import read_records
from fedlit.tasks.text_scores import PROTOCOL_SCORES

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "reference"


@pytest.fixture(scope="module", autouse=True)
def extensions() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    yield
    sys.path.remove(str(ROOT / "docs" / "_ext"))


def page(name: str) -> str:
    """Return a page as the site shows it."""
    text: str = importlib.import_module("page_tables").expand((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    return text


def first_cells(text: str) -> list[str]:
    """Return what stands as code in the first cell of a table's rows."""
    return re.findall(r"^\| \[?`([^`]+)`", text, re.MULTILINE)


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_every_table_is_made(path: Path) -> None:
    assert "<!-- table:" not in page(path.stem)


def test_every_page_is_in_the_index() -> None:
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    names = {path.stem for path in PAGES.glob("*.md")} - {"index"}
    assert names == set(index.split("```{toctree}")[1].split("```")[0].split()) - {":hidden:", ":maxdepth:", "1"}
    assert names == set(re.findall(r"\]\((\S+)\.md\)", index)) - {"../methods/index"}


def test_every_key_has_an_anchor_of_its_own() -> None:
    anchors = dict(re.findall(r"^\| \[`([^`]+)`\]\{#([^}]+)\}", page("keys"), re.MULTILINE))
    assert list(anchors) == sorted(SCHEMA, key=list(anchors).index)
    assert len(set(anchors.values())) == len(SCHEMA)
    assert anchors["local.lr"] == "local-lr"


@pytest.mark.parametrize("kind", TABLES)
def test_every_option_of_a_part_is_there(kind: str) -> None:
    section = next(part for part in page("keys").split("\n## ") if part.startswith("Options") and f"{kind}s\n" in part)
    for name, part in parts_of(kind).items():
        assert f"`{name}`" in section
        for key in part.own_options():
            assert f"`method.{key}`" in section


def test_every_name_of_a_part_is_there() -> None:
    section = page("keys").split("## Parts and their names")[1].split("\n## ")[0]
    assert all(f"`{name}`" in section for kind in KINDS.values() for name in kind.own)


def test_every_command_has_its_help() -> None:
    text = page("commands")
    sections = re.findall(r"^##+ (fedlit .+)$", text, re.MULTILINE)
    subcommands = re.findall(r"^    (\w+)  ", text.split("  COMMAND\n")[1].split("\n\n")[0], re.MULTILINE)
    assert [section for section in sections if section.count(" ") == 1] == [f"fedlit {name}" for name in COMMANDS]
    of_sweep = [section.removeprefix("fedlit sweep ") for section in sections if section.count(" ") == 2]
    assert set(subcommands) == set(of_sweep)
    assert text.count("usage: fedlit") == len(sections)


@pytest.mark.parametrize(("group", "name"), [("data", "datasets"), ("model", "models")])
def test_every_choice_has_a_section(group: str, name: str) -> None:
    text = page(name)
    for choice in list_choices(CONFIG_DIR, group):
        assert f"\n## {choice}\n" in text
        assert f"[`{group}={choice}`](#" in text
    assert text.count("\n:::{container} settings\n") == len(list_choices(CONFIG_DIR, group))


def test_a_prompt_is_shown_as_it_is() -> None:
    assert "### Question:\n{question}\n\n### Answer:\n{answer}\n" in page("datasets")


def test_every_partition_is_told() -> None:
    assert set(first_cells(page("partitions"))) >= set(KINDS["partition"].own)


def test_every_score_is_told_by_hand_too() -> None:
    text = page("scores")
    by_hand = " ".join(line.split("|")[1] for line in text.split("## Text")[1].splitlines() if line.startswith("| `"))
    assert all(f"`{name}`" in by_hand for name in OWN_SCORES if name != "loss")
    protocols = first_cells(text.split("## Which protocol")[1].split("\n## ")[0])
    assert set(protocols) == {"eval.protocol=", *PROTOCOL_SCORES} - {"loss"}


def test_every_exit_code_is_told() -> None:
    text = page("exit-codes")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    codes = {value for name, value in vars(endings).items() if name.endswith("_EXIT_CODE")}
    assert told == codes | {0, 1}
    for kind, (word, code) in endings._ENDINGS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {code} |"))
        assert f"`{word}`" in row
        named = [base.__name__ for base in kind.__mro__ if base.__name__ in fedlit._HOMES]
        assert named[0] == "FedlitError" or f"`{named[0]}`" in row


def test_every_public_name_is_told_and_has_a_docstring() -> None:
    text = (PAGES / "api.md").read_text(encoding="utf-8")
    types = {"Calibration", "Payload", "TensorDict", "Row", "Adapter", "Factors"}
    for module, names in ((fedlit, fedlit._HOMES), (plugins, plugins.__all__), (rules, rules.__all__)):
        for name in names:
            assert re.search(rf"[.`]{name}\b", text), f"{module.__name__}.{name}"
            value = getattr(module, name)
            if callable(value) and name not in types:
                assert (value.__doc__ or "").strip() and not value.__doc__.startswith(f"{name}("), name


def test_the_kinds_of_plugins_are_those_of_the_docstring() -> None:
    rows = [line.split("|")[1:6] for line in (plugins.__doc__ or "").splitlines() if line.startswith("| `")]
    shown = [line.split("|")[1:6] for line in (PAGES / "api.md").read_text().splitlines() if line.startswith("| `")]
    told = [[cell.strip() for cell in row] for row in shown]
    assert len(rows) == len(KINDS)
    assert all([cell.strip() for cell in row] in told for row in rows)


def test_every_requirement_has_a_purpose_and_all_but_one_a_tested_version() -> None:
    text = page("versions").split("## Packages")[1]
    untested = [line.split("`")[1] for line in text.splitlines() if "| not tested |" in line]
    assert untested == ["pycocoevalcap"]
    assert len(first_cells(text)) >= 40


RECORD_KEYS = r"\"((?:aggregation|client|clients|communication|eval|init|lora|time)/[^\"]+)\""


def described() -> list[re.Pattern[str]]:
    """Return what the keys of the page match."""
    text = page("record").split("## What a run has cost")[0]
    keys = first_cells(text)
    of_clients = [key.removeprefix("client/<id>/") for key in keys if key.startswith("client/")]
    names = "|".join([*OWN_SCORES, "confusion_matrix"])
    score = rf"(?:(?:{names})(?:/[^/]+)?|(?:exact_match|accuracy)_macro)"
    patterns = []
    for key in keys:
        for full in [key.replace("<name>", name) for name in of_clients] if "<name>" in key else [key]:
            told = {"<id>": r"\d+", "<score>": score, "<layer>": r".+"}
            pieces = re.split(r"(<\w+>)", full)
            patterns.append(re.compile("".join(told.get(piece) or re.escape(piece) for piece in pieces)))
    return patterns


def unknown(keys: set[str]) -> set[str]:
    patterns = described()
    return {key for key in keys if not any(pattern.fullmatch(key) for pattern in patterns)}


def test_every_key_that_the_code_names_is_described() -> None:
    found: set[str] = set()
    for path in (ROOT / "fedlit").rglob("*.py"):
        if "lab" not in path.parts and path.name != "manifest.py":
            found |= set(re.findall(RECORD_KEYS, path.read_text(encoding="utf-8")))
    literal = {key for key in found if not re.search(r"[{(]", key)}
    assert len(literal) > 15
    assert not unknown(literal)


def test_the_costs_are_told() -> None:
    text = page("record").split("## What a run has cost")[1]
    told = dict(re.findall(r"^\| `cost/(\w+)` \| [^|]+ \| `([^`]+)` \|", text, re.MULTILINE))
    assert told == {name: cost.key for name, cost in COSTS.items()}


MANY: dict[str, Any] = {
    "config": {
        **{"method": "fedsa_lora", "num_clients": 101, "num_rounds": 1, "local.steps": 1, "local.batch_size": 1},
        **{"eval.on": "both", "eval.max_clients": 2, "eval.max_examples": 1, "partition.min_test_rows": 1},
    },
    "rows": [{"prompt": f"{n} + 1 =", "response": f"it is {n + 1}"} for n in range(303)],
}
GROUPS: dict[str, Any] = {
    "config": {
        **{"num_rounds": 1, "eval.on": "both", "data.score_by": "kind", "data.answer": "number", "data.label": None},
        **{"data": "jsonl", "data.scores": ["rouge_l", "exact_match"], "logging.loggers": ["csv"]},
        **{"partition.validation_fraction": 0.2, "cohort_size": 1},
    },
    "rows": [{"prompt": f"{n} + 1 =", "response": f"{n + 1}", "kind": f"k{n % 2}"} for n in range(24)],
}
CLASSES: dict[str, Any] = {
    "config": {
        **{"data": "digits", "model": "vit-small", "num_rounds": 1, "eval.on": "both", "data.sample": 60},
        **{"partition": {"name": "iid", "min_test_rows": 2}},
    },
    "rows": None,
}
RUNS: dict[str, dict[str, Any]] = {
    "scl": {"config": {"method": "scl", "num_rounds": 1}},
    "fed_sb": {"config": {"method": "fed_sb", "num_rounds": 1}},
    "many": MANY,
    "groups": GROUPS,
    "classes": CLASSES,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: small_run(folder, name, **given) for name, given in RUNS.items()}


def test_a_record_has_no_key_that_the_page_lacks(results: dict[str, Result]) -> None:
    found = {key for result in results.values() for record in read_records(result.folder) for key in record}
    assert {"init/loss_after", "lora/rank", "global/exact_match/k1", "own/loss_worst", "validation/loss"} <= found
    assert {"global/confusion_matrix", "global/loss_std", "clients/own/loss_q90", "client/0/own/loss"} <= found
    assert not unknown(found)
    of_clients = {f"client/0/{key}" for line in read_clients(results["many"].folder) for key in line}
    assert not unknown(of_clients - {"client/0/round", "client/0/client"})


def test_a_run_leaves_no_file_that_the_page_lacks(results: dict[str, Result]) -> None:
    told = first_cells(page("run-folder").split("## Beside the runs")[0])
    patterns = [_of_file(name) for name in told]
    for result in results.values():
        for path in sorted(result.folder.rglob("*")):
            name = path.relative_to(result.folder).as_posix()
            if path.is_file():
                assert any(pattern.fullmatch(name) for pattern in patterns), name
    left = {
        path.relative_to(result.folder).as_posix() for result in results.values() for path in result.folder.rglob("*")
    }
    always = [
        line.split("`")[1] for line in page("run-folder").splitlines() if line.endswith("|") and "| always |" in line
    ]
    assert all(any(_of_file(name).fullmatch(path) for path in left) for name in always)
    assert {name for name in FILES if not name.startswith("wandb")} <= set(told)


def _of_file(name: str) -> re.Pattern[str]:
    """Return what the files that a row tells of match: a folder stands for all in it, a client's for the result's."""
    text = re.escape(name).replace("NNNNN", r"\d{5}").replace("NNNN", r"\d{4}")
    text = text.replace("adapter/", r"adapter/(?:client-\d{5}/)?") if name != "adapter/" else r"adapter/$"
    return re.compile(f"{text}.+" if name.endswith("/") and name != "adapter/" else text)
