"""Every command, file and fragment of every page is checked on each push, without running it."""

from pathlib import Path

import pytest
from forked import forked
from page_check import check_page
from page_table import counts_of
from pages import all_pages, page_blocks
from shell_words import command_lines, commands

REASONS = (
    *("pip install", "git clone", "login", "account", "the hub", "download", "fetched models", "yours", "your own"),
    *("opens a server", "GPU", "waits for", "minutes of training", "two machines", "Java", "asks", "your file"),
)
"""One of these stands in the reason behind `run: no`."""

MAY_STAND = frozenset(
    [
        "cd",
        "cp",
        "curl",
        "export",
        "fabric",
        "fedlit",
        "git",
        "hf",
        "ls",
        "make",
        "module",
        "pip",
        "python",
        "python3",
        "rsync",
        "salloc",
        "sbatch",
        "scp",
        "source",
        "squeue",
        "srun",
        "ssh",
        "tensorboard",
        "torchrun",
        "wandb",
    ]
)
"""What may stand in such a block."""


@pytest.mark.parametrize("page", all_pages())
def test_the_page_is_right(page: str, tmp_path: Path) -> None:
    problems = forked(lambda: check_page(page, tmp_path))
    assert not problems, "\n".join(problems)


def test_what_is_not_run_has_a_known_reason() -> None:
    left_out = [block for page in all_pages() for block in page_blocks(page) if block.mark == "no"]
    assert left_out
    unknown = [
        f"{block.place}: {block.reason}" for block in left_out if not any(known in block.reason for known in REASONS)
    ]
    assert unknown == []
    for block in left_out:
        names = {words[0] for line in command_lines(block.text) for words in commands(line.text)}
        assert names <= MAY_STAND, f"{block.place}: {sorted(names - MAY_STAND)}"


def test_most_of_what_is_shown_is_run() -> None:
    """A mark that is put everywhere would be no promise."""
    counts = [counts_of(page) for page in all_pages()]
    total = sum(sum(each.values()) for each in counts)
    assert sum(each["no"] for each in counts) <= total / 5
