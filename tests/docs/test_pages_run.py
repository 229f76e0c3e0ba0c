"""Every page from top to bottom, as a reader does it: three on each push, all others with `make test-all`."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_run import run_page
from page_server import PageServer
from page_table import row_of
from pages import all_pages, page_blocks

EACH_PUSH = ("docs/explanation/exactness.md", "docs/howto/python.md", "slurm/README.md")
"""The cheapest: Python, `fedlit.run` and commands, in ten seconds together."""


def cpu_s() -> float:
    """Return the CPU time of this process and of all that it has started and that has ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    server = PageServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def runs(page: str) -> bool:
    """Tell whether a page has something to run."""
    return any(block.kind in ("python", "commands") for block in page_blocks(page))


RUN = [page for page in all_pages() if runs(page)]


@pytest.mark.parametrize("page", [pytest.param(p, marks=[] if p in EACH_PUSH else pytest.mark.slow) for p in RUN])
def test_the_page_runs(page: str, server: PageServer, tmp_path: Path) -> None:
    folder, stage = tmp_path / "work", tmp_path / "stage"
    folder.mkdir()
    stage.mkdir()
    before = cpu_s()
    problems = run_page(page, server, folder, stage)
    print(f"{row_of(page)} {cpu_s() - before:.0f} s of CPU")
    assert not problems, "\n".join(problems)
