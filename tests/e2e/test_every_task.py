"""Every task, source and protocol through the command line, offline: the same bits on 1 and 2 processes, and the scores
that belong to it in the record.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine, Zygote, merge
from PIL import Image

SMALL = [
    "num_clients=3",
    "num_rounds=2",
    "local.steps=2",
    "local.batch_size=4",
    "local.lr=0.01",
    "partition.alpha=1",
    "partition.min_test_rows=2",
    "eval.max_examples=8",
    "eval.max_new_tokens=3",
    "eval.batch_size=3",
    "logging.wandb=disabled",
]
ENCODER = ["model=roberta-small", "model.max_length_tokens=24"]
VIT = ["data=digits", "model=vit-small"]
SCHEDULE = ["local.accumulate=2", "local.schedule=cosine", "local.warmup=0.5", "local.label_smoothing=0.1"]
CLASSES = {"loss", "accuracy", "f1_macro", "f1_weighted", "f1_micro", "mcc", "confusion_matrix"}
WORDS = ("red", "green", "blue", "small", "large", "old", "new", "wet")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def write_parts(folder: Path, name: str, rows: list[dict[str, Any]]) -> list[str]:
    """Write a training set and a test set of the last 24 rows, and return the words that give them."""
    train, test = folder / f"{name}.jsonl.gz", folder / f"{name}-test.jsonl.gz"
    return [f"data.path={write_rows(train, rows[:-24])}", f"data.test_path={write_rows(test, rows[-24:])}"]


def texts(folder: Path) -> list[str]:
    rows = [{"text": f"{word} {i}", "label": i % 2} for i in range(12) for word in WORDS]
    return ["data=texts", f"data.path={write_rows(folder / 'texts.jsonl.gz', rows)}", *ENCODER]


def pairs(folder: Path) -> list[str]:
    rows = [
        {"sentence1": f"{word} {i}", "sentence2": f"{word} {i % 3}", "label": float(i % 6)}
        for i in range(12)
        for word in WORDS
    ]
    own_test_set = write_parts(folder, "pairs", rows)
    return ["data=glue/stsb", *own_test_set, "partition.name=iid", "model=bert-small", "model.max_length_tokens=24"]


def references(folder: Path) -> list[str]:
    rows = [
        {"mr_id": i, "lin": f"name : {word} {i}", "ref": f"{word} is a place{end}"}
        for i in range(6)
        for word in WORDS
        for end in (".", f" number {i}.")
    ]
    return ["data=e2e", *write_parts(folder, "e2e", rows), "eval.num_beams=2", "partition.name=iid"]


def arithmetic(folder: Path) -> list[str]:
    rows = [
        {"question": f"{word}: {i} + 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(9) for word in WORDS
    ]
    return ["data=gsm8k", *write_parts(folder, "gsm8k", rows), "partition.name=iid"]


def choices(folder: Path, *more: str) -> list[str]:
    rows = [
        {
            "task": task,
            "instruction": f"{word} {i}\n\nAnswer format: {options}",
            "output": f"the correct answer is {options.split('/')[i % 2]}",
            "answer": options.split("/")[i % 2],
        }
        for i in range(6)
        for word in WORDS
        for task, options in (("boolq", "true/false"), ("piqa", "solution1/solution2"))
    ]
    return ["data=commonsense", *write_parts(folder, "commonsense", rows), *more]


def folder_of_images(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
        for i in range(24):
            pixels = rng.integers(100 * number, 100 * number + 100, size=(10, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{i}.png")
    return ["data=images", f"data.path={folder / 'pictures'}", "model=siglip-small", "method=scl"]


def plain_text(folder: Path) -> list[str]:
    rows = [{"q": f"{word} {i}?", "a": f"{WORDS[i % 8]} {word}"} for i in range(12) for word in WORDS]
    path = write_rows(folder / "plain.jsonl.gz", rows)
    own = ["data=jsonl", f"data.path={path}", "data.prompt=q", "data.response=a", "data.label=null"]
    return [*own, "partition.name=topics", "partition.num_topics=3"]


def split_file(folder: Path) -> list[str]:
    rows = [{"prompt": f"{word} {i}?", "response": word, "label": word} for i in range(12) for word in WORDS]
    (folder / "split.json").write_text(json.dumps([list(range(k, 96, 3)) for k in range(3)]))
    own = ["data=jsonl", f"data.path={write_rows(folder / 'rows.jsonl.gz', rows)}"]
    return [*own, "partition.name=file", f"partition.path={folder / 'split.json'}"]


Case = tuple[Callable[[Path], list[str]], set[str]]
TEXT = {"loss", "rouge_l", "bleu_4"}
CASES: dict[str, Case] = {
    "texts": (texts, CLASSES | {"f1"}),
    "regression": (pairs, {"loss", "pearson", "spearman"}),
    "references": (references, {"loss", "bleu", "nist", "meteor", "rouge_l", "cider"}),
    "arithmetic": (arithmetic, {"loss", "exact_match"}),
    "choices": (
        choices,
        {"loss", "exact_match", "exact_match/boolq", "exact_match/piqa", "exact_match_macro"},
    ),
    "options": (
        lambda folder: choices(folder, "eval.protocol=options"),
        {"loss", "accuracy", "accuracy/boolq", "accuracy/piqa", "accuracy_macro"},
    ),
    "topics": (plain_text, TEXT),
    "file": (split_file, TEXT),
    "images": (folder_of_images, CLASSES | {"f1"}),
    "digits-fedex_lora": (lambda _: [*VIT, "method=fedex_lora"], CLASSES),
    "digits-fedftg": (lambda _: [*VIT, "method=fedftg", "partition.name=pathological"], CLASSES),
    "digits-private_head": (
        lambda _: [*VIT, "method=fedsa_lora", "method.private_head=true", "partition.name=quantity"],
        CLASSES - {"confusion_matrix"},  # every client has one of its own
    ),
    "digits-accumulate": (
        lambda _: [
            *VIT,
            "local.accumulate=2",
            "local.schedule=cosine",
            "local.warmup=0.5",
            "local.label_smoothing=0.1",
        ],
        CLASSES,
    ),
    "digits-checkpointing": (lambda _: [*VIT, "model.gradient_checkpointing=true"], CLASSES),
}


ON_PUSH = {"digits-fedftg", "digits-private_head", "digits-checkpointing"}
"""Classifiers with what only they have; the others' scores are looked at in test_kept_examples on each push."""


@pytest.mark.parametrize(
    "case", [case if case in ON_PUSH else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_every_task_runs_and_processes_do_not_change_a_bit(
    case: str, zygote: Zygote, forked_command_line: CommandLine
) -> None:
    build, scores = CASES[case]
    arguments = merge(SMALL, tuple(build(zygote.folder)))
    zygote.run(case, *arguments)
    records = [json.loads(line) for line in (zygote.folder / case / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 3
    found = {key.removeprefix("global/") for key in records[-1] if key.startswith("global/")}
    assert {name for name in found if not name.endswith("_std")} == scores
    zygote.run(f"{case}-2", *arguments, num_processes=2)
    assert forked_command_line.result(f"{case}-2") == forked_command_line.result(case)


def test_the_clients_own_test_parts(zygote: Zygote, forked_command_line: CommandLine) -> None:
    """Each client's scores on its own rows, their mean and the worst, of one global model and of private ones."""
    for method in ("fedit", "local_only"):
        arguments = [*SMALL, *VIT, f"method={method}", "eval.on=both"]
        name = f"own-{method}"
        zygote.run(name, *arguments)
        last = json.loads((zygote.folder / name / "metrics.jsonl").read_text().splitlines()[-1])
        own = [last[f"client/{client}/own/accuracy"] for client in range(3)]
        assert last["own/accuracy"] == pytest.approx(sum(own) / 3)
        assert last["own/accuracy_worst"] == min(own)
        assert last["own/loss_worst"] == max(last[f"client/{client}/own/loss"] for client in range(3))
        assert "global/accuracy" in last
        zygote.run(f"{name}-2", *arguments, num_processes=2)
        assert forked_command_line.result(f"{name}-2") == forked_command_line.result(name)


def test_it_stops_early_and_exports_the_best_round(zygote: Zygote) -> None:
    """The learning rate is so large that no round is better than the first ones; the record has all that were run."""
    arguments = merge(SMALL, (*VIT, "num_rounds=9", "local.lr=1", "eval.score=loss", "eval.patience=2"))
    arguments = merge(arguments, ("eval.choose_on=test",))
    out = zygote.run("stops", *arguments, "run.result=best", "run.keep_checkpoints=1")
    records = [json.loads(line) for line in (zygote.folder / "stops" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["global/loss"] for record in records[1:]]  # the untrained model does not count
    best = 1 + losses.index(min(losses))
    assert len(records) == best + 3 < 10
    assert "no better score" in out
    assert (zygote.folder / "stops" / "checkpoints" / f"round-{best:04d}").is_dir()
    # The result is that of a run which ended with the best round.
    zygote.run("short", *merge(arguments, (f"num_rounds={best}", "eval.patience=null")))
    exported, expected = (zygote.folder / name / "adapter" / "model.safetensors" for name in ("stops", "short"))
    assert exported.read_bytes() == expected.read_bytes()


def test_validation_parts_choose_alike_on_any_number_of_processes(
    zygote: Zygote, forked_command_line: CommandLine
) -> None:
    """Models of one kind and of each client; the round is chosen on the clients' own parts, and tested then."""
    for method in ("fedit", "local_only"):
        arguments = [*SMALL, *VIT, f"method={method}", "eval.on=clients", "partition.validation_fraction=0.1"]
        chosen = ("run.result=best", "eval.patience=2", "eval.score=loss", "num_rounds=4", "local.lr=0.3")
        arguments = merge(arguments, chosen)
        name = f"validated-{method}"
        zygote.run(name, *arguments)
        records = [json.loads(line) for line in (zygote.folder / name / "metrics.jsonl").read_text().splitlines()]
        assert all("validation/loss_std" in record for record in records)
        assert {"client/0/validation/loss", "own/loss"} <= records[0].keys()
        zygote.run(f"{name}-2", *arguments, num_processes=2)
        assert forked_command_line.result(f"{name}-2") == forked_command_line.result(name)
