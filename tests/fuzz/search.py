"""Draws cases with Hypothesis, runs them and keeps count; the same seed draws the same cases."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from areas import strategies
from cases import Case
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from outcome import Outcome
from runner import Runner

BATCH = 100
"""Cases that Hypothesis draws at a time where the time is the limit."""
SMALLER_TRIES = 60
HARMLESS = ("dry_run=true", "--dry-run")
"""Words that stay in a case: without them it might train for hours on a thousand devices."""


def draw_cases(
    cases: SearchStrategy[Case], body: Callable[[Case], None], seed_text: str, num: int, phases: Sequence[Phase]
) -> None:
    """Call `body` with `num` cases; with Phase.shrink among the phases one that fails is made smaller."""

    @seed(seed_text)
    @settings(
        max_examples=num,
        phases=phases,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def one(case: Case) -> None:
        body(case)

    one()


@dataclass
class Counts:
    """kinds: how often each kind was seen, by area. smallest: a case of every violation with its outcome."""

    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    smallest: dict[str, tuple[Case, Outcome]] = field(default_factory=dict)

    def add(self, area: str, case: Case, outcome: Outcome) -> None:
        """Count one case."""
        self.kinds.setdefault(area, Counter())[outcome.kind] += 1
        known = self.smallest.get(outcome.kind)
        if outcome.is_violation and (known is None or case.size < known[0].size):
            self.smallest[outcome.kind] = case, outcome

    def table(self) -> str:
        """Return the counts, areas in columns and kinds in lines, in Markdown."""
        areas = list(self.kinds)
        total = sum(self.kinds.values(), Counter[str]())
        order = sorted(total, key=lambda kind: (kind.startswith("!"), -total[kind], kind))
        rows = [[kind, *(str(self.kinds[area][kind]) for area in areas), str(total[kind])] for kind in order]
        rows.append(["**cases**", *(str(self.kinds[area].total()) for area in areas), str(total.total())])
        bad = [sum(num for kind, num in self.kinds[area].items() if kind.startswith("!")) for area in areas]
        rows.append(["**violations**", *map(str, bad), str(sum(bad))])
        kinds = [sum(kind.startswith("!") for kind in self.kinds[area]) for area in areas]
        rows.append(["**kinds of violations**", *map(str, kinds), str(len(self.smallest))])
        lines = [["outcome", *areas, "all"], ["---", *("--:" for _ in areas), "--:"], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def cases(self, runner: Runner) -> str:
        """Return one case of every violation with what is not needed for it left out."""
        told = []
        for kind, known in sorted(self.smallest.items()):
            case, outcome = smaller(runner, *known)
            last = "\n".join(f"     {line[:300]}" for line in outcome.stderr.splitlines()[-2:])
            told.append(
                f"\n{kind}\n{case}\n  -> exit code {outcome.code}, {outcome.seconds:.1f} s, stderr ends:\n{last}"
            )
        return "\n".join(told)


def count(runner: Runner, areas: Sequence[str], *, first_seed: int, seconds: float) -> Counts:
    """Search each area for its share of the time."""
    counts = Counts()
    for area in areas:
        until_s = time.monotonic() + seconds / len(areas)
        number = 0

        def body(case: Case, area: str = area, until_s: float = until_s) -> None:
            if time.monotonic() < until_s:
                counts.add(area, case, runner.run(case))

        while time.monotonic() < until_s:
            draw_cases(strategies(runner)[area], body, f"{area}-{first_seed}-{number}", BATCH, [Phase.generate])
            number += 1
    return counts


def smaller(runner: Runner, case: Case, outcome: Outcome) -> tuple[Case, Outcome]:
    """Leave out words and files as long as the kind stays."""
    for part in [*reversed(case.words), *case.files, *case.removed][:SMALLER_TRIES]:
        if part in HARMLESS:
            continue
        attempt = case.without(part)
        found = runner.run(attempt)
        if found.kind == outcome.kind:
            case, outcome = attempt, found
    return case, outcome
