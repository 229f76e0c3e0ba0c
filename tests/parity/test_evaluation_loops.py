"""Scores, generation and teacher forcing are those of naive loops: one example, no padding, no cache, all logits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics import Metric
from transformers import AutoTokenizer

from fedlit.adapters.lora import Lora
from fedlit.config import ModelConfig
from fedlit.data.collation import Example
from fedlit.metrics.text import Bleu4, RougeL
from fedlit.models import PROJECTIONS, load_backbone
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.generation import generate

CPU = torch.device("cpu")


def generated(task: CausalLM, model: nn.Module, examples: Sequence[Example]) -> list[list[int]]:
    """Return the tokens that the evaluation of a task generates after each prompt."""
    prompts = [example.prompt_ids for example in examples]
    return generate(model, task.tokenizer, prompts, task.eval, pad_id=task.pad_id, device=CPU)


MakeTask = Callable[..., CausalLM]


@pytest.fixture(scope="module")
def packaged() -> Any:
    """The pretrained model inside the package, with a LoRA that changes what it says."""
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
    task = make_task(max_new_tokens=8)
    metrics, samples = run(task, packaged, task.evaluation_batches(examples, 5))
    _, singly = run(task, packaged, [[example] for example in examples])
    assert len({len(tokenizer(sample.prompt)["input_ids"]) for sample in samples}) > 3, "the batches are padded"
    assert sorted(samples, key=lambda sample: sample.prompt) == sorted(singly, key=lambda sample: sample.prompt)
    for sample, example in zip(singly, examples, strict=True):
        prompt_ids = example.token_ids[: example.num_prompt_tokens]
        expected = naive_generation(packaged, prompt_ids, 8, tokenizer.eos_token_id)
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
    task = make_task(max_new_tokens=7)
    (open_ended,) = generated(task, packaged, examples[:1])
    assert len(open_ended) == 7
    assert generated(task, packaged, examples[:1]) == [open_ended], "greedy: no draw"
    ended = open_ended[2]
    original = tokenizer.eos_token
    try:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ended)
        (stopped,) = generated(task, packaged, examples[:1])
    finally:
        tokenizer.eos_token = original
    assert stopped == open_ended[: open_ended.index(ended) + 1]


def test_a_backbone_without_a_cache_in_its_configuration_says_the_same(
    make_task: MakeTask, packaged: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training configurations have use_cache=False; generation without a cache is many times slower."""
    task = make_task(max_new_tokens=4)
    expected = generated(task, packaged, examples[:3])
    monkeypatch.setattr(packaged.config, "use_cache", False)
    monkeypatch.setattr(packaged.generation_config, "use_cache", False)
    lengths: list[int] = []
    handle = packaged.model.layers[0].mlp.register_forward_hook(
        lambda _module, given, _output: lengths.append(given[0].shape[1])
    )
    try:
        assert generated(task, packaged, examples[:3]) == expected
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
    for name, metric in (("rouge_l", RougeL()), ("bleu_4", Bleu4())):
        metric.update([sample.prediction for sample in samples], [sample.reference for sample in samples])
        assert float(metrics[name].compute()) == float(metric.compute())


def test_a_checkpoint_s_own_generation_settings_do_not_apply(
    make_task: MakeTask, tokenizer: Any, examples: list[Example], tmp_path: Path
) -> None:
    """Several published models come with a repetition penalty, under which decoding is not greedy."""
    plain = load_backbone(ModelConfig())
    plain.model.generation_config.update(repetition_penalty=9.0, no_repeat_ngram_size=1)
    plain.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "repetition_penalty" in (tmp_path / "generation_config.json").read_text()
    task = make_task(max_new_tokens=12)
    results = [
        generated(task, load_backbone(ModelConfig(path=path)).model.eval(), examples[:4])
        for path in ("tiny", str(tmp_path))
    ]
    assert results[0] == results[1]
    penalised = generated(task, plain.model.eval(), examples[:4])
    assert penalised != results[0]


@pytest.mark.parametrize("name", ["stories260k", "babyllama105"])
def test_other_pretrained_models(
    name: str, shared_folder: Path, make_task: MakeTask, rows: list[dict[str, str]]
) -> None:
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
