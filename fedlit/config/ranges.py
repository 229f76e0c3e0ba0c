"""The values that numbers of the configuration may take."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """The values a number may take, and how to say so."""

    contains: Callable[[float], bool]
    text: str


LARGEST_COUNT = 2**31 - 1
LARGEST_SEED = 2**63 - 1
SMALLEST, LARGEST = 1.2e-38, 3.4e38
"""What float32 holds without loss: below, a gradient that is multiplied is zero; beyond, it is infinite."""

POSITIVE_COUNT = Range(lambda value: 1 <= value <= LARGEST_COUNT, f"an integer of at least 1, up to {LARGEST_COUNT}")
COUNT = Range(lambda value: 0 <= value <= LARGEST_COUNT, f"an integer of at least 0, up to {LARGEST_COUNT}")
PROCESSES = Range(lambda value: 1 <= value <= 65536, "an integer of at least 1, up to 65536")
"""A larger number is a slip, and Lightning would make a list as long."""
POSITIVE = Range(lambda value: SMALLEST <= value <= LARGEST, f"a finite number above 0, {SMALLEST} to {LARGEST}")
NOT_NEGATIVE = Range(
    lambda value: value == 0 or SMALLEST <= value <= LARGEST, f"a finite number of at least 0, up to {LARGEST}"
)
FRACTION = Range(lambda value: 0 <= value < 1, "a number from 0 up to, not including, 1")

RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("num_clients", "num_rounds", "data.sample", "model.max_length_tokens"), POSITIVE_COUNT),
    **dict.fromkeys(("local.steps", "local.epochs", "local.batch_size", "local.accumulate"), POSITIVE_COUNT),
    **dict.fromkeys(("partition.classes_per_client", "eval.num_beams", "eval.patience"), POSITIVE_COUNT),
    **dict.fromkeys(("eval.every", "eval.max_examples", "eval.batch_size", "eval.max_new_tokens"), POSITIVE_COUNT),
    **dict.fromkeys(("compute.devices", "compute.num_nodes", "compute.threads"), PROCESSES),
    **dict.fromkeys(("compute.timeout_s", "compute.start_timeout_s"), POSITIVE_COUNT),
    **dict.fromkeys(("run.keep_checkpoints", "method.lora_rank", "logging.samples_every"), POSITIVE_COUNT),
    **dict.fromkeys(("partition.min_test_rows", "eval.no_repeat_ngram_size", "method.residual_rank"), COUNT),
    **dict.fromkeys(("partition.num_shards", "eval.max_clients"), POSITIVE_COUNT),
    "seed": Range(lambda value: 0 <= value <= LARGEST_SEED, f"an integer of at least 0, up to {LARGEST_SEED}"),
    "partition.num_topics": Range(
        lambda value: 2 <= value <= LARGEST_COUNT, f"an integer of at least 2, up to {LARGEST_COUNT}"
    ),
    "eval.length_penalty": Range(lambda value: -math.inf < value < math.inf, "a finite number"),
    **dict.fromkeys(("partition.alpha", "local.lr", "local.max_grad_norm", "method.lora_alpha"), POSITIVE),
    **dict.fromkeys(("server.lr", "server.tau", "method.init_lr"), POSITIVE),
    **dict.fromkeys(("local.weight_decay", "local.prox_mu"), NOT_NEGATIVE),
    **dict.fromkeys(("partition.test_fraction", "method.lora_dropout", "local.momentum"), FRACTION),
    **dict.fromkeys(("local.warmup", "local.label_smoothing"), FRACTION),
    **dict.fromkeys(("server.beta1", "server.beta2"), FRACTION),
}
"""Null passes wherever the key's type allows it. Keys of `method.` apply to the recipes that have them."""
