"""Whatever stands on a command line, in a file or in a folder: a run that succeeds, or one line and its exit code.

Hundreds of cases in a minute here, an hour of them in `make test-all`; `count.py` prints what they do.
"""

from collections.abc import Iterator

import pytest
from areas import AREAS, strategies
from cases import Case
from hypothesis import Phase
from runner import Runner
from search import count, draw_cases

NUM_CASES = {"configuration": 70, "rows": 35, "partition": 35, "folders": 30, "scripts": 35}
"""Half a minute on one core, after the quarter of a minute in which the server starts."""
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


def test_every_case_is_a_run_or_one_line(runner: Runner) -> None:
    """One test for all areas, so that one worker starts one server."""

    def check(case: Case) -> None:
        outcome = runner.run(case)
        assert not outcome.is_violation, f"{outcome.kind}\n{case}\n{outcome.stderr[-1000:]}"

    broken: list[Exception] = []
    for area, cases in strategies(runner).items():
        try:
            draw_cases(cases, check, f"{area} in CI", NUM_CASES[area], [Phase.generate, Phase.shrink])
        except AssertionError as error:
            broken.append(error)
    if broken:
        raise ExceptionGroup(f"{len(broken)} of {len(AREAS)} areas break the contract", broken)


@pytest.mark.slow
@pytest.mark.parametrize("area", AREAS)
def test_an_hour_of_cases(runner: Runner, area: str) -> None:
    counts = count(runner, [area], first_seed=1, seconds=HOUR_S / len(AREAS))
    print(counts.table())
    assert not counts.smallest, f"\n{counts.table()}\n{counts.cases(runner)}"
