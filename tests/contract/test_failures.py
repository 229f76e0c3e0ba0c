"""What becomes of a round when clients fail, when nobody takes part, and when numbers are not finite."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from client_rounds import make_job, train_client
from tiny_federations import Builder, assert_equal, assert_export_computes_the_same, packaged, results
from torch.optim import Optimizer

import fedlit
from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.client.schedules import lr_factor
from fedlit.client.steps import StepRange
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.commands.endings import DIVERGED_EXIT_CODE, run_federation
from fedlit.errors import BROKEN_BACKBONE, SMALLER_LOCAL_STEPS, SMALLER_STEPS, DivergenceError
from fedlit.models import Backbone
from fedlit.models.own import copied
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Trainer
from fedlit.round.loop import Federation
from fedlit.round.payload import MODEL, Payload
from fedlit.round.plan import Poisson
from fedlit.store.status import PATH as STATUS_PATH

QUICK = ("local.steps=2", "eval.every=9")
"""At the first step B = 0 and A does not move."""
UNEQUAL = ("partition.name=quantity", "partition.alpha=0.5")
POISSON = ("cohort.sampling=poisson", "cohort_size=1", "num_rounds=6", "seed=9")
"""With this seed some rounds are empty and some have several clients."""


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


@dataclass
class Losing(Trainer):
    """Loses the results of some clients.

    lost: (round_idx, client_id). silent: there is no result at all, in place of one without a payload.
    sent: what every client would have sent.
    """

    inner: Trainer
    lost: set[tuple[int, int]]
    silent: bool = False
    sent: dict[tuple[int, int], Payload] = field(default_factory=dict)

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for job in jobs:
            key = (job.plan.round_idx, job.client_id)
            (result,) = self.inner.train([job])
            assert result.payload is not None
            self.sent[key] = result.payload
            if key not in self.lost:
                yield result
            elif not self.silent:
                yield replace(result, payload=None)

    def num_steps(self, num_examples: int) -> int:
        return self.inner.num_steps(num_examples)


def timeless(federation: Federation) -> list[dict[str, Any]]:
    """Return the records without their times."""
    return [
        {key: value for key, value in record.items() if not key.startswith("time/")}
        for record in federation.folder.records()
    ]


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("recipe", ["fedit", "fedsa_lora", "fedex_lora"])
def test_a_round_goes_on_without_a_lost_client(builder: Builder, recipe: str, silent: bool) -> None:
    """Over the weights of the others, which then sum to 1."""
    options = [
        f"method={recipe}",
        "method.weighting=num_examples",
        "num_rounds=1",
        "local.optimizer_state=keep",
        *UNEQUAL,
    ]
    federation = builder("lost", *options)
    before = federation.server
    assert federation.clients is not None
    kept = federation.clients[1]
    planned = federation.schedule.plan(0).weights
    assert len(set(planned.values())) == 3
    losing = Losing(federation.trainer, {(0, 1)}, silent)
    federation.trainer = losing
    federation.run()
    share = planned[0] + planned[2]
    for name, tensor in federation.server.shared.items():
        expected = sum(planned[client] / share * losing.sent[0, client][MODEL][name].double() for client in (0, 2))
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-9)
        assert not torch.equal(tensor, before.shared[name])
    assert federation.clients[1] is kept, "a client that did not return keeps what it had"
    assert federation.clients[0] is not kept
    record = federation.folder.records()[1]
    assert record["clients/lost"] == [1]
    assert record["aggregation/num_clients"] == 2
    assert "client/0/train_loss" in record
    assert "client/1/train_loss" not in record
    assert 2 * record["communication/downlink_bytes"] >= 3 * record["communication/uplink_bytes"] > 0
    assert record["lora/drift_norm"] > 0
    if recipe == "fedex_lora":
        assert record["lora/deviation"] < 1e-5 * record["lora/drift_norm"]


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        "method=fedit server.optimizer=fedadam server.lr=0.01",
        "method=fedit method.optimizer=sgd local.scaffold=true",
        "method=fedsa_lora",
        "method=fedex_lora",
        "method=fedex_lora method.assignment=keep",
        "method=flora",
        "method=fedsvd",
        "method=local_only",
    ],
)
def test_when_all_are_lost_the_server_stands_still(builder: Builder, options: str, silent: bool) -> None:
    federation = builder("empty", *options.split(), *QUICK)
    before = federation.server
    private = dict(federation.clients or {})
    federation.trainer = Losing(federation.trainer, {(0, 0), (0, 1), (0, 2)}, silent)
    federation.config.num_rounds = 1
    federation.run()
    assert federation.server.round_idx == 1
    assert_equal(federation.server.parts(), before.parts())
    assert (federation.clients or {}) == private
    federation.config.num_rounds = 2
    federation.run()
    _, empty, full = federation.folder.records()
    assert (empty["aggregation/num_clients"], full["aggregation/num_clients"]) == (0, 3)
    assert empty["clients/lost"] == [0, 1, 2]
    assert "clients/lost" not in full
    assert empty["aggregation/update_norm"] == 0
    assert empty["communication/uplink_bytes"] == 0
    assert not [key for key in empty if key.startswith("lora/") or key.endswith("/train_loss")]
    assert federation.server.round_idx == 2
    assert {f"client/{client}/train_loss" for client in range(3)} <= full.keys()
    if federation.host.method.communicates:
        assert full["communication/uplink_bytes"] > 0
        with pytest.raises(AssertionError):
            assert_equal(federation.server.parts(), before.parts())


def break_loss_of(federation: Federation, client_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one client's loss NaN."""
    current: list[int] = []
    load, step = federation.host.load_client, federation.trainer.module.training_step  # type: ignore[attr-defined]

    def loading(job: ClientJob) -> None:
        current[:] = [job.client_id]
        load(job)

    def stepping(*arguments: Any) -> torch.Tensor:
        loss: torch.Tensor = step(*arguments)
        return loss * float("nan") if current == [client_id] else loss

    monkeypatch.setattr(federation.host, "load_client", loading)
    monkeypatch.setattr(federation.trainer.module, "training_step", stepping)  # type: ignore[attr-defined]


@dataclass
class Overflowing(Trainer):
    """Sends too large an update for one client."""

    inner: Trainer
    client_id: int

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for result in self.inner.train(jobs):
            if result.client_id != self.client_id:
                yield result
                continue
            assert result.payload is not None
            tensors = dict(result.payload[MODEL])
            name = next(iter(tensors))
            tensors[name] = tensors[name] + 1e30
            yield replace(result, payload={**result.payload, MODEL: tensors}, peak=None)

    def num_steps(self, num_examples: int) -> int:
        return self.inner.num_steps(num_examples)


@pytest.mark.parametrize("what", ["loss", "update"])
def test_a_failure_is_dropped_or_ends_the_run(builder: Builder, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["method=fedsa_lora", *UNEQUAL]

    def broken(name: str, *more: str) -> Federation:
        federation = builder(name, *options, *more)
        if what == "loss":
            break_loss_of(federation, 1, monkeypatch)
        else:
            federation.trainer = Overflowing(federation.trainer, 1)
        return federation

    dropped = broken("dropped", "cohort.failures=drop")
    dropped.run()
    expected = builder("expected", *options)
    expected.trainer = Losing(expected.trainer, {(0, 1), (1, 1)})
    expected.run()
    assert_equal(results(dropped), results(expected))
    assert timeless(dropped) == timeless(expected)
    assert [record.get("clients/lost") for record in dropped.folder.records()] == [None, [1], [1]]
    assert all(bool(tensor.isfinite().all()) for tensor in dropped.server.shared.values())

    stopped = broken("stopped")
    assert stopped.config.cohort.failures == "stop"
    with pytest.raises(DivergenceError) as caught:
        stopped.run()
    assert (caught.value.round_number, caught.value.client_id, caught.value.checkpoint_round) == (1, 1, 0)
    name = next(iter(stopped.server.shared))
    fact = "the loss is nan at local step 1" if what == "loss" else f"{name} has magnitude 1"
    assert str(caught.value).startswith(f"round 1, client 1: {fact}")
    assert f"; {SMALLER_LOCAL_STEPS} (the checkpoint after round 0 is intact)" in str(caught.value)
    assert len(stopped.folder.records()) == 1


def test_poisson_rounds_may_be_empty_and_resume_to_the_same_bits(builder: Builder) -> None:
    options = ["method=fedsa_lora", "local.optimizer_state=keep", *POISSON, *QUICK]
    whole = builder("whole", *options)
    assert whole.schedule.sampling == Poisson()
    cohorts = [whole.schedule.plan(round_idx).arriving for round_idx in range(6)]
    sizes = [len(cohort) for cohort in cohorts]
    assert 0 in sizes[1:-1]
    assert max(sizes) > 1
    whole.run()
    records = whole.folder.records()[1:]
    assert [record["aggregation/num_clients"] for record in records] == sizes
    for record, cohort in zip(records, cohorts, strict=True):
        assert {key.split("/")[1] for key in record if key.startswith("client/") and "train_loss" in key} == {
            str(client) for client in cohort
        }
        assert "clients/lost" not in record, "those who were not invited are not lost"
        assert (record["aggregation/update_norm"] > 0) == bool(cohort)
    empty = sizes.index(0, 1)
    for stop in (empty, empty + 1):
        first = builder(f"halves-{stop}", *options)
        first.config.num_rounds = stop
        first.run()
        second = builder(f"halves-{stop}", *options)
        assert second.server.round_idx == stop
        second.run()
        assert_equal(results(second), results(whole))
        # At its last round a shorter run is evaluated too.
        for one, other in zip(timeless(whole), timeless(second), strict=True):
            assert {key: other[key] for key in one} == one


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Return a function that runs a small federation as the command does; it returns the exit code and last line."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    environ = dict(os.environ)

    def run(*options: str) -> tuple[int, str]:
        code = run_federation(small_words(tmp_path, *options))
        lines = capsys.readouterr().err.strip().splitlines()
        return code, lines[-1] if lines else ""

    yield run
    os.environ.clear()
    os.environ.update(environ)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def small_words(folder: Path, *options: str) -> list[str]:
    """Return the words of a small run in a folder."""
    small = ["num_clients=3", "num_rounds=2", "local.batch_size=2", "eval.max_examples=4", "eval.max_new_tokens=4"]
    given = {option.split("=")[0] for option in options}
    defaults = [option for option in small if option.split("=")[0] not in given]
    return [*defaults, *options, "logging.wandb=disabled", f"run.dir={folder}", "run.name=run"]


Command = Callable[..., tuple[int, str]]
GLOBAL, OWN = "the loss on the global test set is", "the loss on the client's own test part is"


@pytest.mark.parametrize(
    ("options", "place", "fact", "remedy"),
    [
        # With B = 0 the first step moves B alone, which is private: nothing that travels is out of range.
        ("method=fedsa_lora local.steps=1 local.lr=1e30", "round 1, client 0", GLOBAL, SMALLER_LOCAL_STEPS),
        (
            "method=fedsa_lora local.steps=1 local.lr=1e30 eval.on=clients",
            "round 1, client 0",
            OWN,
            SMALLER_LOCAL_STEPS,
        ),
        (
            "method=fedsa_lora local.steps=1 local.lr=1e30 server.optimizer=fedavgm",
            "round 1, client 0",
            GLOBAL,
            SMALLER_STEPS,
        ),
        ("method=local_only local.steps=2 local.lr=1e30", "round 1, client 0", "the loss is", SMALLER_LOCAL_STEPS),
        ("method=fedit local.steps=1 local.lr=1e30", "round 1, client 0", "lora_B", SMALLER_LOCAL_STEPS),
        (
            "method=fedit local.steps=1 local.lr=1e30 server.optimizer=fedadam server.lr=0.01",
            "round 1, client 0",
            "lora_B",
            SMALLER_STEPS,
        ),
        (
            "method=fedit local.steps=1 server.optimizer=fedadam server.lr=1e30",
            "round 1",
            GLOBAL,
            SMALLER_STEPS,
        ),
        (
            "method=fedit local.steps=1 server.optimizer=fedadam server.lr=1e38 server.tau=1e-12 server.beta1=0",
            "round 1",
            "the server's",
            SMALLER_STEPS,
        ),
        (
            "method=fedit local.steps=1 server.optimizer=fedadam server.lr=1e30 eval.every=2",
            "round 2, client 0",
            "the loss is",
            SMALLER_STEPS,
        ),
    ],
)
def test_what_is_not_finite_ends_the_run_in_one_line(
    command: Command, tmp_path: Path, options: str, place: str, fact: str, remedy: str
) -> None:
    code, line = command(*options.split())
    assert code == DIVERGED_EXIT_CODE == 3
    assert line.startswith(f"diverged: {place}: ")
    assert fact in line
    assert f"; {remedy} (the checkpoint after round {int(place[6]) - 1} is intact)" in line
    assert ("server.lr" in line) == ("server.optimizer" in options)
    status = (tmp_path / "run" / STATUS_PATH).read_text()
    assert '"diverged"' in status
    assert line.removeprefix("diverged: ") in status


@pytest.mark.parametrize(
    ("options", "place", "what"),
    [
        ("method=fedit", "round 0", GLOBAL),
        ("method=fedit server.optimizer=fedadam server.lr=0.01", "round 0", GLOBAL),
        ("method=fedit eval.on=clients", "round 0, client 0", OWN),
        ("method=fedsa_lora", "round 0", GLOBAL),
        ("method=scl eval.protocol=teacher_forced", "round 0", GLOBAL),
    ],
)
def test_a_backbone_with_a_nan_is_told_before_anything_is_trained(
    tmp_path: Path, options: str, place: str, what: str
) -> None:
    broken = copied(packaged().model)
    broken.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(DivergenceError) as caught:
        fedlit.run(small_words(tmp_path, *options.split()), model=broken, tokenizer=packaged().reader)
    assert str(caught.value) == f"{place}: {what} nan; {BROKEN_BACKBONE}"
    assert json.loads((tmp_path / "run" / STATUS_PATH).read_text())["state"] == "diverged"


def test_a_command_whose_rounds_are_partly_empty_ends_well(command: Command, tmp_path: Path) -> None:
    """The console, the plots and the export bear a round without a client."""
    assert command("method=fedit", "local.steps=1", *POISSON)[0] == 0
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("recipe", "form", "num_loads"),
    [("fed_sb", "adapter", 0), ("fedit", "adapter", 0), ("fedex_lora", "adapter", 0), ("fed_sb", "merged", 1)],
)
def test_the_backbone_is_loaded_again_only_for_a_whole_model(
    builder: Builder, recipe: str, form: str, num_loads: int
) -> None:
    """Fed-SB's frozen factors and what FedEx folded are in the server's state."""
    federation = builder.run(
        "run", f"method={recipe}", f"run.export={form}", "num_rounds=1", "local.lr=0.02", "local.steps=2"
    )
    assert federation.server.frozen or recipe == "fedit"
    exporter = federation.exporter
    loads: list[int] = []

    def counted() -> Backbone:
        loads.append(1)
        return exporter.reload()

    federation.exporter = replace(exporter, reload=counted)
    assert_export_computes_the_same(federation)
    assert len(loads) == num_loads
    assert (federation.folder.adapter / "adapter_config.json").is_file() == (form == "adapter")


RATES = (0.1, 0.4)


def two_groups(trainer: SerialTrainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """Give the trainer's optimizers two groups with rates of their own; return where every step's rates will be."""
    seen: list[tuple[float, ...]] = []

    def build() -> Optimizer:
        parameters = list(trainer.host.trained.values())
        groups = [
            {"params": part, "lr": lr} for part, lr in zip((parameters[::2], parameters[1::2]), RATES, strict=True)
        ]
        optimizer = torch.optim.AdamW(groups)
        optimizer.register_step_pre_hook(lambda *_: seen.append(tuple(group["lr"] for group in optimizer.param_groups)))
        return optimizer

    monkeypatch.setattr(trainer.module, "configure_optimizers", build)
    return seen


def expected_rates(factors: Sequence[float]) -> list[tuple[float, ...]]:
    return [pytest.approx([lr * factor for lr in RATES], rel=1e-12) for factor in factors]  # type: ignore[misc]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
@pytest.mark.parametrize("first", [0, 4])
def test_a_schedule_multiplies_the_rate_of_every_group(
    make_trainer: Callable[..., SerialTrainer],
    rows: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    warmup: float,
    first: int,
) -> None:
    trainer = make_trainer(schedule=schedule, warmup=warmup)
    seen = two_groups(trainer, monkeypatch)
    task = trainer.module.task
    batches = [[task.collate(task.encode(rows[start : start + 2]))] for start in range(0, 8, 2)]
    optimizer = trainer.module.configure_optimizers()
    losses = trainer.steps.run(optimizer, batches, lambda: None, schedule=StepRange(first=first, total=10)).tolist()
    assert len(losses) == len(batches) == len(seen)
    factors = [lr_factor(schedule, warmup, first + step, 10) for step in range(4)]
    assert seen == expected_rates(factors)
    seen.clear()
    trainer.steps.run(trainer.module.configure_optimizers(), batches, lambda: None)
    assert seen == expected_rates([1.0] * 4), "without a schedule every group keeps its rate"


@pytest.mark.parametrize("optimizer_state", ["reset", "keep"])
@pytest.mark.parametrize("over", ["round", "run"])
def test_a_round_starts_where_the_schedule_says_and_not_at_the_last_decayed_rate(
    make_trainer: Callable[..., SerialTrainer],
    rows: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    optimizer_state: str,
    over: str,
) -> None:
    """The trainer's run has 5 rounds of 3 steps; a client that is away for a round does not shift the schedule."""
    trainer = make_trainer(schedule="linear", schedule_over=over, optimizer_state=optimizer_state, steps=3)
    assert trainer.num_rounds == 5
    seen = two_groups(trainer, monkeypatch)
    shared: TensorDict = trainer.host.take()[0]
    state = ClientState()
    for round_idx in (0, 1, 3, 4):
        seen.clear()
        before = snapshot_of(state.optimizer)
        result = train_client(trainer, make_job(trainer, 0, rows, shared, state, round_idx))
        first, total = (0, 3) if over == "round" else (3 * round_idx, 15)
        assert seen == expected_rates([1 - (first + step) / total for step in range(3)])
        assert_equal(snapshot_of(state.optimizer), before)
        assert result.state is not None
        state = result.state
        assert (state.optimizer is not None) == (optimizer_state == "keep")
    if state.optimizer is not None:
        assert {int(moments["step"]) for moments in state.optimizer["state"].values()} == {4 * 3}, "moments go on"


def snapshot_of(optimizer: Mapping[str, Any] | None) -> TensorDict:
    """Return copies of an optimizer's kept moments."""
    states = optimizer["state"] if optimizer else {}
    return snapshot({f"{index}/{name}": value for index, state in states.items() for name, value in state.items()})


def test_a_run_whose_checkpoints_are_gone_says_that_it_begins_anew(tmp_path: Path) -> None:
    federation = Builder(tmp_path).run("gone", "method=fedit", "num_rounds=1")
    assert federation.resume() == ("resumed after round 1 of 1",)
    shutil.rmtree(federation.checkpoints.folder / "round-0000")
    shutil.rmtree(federation.checkpoints.folder / "round-0001")
    assert federation.resume() == ("no checkpoint is left of 1 finished round: the run begins anew",)
    assert federation.resume() == ()
