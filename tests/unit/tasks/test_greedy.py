"""Greedy decoding that rows leave says, token by token, what transformers' generate says, and computes no more."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM as AnyModel
from transformers import (
    BloomConfig,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    Qwen3Config,
)

from fedlit.config import EvalConfig
from fedlit.data.collation import Example
from fedlit.models.decoding import RoomyLayer, decodes_alone
from fedlit.models.rows_left import listening
from fedlit.tasks import generation
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.generation import StopTexts, generate
from fedlit.tasks.greedy import StopFinder

CPU = torch.device("cpu")
NUM_TOKENS, LONGEST = 24, 20
COMMON: dict[str, Any] = {"vocab_size": NUM_TOKENS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL: dict[str, Any] = {
    **COMMON,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.7,
}
GROUPED: dict[str, Any] = {**SMALL, "num_key_value_heads": 1, "head_dim": 8}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL),
    "mistral, a window of 6 tokens": MistralConfig(**GROUPED, sliding_window=6),
    "gemma 2, every other layer a window of 6 tokens": Gemma2Config(**GROUPED, sliding_window=6),
    "qwen 3": Qwen3Config(**GROUPED),
    "gpt2": GPT2Config(**COMMON, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.7),
    "opt": OPTConfig(
        **COMMON, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64,
        word_embed_proj_dim=16, init_std=0.7,
    ),
}  # fmt: skip


class Letters:
    """Token 3 is d, and so on; the first three are special."""

    eos_token_id = 2

    def batch_decode(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(chr(97 + token) for token in sequence if token > 2) for sequence in sequences]


def build(config: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AnyModel.from_config(config).eval()


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    """A random model of each architecture, which its configuration does not let through its own code."""
    return build(CONFIGS[request.param])


@pytest.fixture(scope="module")
def llama() -> Any:
    return build(CONFIGS["llama"])


def draw_prompts(num_rows: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[1, *(draw.randrange(3, NUM_TOKENS) for _ in range(draw.randrange(12)))] for _ in range(num_rows)]


def both(model: Any, prompts: Sequence[Sequence[int]], monkeypatch: Any, **given: Any) -> list[list[list[int]]]:
    """Return what rows that leave say, and what transformers' generate says."""
    end_ids = given.pop("end_ids", None)
    settings = EvalConfig(**{"max_new_tokens": LONGEST, **given})
    found = []
    for alone in (True, False):
        with monkeypatch.context() as patched:
            patched.setattr(generation, "decodes_alone", lambda _model, alone=alone: alone)
            found.append(generate(model, Letters(), prompts, settings, pad_id=0, device=CPU, end_ids=end_ids))
    return found


SETTINGS: list[dict[str, Any]] = [
    {},
    {"end_ids": [2, 5, 9]},
    {"end_ids": [7]},
    {"stop": ["ef", "k"]},
    {"stop": ["e", "hij", "u"], "end_ids": [2, 4]},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2, "end_ids": [2, 3]},
    {"no_repeat_ngram_size": 3, "stop": ["m"]},
    {"max_new_tokens": 1},
    {"max_new_tokens": 2, "no_repeat_ngram_size": 4, "end_ids": [11, 12, 13]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_row_says_what_transformers_says(
    model: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert decodes_alone(model)
    for seed in range(3):
        mine, theirs = both(model, draw_prompts(12, seed), monkeypatch, **settings)
        assert mine == theirs


def test_so_it_is_where_nothing_is_padded_and_for_one_row(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [prompt for prompt in draw_prompts(200) if len(prompt) == 5]
    assert len(prompts) > 8
    for some in (prompts, prompts[:1], draw_prompts(1, 5)):
        mine, theirs = both(llama, some, monkeypatch, end_ids=[2, 5, 9])
        assert mine == theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_is_rare_that_fewer_rows_choose_another_token(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of fewer rows may differ in the last bit; here no row says another thing."""
    model, differing = build(LlamaConfig(**SMALL)).to(dtype), 0
    for seed in range(12):
        mine, theirs = both(model, draw_prompts(32, seed), monkeypatch, end_ids=[2, 5, 9])
        differing += sum(one != other for one, other in zip(mine, theirs, strict=True))
    assert differing <= 1, "of 384"


def test_a_row_takes_part_until_it_has_ended_and_no_longer(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, ends = draw_prompts(32), [2, 5, 9]
    sizes: list[int] = []
    handle = llama.register_forward_hook(lambda _module, _given, output: sizes.append(len(output.logits)))
    try:
        rows, same = both(llama, prompts, monkeypatch, end_ids=ends)
    finally:
        handle.remove()
    assert rows == same
    said = [next((place for place, token in enumerate(row, 1) if token in ends), LONGEST) for row in rows]
    steps = max(said)
    assert sizes[:steps] == [sum(length >= step for length in said) for step in range(1, steps + 1)]
    assert sizes[steps:] == [32] * steps, "transformers goes on with all"
    assert sum(sizes[:steps]) < 0.7 * sum(sizes[steps:])
    assert len(set(said)) > 5, "they leave one after the other"


def test_rows_leave_at_a_stop_text_and_what_they_say_is_not_in_the_way(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    handle = llama.register_forward_hook(lambda _module, _given, output: sizes.append(len(output.logits)))
    try:
        mine, theirs = both(llama, draw_prompts(16), monkeypatch, stop=["e", "s"])
    finally:
        handle.remove()
    assert mine == theirs
    half = len(sizes) // 2
    assert sizes[:half] == sorted(sizes[:half], reverse=True)
    assert sizes[half - 1] < 16 == sizes[half] == sizes[-1]


def test_who_listens_knows_which_rows_are_left(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what was told the rows of every forward pass are known: whose they are is counted by that."""
    left, sizes = 0, []

    def hear(kept: Sequence[int] | None, num_before: int) -> None:
        nonlocal left
        assert left in (0, num_before) or kept is None
        left = num_before if kept is None else len(kept)

    handle = llama.register_forward_hook(lambda _module, _given, output: sizes.append((left, len(output.logits))))
    try:
        with listening(hear):
            both(llama, draw_prompts(16), monkeypatch, stop=["e", "s"])
    finally:
        handle.remove()
    own = sizes[: len(sizes) // 2]
    assert len({seen for _, seen in own}) > 2
    assert all(told == seen for told, seen in own)


@pytest.mark.parametrize("rule", [{"repetition_penalty": 1.3}, {"min_new_tokens": 3}, {"suppress_tokens": [4]}])
def test_a_model_with_rules_of_its_own_is_left_to_transformers(rule: dict[str, Any]) -> None:
    model = build(CONFIGS["llama"])
    assert decodes_alone(model)
    model.generation_config.update(**rule)
    assert not decodes_alone(model)
    expected = model.generate(torch.tensor([[1, 5]]), attention_mask=torch.ones(1, 2), max_new_tokens=9, eos_token_id=2)
    evaluation = EvalConfig(max_new_tokens=9)
    assert generate(model, Letters(), [[1, 5]], evaluation, pad_id=0, device=CPU) == expected[:, 2:].tolist()


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(**COMMON, hidden_size=16, state_size=4, num_hidden_layers=2),
        BloomConfig(**COMMON, hidden_size=16, n_layer=2, n_head=2),
        Phi3Config(**GROUPED),
    ],
    ids=lambda config: config.model_type,
)
def test_a_model_that_keeps_or_prepares_something_else_is_left_to_transformers(config: Any) -> None:
    model = build(config)
    assert not decodes_alone(model)
    rows = generate(model, Letters(), draw_prompts(3), EvalConfig(max_new_tokens=4), pad_id=0, device=CPU)
    assert len(rows) == 3
    assert all(len(row) <= 4 for row in rows)


def test_a_cache_with_room_holds_what_transformers_cache_holds() -> None:
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randn(5, 2, length, 4, generator=draw) for length in (7, 1, 1, 1)]
    mine, theirs = RoomyLayer(3), DynamicCache()
    kept = torch.tensor([0, 3, 4])
    for number, states in enumerate(whole):
        part = states if number < 2 else states[kept]
        for one, other in zip(mine.update(part, -part), theirs.update(part, -part, 0), strict=True):
            assert torch.equal(one, other)
        assert mine.get_seq_length() == theirs.get_seq_length()
        if number == 1:
            mine.batch_select_indices(kept)
            theirs.batch_select_indices(kept)
            assert torch.equal(mine.keys, theirs.layers[0].keys)
            assert torch.equal(mine.values, theirs.layers[0].values)
    assert mine.keys.shape == (3, 2, 10, 4)


@hypothesis_settings(deadline=None)
@given(data=st.data())
def test_stop_texts_are_found_where_the_whole_text_has_them(tokenizer: Any, data: st.DataObject) -> None:
    """Token by token, in texts of a real tokenizer, with tokens that are parts of characters and special ones."""
    tokens = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=24))
    [text] = tokenizer.batch_decode([tokens], skip_special_tokens=True)
    places = st.integers(0, max(len(text) - 1, 0))
    stops = [text[place : place + data.draw(st.integers(1, 4))] for place in data.draw(st.lists(places, max_size=3))]
    stops = [stop for stop in [*stops, "\n\n"] if stop and "\ufffd" not in stop]
    finder = StopFinder(texts=stops, tokenizer=tokenizer)
    criterion = StopTexts(texts=tuple(stops), tokenizer=tokenizer, num_prompt_tokens=0)
    for length in range(1, len(tokens) + 1):
        expected = bool(criterion(torch.tensor([tokens[:length]]), None))
        assert finder.found_in(tokens[:length]) == expected
        if expected:
            return


def test_texts_are_decoded_where_a_stop_may_have_ended_alone(tokenizer: Any) -> None:
    calls: list[int] = []

    class Counting:
        def batch_decode(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
            calls.append(len(sequences[0]))
            return list(tokenizer.batch_decode(sequences, skip_special_tokens=skip_special_tokens))

    tokens = tokenizer("the file is closed and the file is read", add_special_tokens=False)["input_ids"]
    finder = StopFinder(texts=["\n\n"], tokenizer=Counting())
    assert not any(finder.found_in(tokens[:length]) for length in range(1, len(tokens) + 1))
    assert calls == [2] * len(set(tokens)), "each token once, the text never"


def test_an_evaluation_says_the_same_however_its_batches_are_dealt(
    make_task: Callable[..., CausalLM], small_llama: Callable[..., nn.Module], examples: list[Example]
) -> None:
    """Batches are composed once, and what a row says depends on its batch alone: as two processes would share them."""
    model, task = small_llama().eval(), make_task(max_new_tokens=12, stop=["e"])
    batches = task.evaluation_batches(examples, 4)

    def answers(part: Sequence[Sequence[Example]]) -> list[Any]:
        metrics = task.metrics()
        return [sample for batch in part for sample in task.evaluate(model, batch, metrics, CPU)]

    shared = [*answers(batches[::2]), *answers(batches[1::2])]
    by_prompt = lambda sample: sample.prompt  # noqa: E731
    assert sorted(shared, key=by_prompt) == sorted(answers(batches), key=by_prompt)
