"""One short run on the real files of every data set, through the command line, with the scores of its paper."""

import json
from pathlib import Path

import pytest
from conftest import Zygote, merge

pytestmark = pytest.mark.slow

SMALL = (
    "num_clients=3",
    "num_rounds=2",
    "local.steps=4",
    "local.batch_size=4",
    "local.lr=0.003",
    "eval.max_examples=24",
    "eval.batch_size=8",
    "eval.max_new_tokens=24",
    "logging.wandb=disabled",
)
IID = "partition.name=iid"
TEXT = ("model=hf", "model.path={models}/stories260k", "model.max_length_tokens=128")
ENCODER = ("model=roberta-small", "model.max_length_tokens=64")
GLUE = "data.path={data}/glue/{task}_{train}.jsonl.gz data.test_path={data}/glue/{task}_validation.jsonl.gz"
MRI = ("data=brain_tumor", "data.path={data}/brain_tumor/brain_tumor_128.npz", "partition.test_fraction=0.05")
DOLLY = "data.path={data}/dolly15k/dolly15k.jsonl.gz"
GSM8K = "data.path={data}/gsm8k/train.jsonl.gz"
CASES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "medquad": ((*TEXT, "data=medquad", "data.path={data}/medquad/medquad.jsonl.gz"), {"rouge_l", "bleu_4"}),
    "dolly-authors-shards": (
        (
            *TEXT,
            "data=dolly",
            DOLLY,
            "partition.name=file",
            "partition.path={data}/dolly15k/paper_shards.json.gz",
            "partition.key=distribution2",
            "num_clients=4",
            "method=fedftg",
        ),
        {"rouge_l", "bleu_4"},
    ),
    "brain_tumor-siglip": ((*MRI, "model=siglip-small", "method=scl"), {"f1_macro", "f1_weighted", "confusion_matrix"}),
    "brain_tumor-vit": ((*MRI, "model=vit-small", "method=fedex_lora"), {"f1_macro", "accuracy"}),
    "digits": (("data=digits", "model=vit-small", "method=full"), {"f1_macro", "accuracy"}),
    "e2e": (
        (
            *TEXT,
            IID,
            "data=e2e",
            "data.path={data}/e2e_nlg/train.jsonl.gz",
            "data.test_path={data}/e2e_nlg/test.jsonl.gz",
            "eval.num_beams=2",
        ),
        {"bleu", "nist", "meteor", "rouge_l", "cider"},
    ),
    "gsm8k": ((*TEXT, IID, "data=gsm8k", GSM8K, "data.test_path={data}/gsm8k/test.jsonl.gz"), {"exact_match"}),
    "math": (
        (
            *TEXT,
            IID,
            "data=gsm8k",
            GSM8K,
            "data.test_path={data}/math_test/test.jsonl.gz",
            "data.test_columns=[question=problem, answer=solution]",
            "data.answer=boxed",
        ),
        {"exact_match"},
    ),
    "commonsense": (
        (*TEXT, "data=commonsense", "{commonsense}", "method=fedex_lora"),
        {"exact_match", "exact_match/boolq", "exact_match_macro"},
    ),
    "commonsense-options": (
        (*TEXT, "data=commonsense", "{commonsense}", "eval.protocol=options"),
        {"accuracy", "accuracy/boolq", "accuracy_macro"},
    ),
    "topics": (
        (
            *TEXT,
            "data=dolly",
            DOLLY,
            "data.label=null",
            "partition.name=topics",
        ),
        {"rouge_l", "bleu_4"},
    ),
    **{
        f"glue-{task}": ((*ENCODER, f"data=glue/{task}", *GLUE.replace("{task}", task).split(), *partition), scores)
        for task, scores, partition in (
            ("cola", {"mcc", "accuracy"}, ()),
            ("rte", {"accuracy"}, ()),
            ("mrpc", {"f1", "accuracy"}, ()),
            ("sst2", {"accuracy"}, (IID,)),
            ("qnli", {"accuracy"}, ()),
            ("stsb", {"pearson", "spearman"}, (IID,)),
        )
    },
}
COMMONSENSE = "data.path={data}/commonsense/train_51k.jsonl.gz data.test_path={data}/commonsense/test_7tasks.jsonl.gz"


@pytest.mark.parametrize("case", CASES)
def test_a_short_run_on_the_real_file(case: str, zygote: Zygote, shared_folder: Path) -> None:
    given, scores = CASES[case]
    words = " ".join(given).replace("{commonsense}", COMMONSENSE)
    words = words.replace("{train}", "train_2k" if case == "glue-qnli" else "train")
    words = words.replace("{data}", str(shared_folder / "data")).replace("{models}", str(shared_folder / "models"))
    # Only the list of columns has a space in it.
    arguments = tuple(words.replace(", ", ",").split())
    zygote.run(case, *merge(list(SMALL), arguments))
    records = [json.loads(line) for line in (zygote.folder / case / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 3
    if set(TEXT) <= set(given):  # the others begin from random weights
        assert records[2]["global/loss"] < records[0]["global/loss"]
    assert {f"global/{name}" for name in scores} <= records[2].keys()
    partition = json.loads((zygote.folder / case / "partition.json").read_text())
    if case == "dolly-authors-shards":
        assert partition["clients"][0]["train_labels"].keys() == {"open_qa", "creative_writing"}
    print(case, {name: records[2][f"global/{name}"] for name in sorted(scores) if "confusion" not in name})
