"""The likeliest option is that of a loop over options: one sequence, no padding, all logits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from fedlit.config import DataConfig, EvalConfig
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.likelihood import candidate_losses, likeliest

CPU = torch.device("cpu")
DATA = DataConfig(
    template="{question}\n",
    required=["question"],
    response="output",
    options=r"one of (\S+)",
    score_by="topic",
    scores=["accuracy", "exact_match"],
    answer="option",
)
ROWS = [
    {"question": "Is it so? one of true/false", "output": "the correct answer is false", "topic": "boolq"},
    {"question": "What is it, then? one of answer1/answer2/answer3", "output": "it is answer2", "topic": "siqa"},
    {"question": "Which of these? one of answer1/answer10", "output": "it is answer10", "topic": "siqa"},
    {"question": "And? one of a/bb/ccc/dddd/eeeee", "output": "ccc", "topic": "siqa"},
    {"question": "One only, one of yes", "output": "I say yes, yes", "topic": "yes"},
] + [
    {"question": f"Is {number} even? one of even/odd", "output": ("even", "odd")[number % 2], "topic": "parity"}
    for number in range(9)
]


@pytest.fixture
def task(tokenizer: Any) -> CausalLM:
    return CausalLM(
        tokenizer=tokenizer,
        data=DATA,
        eval=EvalConfig(protocol="options"),
        max_length_tokens=64,
        loss_on="response",
    )


@pytest.fixture(scope="module")
def model(small_llama: Callable[..., nn.Module]) -> nn.Module:
    return small_llama(1).eval()


@torch.no_grad()
def naive_loss(model: nn.Module, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Return the summed negative log-likelihood of the response's tokens, in float64."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
    return -sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(response))


def test_losses_are_those_of_a_loop(task: CausalLM, model: nn.Module, tokenizer: Any) -> None:
    examples = task.evaluation_examples(ROWS)
    assert len({len(candidate) for candidate in examples[3].candidates}) > 1, "options of unequal length"
    with torch.no_grad():
        losses = candidate_losses(model, examples, task.pad_id, CPU)
    for example, row, each in zip(examples, ROWS, losses, strict=True):
        prompt = tokenizer(row["question"] + "\n")["input_ids"]
        assert list(example.prompt_ids) == prompt
        own = example.options[example.right_option]
        assert own in row["output"]
        expected = []
        for option in example.options:
            text = row["output"].replace(own, option, 1)
            response = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
            expected.append(naive_loss(model, prompt, response))
        assert [float(loss.sum()) for loss in each] == pytest.approx(expected, rel=1e-5)
        assert likeliest(each) == expected.index(min(expected))


def test_accuracy_loss_and_samples(task: CausalLM, model: nn.Module) -> None:
    examples = task.evaluation_examples(ROWS)
    metrics = task.metrics()
    assert set(metrics) == {"loss", "accuracy"}
    samples = [
        sample for batch in task.evaluation_batches(examples, 4) for sample in task.evaluate(model, batch, metrics, CPU)
    ]
    hits = [sample.prediction == sample.reference for sample in samples]
    assert 0 < sum(hits) < len(hits)
    scores = {name: float(score) for name, score in metrics["accuracy"].compute().items()}
    assert scores["accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert scores["accuracy/yes"] == 1.0, "the only option is right"
    assert {"accuracy/boolq", "accuracy/siqa", "accuracy/parity", "accuracy_macro"} < set(scores)
    expected = [naive_loss(model, each.prompt_ids, each.token_ids[each.num_prompt_tokens :]) for each in examples]
    num_tokens = sum(len(each.token_ids) - each.num_prompt_tokens for each in examples)
    assert float(metrics["loss"].compute()) == pytest.approx(sum(expected) / num_tokens, rel=1e-5)


def test_the_choice_does_not_depend_on_the_batch(task: CausalLM, model: nn.Module) -> None:
    examples = task.evaluation_examples(ROWS)
    together = task.evaluate(model, examples, task.metrics(), CPU)
    apart = [task.evaluate(model, [example], task.metrics(), CPU)[0] for example in examples]
    assert together == apart
    assert {sample.reference for sample in together} > {"false", "answer2", "answer10", "ccc", "yes", "even"}


def test_a_wrong_row_s_own_option_is_not_favoured(task: CausalLM, model: nn.Module) -> None:
    """The candidates of a row are the same whichever option is its own."""
    rows = [{**ROWS[1], "output": f"it is answer{number}"} for number in (1, 2, 3)]
    examples = task.evaluation_examples(rows)
    assert len({example.candidates for example in examples}) == 1
    assert [example.right_option for example in examples] == [0, 1, 2]
    predictions = {sample.prediction for sample in task.evaluate(model, examples, task.metrics(), CPU)}
    assert len(predictions) == 1


def test_the_first_of_equals_is_chosen() -> None:
    assert likeliest([torch.tensor([3.0, 1.0]), torch.tensor([2.0]), torch.tensor([1.0, 1.0])]) == 1
    assert likeliest([torch.tensor([2.0])] * 3) == 0


def test_the_sum_counts_and_not_the_mean() -> None:
    assert likeliest([torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0])]) == 1


def test_a_long_prompt_is_cut_alike_for_all_candidates(task: CausalLM) -> None:
    short = replace(task, max_length_tokens=16)
    whole, cut = task.evaluation_examples(ROWS)[3], short.evaluation_examples(ROWS)[3]
    assert not whole.truncated
    assert cut.truncated
    assert cut.candidates == whole.candidates
    assert cut.num_prompt_tokens + max(map(len, cut.candidates)) == 16
    assert cut.prompt_ids[1:] == whole.prompt_ids[whole.num_prompt_tokens - cut.num_prompt_tokens + 1 :]
    assert cut.prompt_ids[0] == whole.prompt_ids[0]


def test_generated_options_are_compared_by_exact_match(task: CausalLM, model: nn.Module) -> None:
    generating = replace(task, eval=EvalConfig(max_new_tokens=4))
    examples = generating.evaluation_examples(ROWS)
    metrics = generating.metrics()
    assert set(metrics) == {"loss", "exact_match"}
    generating.evaluate(model, examples, metrics, CPU)
    scores = metrics["exact_match"].compute()
    assert {"exact_match", "exact_match_macro", "exact_match/boolq", "exact_match/siqa"} <= set(scores)
    metrics["exact_match"].reset()
    answers = [f"I think that {example.response}." for example in examples]
    groups, options = [example.group for example in examples], [example.options for example in examples]
    metrics["exact_match"].update(answers, [example.references for example in examples], groups, options)
    assert float(metrics["exact_match"].compute()["exact_match"]) == 1.0
