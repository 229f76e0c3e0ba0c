"""A partition over both quantity and labels: `plugins=[skewed] partition.name=skewed`.

Each label's rows are dealt by shares p ~ Dir(alpha) over the clients, so that sizes and labels differ together
(Yurochkin et al., arXiv 1905.12022; "distribution-based label imbalance" of Li, Diao, Chen and He, arXiv 2102.02079).
There the shares are drawn anew until every client has enough rows, which 200 clients would wait for too long; here the
client with the most rows gives one until nobody is below `smallest`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedlit.plugins import POSITIVE, POSITIVE_COUNT, Partition, UserError, option, register


@register("partition", "skewed")
@dataclass(frozen=True, kw_only=True)
class Skewed(Partition):
    """Every label's rows by shares of their own."""

    alpha: float = option(0.5, "concentration of each label's shares; a small one skews more", range=POSITIVE)
    smallest: int = option(12, "rows that every client has at least", range=POSITIVE_COUNT)

    def deal(
        self, rows: Sequence[object], labels: Sequence[str] | None, num_clients: int, generator: np.random.Generator
    ) -> list[list[int]]:
        """Return the row numbers of every client, all rows in use; see `Partition.deal`."""
        if labels is None or len(rows) < num_clients * self.smallest:
            needs = f"labels, and {self.smallest} rows for each of {num_clients} clients"
            raise UserError(f"partition.name=skewed needs {needs}; set data.label, or fewer clients")
        numbers = np.array(labels)
        dealt: list[list[int]] = [[] for _ in range(num_clients)]
        for label in sorted(set(labels)):
            its_rows = generator.permutation(np.flatnonzero(numbers == label))
            shares = generator.dirichlet(np.full(num_clients, self.alpha))
            ends = np.floor(np.cumsum(shares)[:-1] * len(its_rows)).astype(int)
            for client, part in zip(dealt, np.split(its_rows, ends), strict=True):
                client.extend(part.tolist())
        for client in dealt:
            while len(client) < self.smallest:
                client.append(max(dealt, key=len).pop())
        return dealt
