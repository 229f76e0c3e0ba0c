"""About how large a run folder gets: tensors by their shapes, text by what a line of it has been seen to take."""

from dataclasses import dataclass
from pathlib import Path

from fedlit.budget.work import Work
from fedlit.config.analysis import keys_of_a_layer
from fedlit.planning import Plan
from fedlit.sizing import Sizes

RECORD_BYTES, CLIENT_BYTES, LAYER_BYTES = 900, 220, 70
"""Of a line of metrics.jsonl: what every round has, each client of it, each key of a single layer."""
SCORED_BYTES, SAMPLE_BYTES, PLOTS_BYTES = 70, 300, 300_000
"""Of a test example in examples/ and of an answer in samples.jsonl, at each evaluation; of plots/."""
ROW_BYTES, TOKEN_BYTES = 7, 60
"""Of a row in partition.json, of a token in tokenizer.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Bytes of one run folder. stays: when the run is done. peak: at the most, while it runs."""

    stays: int
    peak: int


def storage_of(plan: Plan, sizes: Sizes, work: Work, *, num_tokens: int, num_layers: int) -> Storage:
    """Return what a run folder takes. num_tokens: of the tokenizer. num_layers: LoRA layers."""
    config, inputs = plan.inputs.config, plan.inputs
    population, stored = len(plan.clients), sizes.stored_bytes
    rounds, kept = config.num_rounds, config.run.keep_checkpoints
    scored = 1 + rounds // config.eval.every + bool(rounds % config.eval.every)
    line = RECORD_BYTES + CLIENT_BYTES * plan.cohort_size + LAYER_BYTES * num_layers * keys_of_a_layer(config)
    num_tests = min(len(inputs.test_rows), config.eval.max_examples or len(inputs.test_rows))
    samples = 8 if config.logging.samples_kept is None else config.logging.samples_kept
    text = (
        2 * rounds * line  # the checkpoints have a copy of the records
        + scored * (num_tests * SCORED_BYTES * config.run.example_scores + samples * SAMPLE_BYTES)
        + len(inputs.rows) * ROW_BYTES
        + num_tokens * TOKEN_BYTES
        + PLOTS_BYTES
    )
    has_private = sizes.num_private > 0
    result = stored["result"] * (population if has_private else 1)

    def checkpoints(number: int) -> int:
        files = min(population + (number - 1) * plan.cohort_size, number * population)
        return number * stored["checkpoint"] + files * stored["client"]

    at_end, at_most = checkpoints(min(kept, rounds + 1)), checkpoints(min(kept + 1, rounds + 1))
    return Storage(stays=at_end + result + text, peak=max(at_most, at_end + result) + text)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
