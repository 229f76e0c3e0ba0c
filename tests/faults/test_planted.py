"""The list of planted faults fits the code of today."""

from pathlib import Path

import pytest
from planted import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_the_right_text_stands_once_and_the_tests_are_there(fault: Fault) -> None:
    assert (ROOT / "fedlit" / fault.file).read_text(encoding="utf-8").count(fault.right) == 1
    assert [name for name in fault.tests if not (ROOT / "tests" / name).exists()] == []
