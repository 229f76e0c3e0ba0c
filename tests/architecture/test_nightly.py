"""The table of nightly tests names tests that there are, and twins that run on every push."""

import ast
from pathlib import Path

import pytest
from nightly import NIGHTLY, is_nightly

TESTS = Path(__file__).resolve().parents[1]


def functions(file: str) -> set[str]:
    path = TESTS / file
    assert path.is_file(), f"there is no tests/{file}"
    return {
        node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("name", NIGHTLY)
def test_the_test_and_its_twin_are_there(name: str) -> None:
    for entry in (name, NIGHTLY[name]):
        file, _, function = entry.partition("[")[0].partition("::")
        assert not function or function in functions(file), entry
    assert not is_nightly(NIGHTLY[name])


def test_cases_are_found_by_file_function_or_case() -> None:
    assert is_nightly("unit/adapters/test_peft_import.py::test_anything[case]")
    assert is_nightly("e2e/test_full_disk.py::test_every_writer_of_a_run_tells_it_in_one_line[lock]")
    assert is_nightly("e2e/test_every_recipe.py::test_killed_at_any_moment_it_goes_on_to_the_same_bits[fedsvd]")
    assert not is_nightly(
        "e2e/test_every_recipe.py::test_killed_at_any_moment_it_goes_on_to_the_same_bits[fedsa_lora-keep]"
    )
