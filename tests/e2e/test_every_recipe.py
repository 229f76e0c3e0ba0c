"""Every recipe gives the same bits on 1, 2 and 4 processes, and after a kill; a new line in RECIPES is tested here.

On each push are those that keep most beside the model; tests/contract resumes every recipe in one process.
"""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine, Zygote

from fedlit.recipes import RECIPES

WORDS = ("close", "read", "write", "merge", "sort", "open", "compare", "send", "parse", "split", "join", "copy")
ROWS = [
    {"prompt": f"def {word}_{number}(file)", "response": f"{word} file {number}.", "label": word[0]}
    for number in range(6)
    for word in WORDS
]
TINY = [
    "num_clients=3",
    "num_rounds=3",
    "run.keep_checkpoints=4",
    "local.steps=1",
    "local.batch_size=2",
    "local.lr=0.01",
    "data=jsonl",
    "partition.alpha=1",
    "partition.min_test_rows=2",
    "eval.max_examples=4",
    "eval.max_new_tokens=2",
    "eval.batch_size=2",
    "logging.wandb=disabled",
]
# Options under which a server or its clients keep other state, or are made of other numbers.
VARIATIONS = {
    "fedit-scaffold": ["method=fedit", "method.optimizer=sgd", "local.scaffold=true", "cohort_size=2"],
    "fedit-fedadam": ["method=fedit", "server.optimizer=fedadam", "server.lr=0.01"],
    "rolora-fedavgm": ["method=rolora", "server.optimizer=fedavgm"],
    "fedalt-keep": ["method=fedalt", "local.optimizer_state=keep", "cohort_size=2", "method.weighting=num_examples"],
    "fedalt-masked": ["method=fedalt", "num_clients=5", "privacy.secure_aggregation=true"],
    "feddpa-keep": ["method=feddpa", "local.optimizer_state=keep", "cohort_size=2"],
    "feddpa-f": ["method=feddpa", "method.global_rounds=1", "cohort_size=2"],
    "fedsa_lora-keep": ["method=fedsa_lora", "local.optimizer_state=keep", "cohort_size=2"],
    "fedex_lora-keep": ["method=fedex_lora", "method.assignment=keep", "cohort_size=2"],
    "fedex_lora-reinitialize": ["method=fedex_lora", "method.assignment=reinitialize", "run.export=merged"],
    "fedex_lora-sums": ["method=fedex_lora", "method.aggregate_by=sums", "cohort_size=2"],
    "flora-sums": ["method=flora", "method.aggregate_by=sums", "method.lora_rank=[2,4,3]", "method.sketch_width=5"],
    "flexlora-sums": ["method=flexlora", "method.aggregate_by=sums", "method.lora_rank=[2,4,3]"],
    "flora-bfloat16": ["method=flora", "model.dtype=bfloat16", "method.lora_rank=[2,4,3]"],
    "flexlora-ranks": ["method=flexlora", "method.lora_rank=[2,4,3]"],
    "florist-sums": ["method=florist", "method.aggregate_by=sums", "method.lora_rank=[2,4,3]", "method.sketch_width=5"],
    "florist-bfloat16": ["method=florist", "model.dtype=bfloat16", "method.lora_rank=[2,4,3]", "cohort_size=2"],
    "fedmomentum-sums": ["method=fedmomentum", "method.aggregate_by=sums", "method.sketch_width=9", "cohort_size=2"],
    "fedmomentum-bfloat16": ["method=fedmomentum", "model.dtype=bfloat16", "run.export=merged"],
    "lora_fair-sums": ["method=lora_fair", "method.aggregate_by=sums", "cohort_size=2"],
    "hetlora-ranks": ["method=hetlora", "method.lora_rank=[2,4,3]", "cohort_size=2"],
    "scl-whitened": ["method=scl", "method.init=whitened"],
    "fedftg-keep": ["method=fedftg", "local.optimizer_state=keep", "local.steps=2", "method.galore.update_proj_gap=3"],
    "fedftg-randomized": [
        *("method=fedftg", "local.optimizer_state=keep", "local.steps=2", "method.galore.update_proj_gap=3"),
        *("method.galore.svd=randomized", "method.galore.rank=4"),
    ],
    "ravan-keep": ["method=ravan", "local.optimizer_state=keep", "cohort_size=2", "local.steps=2"],
    "ravan-private": [
        *("method=ravan", "method.weighting=uniform", "num_clients=4", "privacy.secure_aggregation=true"),
        *("privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=0.1"),
    ],
    "ravan-examples": ["method=ravan", "privacy.unit=example", "privacy.clip_norm=1", "privacy.noise_multiplier=1"],
    "fedask-examples": [
        *("method=fedask", "method.adapter=lora_train_b_receive_a", "privacy.unit=example", "privacy.clip_norm=1"),
        "privacy.noise_multiplier=1",
    ],
    "fedask-masked": [
        *("method=fedask", "num_clients=4", "privacy.secure_aggregation=true", "method.weighting=uniform"),
        *("privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=0.1"),
    ],
    "fedgalore-keep": [
        *("method=fedgalore", "local.optimizer_state=keep", "local.steps=2", "method.galore.update_proj_gap=3"),
        *("method.galore.svd=randomized", "method.galore.rank=4", "cohort_size=2"),
    ],
    "la_lora-keep": ["method=la_lora", "local.steps=3", "local.optimizer_state=keep", "cohort_size=2"],
    "la_lora-examples": [
        *("method=la_lora", "local.steps=2", "privacy.unit=example", "privacy.clip_norm=1"),
        "privacy.noise_multiplier=1",
    ],
    "fedit-private": [
        *("method=fedit", "method.weighting=uniform", "cohort.sampling=poisson", "cohort_size=2"),
        *("privacy.unit=client", "privacy.clip_norm=0.05", "privacy.epsilon=20"),
        *("privacy.clip_quantile=0.5", "privacy.clip_count_noise=9"),
    ],
    "fedit-masked": ["method=fedit", "num_clients=5", "privacy.secure_aggregation=true"],
    "fedit-examples": ["method=fedit", "privacy.unit=example", "privacy.clip_norm=1", "privacy.noise_multiplier=1"],
    "fedex_lora-masked": [
        *("method=fedex_lora", "method.aggregate_by=sums", "method.sketch_width=8", "num_clients=4"),
        "privacy.secure_aggregation=true",
        *("privacy.unit=client", "privacy.clip_norm=1", "privacy.noise_multiplier=0.1", "method.weighting=uniform"),
    ],
    "fedsa_lora-analyses": [
        *("method=fedsa_lora", "cohort_size=2", "eval.general=pydoc"),
        "analysis=[deviation,rank,subspaces,norms,dense,forgetting]",
    ],
    "fedftg-analyses": [
        *("method=fedftg", "local.optimizer_state=keep", "eval.general=pydoc"),
        "analysis=[subspaces,norms,dense,forgetting]",
    ],
    "fedit-trace": [
        *("method=fedit", "num_clients=5", "cohort_size=3", "cohort.over_selection=1.4", "cohort.availability=trace"),
        "cohort.options={round_s: 600, mean_on_s: 1200, mean_off_s: 600}",
    ],
    "flora-dropout": ["method=flora", "cohort.availability=bernoulli", "cohort.options={dropout: 0.4}"],
    "fedsa_lora-late": [
        *("method=fedsa_lora", "local.optimizer_state=keep", "num_clients=5", "cohort.availability=deadline"),
        "cohort.options={deadline_s: 0.05, late: use, tokens_per_s: 500}",
    ],
    "fedit-buffered": [
        *("method=fedit", "num_clients=5", "cohort_size=2", "num_rounds=4", "cohort.availability=buffered"),
        "cohort.options={concurrency: 4, spread: 1}",
    ],
}
CASES = {recipe: [f"method={recipe}"] for recipe in sorted(RECIPES)} | VARIATIONS
KILLED_ON_PUSH = {
    "fedit-scaffold",
    "rolora-fedavgm",
    "fedsa_lora-keep",
    "fedalt-keep",
    "feddpa-keep",
    "fedex_lora-keep",
    "fedex_lora-sums",
    "flora-bfloat16",
    "fedftg-keep",
    "fedsvd",
    "fedgalore",
    "fedit-private",
    "fedex_lora-masked",
    "fedit-buffered",
}
"""Some processes are killed and another number goes on: both are compared with one process."""
FROM_EVERY_ROUND_ON_PUSH = {"fedex_lora-masked"}
"""The moment of a kill falls into one round and no other. Here each round is one in which a run goes on."""
SHARED_ON_PUSH = {
    "fedsa_lora-keep",
    "fedalt-masked",
    "feddpa-f",
    "flexlora-sums",
    "hetlora-ranks",
    "local_only",
    "fedit-masked",
    "fedit-examples",
    "fedit-trace",
    "fedsa_lora-late",
    "fedsa_lora-analyses",
}


@pytest.fixture(scope="module")
def rows(zygote: Zygote) -> Path:
    path = zygote.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def on_push(chosen: set[str]) -> list[Any]:
    """Return all cases, those that are not chosen left to `make test-all`."""
    return [case if case in chosen else pytest.param(case, marks=pytest.mark.slow) for case in CASES]


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def arguments(case: str, rows: Path) -> list[str]:
    given = {argument.split("=")[0] for argument in CASES[case]}
    defaults = [argument for argument in TINY if argument.split("=")[0] not in given]
    return [*defaults, *CASES[case], f"data.path={rows}"]


@pytest.fixture(scope="module")
def whole(zygote: Zygote, case: str, arguments: list[str]) -> str:
    """Run the case in one process and return its name."""
    zygote.run(case, *arguments)
    return case


@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", on_push(SHARED_ON_PUSH), indirect=True, scope="module")
def test_processes_do_not_change_a_bit(
    zygote: Zygote, forked_command_line: CommandLine, whole: str, arguments: list[str], num_processes: int
) -> None:
    name = f"{whole}-{num_processes}"
    zygote.run(name, *arguments, num_processes=num_processes)
    assert forked_command_line.result(name) == forked_command_line.result(whole)


@pytest.mark.parametrize("case", on_push(KILLED_ON_PUSH), indirect=True, scope="module")
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(
    zygote: Zygote, forked_command_line: CommandLine, whole: str, arguments: list[str]
) -> None:
    """All processes die between the first checkpoint and the end; another number of them goes on."""
    draw = random.Random(whole)
    killed, resumed = draw.sample([1, 2, 4], 2)
    name, checkpoint = kill_in_the_middle(zygote, whole, arguments, draw, num_processes=killed)
    out = zygote.run(name, *arguments, num_processes=resumed)
    assert f"resumed after round {checkpoint}" in out
    assert forked_command_line.result(name) == forked_command_line.result(whole)


@pytest.mark.parametrize("case", on_push(FROM_EVERY_ROUND_ON_PUSH), indirect=True, scope="module")
def test_from_every_round_it_goes_on_to_the_same_bits(
    zygote: Zygote, forked_command_line: CommandLine, whole: str, arguments: list[str]
) -> None:
    """A checkpoint's tensors lie in memory as those did that the run went on with: products depend on it."""
    expected = forked_command_line.result(whole)
    rounds = sorted(path.name for path in (zygote.folder / whole / "checkpoints").glob("round-????"))
    assert len(rounds) > 1
    for place, num_processes in zip(range(len(rounds) - 1), (4, 1, 2), strict=False):
        number = int(rounds[place].removeprefix("round-"))
        name = f"{whole}-from-{number}"
        shutil.copytree(zygote.folder / whole, zygote.folder / name)
        for later in rounds[place + 1 :]:
            shutil.rmtree(zygote.folder / name / "checkpoints" / later)
        shutil.rmtree(zygote.folder / name / "adapter")
        out = zygote.run(name, *arguments, num_processes=num_processes)
        assert f"resumed after round {number} of" in out
        assert forked_command_line.result(name) == expected, f"from round {number}"


def kill_in_the_middle(
    zygote: Zygote, whole: str, arguments: list[str], draw: random.Random, *, num_processes: int
) -> tuple[str, int]:
    """Kill a run; return its name and the round of its newest checkpoint.

    The moment is drawn from the time that the whole run took; where the machine was too fast for it, from half of that.
    """
    records = [json.loads(line) for line in (zygote.folder / whole / "metrics.jsonl").read_text().splitlines()]
    window_s = sum(record["time/round_s"] for record in records[1:])
    for attempt in range(6):
        name = f"{whole}-killed-{attempt}"
        checkpoints = zygote.folder / name / "checkpoints"
        run = zygote.start(name, *arguments, num_processes=num_processes)
        run.wait_until((checkpoints / "round-0000").exists)
        time.sleep(draw.uniform(0.0, window_s))
        if set(run.kill()) == {-9}:
            newest = max(path.name for path in checkpoints.glob("round-????"))
            return name, int(newest.removeprefix("round-"))
        window_s /= 2
    pytest.fail("every run ended before it was killed")
