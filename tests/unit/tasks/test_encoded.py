"""Rows are encoded once in a run, and train as they would if they were encoded each time."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fedlit.config import DataConfig, EvalConfig
from fedlit.data.collation import Example
from fedlit.data.scratch import ScratchFile
from fedlit.models import PACKAGED
from fedlit.tasks import Task
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.encoded import NUM_AT_ONCE, ClientRows, ExampleStore, close_examples, examples_of
from fedlit.tasks.image_classification.task import ImageClassification
from fedlit.tasks.sequence_classification.task import SequenceClassification, TextExample

PLACES = st.integers(0, 2**31 - 1)
SPANS = st.lists(st.tuples(PLACES, PLACES), max_size=3).map(tuple)
TOKENS = st.lists(PLACES, max_size=9).map(tuple)
WORDS = ("read", "the file", "and close", "it", "then", "write", "é 漢字")


@given(TOKENS, PLACES, st.booleans(), SPANS)
def test_an_example_comes_back_without_its_texts(
    token_ids: tuple[int, ...], num: int, truncated: bool, learned: tuple[tuple[int, int], ...]
) -> None:
    example = Example(
        token_ids=token_ids, num_prompt_tokens=num, prompt="p", response="r", truncated=truncated, learned=learned
    )
    found = Example.unpacked(example.packed())
    assert found == replace(example, prompt="", response="")
    assert type(found.truncated) is bool


@given(TOKENS, TOKENS, st.integers(0, 99) | st.floats(allow_nan=False), st.booleans())
def test_a_classified_text_comes_back_without_it(
    token_ids: tuple[int, ...], segment_ids: tuple[int, ...], target: float, truncated: bool
) -> None:
    example = TextExample(token_ids=token_ids, segment_ids=segment_ids, target=target, text="t", truncated=truncated)
    found = TextExample.unpacked(example.packed())
    assert found == replace(example, text="")
    assert type(found.target) is type(target)


def text(i: int, longest: int = 6) -> str:
    return " ".join(WORDS[(i * k + k) % 7] for k in range(1, 2 + i % longest))


def causal(data: DataConfig, loss_on: str = "response") -> CausalLM:
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED["tiny"]) if data.messages is None else chat_tokenizer("chatml")
    return CausalLM(tokenizer=tokenizer, data=data, eval=EvalConfig(), max_length_tokens=24, loss_on=loss_on)


def classifier(data: DataConfig, *, has_segments: bool = False) -> SequenceClassification:
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED["tiny"])
    classes = () if data.regression else ("a", "b")
    return SequenceClassification(
        tokenizer=tokenizer, data=data, classes=classes, max_length_tokens=12, pad_id=0, has_segments=has_segments
    )


def pairs(**more: Any) -> DataConfig:
    return DataConfig(task="sequence_classification", text=["prompt", "response"], target="label", **more)


TASKS: Mapping[str, Callable[[], Task[Any, Any]]] = {
    "prompts": lambda: causal(DataConfig()),
    "all tokens": lambda: causal(DataConfig(), "all"),
    "plain text": lambda: causal(DataConfig(text="response", label=None)),
    "chats": lambda: causal(DataConfig(messages="messages")),
    "classes": lambda: classifier(pairs()),
    "segments": lambda: classifier(pairs(), has_segments=True),
    "numbers": lambda: classifier(replace(pairs(regression=True), target="score")),
}
ROWS: list[dict[str, Any]] = [
    {
        "prompt": text(i),
        "response": text(i + 3, 9),
        "label": "ab"[i % 2],
        "score": i / 4,
        "messages": [
            {"role": role, "content": text(i + k, 9)} for k, role in enumerate(("user", "assistant") * (1 + i % 2))
        ],
    }
    for i in range(30)
]


def tensors(batch: Any) -> list[torch.Tensor]:
    values = [getattr(batch, name) for name in batch.__slots__]
    flat = [each for value in values for each in (value.values() if isinstance(value, Mapping) else [value])]
    return [each if isinstance(each, torch.Tensor) else torch.tensor(each) for each in flat]


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_those_of_plain_rows(name: str) -> None:
    task = TASKS[name]()
    rows = ClientRows(ROWS, range(3, 27), ExampleStore.shared(task))
    assert [*rows] == ROWS[3:27]
    assert rows[2:4] == ROWS[5:7]
    assert any(example.truncated for example in task.encode(rows)), "the cut is seen too"
    for places in ([1, 5, 2], [5, 1, 23, 8], [8, 8, 0]):
        plain, kept = examples_of(task, ROWS[3:27], places), examples_of(task, rows, places)
        assert [(e.truncated, e.num_tokens) for e in kept] == [(e.truncated, e.num_tokens) for e in plain]
        for one, other in zip(tensors(task.collate(plain)), tensors(task.collate(kept)), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    assert rows.store.num_encoded == len({1, 5, 2, 23, 8, 0})


def counting(task: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    encode = CausalLM.encode

    def counted(self: CausalLM, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        calls.append(len(rows))
        return encode(self, rows)

    monkeypatch.setattr(CausalLM, "encode", counted)
    return calls


def test_another_process_finds_what_one_has_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    task = causal(DataConfig())
    calls = counting(task, monkeypatch)
    one = ExampleStore.shared(task)
    other = ExampleStore(task=task, kind=Example, examples=one.examples, entries=one.entries)
    assert one.of([4, 9], [ROWS[4], ROWS[9]]) == other.of([4, 9], [])
    other.of([9, 2], [ROWS[9], ROWS[2]])
    assert one.of([2], []) == task.encode([]) + other.of([2], [])
    assert calls == [2, 1, 0]


def test_few_rows_are_given_to_the_tokenizer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task = causal(DataConfig())
    calls = counting(task, monkeypatch)
    num = 2 * NUM_AT_ONCE + 3
    rows = [{"prompt": f"p {i}", "response": f"r {i}"} for i in range(num)]
    found = ExampleStore.shared(task).of(range(num), rows)
    assert calls == [NUM_AT_ONCE, NUM_AT_ONCE, 3]
    assert [example.token_ids for example in found] == [example.token_ids for example in task.encode(rows)]


@pytest.mark.parametrize("damage", ["bytes", "place", "short"])
def test_what_is_not_wholly_written_is_encoded_anew(damage: str) -> None:
    store = ExampleStore.shared(causal(DataConfig()))
    assert store.examples is not None
    assert store.entries is not None
    right = store.of([3], [ROWS[3]])
    if damage == "bytes":
        store.examples.write(16, b"\xff\xff")
    else:
        entry = store.entries.read(3 * 16, 16)
        store.entries.write(3 * 16, (b"\x07" + entry[1:]) if damage == "place" else entry[:8] + b"\xff" + entry[9:])
    assert store.of([3], [ROWS[3]]) == right
    assert store.num_encoded == 2


def test_a_full_disk_ends_the_keeping_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ExampleStore.shared(causal(DataConfig()))
    right = store.of([0, 1], ROWS[:2])

    def full(self: ScratchFile, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScratchFile, "append", full)
    assert store.of([0, 1, 2], ROWS[:3])[:2] == right
    assert store.of([0, 1], ROWS[:2]) == right
    assert store.num_encoded == 5


def test_a_folder_that_cannot_be_written_costs_the_keeping_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    store = ExampleStore.shared(causal(DataConfig()))
    assert store.examples is None
    assert [e.token_ids for e in store.of([1], [ROWS[1]])] == [e.token_ids for e in store.of([1], [ROWS[1]])]


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = ExampleStore.shared(causal(DataConfig()))
    store.of([1], [ROWS[1]])
    assert store.examples is not None
    assert [*tmp_path.iterdir()] == []


def test_images_are_encoded_each_time() -> None:
    assert ImageClassification.packed_examples is None


def num_handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_run_that_has_ended_keeps_no_files_open() -> None:
    """And who asks afterwards is answered: rows are encoded anew."""
    task = causal(DataConfig())
    handles = num_handles()
    rows = ClientRows(ROWS, [0], ExampleStore.shared(task))
    first = rows.examples([0])
    assert num_handles() > handles
    close_examples([rows, rows])
    assert num_handles() == handles
    assert [each.token_ids for each in rows.examples([0])] == [each.token_ids for each in first]
