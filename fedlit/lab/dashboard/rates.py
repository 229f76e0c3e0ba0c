"""The best learning rate of each setting, and what was tried."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedlit.config.keys import show
from fedlit.lab.analysis.best_axis import TEST, best_over
from fedlit.lab.analysis.collection import Entry, Group, varied_keys
from fedlit.scores import headings

AXIS = "local.lr"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """The choice of one setting.

    label: the setting. value: the chosen rate; blank where nothing can be chosen. score: mean over seeds of `heading`.
    tried: `0.01: 2.13` of every rate. on_test: it was chosen on the test set. remark: what took no part.
    """

    label: str
    value: str
    heading: str
    score: str
    tried: str
    on_test: bool
    remark: str


def best_rates(entries: Sequence[Entry]) -> list[Rate]:
    """Return the best learning rate of each setting; none where one rate alone was tried."""
    if AXIS not in varied_keys(entries):
        return []
    return [
        Rate(
            label=Group(settings=best.settings, entries=()).label(list(best.settings)) or "all",
            value=show(best.value) if best.values else "",
            heading=_heading(best.key),
            score="" if best.score is None else f"{best.score:.4f}",
            tried=", ".join(
                f"{show(each.values[AXIS])}: {f'{each.score:.4f}' if each.score is not None else each.remark}"
                for each in best.candidates
            ),
            on_test=bool(best.values) and best.chosen_on == TEST,
            remark=best.remark,
        )
        for best in best_over(entries, AXIS)
    ]


def _heading(key: str | None) -> str:
    """Return what to call the score of the choice: `validation ROUGE-L`."""
    if key is None:
        return ""
    place, _, name = key.partition("/")
    return f"{place} {next(iter(headings([f'global/{name}']).values()), name)}"
