"""The table page | commands | run | short | dry | slurm | not run: `python tests/docs/page_table.py` prints it."""

from pages import all_pages, page_blocks
from shell_words import command_lines

COLUMNS = ("run", "short", "dry", "slurm", "no")


def counts_of(page: str) -> dict[str, int]:
    """Return how many command lines and programs of a page run in which way."""
    counts = dict.fromkeys(COLUMNS, 0)
    for block in page_blocks(page):
        if block.kind in ("commands", "python"):
            number = len(command_lines(block.text)) if block.kind == "commands" else 1
            counts[block.mark or "run"] += number
    return counts


def row_of(page: str) -> str:
    """Return a page's row, in Markdown."""
    counts = counts_of(page)
    return f"| {page} | {sum(counts.values())} | {' | '.join(str(counts[name]) for name in COLUMNS)} |"


if __name__ == "__main__":
    print(f"| page | commands | {' | '.join((*COLUMNS[:-1], 'not run'))} |\n|---|{'---:|' * 6}")
    for shown in all_pages():
        print(row_of(shown))
