"""Rows become prompt and response that survive a cut, and the loss projects no position without a label."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from fedlit.config import DataConfig, EvalConfig
from fedlit.data.collation import Example
from fedlit.tasks.causal_lm import CausalLM, project_only

MakeTask = Callable[..., CausalLM]
Llama = Callable[..., Any]


def word_tokenizer(post: str | None = None, *, bos: str | None = "<s>", pad: str | None = "<pad>") -> Any:
    """Return a tokenizer of words a0 ... a99 whose every text gets the special tokens of `post`."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, **{f"a{i}": i + 4 for i in range(100)}}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if post is not None:
        raw.post_processor = TemplateProcessing(single=post, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token="</s>", pad_token=pad)


def words(start: int, stop: int) -> str:
    return " ".join(f"a{i}" for i in range(start, stop))


def ids(start: int, stop: int) -> list[int]:
    return list(range(start + 4, stop + 4))


def encode_one(task: CausalLM, prompt: str, response: str) -> Example:
    (example,) = task.encode([{"prompt": prompt, "response": response}])
    return example


def test_a_row_is_prompt_response_and_end(make_task: MakeTask, tokenizer: Any) -> None:
    example = encode_one(make_task(), "def f():", "Return  é.\n漢字")
    assert example.prompt == "def f():\n"
    assert example.response == "Return  é.\n漢字"
    assert not example.truncated
    prompt_ids = example.token_ids[: example.num_prompt_tokens]
    response_ids = example.token_ids[example.num_prompt_tokens :]
    assert prompt_ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompt_ids, skip_special_tokens=True) == example.prompt
    assert response_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(response_ids, skip_special_tokens=True) == example.response
    assert example.token_ids.count(tokenizer.bos_token_id) == example.token_ids.count(tokenizer.eos_token_id) == 1


def test_no_rows(make_task: MakeTask) -> None:
    assert make_task().encode([]) == []


@pytest.mark.parametrize("post", [None, "<s> $A", "$A </s>", "<s> $A </s>"])
def test_a_tokenizer_that_closes_every_text(post: str | None, make_task: MakeTask) -> None:
    """Its end token would otherwise stand between prompt and response, or twice at the end."""
    example = encode_one(make_task(given=word_tokenizer(post)), words(0, 3), words(50, 52))
    first = [1] if post is not None and post.startswith("<s>") else []
    assert list(example.token_ids) == [*first, *ids(0, 3), *ids(50, 52), 2]
    assert example.num_prompt_tokens == len(first) + 3


def test_a_tokenizer_whose_first_token_is_its_end(make_task: MakeTask) -> None:
    """As GPT-2's, and the LLaMA conversions beside the repository: `<s>` opens every text and ends it."""
    tokenizer = word_tokenizer("<s> $A")
    tokenizer.eos_token = "<s>"
    example = encode_one(make_task(given=tokenizer), words(0, 2), words(50, 51))
    assert list(example.token_ids) == [1, *ids(0, 2), *ids(50, 51), 1]
    assert example.num_prompt_tokens == 3


def test_padding_needs_an_id(make_task: MakeTask) -> None:
    assert make_task(given=word_tokenizer()).pad_id == 0
    assert make_task(given=word_tokenizer(pad=None)).pad_id == 2


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 24), st.sampled_from(["<s> $A", "$A </s>", None]))
def test_a_long_row_keeps_its_end_of_the_prompt_and_the_start_of_its_response(
    make_task: MakeTask, num_prompt: int, num_response: int, longest: int, post: str | None
) -> None:
    task = make_task(given=word_tokenizer(post), max_length_tokens=longest)
    example = encode_one(task, words(0, num_prompt), words(40, 40 + num_response))
    first = [1] if post == "<s> $A" else []
    whole_prompt, whole_response = [*first, *ids(0, num_prompt)], [*ids(40, 40 + num_response), 2]
    if post == "$A </s>" and num_prompt == 0:
        whole_prompt = [2]  # nothing but the end token: there must be something to go on from
    prompt = list(example.token_ids[: example.num_prompt_tokens])
    response = list(example.token_ids[example.num_prompt_tokens :])
    assert example.truncated == (len(whole_prompt) + len(whole_response) > longest)
    assert len(example.token_ids) == min(longest, len(whole_prompt) + len(whole_response))
    assert response == whole_response[: len(response)]
    assert len(response) >= min(len(whole_response), longest // 2) >= 1
    if len(prompt) < len(whole_prompt):
        assert len(response) == min(len(whole_response), max(longest // 2, 1)), (
            "no more than needed is cut of the prompt"
        )
        assert prompt[: len(first)] == first[: len(prompt)]
        tail = prompt[len(first) :]
        assert tail == whole_prompt[len(whole_prompt) - len(tail) :]
    else:
        assert prompt == whole_prompt


def test_encoding_many_is_encoding_each(make_task: MakeTask, rows: list[dict[str, str]]) -> None:
    task = make_task(max_length_tokens=12)
    together = task.encode(rows)
    assert together == [task.encode([row])[0] for row in rows]
    assert {example.truncated for example in together} == {True, False}


def test_the_template_makes_the_prompt(tokenizer: Any) -> None:
    task = CausalLM(
        tokenizer=tokenizer,
        data=DataConfig(template="Q: {question}\nA: ", required=["question"], response="answer"),
        eval=EvalConfig(),
        max_length_tokens=64,
        loss_on="response",
    )
    (example,) = task.encode([{"question": "why", "answer": "because", "topic": "x"}])
    assert (example.prompt, example.response) == ("Q: why\nA: ", "because")


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_the_projection_sees_the_labelled_positions_alone(
    loss_on: str, make_task: MakeTask, small_llama: Llama, examples: list[Example]
) -> None:
    model, task = small_llama(), make_task(loss_on)
    seen: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda _module, given, output: seen.extend([given[0].shape, output.shape]))
    batch = task.collate(examples)
    task.loss(model, batch)
    num_labels = len(batch.label_ids)
    assert seen == [(1, num_labels, 24), (1, num_labels, 2048)]
    assert num_labels < batch.token_ids.numel()
    assert num_labels == sum(
        len(example.token_ids) - (example.num_prompt_tokens if loss_on == "response" else 1) for example in examples
    )


def test_the_hook_is_gone_afterwards_also_after_an_error(small_llama: Llama) -> None:
    model = small_llama()
    tokens = torch.arange(8).view(2, 4)
    with torch.no_grad():
        whole = model(tokens).logits
        with pytest.raises(RuntimeError, match="inside"), project_only(model, torch.tensor([1, 6])):
            picked = model(tokens).logits
            raise RuntimeError("inside")
        with pytest.raises(IndexError), project_only(model, torch.tensor([8])):
            model(tokens)
        assert not model.lm_head._forward_pre_hooks
        assert torch.equal(model(tokens).logits, whole)
    assert picked.shape == (1, 2, 2048)
    torch.testing.assert_close(picked[0], whole.flatten(0, 1)[[1, 6]])


def test_evaluation_batches_hold_everything_by_length(make_task: MakeTask, examples: list[Example]) -> None:
    task = make_task()
    batches = task.evaluation_batches(examples, 5)
    assert [len(batch) for batch in batches] == [5, 5, 2]
    flat = [example for batch in batches for example in batch]
    assert sorted(example.prompt for example in flat) == sorted(example.prompt for example in examples)
    lengths = [example.num_prompt_tokens for example in flat]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
