"""Which prompts are for testing, and which for validation: in all clients or in none, drawn so that every client has
enough of each.

Question sets repeat their questions (MedQuAD: 16,407 pairs, 14,979 questions), and clients share one global model. A
prompt that one client trains on and another tests on would be a leak.
"""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from fedlit.config.schema import PartitionConfig
from fedlit.errors import UserError
from fedlit.seeding import numpy_generator


def smallest_part(partition: PartitionConfig) -> int:
    """Return the number of rows that a client needs, so that one is left to train on besides its test part."""
    _check_test_fraction(partition)
    by_fraction = math.ceil(1 / (1 - Fraction(str(partition.test_fraction))))
    return max(partition.min_test_rows + 1, by_fraction)


def draw_test_prompts(
    parts: Sequence[Sequence[int]], prompts: Sequence[str], partition: PartitionConfig, seed: int
) -> set[str]:
    """Return the prompts whose rows are test rows in all clients.

    First a prompt of every client is kept for training, so that all clients have a training row: one that an earlier
    client keeps, or else one with the fewest rows. Then the clients, one after the other, draw prompts at random until
    they have enough test rows, counting the rows of prompts that an earlier client drew.
    """
    targets = [_num_test(client_id, len(part), partition) for client_id, part in enumerate(parts)]
    return _draw(parts, prompts, targets, seed, "split")


def draw_validation_prompts(
    parts: Sequence[Sequence[int]],
    prompts: Sequence[str],
    num_rows: Sequence[int],
    partition: PartitionConfig,
    seed: int,
) -> set[str]:
    """Return the prompts whose rows are validation rows in all clients, drawn as those of testing are.

    Args:
        parts: of every client, the row numbers that are not for testing.
        prompts: of every row of the data set.
        num_rows: of every client, how many rows it has in all; `partition.validation_fraction` is a share of these.
        partition: the options.
        seed: root of the streams.

    Raises:
        UserError: a client without a row to train on besides the validation part.
    """
    share = Fraction(str(partition.validation_fraction))
    targets = [max(math.ceil(share * num), 1) for num in num_rows]
    for client_id, (part, target) in enumerate(zip(parts, targets, strict=True)):
        if len(part) <= target:
            raise UserError(
                f"client {client_id} has {len(part)} rows beside its test part and {target} are asked for its "
                f"validation part, none is left to train on; use fewer clients, or lower "
                f"partition.validation_fraction={partition.validation_fraction} or partition.min_test_rows="
                f"{partition.min_test_rows}"
            )
    return _draw(parts, prompts, targets, seed, "validation")


def _draw(
    parts: Sequence[Sequence[int]], prompts: Sequence[str], targets: Sequence[int], seed: int, purpose: str
) -> set[str]:
    """Return prompts of so many rows of every client, of each of which fewer than all are asked for; one prompt of
    every client is never among them.
    """
    counts = [Counter(prompts[i] for i in part) for part in parts]
    orders = [_shuffled(list(count), seed, client_id, purpose) for client_id, count in enumerate(counts)]
    kept: set[str] = set()
    for order, count, target in zip(orders, counts, targets, strict=True):
        num_kept = sum(count[prompt] for prompt in kept)
        if not 0 < num_kept <= count.total() - target:
            kept.add(min(order, key=count.__getitem__))
    drawn: set[str] = set()
    for order, count, target in zip(orders, counts, targets, strict=True):
        num_drawn = sum(num for prompt, num in count.items() if prompt in drawn)
        for prompt in order:
            if num_drawn >= target:
                break
            if prompt not in kept and prompt not in drawn:
                drawn.add(prompt)
                num_drawn += count[prompt]
    return drawn


def _shuffled(prompts: Sequence[str], seed: int, client_id: int, purpose: str) -> list[str]:
    rng = numpy_generator(seed, purpose, client_id=client_id)
    return [prompts[i] for i in rng.permutation(len(prompts)).tolist()]


def _num_test(client_id: int, num_rows: int, partition: PartitionConfig) -> int:
    """Return the number of test rows asked for; the client has more rows than that."""
    _check_test_fraction(partition)
    # exact decimals: in floats 0.07 * 100 is a little more than 7 and its ceiling is 8
    target = max(math.ceil(Fraction(str(partition.test_fraction)) * num_rows), partition.min_test_rows)
    if num_rows <= target:
        raise UserError(
            f"client {client_id} has {num_rows} rows and {target} are asked for its test part, none is left to train "
            f"on; use fewer clients or lower partition.min_test_rows={partition.min_test_rows}"
        )
    return target


def _check_test_fraction(partition: PartitionConfig) -> None:
    if not 0 <= partition.test_fraction < 1:
        raise UserError(
            f"partition.test_fraction={partition.test_fraction}: not a share; choose 0 or more and less than 1"
        )
