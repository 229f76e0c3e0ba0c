"""A client trains as a bare PyTorch loop would, on its own state alone, whoever was trained before it."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from client_rounds import make_job, train_client
from torch import Tensor, nn

from fedlit.adapters import trainable
from fedlit.algebra.tensors import TensorDict, checksum, num_parameters, snapshot
from fedlit.client.row_order import training_order
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.data.collation import Batch, Example
from fedlit.errors import DivergenceError
from fedlit.process.interrupt import StopAsked, StopReason
from fedlit.round.jobs import ClientJob, ClientResult, ClientState
from fedlit.round.payload import MODEL
from fedlit.seeding import stream_seed, torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

MakeTrainer = Callable[..., SerialTrainer]


def initial(trainer: SerialTrainer) -> tuple[TensorDict, ClientState]:
    """Return shared tensors with no zero factor, so that A and B both learn, and a client's first state."""
    model, method = trainer.host.model, trainer.host.method
    with torch_stream(trainer.seed, "start"):
        shared = {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in method.shared(model).items()}
    return shared, ClientState(private=snapshot(method.private(model)))


def train(
    trainer: SerialTrainer,
    client_id: int,
    rows: Sequence[dict[str, str]],
    start: tuple[TensorDict, ClientState],
    round_idx: int = 0,
) -> tuple[ClientResult, TensorDict, ClientState]:
    """Return the result, the tensors of the model that the client sends, and what it keeps."""
    result = train_client(trainer, make_job(trainer, client_id, rows, *start, round_idx))
    assert result.payload is not None
    assert result.payload.keys() == {MODEL}, "no part of the training sends a group of its own"
    assert result.state is not None
    return result, result.payload[MODEL], result.state


def bits_of(state: ClientState) -> list[str]:
    """Return what tells two states apart."""
    moments = (state.optimizer or {}).get("state", {})
    return [checksum(state.private), *(checksum(moments[index]) for index in sorted(moments))]


VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {"weight_decay": 0.1},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "clipped": {"max_grad_norm": 0.01},
    "dropout": {"options": {"lora_dropout": 0.3}},
    "all tokens": {"loss_on": "all"},
    "B alone": {"method": "ffa_lora"},
    "private B": {"method": "fedsa_lora"},
    "nothing travels": {"method": "local_only"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_is_a_bare_loop(
    variant: str, make_trainer: MakeTrainer, make_task: Callable[..., CausalLM], rows: list[dict[str, str]]
) -> None:
    given = VARIANTS[variant]
    task = make_task(given.get("loss_on", "response"))
    trainer = make_trainer(**given, task=task)
    shared, state = initial(trainer)

    model = copy.deepcopy(trainer.module.model).train()
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in {**shared, **state.private}.items():
            named[name].copy_(value)
    parameters = [parameter for parameter in named.values() if parameter.requires_grad]
    lr, decay = 0.05, given.get("weight_decay", 0.0)
    if given.get("optimizer") == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
    losses = []
    torch.manual_seed(stream_seed(trainer.seed, "dropout", round_idx=2, client_id=5))
    examples = task.encode(rows)
    for batch in training_order(len(rows), 4, trainer.seed, 5, skip=6, num_steps=3):
        loss = task.loss(model, task.collate([examples[row] for row in batch]))
        optimizer.zero_grad()
        loss.backward()
        if "max_grad_norm" in given:
            torch.nn.utils.clip_grad_norm_(parameters, given["max_grad_norm"])
        optimizer.step()
        losses.append(float(loss.detach()))

    result, sent, after = train(trainer, 5, rows, (shared, state), round_idx=2)
    reached = {**sent, **after.private}
    assert reached.keys() == trainable(trainer.module.model).keys()
    for name, value in reached.items():
        assert torch.equal(value, named[name]), name
        assert not torch.equal(value, {**shared, **state.private}[name]), f"{name} did not learn"
    assert result.client_id == 5
    assert checksum(result.private) == checksum(after.private)
    assert result.metrics["num_steps"] == 3
    assert result.metrics["train_loss"] == pytest.approx(sum(losses) / 3, rel=1e-15)
    squares = [(named[name].detach().double() - shared[name].double()).square().sum() for name in shared]
    assert result.metrics["update_norm"] == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-12)


def test_accumulated_batches_are_one_large_batch(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    """Batches of unequal numbers of tokens, the last one short: the loss is the mean over all tokens of the step."""
    assert make_trainer(batch_size=4, accumulate=2, steps=None, epochs=2).num_steps(12) == 4
    parts = make_trainer(batch_size=5, accumulate=2, optimizer="sgd")
    whole = make_trainer(batch_size=10, optimizer="sgd")
    start = initial(whole)
    one, expected, _ = train(whole, 1, rows, start)
    many, sent, _ = train(parts, 1, rows, start)
    for name, value in expected.items():
        torch.testing.assert_close(sent[name], value, rtol=1e-5, atol=1e-6)
    assert many.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], rel=1e-5)


@pytest.mark.parametrize("round_idx", [0, 5])
@pytest.mark.parametrize(("accumulate", "lengths"), [(1, [5, 5, 2, 5, 5, 2]), (2, [10, 2, 10, 2]), (3, [12, 12])])
def test_epochs_are_the_loop_over_a_loader(
    accumulate: int,
    lengths: list[int],
    round_idx: int,
    make_trainer: MakeTrainer,
    make_task: Callable[..., CausalLM],
    rows: list[dict[str, str]],
) -> None:
    """12 rows in batches of 5: the third batch of an epoch is short, and its loss is the mean over its own tokens."""
    trainer = make_trainer(batch_size=5, accumulate=accumulate, steps=None, epochs=2, optimizer="sgd")
    shared, state = initial(trainer)
    order: list[list[int]] = []

    class Watched(CausalLM):
        def collate(self, examples: Sequence[Example]) -> Batch:
            order.append([rows.index(next(row for row in rows if row["response"] == e.response)) for e in examples])
            return super().collate(examples)

    trainer.module.task = Watched(**vars(make_task()))
    result, sent, _ = train(trainer, 5, rows, (shared, state), round_idx=round_idx)

    flat = [row for batch in order for row in batch]
    assert [sorted(flat[:12]), sorted(flat[12:])] == [list(range(12))] * 2
    assert flat[:12] != flat[12:]
    assert [len(batch) for batch in order] == [5, 5, 2] * 2
    model, task = copy.deepcopy(trainer.module.model).train(), make_task()
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in shared.items():
            named[name].copy_(value)
    optimizer = torch.optim.SGD([parameter for parameter in named.values() if parameter.requires_grad], lr=0.05)
    examples = task.encode(rows)
    losses, place = [], 0
    for length in lengths:
        step, place = flat[place : place + length], place + length
        loss = task.loss(model, task.collate([examples[row] for row in step]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert result.metrics["num_steps"] == len(lengths)
    assert result.metrics["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    for name, value in sent.items():
        torch.testing.assert_close(value, named[name].detach(), rtol=1e-5, atol=1e-6)


def test_a_schedule_over_epochs_ends_with_the_last_of_them(
    make_trainer: MakeTrainer, rows: list[dict[str, str]]
) -> None:
    """12 rows in batches of 5, twice, in 5 rounds: the rate falls over 30 steps, not over the 25 of full batches."""
    trainer = make_trainer(optimizer="sgd", batch_size=5, steps=None, epochs=2, schedule="linear", schedule_over="run")
    seen: list[float] = []
    build = trainer.module.configure_optimizers

    def watched() -> torch.optim.Optimizer:
        optimizer = build()
        optimizer.register_step_pre_hook(lambda opt, _args, _kwargs: seen.append(opt.param_groups[0]["lr"]))
        return optimizer

    trainer.module.configure_optimizers = watched  # type: ignore[method-assign]
    for round_idx in (0, 4):
        train(trainer, 1, rows, initial(trainer), round_idx)
    assert seen == pytest.approx([0.05 * (1 - step / 30) for step in (*range(6), *range(24, 30))])


def test_the_learning_rate_follows_its_schedule(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    """Also of an optimizer that was kept: each round's schedule begins anew."""
    trainer = make_trainer(
        optimizer="sgd", steps=4, schedule="linear", warmup=0.25, optimizer_state="keep", momentum=0.5
    )
    seen: list[float] = []
    build = trainer.module.configure_optimizers

    def watched() -> torch.optim.Optimizer:
        optimizer = build()
        optimizer.register_step_pre_hook(lambda opt, _args, _kwargs: seen.append(opt.param_groups[0]["lr"]))
        return optimizer

    trainer.module.configure_optimizers = watched  # type: ignore[method-assign]
    shared, state = initial(trainer)
    for round_idx in range(2):
        _, shared, state = train(trainer, 1, rows, (shared, state), round_idx)
    assert seen == pytest.approx([0.0, 0.05, 0.05 * 2 / 3, 0.05 / 3] * 2)


def test_truncated_rows_are_counted(
    make_trainer: MakeTrainer, make_task: Callable[..., CausalLM], rows: list[dict[str, str]]
) -> None:
    task = make_task(max_length_tokens=20)
    trainer = make_trainer(task=task, batch_size=len(rows), steps=1)
    expected = sum(example.truncated for example in task.encode(rows))
    result, _, _ = train(trainer, 1, rows, initial(trainer))
    assert 0 < expected < len(rows)
    assert result.metrics["num_truncated"] == expected


def test_a_kept_optimizer_goes_on_and_a_reset_one_starts_anew(
    make_trainer: MakeTrainer, rows: list[dict[str, str]]
) -> None:
    """Two rounds of 2 steps with kept moments are one round of 4 steps; with new moments they are not."""
    whole = make_trainer(steps=4)
    shared, state = initial(whole)
    expected = checksum(train(whole, 1, rows, (shared, state))[1])
    for kept in ("keep", "reset"):
        halves = make_trainer(steps=2, optimizer_state=kept)
        _, first, between = train(halves, 1, rows, (shared, state), round_idx=0)
        _, second, _ = train(halves, 1, rows, (first, between), round_idx=1)
        assert (checksum(second) == expected) == (kept == "keep")
        assert (between.optimizer is not None) == (kept == "keep")


@pytest.mark.parametrize("method", ["fedit", "fedsa_lora", "local_only"])
def test_nothing_leaks_from_client_to_client(
    method: str, make_trainer: MakeTrainer, rows: list[dict[str, str]]
) -> None:
    """Three rounds of clients 0, 1 and 2 in turn, against client 1 on a model of its own."""
    shards = [rows[:5], rows[5:9], rows[9:]]

    def rounds(clients: Sequence[int]) -> list[list[str]]:
        trainer = make_trainer(method=method, options={"lora_dropout": 0.2}, optimizer_state="keep")
        shared, first = initial(trainer)
        states = dict.fromkeys(clients, first)
        seen = []
        for round_idx in range(3):
            for client in clients:
                start = (shared, states[client])
                _, sent, states[client] = train(trainer, client, shards[client], start, round_idx)
                if client == 1:
                    seen.append([checksum(sent), *bits_of(states[1])])
        return seen

    alone = rounds([1])
    assert rounds([0, 1, 2]) == alone
    assert rounds([2, 1]) == alone
    assert len({row[0] if method != "local_only" else row[1] for row in alone}) == 3


def test_a_leak_would_be_seen(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    """Clients 0 and 1 do reach different private tensors, so the equality above says something."""
    trainer = make_trainer(method="fedsa_lora", optimizer_state="keep")
    start = initial(trainer)
    states = [train(trainer, client, rows[client::2], start)[2] for client in (0, 1)]
    assert all(left != right for left, right in zip(*map(bits_of, states), strict=True))


@pytest.mark.parametrize("method", ["fedit", "fedsa_lora", "local_only"])
def test_what_is_given_and_what_is_returned_stay_as_they_are(
    method: str, make_trainer: MakeTrainer, rows: list[dict[str, str]]
) -> None:
    trainer = make_trainer(method=method, optimizer_state="keep")
    shared, state = initial(trainer)
    result, sent, state = train(trainer, 0, rows, (shared, state), round_idx=0)
    before = [checksum(shared), checksum(sent), checksum(result.private), *bits_of(state)]
    train(trainer, 0, rows, (sent, state), round_idx=1)
    train(trainer, 1, rows, (shared, state), round_idx=1)
    with torch.no_grad():
        for parameter in trainer.module.model.parameters():
            parameter.zero_()
    assert [checksum(shared), checksum(sent), checksum(result.private), *bits_of(state)] == before


def test_the_backbone_is_not_touched(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    trainer = make_trainer(weight_decay=0.5)
    model = trainer.module.model
    frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
    before = checksum(frozen)
    train(trainer, 0, rows, initial(trainer))
    assert checksum(frozen) == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("last", [1, 3])
def test_a_client_is_abandoned_when_asked(last: int, make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    """The request goes up to whoever asked for the results, is no failure, and what the client did is lost."""
    trainer = make_trainer(method="fedsa_lora", optimizer_state="keep")
    start = initial(trainer)
    before = [checksum(start[0]), *bits_of(start[1])]
    expected = checksum(train(trainer, 0, rows, start)[1])
    calls: list[None] = []

    def on_step() -> None:
        calls.append(None)
        if len(calls) == last:
            raise StopAsked(StopReason.SIGTERM)

    trainer.on_step = on_step
    results: list[ClientResult] = []
    with pytest.raises(StopAsked):
        results.extend(trainer.train([make_job(trainer, 0, rows, *start)]))
    assert results == []
    assert len(calls) == last
    assert [checksum(start[0]), *bits_of(start[1])] == before
    trainer.on_step = lambda: None
    assert checksum(train(trainer, 0, rows, start)[1]) == expected


def test_jobs_are_taken_up_as_they_are_needed(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    """So that what a client starts from is there no sooner than its turn, and what it sent can be summed before."""
    trainer = make_trainer(steps=1)
    start = initial(trainer)
    taken: list[int] = []

    def jobs() -> Iterator[ClientJob]:
        for client_id in (3, 1, 2):
            taken.append(client_id)
            yield make_job(trainer, client_id, rows, *start)

    seen = [(result.client_id, list(taken)) for result in trainer.train(jobs())]
    assert seen == [(3, [3]), (1, [3, 1]), (2, [3, 1, 2])]


class Spoilt:
    """A task whose loss is `value` at one step."""

    def __init__(self, task: CausalLM, value: float, step: int) -> None:
        self.task, self.value, self.left = task, value, step

    def encode(self, rows: Sequence[dict[str, str]]) -> list[Example]:
        return self.task.encode(rows)

    def collate(self, examples: Sequence[Example]) -> Batch:
        return self.task.collate(examples)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.left -= 1
        loss = self.task.loss(model, batch)
        return loss if self.left else loss * 0 + self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_loss_that_is_not_finite_is_named(
    value: float, step: int, make_trainer: MakeTrainer, make_task: Callable[..., CausalLM], rows: list[dict[str, str]]
) -> None:
    # Plain SGD with a zero gradient: only the spoilt step is not finite.
    trainer = make_trainer(task=Spoilt(make_task(), value, step), optimizer="sgd")
    with pytest.raises(DivergenceError) as caught:
        train(trainer, 7, rows, initial(trainer), round_idx=4)
    error, message = caught.value, str(caught.value)
    assert (error.round_number, error.client_id, error.step, error.what) == (5, 7, step, "the loss")
    assert repr(error.value) == repr(value)
    assert f"round 5, client 7: the loss is {value} at local step {step}" in message
    assert "local.lr" in message
    assert "\n" not in message


def test_a_client_that_fails_is_a_result_without_a_payload(
    make_trainer: MakeTrainer, make_task: Callable[..., CausalLM], rows: list[dict[str, str]]
) -> None:
    """The others train as if it had not been there."""
    trainer = make_trainer(optimizer="sgd")
    start = initial(trainer)
    expected = checksum(train(trainer, 1, rows, start)[1])
    spoilt = make_trainer(task=Spoilt(make_task(), float("nan"), 2), optimizer="sgd")
    lost, kept = spoilt.train([make_job(spoilt, client_id, rows, *start) for client_id in (0, 1)])
    assert (lost.client_id, lost.payload, lost.state) == (0, None, None)
    assert isinstance(lost.failure, DivergenceError)
    assert lost.failure.client_id == 0
    assert kept.failure is None
    assert kept.payload is not None
    assert checksum(kept.payload[MODEL]) == expected


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_the_products_run_in_the_precision_asked_for(
    precision: str, dtype: torch.dtype, make_trainer: MakeTrainer, rows: list[dict[str, str]]
) -> None:
    trainer = make_trainer(precision=precision)
    linear = trainer.module.model.get_submodule("model.layers.1.mlp.down_proj")
    seen: list[tuple[torch.dtype, torch.dtype]] = []
    linear.register_forward_hook(lambda module, inputs, output: seen.append((output.dtype, module.weight.dtype)))
    _, sent, _ = train(trainer, 0, rows, initial(trainer))
    assert seen == [(dtype, torch.float32)] * 3
    assert {tensor.dtype for tensor in sent.values()} == {torch.float32}


def test_dropout_is_on_after_an_evaluation(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    trainer = make_trainer(options={"lora_dropout": 0.5})
    start = initial(trainer)
    expected = checksum(train(trainer, 0, rows, start)[1])
    trainer.module.model.eval()
    assert checksum(train(trainer, 0, rows, start)[1]) == expected
    without = make_trainer()
    assert checksum(train(without, 0, rows, start)[1]) != expected


def test_the_draws_of_others_do_not_matter(make_trainer: MakeTrainer, rows: list[dict[str, str]]) -> None:
    trainer = make_trainer(options={"lora_dropout": 0.5})
    start = initial(trainer)
    results = []
    for outside in (0, 1):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        results.append(checksum(train(trainer, 0, rows, start)[1]))
        assert torch.equal(torch.get_rng_state(), before)
    assert results[0] == results[1]


def test_the_rows_of_a_round_and_no_others_are_tokenised(
    make_trainer: MakeTrainer, make_task: Callable[..., CausalLM], rows: list[dict[str, str]]
) -> None:
    class Watched(CausalLM):
        def encode(self, rows: Sequence[Any]) -> list[Example]:
            encoded.extend(row["prompt"] for row in rows)
            return super().encode(rows)

        def collate(self, examples: Sequence[Example]) -> Batch:
            batches.append([example.prompt.strip() for example in examples])
            return super().collate(examples)

    encoded: list[str] = []
    batches: list[list[str]] = []
    trainer = make_trainer(task=Watched(**vars(make_task())), steps=2, batch_size=3)
    train(trainer, 4, rows, initial(trainer), round_idx=1)
    order = training_order(len(rows), 3, trainer.seed, 4, skip=2, num_steps=2)
    assert batches == [[rows[row]["prompt"] for row in batch] for batch in order]
    assert sorted(encoded) == sorted({prompt for batch in batches for prompt in batch})


def test_the_number_of_steps(make_trainer: MakeTrainer) -> None:
    assert make_trainer(steps=7).num_steps(5) == 7
    by_epochs = make_trainer(steps=None, epochs=3)
    assert [by_epochs.num_steps(count) for count in (1, 4, 5, 8, 12)] == [3, 3, 6, 6, 9]
    pooled = make_trainer(steps=7)
    pooled.num_step_multiples = 4
    assert pooled.num_steps(5) == 28


def test_a_new_optimizer_steps_the_trainable_parameters_alone(make_trainer: MakeTrainer) -> None:
    module = make_trainer(method="ffa_lora").module
    stepped = [parameter for group in module.configure_optimizers().param_groups for parameter in group["params"]]
    named = {name: parameter for name, parameter in module.model.named_parameters() if ".lora_B." in name}
    assert [id(parameter) for parameter in stepped] == [id(parameter) for parameter in named.values()]
    assert num_parameters(named) == 2 * 2 * (32 + 16 + 16 + 24)
