"""A client's steps of DP-SGD are those of algorithm 1 (arXiv 1607.00133), written down as a bare loop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from client_rounds import make_job, train_client
from single_rows import in_a_loop
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.client.row_order import poisson_order
from fedlit.client.trainers.example import ExampleTrainer
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.round.jobs import ClientResult, ClientState
from fedlit.round.payload import MODEL
from fedlit.seeding import torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

Make = Callable[..., ExampleTrainer]
Row = dict[str, str]


@pytest.fixture
def make(make_trainer: Callable[..., SerialTrainer]) -> Make:
    """Return a function that builds a private trainer in float64; a full step is plain SGD unless it is told."""

    def build(*args: Any, clip_norm: float = 1.0, noise_multiplier: float = 0.0, **options: Any) -> ExampleTrainer:
        plain = make_trainer(*args, **{"optimizer": "sgd", "precision": "64-true", **options})
        plain.host.model.double()
        given = {each.name: getattr(plain, each.name) for each in fields(plain)}
        return ExampleTrainer(clip_norm=clip_norm, noise_multiplier=noise_multiplier, **given)

    return build


def initial(trainer: SerialTrainer) -> TensorDict:
    """Return shared tensors with no zero factor, so that A and B both learn."""
    with torch_stream(5, "start"):
        shared = trainer.host.method.shared(trainer.host.model)
        return {name: tensor + 0.1 * torch.randn(tensor.shape, dtype=tensor.dtype) for name, tensor in shared.items()}


def train(
    trainer: SerialTrainer, rows: Sequence[Row], start: TensorDict, client_id: int = 1, round_idx: int = 0
) -> tuple[ClientResult, TensorDict]:
    private = snapshot(trainer.host.method.private(trainer.host.model))
    result = train_client(trainer, make_job(trainer, client_id, rows, start, ClientState(private=private), round_idx))
    assert result.payload is not None
    return result, result.payload[MODEL]


def assert_close(one: TensorDict, other: TensorDict, tolerance: float = 1e-6) -> None:
    """Llama's norms compute in float32 whatever the model's type, in which a last bit may fall either way."""
    assert one.keys() == other.keys()
    for name, each in one.items():
        torch.testing.assert_close(each, other[name], rtol=0, atol=tolerance, msg=name)


def bare_loop(
    trainer: ExampleTrainer, rows: Sequence[Row], start: TensorDict, clip_norm: float, lr: float, num_steps: int
) -> TensorDict:
    """Return what algorithm 1 without noise and SGD make of the trained tensors, by the rows of `poisson_order`."""
    task: Any = trainer.module.task
    model, trained = trainer.host.model, trainer.host.trained
    for name, parameter in trained.items():
        parameter.data.copy_(start[name])
    size = trainer.local.batch_size * trainer.local.accumulate
    examples = task.encode(rows)
    order = poisson_order(len(rows), size, trainer.seed, 1, round_idx=0, num_steps=num_steps)
    for step in order:
        total, _ = in_a_loop(
            lambda place, step=step: task.loss(model, task.collate([examples[step[place]]])),  # type: ignore[misc]
            len(step),
            trained,
            clip_norm,
        )
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.sub_(lr * total[name] / min(size, len(rows)))
    return snapshot({name: each.data for name, each in trained.items()})


@pytest.mark.parametrize("clip_norm", [1e6, 0.05])
def test_steps_are_those_of_the_algorithm(make: Make, rows: list[Row], clip_norm: float) -> None:
    trainer = make(clip_norm=clip_norm, batch_size=2, accumulate=2, steps=4, lr=0.5)
    start = initial(trainer)
    result, sent = train(trainer, rows, start)
    assert_close(sent, bare_loop(trainer, rows, start, clip_norm, 0.5, 4))
    assert result.metrics["num_steps"] == 4
    assert result.metrics["clipped_share"] == (1.0 if clip_norm < 1 else 0.0)


def test_whole_batches_without_clipping_are_plain_gradient_steps(
    make: Make, make_trainer: Callable[..., SerialTrainer], rows: list[Row]
) -> None:
    """Rate 1, no noise, a clip that clips nothing: the mean over rows of each row's mean loss, stepped."""
    trainer = make(clip_norm=1e9, batch_size=16, steps=3, lr=0.5)
    start = initial(trainer)
    _, sent = train(trainer, rows, start)
    task: Any = trainer.module.task
    trained, model = trainer.host.trained, trainer.host.model
    for name, parameter in trained.items():
        parameter.data.copy_(start[name])
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    examples = task.encode(rows)
    for _ in range(3):
        optimizer.zero_grad()
        losses = [task.loss(model, task.collate([example])) for example in examples]
        (sum(losses) / len(losses)).backward()
        optimizer.step()
    assert_close(sent, {name: each.data for name, each in trained.items()})


def test_physical_batches_are_no_part_of_the_result(make: Make, rows: list[Row]) -> None:
    """Rows are clipped one by one, so that 2 x 4 rows and 8 rows are the same, noise included."""
    one = make(clip_norm=0.1, noise_multiplier=0.5, batch_size=8, steps=3)
    two = make(clip_norm=0.1, noise_multiplier=0.5, batch_size=2, accumulate=4, steps=3)
    assert_close(train(one, rows, initial(one))[1], train(two, rows, initial(two))[1])


def noise_of(trainer: ExampleTrainer, rows: Sequence[Row], start: TensorDict, lr: float, **job: int) -> Tensor:
    """Return all numbers of what noise alone did to the trained tensors, over the learning rate."""
    _, sent = train(trainer, rows, start, **job)
    return torch.cat([(start[name] - sent[name]).flatten() / lr for name in sent])


def test_noise_has_the_deviation_of_the_algorithm(make: Make, rows: list[Row]) -> None:
    """z C / L in each number of a step; the gradient, of norm C at most, is far below."""
    z, clip_norm, lr = 1e6, 1e-4, 0.01
    trainer = make(clip_norm=clip_norm, noise_multiplier=z, batch_size=4, steps=1, lr=lr, options={"lora_rank": 8})
    noise = noise_of(trainer, rows, initial(trainer), lr)
    num = noise.numel()
    assert num > 2000
    expected = z * clip_norm / 4
    assert float(noise.std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * num))
    assert abs(float(noise.mean())) < 4 * expected / math.sqrt(num)
    assert float((noise / expected).pow(4).mean()) == pytest.approx(3.0, abs=4 * math.sqrt(96 / num))


def test_each_step_round_and_client_has_noise_of_its_own(make: Make, rows: list[Row]) -> None:
    """Noise adds up as a random walk: 16 steps of one noise would be 16 times as far, not 4 times."""
    z, clip_norm, lr = 1e6, 1e-4, 0.01
    build = {"clip_norm": clip_norm, "noise_multiplier": z, "batch_size": 4, "lr": lr, "options": {"lora_rank": 8}}
    one, many = make(steps=1, **build), make(steps=16, **build)
    start = initial(one)
    first = noise_of(one, rows, start, lr)
    assert float(noise_of(many, rows, start, lr).std() / first.std()) == pytest.approx(4.0, rel=0.1)
    for other in (noise_of(one, rows, start, lr, round_idx=1), noise_of(one, rows, start, lr, client_id=0)):
        correlation = torch.corrcoef(torch.stack([first, other]))[0, 1]
        assert abs(float(correlation)) < 4 / math.sqrt(len(first))
    torch.testing.assert_close(noise_of(one, rows, start, lr), first, rtol=0, atol=0)


def test_the_noise_is_the_same_whatever_the_rows(make: Make, rows: list[Row]) -> None:
    """It depends on seed, round, client and step alone, so that neighbours differ by one clipped gradient."""
    build = {"clip_norm": 0.1, "batch_size": 16, "steps": 1, "lr": 1.0}
    quiet, loud = make(**build), make(noise_multiplier=0.7, **build)
    start = initial(quiet)
    all_rows = {name: train(loud, rows, start)[1][name] - train(quiet, rows, start)[1][name] for name in start}
    fewer = {name: train(loud, rows[:-1], start)[1][name] - train(quiet, rows[:-1], start)[1][name] for name in start}
    assert_close(all_rows, {name: each * (len(rows) - 1) / len(rows) for name, each in fewer.items()})


def test_a_neighbour_is_one_clipped_gradient_away(make: Make, rows: list[Row]) -> None:
    """One row more or less moves the sum by C at most, and by C where it is clipped."""
    clip_norm = 0.05
    trainer = make(clip_norm=clip_norm, batch_size=16, steps=1, lr=1.0)
    start = initial(trainer)

    def total(given: Sequence[Row]) -> Tensor:
        _, sent = train(trainer, given, start)
        return torch.cat([(start[name] - sent[name]).flatten() for name in sent]) * len(given)

    whole = total(rows)
    for row in (0, 5, 11):
        distance = float((whole - total([each for place, each in enumerate(rows) if place != row])).norm())
        assert distance == pytest.approx(clip_norm, rel=1e-9)


def test_an_empty_step_is_noise_alone(make: Make, rows: list[Row]) -> None:
    quiet = make(batch_size=1, steps=12, lr=0.5)
    start = initial(quiet)
    order = list(poisson_order(len(rows), 1, quiet.seed, 1, round_idx=0, num_steps=12))
    assert [] in order
    result, sent = train(quiet, rows, start)
    assert result.metrics["num_steps"] == 12
    assert_close(sent, bare_loop(quiet, rows, start, 1.0, 0.5, 12))
    # A round in which nothing but noise is.
    (empty,) = [i for i in range(400) if not any(poisson_order(12, 1, quiet.seed, 1, round_idx=i, num_steps=1))][:1]
    still, loud = make(batch_size=1, steps=1), make(batch_size=1, steps=1, noise_multiplier=1.0, clip_norm=2.0)
    result, sent = train(still, rows, start, round_idx=empty)
    assert_close(sent, start, 0.0)
    assert "train_loss" not in result.metrics
    assert result.metrics["num_steps"] == 1
    result, sent = train(loud, rows, start, round_idx=empty)
    change = torch.cat([(start[name] - sent[name]).flatten() / 0.05 for name in start])
    assert float(change.std()) == pytest.approx(2.0, rel=0.1)
    assert (change != 0).all()


def test_what_the_loss_does_not_use_gets_noise_too(make: Make, rows: list[Row]) -> None:
    trainer = make(batch_size=4, steps=1, lr=1.0, noise_multiplier=1.0, clip_norm=0.5)
    extra = nn.Linear(300, 5, bias=False, dtype=torch.float64)
    trainer.host.model.add_module("extra", extra)
    trainer.host.trained["extra.weight"] = extra.weight
    before = extra.weight.detach().clone()
    train(trainer, rows, initial(trainer))
    assert float((extra.weight.detach() - before).std()) == pytest.approx(0.5 / 4, rel=0.1)


def test_only_what_trains_in_a_round_gets_noise(make: Make, rows: list[Row]) -> None:
    """RoLoRA trains B in the first round and A in the second."""
    trainer = make("rolora", noise_multiplier=1.0, steps=2)
    start = initial(trainer)
    for round_idx, turn in enumerate(("lora_B", "lora_A")):
        _, sent = train(trainer, rows, start, round_idx=round_idx)
        for name in start:
            assert torch.equal(sent[name], start[name]) == (turn not in name), name


def test_what_follows_sees_the_noisy_gradient_alone(make: Make, rows: list[Row]) -> None:
    """A pull, clipping, momentum and a schedule: as a bare loop over the noisy gradients has them."""
    options: dict[str, Any] = {"batch_size": 16, "steps": 3, "lr": 0.5, "clip_norm": 0.05, "noise_multiplier": 0.3}
    trainer = make(momentum=0.9, prox_mu=0.1, max_grad_norm=0.02, schedule="linear", **options)
    start = initial(trainer)
    _, sent = train(trainer, rows, start)
    task: Any = trainer.module.task
    examples, trained, model = task.encode(rows), trainer.host.trained, trainer.host.model
    for name, parameter in trained.items():
        parameter.data.copy_(start[name])
    optimizer = torch.optim.SGD(trained.values(), lr=0.5, momentum=0.9)
    noise = {step: noise_alone(make, rows, start, step, options) for step in range(3)}
    for step in range(3):
        total, _ = in_a_loop(
            lambda row: task.loss(model, task.collate([examples[row]])), len(rows), trained, options["clip_norm"]
        )
        for name, parameter in trained.items():
            parameter.grad = total[name] / len(rows) + noise[step][name]
            parameter.grad += 0.1 * (parameter.detach() - start[name])
        nn.utils.clip_grad_norm_(trained.values(), 0.02)
        optimizer.param_groups[0]["lr"] = 0.5 * (1 - step / 3)
        optimizer.step()
    assert_close(sent, {name: each.data for name, each in trained.items()})


def noise_alone(make: Make, rows: list[Row], start: TensorDict, step: int, options: dict[str, Any]) -> TensorDict:
    """Return the noise of a step as the difference of what one and two steps more without learning leave."""
    tiny = {
        **options,
        "clip_norm": 1e-15,
        "noise_multiplier": options["noise_multiplier"] * options["clip_norm"] * 1e15,
    }
    ends = []
    for num_steps in (step, step + 1):
        _, sent = train(make(**{**tiny, "steps": num_steps}), rows, start) if num_steps else (None, start)
        ends.append(sent)
    return {name: (ends[0][name] - ends[1][name]) / options["lr"] for name in start}


def test_a_row_without_labels_is_none_of_the_sum(make: Make, rows: list[Row]) -> None:
    """One token has nothing before it: with it the step is another only in what is expected."""
    trainer = make(batch_size=16, steps=1, lr=0.5)
    task: Any = trainer.module.task
    start = initial(trainer)

    class Cut(CausalLM):
        def encode(self, given: Sequence[Any]) -> Any:
            found = super().encode(given)
            return [each if place else one_token(each) for place, each in enumerate(found)]

    trainer.module.task = Cut(**{each.name: getattr(task, each.name) for each in fields(task)})
    _, sent = train(trainer, rows, start)
    trainer.module.task = task
    other, without = train(trainer, rows[1:], start)
    share = (len(rows) - 1) / len(rows)
    expected = {name: start[name] + (without[name] - start[name]) * share for name in start}
    assert_close(sent, expected)
    assert other.metrics["train_loss"] > 0


def one_token(example: Any) -> Any:
    return type(example)(token_ids=(7,), num_prompt_tokens=1, prompt="", response="", truncated=False)


def test_clients_know_nothing_of_those_before_them(make: Make, rows: list[Row]) -> None:
    trainer = make("fedsa_lora", optimizer="adamw", noise_multiplier=0.5, options={"lora_dropout": 0.2})
    start = initial(trainer)
    alone = train(
        make("fedsa_lora", optimizer="adamw", noise_multiplier=0.5, options={"lora_dropout": 0.2}), rows, start
    )
    train(trainer, rows[:5], start, client_id=0)
    private = alone[0].private
    result = train_client(
        trainer,
        make_job(trainer, 1, rows, start, ClientState(private={name: each * 0 for name, each in private.items()})),
    )
    assert result.payload is not None
    assert result.payload[MODEL].keys() == alone[1].keys()


def test_epochs_are_steps_of_one_over_the_rate(make: Make, rows: list[Row]) -> None:
    trainer = make(batch_size=5, steps=None, epochs=2)
    result, _ = train(trainer, rows, initial(trainer))
    assert result.metrics["num_steps"] == 2 * math.ceil(1 / (5 / 12)) == trainer.num_steps(12)
    assert trainer.rate(12) == 5 / 12
