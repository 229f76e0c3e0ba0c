"""Every command, file and fragment of every page is checked on each push, without running it."""

from pathlib import Path

import pytest
from forked import forked
from page_check import check_page
from pages import all_pages


@pytest.mark.parametrize("page", all_pages())
def test_the_page_is_right(page: str, tmp_path: Path) -> None:
    problems = forked(lambda: check_page(page, tmp_path))
    assert not problems, "\n".join(problems)
