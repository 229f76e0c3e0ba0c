"""A sample of a data set's rows, in proportion to their labels."""

from collections.abc import Sequence

from fedlit.config.schema import DataConfig
from fedlit.data.columns import column_values
from fedlit.data.paths import given_paths
from fedlit.data.prompts import Row
from fedlit.errors import UserError
from fedlit.seeding import numpy_generator


def draw(rows: Sequence[Row], config: DataConfig, seed: int) -> list[int]:
    """Draw `config.sample` row numbers in proportion to the labels, in ascending order.

    Shares are made whole by largest remainder, in integers: a label gets floor(count * n / N) rows, and the largest
    remainders get one more until there are n. No label is asked for more rows than it has.
    """
    assert config.sample is not None
    num = config.sample
    if not 1 <= num <= len(rows):
        of = ", ".join(given_paths(config.path)) or config.hub_id or config.source
        raise UserError(f"data.sample={num}: {of} has {len(rows)} rows; choose 1 to {len(rows)}, or null for all")
    labels = [""] * len(rows) if config.label is None else column_values(rows, config.label, "data.label")
    members: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for i, label in enumerate(labels):
        members[label].append(i)
    shares = {label: divmod(len(numbers) * num, len(rows)) for label, numbers in members.items()}
    num_missing = num - sum(share for share, _ in shares.values())
    largest = set(sorted(shares, key=lambda label: (-shares[label][1], label))[:num_missing])
    rng = numpy_generator(seed, "sample")
    chosen: list[int] = []
    for label, numbers in members.items():
        chosen.extend(rng.choice(numbers, size=shares[label][0] + (label in largest), replace=False).tolist())
    return sorted(chosen)
