"""Beams, n-grams and stop texts: each response depends on its own prompt alone, and is what its definition says."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation import NoRepeatNGramLogitsProcessor

from fedlit.config import EvalConfig
from fedlit.data.collation import Example
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.generation import NoRepeatedNgrams, cut_at_stop, generate

CPU = torch.device("cpu")
END, NUM_TOKENS = 2, 12
MakeTask = Callable[..., CausalLM]


class Letters:
    """As much of a tokenizer as decoding needs: token 3 is d, and the first three are special."""

    eos_token_id = END

    def batch_decode(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        assert skip_special_tokens
        return ["".join(chr(97 + token) for token in sequence if token > END) for sequence in sequences]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A random Llama that knows 12 tokens and has strong opinions."""
    config = LlamaConfig(
        vocab_size=NUM_TOKENS,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        initializer_range=0.9,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=END,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LlamaForCausalLM(config).eval()


PROMPTS = [[1, 5, 6], [1, 7], [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 3, 4], [1, 11, 11, 11, 11], [1], [1, 9, 4, 9, 4, 9]]


def respond(model: nn.Module, prompts: Sequence[Sequence[int]], pad_id: int = END, **settings: Any) -> list[list[int]]:
    """Return what follows each prompt up to its end; what a stop text cuts short is padded."""
    evaluation = EvalConfig(**{"max_new_tokens": 10, **settings})
    rows = generate(model, Letters(), prompts, evaluation, pad_id=pad_id, device=CPU)
    return [row[: row.index(END)] if END in row else row for row in rows]


SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_beams": 4},
    {"num_beams": 3, "length_penalty": 0.2},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"num_beams": 4, "length_penalty": 0.9, "no_repeat_ngram_size": 3},
    {"stop": ["ef", "k"]},
    {"num_beams": 4, "stop": ["ef", "k"]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("pad_id", [0, END])
def test_a_response_does_not_depend_on_its_batch(model: nn.Module, settings: dict[str, Any], pad_id: int) -> None:
    alone = [respond(model, [prompt], pad_id, **settings)[0] for prompt in PROMPTS]
    together = respond(model, PROMPTS, pad_id, **settings)
    backwards = respond(model, PROMPTS[::-1], pad_id, **settings)[::-1]
    if not settings.get("stop"):
        assert alone == together == backwards
    stop = settings.get("stop", [])
    texts = [[cut_at_stop(text, stop) for text in Letters().batch_decode(rows, True)] for rows in (alone, together)]
    assert texts[0] == texts[1]
    assert len(set(map(tuple, alone))) > 3


@torch.no_grad()
def log_probabilities(model: nn.Module, prompt: Sequence[int], responses: Sequence[Sequence[int]]) -> list[float]:
    """Return the log-probability of each response; they are of one length."""
    labels = torch.tensor(responses)
    logits = model(torch.tensor([[*prompt, *response] for response in responses])).logits.double().log_softmax(-1)
    return logits[:, len(prompt) - 1 : -1].gather(2, labels.unsqueeze(2)).sum((1, 2)).tolist()


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_a_search_with_a_beam_for_everything_finds_the_best(model: nn.Module, length_penalty: float) -> None:
    """All responses of at most 3 tokens, scored one by one: log-probability / length ** penalty, the end counted."""
    others = [token for token in range(NUM_TOKENS) if token != END]
    everything = [
        [
            [*start, last]
            for start in product(others, repeat=length)
            for last in ([END] if length < 2 else [*others, END])
        ]
        for length in (0, 1, 2)
    ]
    found = []
    for prompt in PROMPTS[:3]:
        scores = {
            tuple(response): score / len(response) ** length_penalty
            for responses in everything
            for response, score in zip(responses, log_probabilities(model, prompt, responses), strict=True)
        }
        best = list(max(scores, key=scores.__getitem__))
        expected = best[: best.index(END)] if END in best else best
        beams = {"num_beams": NUM_TOKENS**2, "length_penalty": length_penalty, "max_new_tokens": 3}
        assert respond(model, [prompt], **beams) == [expected]
        found.append(len(best))
    if length_penalty == 0:
        assert min(found) < 3, "a short response can win"


def test_beams_find_what_greedy_decoding_does_not(model: nn.Module) -> None:
    greedy, beams = respond(model, PROMPTS), respond(model, PROMPTS, num_beams=6, length_penalty=0.0)
    better = 0
    for prompt, one, other in zip(PROMPTS, greedy, beams, strict=True):
        ended = [each if len(each) == 10 else [*each, END] for each in (one, other)]
        scores = [log_probabilities(model, prompt, [each])[0] for each in ended]
        assert scores[1] >= scores[0] - 1e-4
        better += scores[1] > scores[0] + 1e-4
    assert better > 0


def has_repeats(tokens: Sequence[int], size: int) -> bool:
    ngrams = [tuple(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]
    return len(ngrams) > len(set(ngrams))


@pytest.mark.parametrize("num_beams", [1, 3])
def test_no_ngram_comes_twice_but_the_prompt_s_may_come(model: nn.Module, num_beams: int) -> None:
    free = respond(model, PROMPTS, max_new_tokens=24, num_beams=num_beams)
    for size in (1, 2, 3):
        assert any(has_repeats(tokens, size) for tokens in free), "or the limit has nothing to do"
        limited = respond(model, PROMPTS, max_new_tokens=24, num_beams=num_beams, no_repeat_ngram_size=size)
        assert not any(has_repeats(tokens, size) for tokens in limited)
    limited = respond(model, PROMPTS, num_beams=num_beams, no_repeat_ngram_size=1)
    assert any(set(prompt) & set(tokens) for prompt, tokens in zip(PROMPTS, limited, strict=True))


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=9, max_size=9), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_the_limit_is_that_of_transformers_on_what_was_generated(
    rows: list[list[int]], size: int, num_prompt_tokens: int
) -> None:
    ids, scores = torch.tensor(rows), torch.arange(5.0).repeat(len(rows), 1)
    limited = NoRepeatedNgrams(size=size, num_prompt_tokens=num_prompt_tokens)(ids, scores)
    generated = ids[:, num_prompt_tokens:]
    expected = NoRepeatNGramLogitsProcessor(size)(generated, scores) if generated.shape[1] else scores
    assert torch.equal(limited, expected)
    assert torch.equal(scores, torch.arange(5.0).repeat(len(rows), 1)), "the scores given stay as they are"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("abcabc", ["c"], "ab"),
        ("abcabc", ["x", "bc", "ca"], "a"),
        ("abc", [], "abc"),
        ("abc", ["abcd"], "abc"),
        ("abc", ["a"], ""),
        ("", ["a"], ""),
    ],
)
def test_a_text_is_cut_at_the_first_stop(text: str, stop: list[str], expected: str) -> None:
    assert cut_at_stop(text, stop) == expected


def test_greedy_decoding_ends_at_a_stop_text_and_says_the_same(model: nn.Module) -> None:
    free = Letters().batch_decode(respond(model, PROMPTS, max_new_tokens=20), True)
    stop = [free[0][3:5], free[4][2:4]]
    assert len(stop[0]) == len(stop[1]) == 2, free
    calls: list[int] = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        stopped = Letters().batch_decode(respond(model, PROMPTS[:1], max_new_tokens=20, stop=stop), True)
        num_calls = len(calls)
        calls.clear()
        all_stopped = Letters().batch_decode(respond(model, PROMPTS, max_new_tokens=20, stop=stop), True)
    finally:
        handle.remove()
    assert num_calls < 10, "the row was done"
    assert cut_at_stop(stopped[0], stop) == cut_at_stop(free[0], stop)
    assert [cut_at_stop(text, stop) for text in all_stopped] == [cut_at_stop(text, stop) for text in free]
    assert all_stopped != free


def test_a_stop_text_in_the_prompt_stops_nothing(model: nn.Module) -> None:
    assert Letters().batch_decode([PROMPTS[0]], True) == ["fg"]
    (response,) = respond(model, PROMPTS[:1], stop=["fg"], max_new_tokens=6)
    (free,) = respond(model, PROMPTS[:1], max_new_tokens=6)
    assert "fg" not in Letters().batch_decode([free], True)[0]
    assert response == free


def test_the_prediction_is_cut_and_then_stripped(
    make_task: MakeTask, small_llama: Callable[..., nn.Module], examples: list[Example], tokenizer: Any
) -> None:
    model = small_llama().eval()
    plain = make_task(max_new_tokens=8)
    whole = [sample.prediction for sample in plain.evaluate(model, examples, plain.metrics(), CPU)]
    stop = whole[0][len(whole[0]) // 2 :][:2]
    task = make_task(max_new_tokens=8, stop=[stop])
    cut = [sample.prediction for sample in task.evaluate(model, examples, task.metrics(), CPU)]
    assert cut[0] != whole[0]
    assert cut == [cut_at_stop(text, [stop]).strip() for text in whole]
