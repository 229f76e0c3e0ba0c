"""The loss and its gradients are transformers' own, for architectures that treat logits differently."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fedlit.data.collation import Batch, Example
from fedlit.tasks.causal_lm.task import CausalLM
from fedlit.tasks.likelihood import project_only

MakeTask = Callable[..., CausalLM]
SIZES = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "vocab_size": 2048}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {"intermediate_size": 40, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3}
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gemma2": {**LLAMA, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8},
    "gpt2": {"initializer_range": 0.3, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "cohere": {**{name: value for name, value in LLAMA.items() if name != "head_dim"}, "logit_scale": 0.3},
}


def build(kind: str, **changes: Any) -> Any:
    config = AutoConfig.for_model(kind, **SIZES, **SPECIAL, **{**MODELS[kind], **changes})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").double()


def mask_of(batch: Batch, examples: list[Example]) -> torch.Tensor:
    """Return the mask that transformers' users give: 1 for a token, 0 for what is padded."""
    lengths = torch.tensor([len(example.token_ids) for example in examples])
    return (torch.arange(batch.token_ids.shape[1]) < lengths[:, None]).long()


def labels_of(batch: Batch, examples: list[Example], loss_on: str) -> torch.Tensor:
    """Return labels as transformers' users write them: the tokens, -100 where nothing is to be learnt."""
    labels = batch.token_ids.masked_fill(mask_of(batch, examples) == 0, -100)
    if loss_on == "response":
        for row, example in enumerate(examples):
            labels[row, : example.num_prompt_tokens] = -100
    return labels


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_loss_and_gradients_are_those_of_labels(
    kind: str, loss_on: str, make_task: MakeTask, examples: list[Example]
) -> None:
    """Both sides take logits to float32 for the cross-entropy, hence the tolerance of float32."""
    model, task, rows = build(kind), make_task(loss_on), examples[:6]
    batch = task.collate(rows)
    output = model(
        input_ids=batch.token_ids, attention_mask=mask_of(batch, rows), labels=labels_of(batch, rows, loss_on)
    )
    expected = gradients(model, output.loss)
    loss = task.loss(model, batch)
    actual = gradients(model, loss)
    assert float(loss.detach()) == pytest.approx(float(output.loss.detach()), rel=1e-6)
    assert actual.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, gradient in actual.items():
        error = (gradient - expected[name]).norm() / expected[name].norm()
        assert error < 1e-6, name


@pytest.mark.parametrize("kind", MODELS)
def test_picked_logits_are_the_model_s_to_the_last_digits(
    kind: str, make_task: MakeTask, examples: list[Example]
) -> None:
    model = build(kind)
    batch = make_task("all").collate(examples[:4])
    with torch.no_grad():
        mask = mask_of(batch, examples[:4])
        whole = model(input_ids=batch.token_ids, attention_mask=mask).logits
        with project_only(model, batch.label_positions):
            picked = model(input_ids=batch.token_ids).logits
    expected = whole.flatten(0, 1)[batch.label_positions]
    assert picked.shape == (1, *expected.shape)
    torch.testing.assert_close(picked[0], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "without"), [("gemma2", {"final_logit_softcapping": None}), ("cohere", {"logit_scale": 1.0})]
)
def test_what_follows_the_projection_matters(
    kind: str, without: dict[str, Any], make_task: MakeTask, examples: list[Example]
) -> None:
    """A product of hidden states and weights alone would be another loss by far."""
    task = make_task()
    batch = task.collate(examples[:4])
    losses = []
    for changes in ({}, without):
        model = build(kind, **changes)
        with torch.no_grad():
            losses.append(float(task.loss(model, batch)))
    assert abs(losses[0] - losses[1]) > 0.1


def test_the_choice_of_tokens_matters(make_task: MakeTask, examples: list[Example]) -> None:
    model = build("llama")
    with torch.no_grad():
        losses = [float(task.loss(model, task.collate(examples))) for task in map(make_task, ("response", "all"))]
    assert abs(losses[0] - losses[1]) > 1e-2


def test_padding_changes_nothing(make_task: MakeTask, examples: list[Example]) -> None:
    """A batch's loss is the mean over its tokens of the losses of its rows alone."""
    model, task = build("llama"), make_task()
    batch = task.collate(examples)
    assert (mask_of(batch, examples) == 0).any()
    with torch.no_grad():
        singles = [float(task.loss(model, task.collate([example]))) for example in examples]
        together = float(task.loss(model, batch))
    total = sum(loss * count for loss, count in zip(singles, batch.num_labels, strict=True))
    assert together == pytest.approx(total / sum(batch.num_labels), rel=1e-6)
