"""Rows become prompt and response that survive a cut, and the loss projects no position without a label."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from fedlit.config import DataConfig, EvalConfig, ModelConfig, RunConfig
from fedlit.data.collation import Example, collate
from fedlit.errors import UserError
from fedlit.models import load_backbone
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.likelihood import project_only

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
    if not whole_prompt:  # there must be something to go on from
        whole_prompt = [2] if post == "$A </s>" else [1]
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


def test_an_empty_prompt_is_a_token_to_go_on_from(make_task: MakeTask) -> None:
    for tokenizer, expected in ((word_tokenizer(), 1), (word_tokenizer(bos=None), 2)):
        example = encode_one(make_task(given=tokenizer), "", words(3, 5))
        assert (list(example.token_ids), example.num_prompt_tokens) == ([expected, *ids(3, 5), 2], 1)


@pytest.mark.parametrize("length", [0, 1])
def test_a_length_without_room_is_an_error(length: int, make_task: MakeTask) -> None:
    with pytest.raises(UserError, match=f"model.max_length_tokens={length} leaves no room .*; give at least 2"):
        make_task(max_length_tokens=length)


def test_a_prompt_leaves_room_for_what_is_generated(make_task: MakeTask) -> None:
    """A model with learnt positions has none beyond its window."""
    row = {"prompt": words(0, 20), "response": words(50, 53)}
    whole = replace(make_task(given=word_tokenizer("<s> $A"), max_new_tokens=6), max_positions=27)
    (example,) = whole.evaluation_examples([row])
    assert (example.num_prompt_tokens, example.truncated) == (21, False)
    tight = replace(whole, max_positions=20)
    (example,) = tight.evaluation_examples([row])
    assert list(example.prompt_ids) == [1, *ids(7, 20)]
    assert list(example.token_ids[14:]) == [*ids(50, 53), 2]
    assert example.truncated
    assert not tight.encode([row])[0].truncated, "training generates nothing"
    assert not replace(tight, eval=EvalConfig(protocol="teacher_forced")).evaluation_examples([row])[0].truncated
    with pytest.raises(UserError, match=r"eval.max_new_tokens=6 leaves no room for a prompt: 6 tokens are all"):
        replace(whole, max_positions=6)


def test_a_task_is_built_of_a_configuration() -> None:
    config = RunConfig(model=ModelConfig(max_length_tokens=32))
    config.local.label_smoothing = 0.25
    config.local.loss_on = "all"
    config.data.test_template = "{prompt}?"
    task = CausalLM.build(config, load_backbone(config.model, weights=False))
    assert (task.max_length_tokens, task.label_smoothing, task.loss_on, task.max_positions) == (32, 0.25, "all", 512)
    rows = [{"prompt": "p", "response": "r"}]
    assert [task.encode(rows)[0].prompt, task.evaluation_examples(rows)[0].prompt] == ["p\n", "p?"]


@pytest.mark.parametrize("pad", ["</s>", None])
def test_the_end_is_trained_although_it_fills_the_padding(pad: str | None, make_task: MakeTask) -> None:
    task = make_task(given=word_tokenizer(pad=pad))
    rows = [{"prompt": words(0, 3), "response": words(50, 50 + length)} for length in (1, 6)]
    batch = task.collate(task.encode(rows))
    assert task.pad_id == 2
    assert batch.label_ids.tolist() == [*ids(50, 51), 2, *ids(50, 56), 2]
    assert batch.token_ids.shape == (2, 10)


def test_label_smoothing_is_of_the_training_loss_alone(
    make_task: MakeTask, small_llama: Llama, examples: list[Example]
) -> None:
    model, plain = small_llama(), make_task(max_new_tokens=1)
    smooth = replace(plain, label_smoothing=0.3)
    batch = plain.collate(examples)
    with torch.no_grad():
        logits = model(input_ids=batch.token_ids).logits.flatten(0, 1)
        log_probabilities = logits[batch.label_positions].double().log_softmax(-1)
        nll = -log_probabilities.gather(1, batch.label_ids.unsqueeze(1)).mean()
        expected = 0.7 * nll + 0.3 * -log_probabilities.mean()
        assert float(plain.loss(model, batch)) == pytest.approx(float(nll), rel=1e-6)
        assert float(smooth.loss(model, batch)) == pytest.approx(float(expected), rel=1e-6)
    assert abs(expected - nll) > 0.01
    losses = []
    for task in (plain, smooth):
        metrics = task.metrics()
        task.evaluate(model.eval(), examples, metrics, torch.device("cpu"))
        losses.append(float(metrics["loss"].compute()))
    assert losses[0] == losses[1] == pytest.approx(float(nll), rel=1e-6)


def test_joined_batches_have_the_loss_of_each(make_task: MakeTask, small_llama: Llama, examples: list[Example]) -> None:
    model, task = small_llama().double(), replace(make_task(), label_smoothing=0.2)
    parts = [examples[:2], examples[2:3], examples[3:]]
    batches = [task.collate(part) for part in parts]
    joined = task.join(batches)
    assert joined.rows == tuple(map(len, parts))
    assert joined.labels == joined.targets == tuple(batch.num_targets for batch in batches)
    assert joined.widths == tuple(max(len(each.token_ids) for each in part) for part in parts)
    assert len(set(joined.widths)) > 1
    alone = torch.stack([task.loss(model, batch) for batch in batches])
    torch.testing.assert_close(task.losses(model, joined), alone, rtol=1e-12, atol=1e-12)


ROW = {"prompt": "Tell me.", "topic": "t"}


@pytest.mark.parametrize("protocol", ["generate", "teacher_forced"])
def test_several_references(protocol: str, tokenizer: Any, small_llama: Llama) -> None:
    """The scores are of all of them, the loss is the first one's."""
    data = DataConfig(multiple_references=True, scores=["bleu", "nist", "meteor", "rouge_l", "cider", "bleu_4"])
    task = CausalLM(
        tokenizer=tokenizer,
        data=data,
        eval=EvalConfig(protocol=protocol, max_new_tokens=6),
        max_length_tokens=64,
        loss_on="response",
    )
    model = small_llama().eval()
    first = {**ROW, "response": "One thing."}
    (alone,) = task.evaluation_examples([first])
    prediction = task.evaluate(model, [alone], task.metrics(), torch.device("cpu"))[0].prediction
    said = prediction if protocol == "generate" else prediction.removeprefix("Tell me.\n")
    other = {"prompt": "Something else.", "response": "Nothing."}
    (both, last) = task.evaluation_examples([first, other, {**ROW, "response": said}])
    assert both.references == ("One thing.", said)
    assert (both.token_ids, both.prompt) == (alone.token_ids, alone.prompt)
    assert last.references == ("Nothing.",)
    scores = []
    for example in (alone, both):
        metrics = task.metrics()
        assert set(metrics) == {"loss", *data.scores}
        sample = task.evaluate(model, [example], metrics, torch.device("cpu"))[0]
        assert sample.prediction == prediction
        scores.append({name: float(metric.compute()) for name, metric in metrics.items()})
    assert scores[0]["loss"] == scores[1]["loss"]
    if protocol == "generate":
        assert (scores[0]["rouge_l"], scores[1]["rouge_l"]) == (0.0, 1.0)


def test_teacher_forced_scores_stand_beside_generated_ones(
    make_task: MakeTask, small_llama: Llama, examples: list[Example]
) -> None:
    """They are those of the other protocol to the bit, and change nothing of the generated ones."""
    model, plain = small_llama().requires_grad_(), make_task()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):  # answers of an untrained model have no word of the references
        optimizer.zero_grad()
        plain.loss(model, collate(examples, plain.pad_id, loss_on="all")).backward()
        optimizer.step()
    model.eval()

    def scored(protocol: str, scores: list[str]) -> dict[str, float]:
        task = make_task(protocol=protocol)
        task = replace(task, data=replace(task.data, scores=scores))
        metrics = task.metrics()
        assert set(metrics) == {"loss", *scores}
        task.evaluate(model, examples, metrics, torch.device("cpu"))
        return {name: float(metric.compute()) for name, metric in metrics.items()}

    generated, forced = (scored(protocol, ["rouge_l", "bleu_4"]) for protocol in ("generate", "teacher_forced"))
    both = scored("generate", ["rouge_l", "rouge_l_forced", "bleu_4_forced", "bleu_4"])
    assert generated["rouge_l"] != forced["rouge_l"] > 0
    for name in ("rouge_l", "bleu_4"):
        assert (both[name], both[f"{name}_forced"]) == (generated[name], forced[name])
    assert both["loss"] == forced["loss"] == pytest.approx(generated["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("protocol", "data", "expected"),
    [
        ("generate", {}, ["rouge_l", "bleu_4"]),
        ("teacher_forced", {"scores": ["rouge_l_forced", "rouge_l"]}, ["rouge_l"]),
        ("teacher_forced", {}, ["rouge_l", "bleu_4"]),
        ("options", {"options": "(x)"}, ["accuracy"]),
        ("generate", {"scores": ["accuracy", "exact_match", "nist"], "answer": "text"}, ["exact_match", "nist"]),
        ("teacher_forced", {"scores": ["accuracy", "exact_match", "nist"], "answer": "text"}, ["nist"]),
        ("options", {"scores": ["accuracy", "exact_match", "nist"], "answer": "text"}, ["accuracy"]),
    ],
)
def test_a_protocol_has_the_scores_it_can_compute(
    protocol: str, data: dict[str, Any], expected: list[str], make_task: MakeTask
) -> None:
    task = replace(make_task(protocol=protocol), data=DataConfig(**data))
    assert list(task.metrics()) == ["loss", *expected]


@pytest.mark.parametrize(
    ("protocol", "data", "parts"),
    [
        ("generate", {"scores": ["accuracy"]}, ["data.scores=[accuracy]", "eval.protocol=generate", "exact_match"]),
        ("options", {"scores": ["rouge_l", "nist"]}, ["[rouge_l, nist]", "eval.protocol=options", "accuracy"]),
        ("generate", {"scores": ["exact_match"]}, ["data.answer=null", "number"]),
    ],
)
def test_scores_that_cannot_be_computed(
    protocol: str, data: dict[str, Any], parts: list[str], make_task: MakeTask
) -> None:
    with pytest.raises(UserError) as caught:
        replace(make_task(protocol=protocol), data=DataConfig(**data))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
