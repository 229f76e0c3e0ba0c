"""Every command, file and fragment of every page is checked on each push, without running it."""

from pathlib import Path

import pytest
from forked_child import returned
from page_check import check_page
from page_table import counts_of
from pages import Block, all_pages, blocks_of, page_blocks
from shell_words import command_lines, commands

ELSEWHERE = frozenset(
    [
        "a cluster of your own",
        "downloads models and data sets",
        "login",
        "needs an account",
        "needs the fetched models",
        "the hub",
    ]
)
"""Reasons behind `run: no` that name what is not here: behind them a command of fedlit may stand."""

REASONS = ELSEWHERE | {"git clone and pip install", "pip install", "waits for a browser"}
"""All whole reasons."""

STARTERS = frozenset(["fabric", "fedlit", "torchrun"])
"""Commands that can run here, unless they need what is ELSEWHERE."""

MAY_STAND = frozenset(
    ["cd", "export", "git", "hf", "module", "pip", "python3", "sbatch", "source", "squeue", "tensorboard", "wandb"]
)
"""What else may stand in such a block."""


@pytest.mark.parametrize("page", all_pages())
def test_the_page_is_right(page: str, tmp_path: Path) -> None:
    problems = returned(lambda: check_page(page, tmp_path))
    assert not problems, "\n".join(problems)


def test_what_is_not_run_has_a_known_reason() -> None:
    left_out = [block for page in all_pages() for block in page_blocks(page) if block.mark == "no"]
    assert left_out
    assert [problem for block in left_out for problem in unfounded(block)] == []


def unfounded(block: Block) -> list[str]:
    """Return what does not justify that a block is not run."""
    if block.reason not in REASONS:
        return [f"{block.place}: the reason {block.reason!r} is none of {', '.join(sorted(REASONS))}"]
    names = {words[0] for line in command_lines(block.text) for words in commands(line.text)}
    others = names - MAY_STAND - (STARTERS if block.reason in ELSEWHERE else frozenset())
    return [f"{block.place}: {name} can run here" for name in sorted(others)]


@pytest.mark.parametrize(
    ("mark", "command", "said"),
    [
        ("no, pip install", "fedlit doctor", "fedlit can run here"),
        ("no, pip install", "python3 x.py && torchrun x.py", "torchrun can run here"),
        ("no, the hub", "fedlit fetch scl_table2; ls", "ls can run here"),
        ("no, the hub and more", "fedlit fetch scl_table2", "the reason 'the hub and more' is none of"),
        ("no, minutes of training", "fedlit run", "the reason 'minutes of training' is none of"),
    ],
)
def test_a_mark_that_hides_a_command_is_seen(mark: str, command: str, said: str) -> None:
    (block,) = blocks_of(f"<!-- run: {mark} -->\n```bash\n{command}\n```\n", "p.md")
    (problem,) = unfounded(block)
    assert problem.startswith("p.md:2: ")
    assert said in problem


def test_most_of_what_is_shown_is_run() -> None:
    """A mark that is put everywhere would be no promise."""
    counts = [counts_of(page) for page in all_pages()]
    total = sum(sum(each.values()) for each in counts)
    assert sum(each["no"] for each in counts) <= total / 5
