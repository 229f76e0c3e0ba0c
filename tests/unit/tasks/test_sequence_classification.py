"""Texts and pairs become batches whose padding no architecture sees, and the loss and scores are the stated ones."""

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from fedlit.config import DataConfig, LocalConfig, ModelConfig, RunConfig
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS, Backbone, Purpose, load_backbone
from fedlit.tasks.sequence_classification.task import SequenceClassification, TextExample

CLASSES = ("bad", "fair", "good")
WORDS = ("a plane", "is taking off", "two men, one of them", "play", "the flute", "in a very small park", "at night")
ROWS = [
    {
        "first": " ".join(WORDS[(i * k) % 7] for k in range(1, 2 + i % 5)),
        "second": " ".join(WORDS[(i + k) % 7] for k in range(1 + i % 3)),
        "label": i % 3,
        "score": i / 4,
    }
    for i in range(12)
]


def config(*, pair: bool = False, regression: bool = False, length: int = 64, smoothing: float = 0.0) -> RunConfig:
    return RunConfig(
        data=DataConfig(
            task="sequence_classification",
            text=["first", "second"] if pair else ["first"],
            target="score" if regression else "label",
            regression=regression,
        ),
        model=ModelConfig(path="roberta_small", weights="random", tokenizer="tiny", max_length_tokens=length),
        local=LocalConfig(label_smoothing=smoothing),
    )


def packaged(name: str, given: RunConfig) -> Backbone:
    purpose = Purpose(
        task="sequence_classification",
        classes=() if given.data.regression else CLASSES,
        regression=given.data.regression,
    )
    return load_backbone(
        ModelConfig(path=name, weights="random", tokenizer="tiny", max_length_tokens=given.model.max_length_tokens),
        purpose,
    )


def decoder(kind: str, given: RunConfig, tokenizer: Any) -> Backbone:
    """Return a small decoder with a head whose configuration names no token for padding."""
    head = {
        "num_labels": 1 if given.data.regression else 3,
        "id2label": {0: "number"} if given.data.regression else dict(enumerate(CLASSES)),
        "pad_token_id": None,
        "vocab_size": 2048,
    }
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2ForSequenceClassification(GPT2Config(**head, n_embd=24, n_layer=2, n_head=2, n_positions=256))
    else:
        model = LlamaForSequenceClassification(
            LlamaConfig(**head, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4)
        )
    return Backbone(model=model, tokenizer=tokenizer, projections=PROJECTIONS[kind])


def word_tokenizer(*, pad: str | None = "<pad>", eos: str | None = "</s>", pairs: bool = True) -> Any:
    """Return a tokenizer of words that closes and separates texts, as BERT's does."""
    words = sorted({word for row in ROWS for word in f"{row['first']} {row['second']}".split()})
    raw = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}, "<unk>")
    )
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if pairs:
        raw.post_processor = TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = {"unk_token": "<unk>", "pad_token": pad, "eos_token": eos}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, **{name: value for name, value in names.items() if value is not None}
    )


def backbone_of(kind: str, given: RunConfig, tokenizer: Any) -> Backbone:
    return packaged(kind, given) if kind.endswith("_small") else decoder(kind, given, tokenizer)


@pytest.fixture
def without_pad(tokenizer: Any) -> Any:
    """The packaged tokenizer as GPT-2's comes: an end-of-text token and none for padding."""
    other = deepcopy(tokenizer)
    other.pad_token = None
    return other


def built(given: RunConfig, backbone: Backbone) -> SequenceClassification:
    return SequenceClassification.build(given, backbone)


def test_a_text_is_its_tokens_and_its_class(tokenizer: Any) -> None:
    given = config()
    task = built(given, packaged("roberta_small", given))
    examples = task.encode(ROWS)
    for row, example in zip(ROWS, examples, strict=True):
        assert list(example.token_ids) == tokenizer(row["first"])["input_ids"]
        assert (example.target, example.text, example.truncated) == (row["label"], row["first"], False)
    assert examples == [task.encode([row])[0] for row in ROWS] == task.evaluation_examples(ROWS)
    assert task.encode([]) == []


def test_a_pair_without_a_separator_gets_a_line_break(tokenizer: Any) -> None:
    given = config(pair=True)
    example = built(given, packaged("roberta_small", given)).encode(ROWS)[4]
    assert tokenizer.decode(example.token_ids, skip_special_tokens=True) == f"{ROWS[4]['first']}\n{ROWS[4]['second']}"
    assert example.text == f"{ROWS[4]['first']}\n{ROWS[4]['second']}"
    assert example.segment_ids == ()


def test_a_pair_with_a_separator_and_segments() -> None:
    """As BERT: the tokenizer's own tokens, and 0 or 1 for the text that a token is of."""
    given, tokenizer = config(pair=True), word_tokenizer()
    backbone = packaged("bert_small", given)
    task = built(given, Backbone(model=backbone.model, tokenizer=tokenizer, projections=backbone.projections))
    for row, example in zip(ROWS, task.encode(ROWS), strict=True):
        num_first, num_second = len(row["first"].split()), len(row["second"].split())
        words = tokenizer.convert_ids_to_tokens(list(example.token_ids))
        assert words == ["<s>", *row["first"].split(), "</s>", *row["second"].split(), "</s>"]
        assert example.segment_ids == (0,) * (num_first + 2) + (1,) * (num_second + 1)
    batch = task.collate(task.encode(ROWS))
    assert batch.inputs["token_type_ids"].shape == batch.inputs["input_ids"].shape
    assert int(batch.inputs["token_type_ids"][batch.inputs["attention_mask"] == 0].sum()) == 0


@pytest.mark.parametrize("length", [5, 8, 11, 100])
def test_the_longer_text_loses_its_end(length: int) -> None:
    given, tokenizer = config(pair=True, length=length), word_tokenizer()
    backbone = packaged("bert_small", given)
    task = built(given, Backbone(model=backbone.model, tokenizer=tokenizer, projections=backbone.projections))
    examples = task.encode(ROWS)
    for row, example in zip(ROWS, examples, strict=True):
        first, second = row["first"].split(), row["second"].split()
        assert example.truncated == (len(first) + len(second) + 3 > length)
        while len(first) + len(second) + 3 > length:
            (first if len(first) > len(second) else second).pop()
        words = tokenizer.convert_ids_to_tokens(list(example.token_ids))
        assert len(words) == len(first) + len(second) + 3
        assert words[0] == "<s>" and words[-1] == "</s>" and words.count("</s>") == 2
        middle = words.index("</s>")
        assert words[1:middle] == row["first"].split()[: middle - 1]
        assert words[middle + 1 : -1] == row["second"].split()[: len(words) - middle - 2]
        assert min(middle - 1, len(words) - middle - 2) >= 1
    assert {example.truncated for example in examples} == {length == 5, length < 100}
    assert [example.text for example in examples] == [f"{row['first']}\n{row['second']}" for row in ROWS]


@pytest.mark.parametrize("regression", [False, True])
def test_a_batch_is_padded_on_the_right(regression: bool) -> None:
    given = config(regression=regression)
    task = built(given, packaged("roberta_small", given))
    examples = task.encode(ROWS)
    batch = task.collate(examples).to(torch.device("cpu"))
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    assert set(batch.inputs) == {"input_ids", "attention_mask"}
    for row, example in enumerate(examples):
        length = len(example.token_ids)
        assert ids[row].tolist() == [*example.token_ids, *[0] * (ids.shape[1] - length)]
        assert mask[row].tolist() == [1] * length + [0] * (ids.shape[1] - length)
    assert batch.num_targets == len(ROWS)
    assert batch.targets.dtype == (torch.float32 if regression else torch.int64)
    assert batch.targets.tolist() == [row["score" if regression else "label"] for row in ROWS]


@pytest.mark.parametrize("kind", ["roberta_small", "bert_small", "llama", "gpt2"])
@pytest.mark.parametrize("regression", [False, True])
def test_padding_changes_no_output(kind: str, regression: bool, without_pad: Any) -> None:
    """The decoders have no token for padding: the end of a text stands for it, in the batches and in the model."""
    given = config(pair=True, regression=regression)
    backbone = backbone_of(kind, given, without_pad)
    task, model = built(given, backbone), backbone.model.eval()
    examples = task.encode(ROWS)
    assert len({len(example.token_ids) for example in examples}) > 4
    together = task._outputs(model, task.collate(examples))
    assert together.shape == ((12,) if regression else (12, 3))
    assert together.dtype == torch.float32
    alone = torch.cat([task._outputs(model, task.collate([example])) for example in examples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert len({round(value, 4) for value in together.view(12, -1)[:, 0].tolist()}) > 4, "outputs tell texts apart"


@pytest.mark.parametrize("kind", ["roberta_small", "llama"])
@pytest.mark.parametrize("regression", [False, True])
def test_the_loss_is_that_of_transformers(kind: str, regression: bool, tokenizer: Any) -> None:
    given = config(regression=regression)
    backbone = backbone_of(kind, given, tokenizer)
    task, model = built(given, backbone), backbone.model.eval()
    batch = task.collate(task.encode(ROWS))
    expected = model(**batch.inputs, labels=batch.targets).loss
    torch.testing.assert_close(task.loss(model, batch), expected)


@pytest.mark.parametrize("kind", ["roberta_small", "bert_small", "llama"])
@pytest.mark.parametrize("regression", [False, True])
def test_joined_batches_have_the_loss_of_each(kind: str, regression: bool, tokenizer: Any) -> None:
    given = config(pair=True, regression=regression, smoothing=0.0 if regression else 0.2)
    backbone = backbone_of(kind, given, tokenizer)
    task, model = built(given, backbone), backbone.model.eval()
    examples = task.encode(ROWS)
    batches = [task.collate(part) for part in (examples[:5], examples[5:6], examples[6:])]
    joined = task.join(batches)
    assert joined.rows == joined.targets == (5, 1, 6)
    assert joined.widths == tuple(batch.inputs["input_ids"].shape[1] for batch in batches)
    assert len(set(joined.widths)) > 1
    alone = torch.stack([task.loss(model, batch) for batch in batches])
    torch.testing.assert_close(task.losses(model, joined), alone, rtol=1e-4, atol=1e-5)


def test_label_smoothing_spreads_over_the_classes() -> None:
    given = config(smoothing=0.3)
    backbone = packaged("roberta_small", given)
    task, model = built(given, backbone), backbone.model.eval()
    batch = task.collate(task.encode(ROWS))
    wanted = 0.7 * functional.one_hot(batch.targets, 3).float() + 0.3 / 3
    expected = -(wanted * task._outputs(model, batch).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(task.loss(model, batch), expected)


@pytest.mark.parametrize(
    ("in_tokenizer", "in_model", "end", "expected"),
    [
        (0, None, 2, 0),
        (0, 5, 2, 0),
        (None, 5, 2, 5),
        (None, None, 2, 2),
        (None, -1, 2, 2),  # of the first Llama checkpoints
        (2048, None, 2, 2),  # added to a tokenizer, not to the embeddings
        (2048, 5, 2, 5),
    ],
)
def test_the_id_of_padding(
    in_tokenizer: int | None, in_model: int | None, end: int, expected: int, tokenizer: Any
) -> None:
    class Given:
        pad_token_id, eos_token_id = in_tokenizer, end
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

    given = config()
    backbone = decoder("llama", given, Given())
    backbone.model.config.pad_token_id = in_model  # type: ignore[union-attr]
    assert built(given, backbone).pad_id == expected == backbone.model.config.pad_token_id  # type: ignore[union-attr]


def test_no_token_for_padding_at_all() -> None:
    given = config()
    backbone = decoder("gpt2", given, word_tokenizer(pad=None, eos=None))
    with pytest.raises(UserError, match=r"neither a padding token nor an end-of-text token.*set pad_token"):
        built(given, backbone)


def test_no_room_for_a_text() -> None:
    for pair, fewest in ((False, 3), (True, 5)):
        for length in (fewest - 1, fewest):
            given = config(pair=pair, length=length)
            backbone = decoder("llama", given, word_tokenizer())
            if length == fewest:
                (example,) = built(given, backbone).encode(ROWS[4:5])
                assert (len(example.token_ids), example.truncated) == (fewest, True)
            else:
                with pytest.raises(UserError, match=f"max_length_tokens={length} leaves no room.*at least {fewest}"):
                    built(given, backbone)


def test_evaluation_batches_hold_every_example_once_by_length() -> None:
    given = config()
    task = built(given, packaged("roberta_small", given))
    examples = task.encode(ROWS)
    batches = task.evaluation_batches(examples, 5)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    lengths = [len(example.token_ids) for batch in batches for example in batch]
    assert lengths == sorted(lengths)
    assert sorted((e.text, e.target) for batch in batches for e in batch) == sorted(
        (e.text, e.target) for e in examples
    )


def run(task: SequenceClassification, model: Any, batches: Sequence[Sequence[TextExample]]) -> tuple[Any, Any]:
    metrics = task.metrics()
    samples = [s for batch in batches for s in task.evaluate(model, batch, metrics, torch.device("cpu"))]
    return {name: metric.compute() for name, metric in metrics.items()}, samples


def test_evaluation_of_classes() -> None:
    given = config(pair=True, smoothing=0.3)
    backbone = packaged("roberta_small", given)
    task, model = built(given, backbone), backbone.model.eval()
    batches = task.evaluation_batches(task.encode(ROWS), 5)
    results, samples = run(task, model, batches)
    outputs = torch.cat([task._outputs(model, task.collate(batch)) for batch in batches])
    targets = torch.tensor([int(example.target) for batch in batches for example in batch])
    assert results["loss"].item() == pytest.approx(functional.cross_entropy(outputs, targets).item(), rel=1e-6)
    assert results["classes"]["accuracy"].item() == (outputs.argmax(-1) == targets).double().mean().item()
    assert results["classes"]["confusion_matrix"].sum(1).tolist() == [4, 4, 4]
    assert [sample.reference for sample in samples] == [CLASSES[target] for target in targets.tolist()]
    assert [sample.prediction for sample in samples] == [CLASSES[number] for number in outputs.argmax(-1).tolist()]
    assert {sample.prompt for sample in samples} == {f"{row['first']}\n{row['second']}" for row in ROWS}
    backwards, _ = run(task, model, batches[::-1])
    assert {name: value.tolist() for name, value in results["classes"].items()} == {
        name: value.tolist() for name, value in backwards["classes"].items()
    }
    assert results["loss"].item().hex() == backwards["loss"].item().hex()


def test_evaluation_of_numbers() -> None:
    given = config(regression=True)
    backbone = packaged("roberta_small", given)
    task, model = built(given, backbone), backbone.model.eval()
    batches = task.evaluation_batches(task.encode(ROWS), 5)
    results, samples = run(task, model, batches)
    outputs = torch.cat([task._outputs(model, task.collate(batch)) for batch in batches])
    targets = torch.tensor([example.target for batch in batches for example in batch])
    assert results["loss"].item() == pytest.approx((outputs - targets).square().mean().item(), rel=1e-6)
    expected = torch.corrcoef(torch.stack([outputs, targets]).double())[0, 1].item()
    assert results["numbers"]["pearson"].item() == pytest.approx(expected, abs=1e-9)
    assert [sample.reference for sample in samples] == [f"{target:.4g}" for target in targets.tolist()]
    assert [sample.prediction for sample in samples] == [f"{output:.4g}" for output in outputs.tolist()]


def test_the_classes_are_the_models_own() -> None:
    given = config()
    task = built(given, packaged("bert_small", given))
    assert task.classes == CLASSES
    assert [example.target for example in task.encode([ROWS[0] | {"label": name} for name in CLASSES])] == [0, 1, 2]
    number = config(regression=True)
    assert built(number, packaged("bert_small", number)).classes == ()


@pytest.mark.parametrize("name", ["roberta_small", "bert_small"])
def test_the_packaged_backbones(name: str, tokenizer: Any) -> None:
    """Their embeddings fit the packaged tokenizer, and their 256 positions a text of 256 tokens and none longer."""
    given = config(length=256)
    backbone = packaged(name, given)
    model: Any = backbone.model.eval()
    assert 300_000 < sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    task = built(given, backbone)
    (example,) = task.encode([{"first": "plane " * 400, "label": 0}])
    assert (len(example.token_ids), example.truncated) == (256, True)
    assert math.isfinite(float(task.loss(model, task.collate([example]))))
    with pytest.raises(UserError, match="reads 256 tokens"):
        packaged(name, config(length=257))


@pytest.mark.parametrize("kind", ["roberta_small", "llama"])
def test_it_learns(kind: str, tokenizer: Any) -> None:
    given = config()
    backbone = backbone_of(kind, given, tokenizer)
    task, model = built(given, backbone), backbone.model.requires_grad_(True)
    rows = [{"first": f"{word} {i}", "label": number} for number, word in enumerate(WORDS[:3]) for i in range(4)]
    examples = task.encode(rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(25):
            task.loss(model, task.collate(examples)).backward()
            optimizer.step()
            optimizer.zero_grad()
    results, _ = run(task, model.eval(), task.evaluation_batches(examples, 4))
    assert results["classes"]["accuracy"].item() == 1.0
    assert results["loss"].item() < 0.3


def test_bfloat16_outputs_are_scored_in_float32(without_pad: Any) -> None:
    given = config()
    backbone = decoder("llama", given, without_pad)
    task, model = built(given, backbone), backbone.model.to(torch.bfloat16).eval()
    assert task.loss(model, task.collate(task.encode(ROWS))).dtype == torch.float32


def test_a_mask_goes_to_the_model_where_something_is_padded() -> None:
    """And only there: transformers would read from the device whether it may leave out one of ones."""
    given = config()
    task = built(given, packaged("roberta_small", given))
    short, long = sorted(task.encode(ROWS), key=lambda example: len(example.token_ids))[:: len(ROWS) - 1]
    cpu = torch.device("cpu")
    assert set(task.collate([short, long]).to(cpu).inputs) == {"input_ids", "attention_mask"}
    assert set(task.collate([short, short]).to(cpu).inputs) == {"input_ids"}
