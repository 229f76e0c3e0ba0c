"""The kinds of parts that may come from outside: where a configuration names one, and what it must offer.

A table without torch; `fedlit/plugins.py` tells the same to who writes a part, with what its methods take and return.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of part.

    keys: where a configuration names parts of it. options: the section, or the one mapping, that holds their options.
    base: its class in `fedlit.plugins`. needs: what a part must have, as a method, an attribute or a field.
    own: the names of the package's own parts, which nobody else may take.
    """

    keys: tuple[str, ...]
    options: str
    base: str
    needs: tuple[str, ...]
    own: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "recipe": Kind(
        keys=("method.name",),
        options="method",
        base="Recipe",
        needs=("adapter", "optimizer", "rule", "transforms", "pooled", "defaults", "help"),
        own=(
            *("fedit", "ffa_lora", "fedsa_lora", "flexlora", "fedex_lora", "scl", "fedftg", "full", "flora", "fedsvd"),
            *("rolora", "fedrot_lora", "hetlora", "fed_sb", "florist", "fedmomentum", "lora_fair", "ravan", "fedask"),
            *("feddpa", "fedalt", "la_lora", "fedgalore", "centralized", "local_only"),
        ),
    ),
    "adapter": Kind(
        keys=("method.adapter",),
        options="method",
        base="Adapter",
        needs=(
            *("attach", "shared", "merged", "private", "fixed", "layers", "turn", "set_rank"),
            *("sends", "receives", "client_ranks", "needs_autocast", "looks_at_rows"),
            *("takes_turns_by_step", "turn_of_step", "smooths", "smoothed_along"),
        ),
        own=(
            *("lora", "lora_train_b", "lora_share_a", "lora_train_b_receive_a", "lora_alternate", "lora_core"),
            *("lora_alternate_steps", "lora_heads", "lora_dual", "lora_rest", "scl", "dense"),
        ),
    ),
    "optimizer": Kind(
        keys=("method.optimizer",),
        options="method",
        base="LocalOptimizer",
        needs=("build", "num_state_scalars"),
        own=("adamw", "sgd", "galore", "galore_shared"),
    ),
    "rule": Kind(
        keys=("method.rule",),
        options="method",
        base="AggregationRule",
        needs=(
            *("__call__", "local_parts", "begin", "start", "traffic", "num_sums"),
            *("needs", "sets", "averages", "stacks", "asks_again", "folds", "mixes_ranks"),
        ),
        own=(
            *("fedavg", "flexlora", "fedex_lora", "flora", "fedsvd", "florist", "fedmomentum", "lora_fair"),
            *("fedask", "fedalt", "none"),
        ),
    ),
    "transform": Kind(
        keys=("method.transforms",),
        options="method",
        base="Transform",
        needs=("on_client", "on_server", "start", "needs", "mixes_ranks"),
        own=("rank_scaling", "rank_padding", "rotation", "scaled_heads"),
    ),
    "sampling": Kind(
        keys=("cohort.sampling",),
        options="cohort.options",
        base="Sampling",
        needs=("invited", "always_fills"),
        own=("fixed", "poisson"),
    ),
    "availability": Kind(
        keys=("cohort.availability",),
        options="cohort.options",
        base="Availability",
        needs=(
            *("arriving", "durations_s", "reachable", "round_seconds", "require", "window", "windows", "discount"),
            *("keeps_late", "divides_by_cohort"),
        ),
        own=("always", "bernoulli", "trace", "deadline", "buffered"),
    ),
    "task": Kind(
        keys=("data.task",),
        options="",
        base="TaskSpec",
        needs=("columns", "check", "identity", "text", "name", "task_class", "scores", "default_scores"),
        own=("causal_lm", "sequence_classification", "image_classification"),
    ),
    "reader": Kind(
        keys=("data.source",),
        options="data.source_options",
        base="Reader",
        needs=("rows", "test_rows", "has_test_rows"),
        own=("pydoc", "digits", "table", "jsonl", "images", "hub", "memory"),
    ),
    "partition": Kind(
        keys=("partition.name",),
        options="partition.options",
        base="Partition",
        needs=("deal",),
        own=("dirichlet", "quantity", "pathological", "natural", "files", "topics", "iid", "file", "given"),
    ),
    "score": Kind(
        keys=("data.scores", "eval.score"),
        options="data.score_options",
        base="TaskScore",
        needs=("metric", "tasks", "heading", "unit", "lower_is_better"),
        own=(
            *("loss", "rouge_l", "bleu_4", "rouge_l_forced", "bleu_4_forced", "bleu", "nist"),
            *("meteor", "meteor_15", "cider", "exact_match", "accuracy"),
            *("f1_macro", "f1_weighted", "f1_micro", "f1", "mcc", "pearson", "spearman"),
        ),
    ),
    "logger": Kind(
        keys=("logging.loggers",),
        options="logging.options",
        base="Callback",
        needs=("on_start", "on_round_start", "on_step", "on_round_end", "on_end", "close"),
        own=("wandb", "tensorboard", "csv"),
    ),
}

METHOD_KINDS = ("adapter", "optimizer", "rule", "transform")
"""Kinds of parts whose options are keys of `method.`."""

VALUE_KINDS = ("recipe", "task")
"""Kinds of which a value is registered, not a class to make one of."""

RESERVED = frozenset(
    {"name", "adapter", "optimizer", "rule", "transforms", "pooled", "private_head", "options", "weighting"}
)
"""Keys of `method.` that every recipe has."""
