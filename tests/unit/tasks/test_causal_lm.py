"""Rows become prompt and response that survive a cut; scores and generation are those of a naive loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import nn
from torchmetrics import Metric
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fedlit.config import DataConfig, EvalConfig, ModelConfig
from fedlit.data.collation import Example
from fedlit.metrics.text import Bleu4, RougeL
from fedlit.models import PROJECTIONS, load_backbone
from fedlit.tasks.causal_lm import CausalLM, project_only

CPU = torch.device("cpu")
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
        assert len(response) == min(len(whole_response), max(longest // 2, 1)), "no more than needed is cut of the prompt"
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


def test_the_projection_sees_the_labelled_positions_alone(
    make_task: MakeTask, small_llama: Llama, examples: list[Example]
) -> None:
    for loss_on in ("response", "all"):
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


# Scores against naive loops, one example at a time, without padding, cache or projected positions.


@pytest.fixture(scope="module")
def packaged() -> Any:
    """The pretrained model inside the package, with a LoRA that changes what it says."""
    from fedlit.adapters.lora import Lora  # noqa: PLC0415

    backbone = load_backbone(ModelConfig())
    torch.manual_seed(0)
    Lora(lora_rank=2).attach(backbone.model, PROJECTIONS["llama"])
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.05)
    return backbone.model.eval()


@torch.no_grad()
def naive_logits(model: nn.Module, token_ids: Sequence[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0].double()


def naive_loss(model: nn.Module, examples: Sequence[Example]) -> float:
    """Return the mean over all response tokens, end included, of their negative log-likelihoods in float64."""
    terms = []
    for example in examples:
        log_probabilities = naive_logits(model, example.token_ids).log_softmax(-1)
        for place in range(example.num_prompt_tokens, len(example.token_ids)):
            terms.append(-float(log_probabilities[place - 1, example.token_ids[place]]))
    return sum(terms) / len(terms)


def naive_generation(model: nn.Module, prompt_ids: Sequence[int], num_tokens: int, end: int) -> list[int]:
    token_ids = list(prompt_ids)
    while len(token_ids) < len(prompt_ids) + num_tokens:
        token_ids.append(int(naive_logits(model, token_ids)[-1].argmax()))
        if token_ids[-1] == end:
            break
    return token_ids[len(prompt_ids) :]


def run(task: CausalLM, model: nn.Module, batches: Sequence[Sequence[Example]]) -> tuple[dict[str, Metric], list]:
    metrics = task.metrics()
    samples = [sample for batch in batches for sample in task.evaluate(model, batch, metrics, CPU)]
    return metrics, samples


@pytest.mark.parametrize("protocol", ["generate", "teacher_forced"])
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_the_loss_is_the_mean_over_response_tokens(
    protocol: str, loss_on: str, make_task: MakeTask, packaged: Any, examples: list[Example]
) -> None:
    task = make_task(loss_on, protocol=protocol, max_new_tokens=1)
    metrics, _ = run(task, packaged, task.evaluation_batches(examples, 5))
    assert float(metrics["loss"].compute()) == pytest.approx(naive_loss(packaged, examples), rel=1e-6)
    means = [naive_loss(packaged, [example]) for example in examples]
    assert abs(sum(means) / len(means) - naive_loss(packaged, examples)) > 1e-3, "tokens weigh alike, not examples"


def test_generation_in_batches_is_generation_one_by_one(
    make_task: MakeTask, packaged: Any, examples: list[Example], tokenizer: Any
) -> None:
    task = make_task(max_new_tokens=12)
    metrics, samples = run(task, packaged, task.evaluation_batches(examples, 5))
    _, singly = run(task, packaged, [[example] for example in examples])
    assert len({len(tokenizer(sample.prompt)["input_ids"]) for sample in samples}) > 3, "the batches are padded"
    assert sorted(samples, key=lambda sample: sample.prompt) == sorted(singly, key=lambda sample: sample.prompt)
    for sample, example in zip(singly, examples, strict=True):
        prompt_ids = example.token_ids[: example.num_prompt_tokens]
        expected = naive_generation(packaged, prompt_ids, 12, tokenizer.eos_token_id)
        assert sample.prediction == tokenizer.decode(expected, skip_special_tokens=True).strip()
        assert sample.reference == example.response
        assert sample.prompt == example.prompt
    assert len({sample.prediction for sample in samples}) > 6
    predictions, references = ([getattr(sample, part) for sample in samples] for part in ("prediction", "reference"))
    for name, metric in (("rouge_l", RougeL()), ("bleu_4", Bleu4())):
        metric.update(predictions, references)
        assert float(metrics[name].compute()) == float(metric.compute())


def test_generation_stops_at_the_end_token_and_at_the_limit(
    make_task: MakeTask, packaged: Any, examples: list[Example], tokenizer: Any
) -> None:
    """With the bias of its rows raised, the model says one word and then the end; without, it goes on to the limit."""
    task = make_task(max_new_tokens=7)
    (open_ended,) = task._generate(packaged, examples[:1], CPU)
    assert len(open_ended) == 7
    ended = open_ended[2]
    closing = task._generate(packaged, examples[:1], CPU)
    assert closing == [open_ended], "greedy: no draw"
    original = tokenizer.eos_token
    try:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ended)
        (stopped,) = task._generate(packaged, examples[:1], CPU)
    finally:
        tokenizer.eos_token = original
    assert stopped == open_ended[: open_ended.index(ended) + 1]


def test_a_backbone_without_a_cache_in_its_configuration_says_the_same(
    make_task: MakeTask, packaged: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training configurations have use_cache=False; generation without a cache is many times slower."""
    task = make_task(max_new_tokens=4)
    expected = task._generate(packaged, examples[:3], CPU)
    monkeypatch.setattr(packaged.config, "use_cache", False)
    monkeypatch.setattr(packaged.generation_config, "use_cache", False)
    lengths: list[int] = []
    handle = packaged.model.layers[0].mlp.register_forward_hook(
        lambda _module, given, _output: lengths.append(given[0].shape[1])
    )
    try:
        assert task._generate(packaged, examples[:3], CPU) == expected
    finally:
        handle.remove()
    assert lengths[1:] == [1] * (len(lengths) - 1)
    assert len(lengths) == 4


def test_teacher_forcing_is_the_argmax_at_every_position(
    make_task: MakeTask, packaged: Any, examples: list[Example], tokenizer: Any
) -> None:
    task = make_task(protocol="teacher_forced")
    batches = task.evaluation_batches(examples, 5)
    metrics, samples = run(task, packaged, batches)
    for sample, example in zip(samples, (example for batch in batches for example in batch), strict=True):
        guesses = naive_logits(packaged, example.token_ids).argmax(-1).tolist()[:-1]
        assert sample.prediction == tokenizer.decode(guesses, skip_special_tokens=True).strip()
        assert sample.reference == tokenizer.decode(example.token_ids, skip_special_tokens=True).strip()
        assert sample.reference == f"{example.prompt}{example.response}".strip()
    generated, _ = run(make_task(max_new_tokens=8), packaged, batches)
    assert float(metrics["rouge_l"].compute()) > float(generated["rouge_l"].compute())


@pytest.mark.parametrize("name", ["stories260k", "babyllama105"])
def test_other_pretrained_models(name: str, shared_folder: Path, make_task: MakeTask, rows: list[dict[str, str]]) -> None:
    """Their first token is their end token, and their padding is their unknown character."""
    path = shared_folder / "models" / name
    model = load_backbone(ModelConfig(path=str(path))).model.eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    task = make_task(given=tokenizer, max_new_tokens=6, max_length_tokens=96)
    examples = task.encode([{"prompt": "Once upon a time " + row["response"], "response": "She ran."} for row in rows])
    batches = task.evaluation_batches(examples, 5)
    metrics, samples = run(task, model, batches)
    assert float(metrics["loss"].compute()) == pytest.approx(naive_loss(model, examples), rel=1e-5)
    for sample, example in zip(samples, (example for batch in batches for example in batch), strict=True):
        prompt_ids = example.token_ids[: example.num_prompt_tokens]
        expected = naive_generation(model, prompt_ids, 6, tokenizer.eos_token_id)
        assert sample.prediction == tokenizer.decode(expected, skip_special_tokens=True).strip()
