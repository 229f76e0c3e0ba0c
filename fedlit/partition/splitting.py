"""Which prompts are for testing: in all clients or in none, drawn so that every client has enough of both.

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
    counts = [Counter(prompts[i] for i in part) for part in parts]
    targets = [_num_test(client_id, len(part), partition) for client_id, part in enumerate(parts)]
    orders = [_shuffled(list(count), seed, client_id) for client_id, count in enumerate(counts)]
    kept: set[str] = set()
    for order, count, target in zip(orders, counts, targets, strict=True):
        num_kept = sum(count[prompt] for prompt in kept)
        if not 0 < num_kept <= count.total() - target:
            kept.add(min(order, key=count.__getitem__))
    test_prompts: set[str] = set()
    for order, count, target in zip(orders, counts, targets, strict=True):
        num_test = sum(num for prompt, num in count.items() if prompt in test_prompts)
        for prompt in order:
            if num_test >= target:
                break
            if prompt not in kept and prompt not in test_prompts:
                test_prompts.add(prompt)
                num_test += count[prompt]
    return test_prompts


def _shuffled(prompts: Sequence[str], seed: int, client_id: int) -> list[str]:
    rng = numpy_generator(seed, "split", client_id=client_id)
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
