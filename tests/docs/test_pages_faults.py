"""A page with a mistake is told, with its place: each guard of the pages is seen red."""

from pathlib import Path

import pages
import pytest
from forked_child import returned
from links import broken_links
from page_check import check_page
from page_run import run_page
from page_server import PageServer
from prose import wrong_names

PAGE = "docs/start/index.md"
"""In whose place the faulty pages stand."""


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "read_page", lambda _page: TEXT["now"])


TEXT = {"now": ""}


def block(language: str, *lines: str, mark: str = "") -> str:
    return "\n".join([*([f"<!-- run: {mark} -->"] if mark else []), f"```{language}", *lines, "```", ""])


CHECKED = [
    (block("bash", "fedlit run", "fedlit run local.lrr=1"), f"{PAGE}:3: 'fedlit run local.lrr=1': error: unknown key"),
    (block("bash", "fedlit run local.lr=-1"), "is out of range"),
    (block("bash", "fedlit run method=fedits"), "did you mean 'fedit'?"),
    (block("bash", "fedlit chatt runs/x"), "unknown command 'chatt'"),
    (block("bash", "fedlit chat runs/x --promt a"), "unknown option --promt"),
    (block("bash", "fedlit sweep statuss demo"), "unknown command 'statuss'"),
    (block("bash", "fedlit sweep run dem --local"), "unknown choice sweep=dem"),
    (block("bash", "fedlit report dem"), "unknown choice sweep=dem"),
    (block("bash", "fedlit help local.lrr"), "no help on local.lrr"),
    (block("bash", "fedlit compare --methods fedit,nothing"), "unknown choice method=nothing"),
    (block("bash", "fabric run --devicess=2 experiments/federate.py"), "--devicess"),
    (block("bash", "torchrun --standalonee experiments/federate.py"), "torchrun: "),
    (block("bash", "torchrun --standalone experiments/federat.py"), "neither in the repository nor written"),
    (block("bash", "sbatch slurm/federate.sbatch num_round=1"), "unknown key 'num_round'"),
    (block("bash", "sbatch slurm/gone.sbatch"), "there is no slurm/gone.sbatch"),
    (block("bash", "make everything"), "make has no target everything"),
    (block("bash", "fedlt run"), "unknown command 'fedlt'"),
    (block("bash", "fedlit run mine.yaml"), "is not there"),
    (block("bash", "fedlit run 'seed=1"), "bash: "),
    (block("yaml", "# mine.yaml", "seed: [1"), f"{PAGE}:1: the block in yaml cannot be read"),
    (
        block("yaml", "# mine.yaml", "local.lrr: 1") + block("bash", "fedlit run mine.yaml"),
        "(mine.yaml); did you mean",
    ),
    (block("json", "{'a': 1}"), "the block in json cannot be read"),
    (block("csv", "# rows.csv", "a,b", "1"), "rows of [1, 2] cells"),
    (block("python", "x = = 1"), "the block in python cannot be read"),
    (
        block("bash", "fedlit run local.lr=-1") + block("text", "error: local.lr=-1 is negative"),
        f"{PAGE}:2: 'fedlit run local.lr=-1': error: local.lr=-1",
    ),
    (
        block("bash", "fedlit run local.lr=-1", "fedlit run") + block("text", "error: ... is out of range ..."),
        f"{PAGE}:2: 'fedlit run local.lr=-1': error: local.lr=-1",
    ),
]


@pytest.mark.parametrize(("text", "said"), CHECKED, ids=[said for _, said in CHECKED])
@pytest.mark.usefixtures("stand")
def test_a_mistake_is_seen_without_running(text: str, said: str, tmp_path: Path) -> None:
    TEXT["now"] = text
    problems = "\n".join(returned(lambda: check_page(PAGE, tmp_path)))
    assert said in problems


REFUSED = "error: local.lr=-1.0 (command line) is out of range; ..."
RIGHT = [
    block("bash", "fedlit run", "fedlit run local.lr=-1") + block("text", REFUSED),
    block("bash", "fedlit run partition.name=file partition.path=runs/x/partition.json"),
    block("bash", "fedlit run run.name=x", "fedlit chat runs/x --prompt hello"),
]


@pytest.mark.parametrize("text", RIGHT)
@pytest.mark.usefixtures("stand")
def test_a_shown_refusal_and_a_file_of_an_earlier_run_are_right(text: str, tmp_path: Path) -> None:
    TEXT["now"] = text
    assert returned(lambda: check_page(PAGE, tmp_path)) == []


NAMED = [
    ("Set `local.lrr=1` lower.", "there is no key local.lrr"),
    ("Give `num_round=3`.", "there is no key num_round"),
    ("Pick `method=fedexlora`.", "there is no method=fedexlora"),
    ("Call `fedlit fech demo`.", "there is no command fech"),
    ("With `fedlit sweep run --locl`.", "there is no option --locl"),
    ("Give `--only-unfinishd`.", "there is no option --only-unfinishd"),
]


@pytest.mark.parametrize(("text", "said"), NAMED, ids=[said for _, said in NAMED])
@pytest.mark.usefixtures("stand")
def test_a_stale_name_in_the_text_is_seen(text: str, said: str) -> None:
    TEXT["now"] = f"# A page\n\n{text}\n"
    (problem,) = wrong_names(PAGE)
    assert said in problem
    assert problem.startswith(f"{PAGE}:3: ")


@pytest.mark.usefixtures("stand")
def test_a_broken_link_is_seen() -> None:
    TEXT["now"] = "# A page\n\n[a](gone.md) and [b](index.md#gone) and [c](index.md)\n"
    assert [line.split(": ")[1] for line in broken_links(PAGE)] == ["gone.md", "index.md#gone"]


RUN = [
    (block("bash", "echo one", "ls gone") + block("text", "one"), f"{PAGE}:3: 'ls gone' ended with code 2"),
    (block("bash", "echo one  2") + block("text", "one 2", "three"), f"{PAGE}:6: is not printed: 'three'"),
    (block("bash", "echo 0.5") + block("text", "0.6"), "is not printed: '0.6'"),
    (block("bash", "echo x") + block("text", "error: no such thing"), "'echo x' ended with code 0"),
    (block("bash", "echo loss 0.5", mark="short") + block("text", "loss 0.6", "rate 3"), "is not printed: 'rate 3'"),
    (
        block("bash", "fedlit report x", mark="slurm")
        + block("text", "a table")
        + block("bash", "fedlit() { echo no; }"),
        "is not printed: 'a table'",
    ),
]


@pytest.mark.parametrize(("text", "said"), RUN, ids=[said for _, said in RUN])
@pytest.mark.usefixtures("stand")
def test_what_does_not_run_as_shown_is_seen(text: str, said: str, tmp_path: Path) -> None:
    TEXT["now"] = text
    for name in ("server", "work", "stage"):
        (tmp_path / name).mkdir()
    server = PageServer(tmp_path / "server")
    try:
        problems = run_page(PAGE, server, tmp_path / "work", tmp_path / "stage", timeout_s=60)
    finally:
        server.close()
    assert len(problems) == 1
    assert said in problems[0]


@pytest.mark.usefixtures("stand")
def test_a_cluster_s_table_is_made_at_the_end_of_the_page(tmp_path: Path) -> None:
    TEXT["now"] = block("bash", "fedlit report x", mark="slurm") + block("text", "a table")
    TEXT["now"] += block("bash", "fedlit() { echo a table; }")
    for name in ("server", "work", "stage"):
        (tmp_path / name).mkdir()
    server = PageServer(tmp_path / "server")
    try:
        assert run_page(PAGE, server, tmp_path / "work", tmp_path / "stage", timeout_s=60) == []
    finally:
        server.close()
