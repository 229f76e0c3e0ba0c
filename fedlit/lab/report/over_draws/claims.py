"""All statistics of one table, and the methods that its texts and figures compare with."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedlit.config import CONFIG_DIR
from fedlit.config.keys import nearest
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection
from fedlit.lab.report.cells import Measures, measure_all
from fedlit.lab.report.layout import Layout, make_layout
from fedlit.lab.report.over_draws.differences import Row, compare_draws
from fedlit.lab.report.over_draws.examples import Error, example_errors
from fedlit.lab.report.over_draws.scores import Scores, scores_of
from fedlit.lab.report.over_draws.shares import Shared, shares_of
from fedlit.lab.report.published import load_published
from fedlit.lab.report.versions import comparable

REFERENCE = "fedit"
"""What is compared with unless told otherwise: the federated average of LoRA's factors, which every paper has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What can be said of a table. reference: the method that all are compared with beside the best; empty without."""

    scores: tuple[Scores, ...]
    rows: tuple[Row, ...]
    shares: tuple[Shared, ...]
    errors: tuple[Error, ...]
    reference: str

    def by_score(self) -> dict[str, list[Scores]]:
        """Return the scores of every column, under all conditions: what is corrected together."""
        found: dict[str, list[Scores]] = {}
        for scores in self.scores:
            found.setdefault(scores.score, []).append(scores)
        return found

    @property
    def num_draws(self) -> int:
        """The most draws that two methods have in common."""
        return max((row.found.num_pairs for row in self.rows), default=0)


def claims_of(layout: Layout, measures: Measures, reference: str = "") -> Claims:
    """Return the statistics of a table; without rows where no two methods are compared.

    reference: a method, as the table calls it; empty for fedit, or the first there is.

    Raises:
        UserError: no method is called so.
    """
    contenders = list(dict.fromkeys(line.contender for line in layout.lines if line.contender))
    chosen = reference_of(contenders, reference)
    scores = scores_of(layout, measures)
    return Claims(
        scores=tuple(scores),
        rows=tuple(compare_draws(scores)),
        shares=tuple(shares_of(scores)),
        errors=tuple(example_errors(scores)),
        reference=chosen,
    )


def build_claims(collection: Collection, which: str = "last", config_dir: Path = CONFIG_DIR) -> Claims:
    """Return the statistics of a collection's table as `build_table` makes it."""
    layout = make_layout(collection, load_published(collection.name, config_dir), ())
    return claims_of(layout, comparable(layout, measure_all(layout, which)))


def reference_of(contenders: Sequence[str], asked: str) -> str:
    """Return the method that all are compared with.

    Raises:
        UserError: it is none of the table's.
    """
    found = [name for name in contenders if _plain(name) == _plain(asked or REFERENCE)]
    if asked and not found:
        raise UserError(
            f"--reference={asked} is no method of this table{nearest(asked, contenders)} "
            f"Valid: {', '.join(contenders) or 'none, nothing is compared'}"
        )
    return next(iter(found or contenders), "")


def _plain(name: str) -> str:
    """Return a name without case and signs: the papers write FedIT, FFA-LoRA."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
