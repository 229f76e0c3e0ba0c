"""Whatever stands on a command line, in a file or in a folder: a run that succeeds, or one line and its exit code.

Dozens of cases in half a minute here, an hour of them in `make test-all`; `count.py` prints what they do.
"""

import time
from collections.abc import Iterator

import pytest
from areas import AREAS, strategies
from cases import Case
from hypothesis import Phase
from outcome import Outcome
from runner import Runner
from search import count, draw_cases

NUM_CASES = {"configuration": 24, "rows": 12, "partition": 12, "folders": 12, "scripts": 12}
"""Ten seconds on one core, after the quarter of a minute in which the server starts."""
HOUR_S = 3600.0
SHRINKING_S = 30.0


class Contract:
    """Fails for a case that breaks the contract; once one has, there is half a minute to find a smaller one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._until_s: float | None = None
        self._known: dict[str, str] = {}

    def __call__(self, case: Case) -> None:
        name = repr(case)
        if name not in self._known:
            if self._until_s is not None and time.monotonic() > self._until_s:
                return
            outcome = self._runner.run(case)
            broken = f"{outcome.kind}\n{case}\n{outcome.stderr[-1000:]}" if outcome.is_violation else ""
            self._known[name] = broken
            if broken and self._until_s is None:
                self._until_s = time.monotonic() + SHRINKING_S
        assert not self._known[name], self._known[name]


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as runner:
        yield runner


def test_every_case_is_a_run_or_one_line(runner: Runner) -> None:
    """One test for all areas, so that one worker starts one server."""
    broken: list[Exception] = []
    for area, cases in strategies(runner).items():
        try:
            draw_cases(cases, Contract(runner), f"{area} in CI", NUM_CASES[area], [Phase.generate, Phase.shrink])
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


GOOD = {
    "runs": (0, ""),
    "refused": (2, "warning: x has no effect\nerror: y is wrong; mend it\n"),
    "diverged": (3, "diverged: round 1: the loss is nan; lower local.lr\n"),
}
TRACEBACK = 'Traceback (most recent call last):\n  File "/r/fedlit/command.py", line 7, in run\n    x\nKeyError: 1\n'
BAD = {
    "! KeyError at fedlit/command.py:7 run": (1, TRACEBACK),
    "! exit code 1: oops": (1, "oops\n"),
    "! exit code 2 with 0 lines that begin with 'error: '": (2, ""),
    "! more than one line: and mend it": (2, "error: a\nand mend it\n"),
    "! line of more than 400 characters, a long value: then mend it": (2, f"error: {'x' * 400}; then mend it\n"),
    "! line of more than 400 characters, a long list: or more": (2, f"error: {'SCL, ' * 80}or more\n"),
    "! signal 11": (-11, ""),
    "! time limit": (-14, ""),
}


@pytest.mark.parametrize("kind", [*GOOD, *BAD])
def test_what_breaks_the_contract(kind: str) -> None:
    code, stderr = {**GOOD, **BAD}[kind]
    outcome = Outcome(code=code, stderr=stderr, seconds=0.0, script="federate.py")
    assert (outcome.kind, outcome.is_violation) == (kind, kind in BAD)
