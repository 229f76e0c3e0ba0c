"""The ranges of keys."""

from collections.abc import Mapping

from fedlit.ranges import (
    COUNT,
    FINITE,
    FRACTION,
    LARGEST_COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_COUNT,
    PROCESSES,
    SEED,
    Range,
    at_least,
)

__all__ = ["LARGEST_COUNT", "RANGES"]

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
    "seed": SEED,
    "partition.num_topics": at_least(2),
    "eval.length_penalty": FINITE,
    **dict.fromkeys(("partition.alpha", "local.lr", "local.max_grad_norm", "method.lora_alpha"), POSITIVE),
    **dict.fromkeys(("server.lr", "server.tau", "method.init_lr"), POSITIVE),
    **dict.fromkeys(("local.weight_decay", "local.prox_mu"), NOT_NEGATIVE),
    **dict.fromkeys(("partition.test_fraction", "method.lora_dropout", "local.momentum"), FRACTION),
    **dict.fromkeys(("local.warmup", "local.label_smoothing"), FRACTION),
    **dict.fromkeys(("server.beta1", "server.beta2"), FRACTION),
}
"""Null passes wherever the key's type allows it. Keys of `method.` apply to the recipes that have them."""
