"""Rounds in which clients stay away or come late: what is summed, what waits, what is recorded, and after a stop."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_federations import Builder, assert_equal, results

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.errors import UserError
from fedlit.lab.analysis.costs import cumulative_costs
from fedlit.round.jobs import ClientJob, ClientResult, Trainer
from fedlit.round.loop import Federation
from fedlit.round.payload import MODEL

UNEQUAL = ("num_clients=5", "partition.name=quantity", "partition.alpha=1", "num_rounds=6", "eval.every=9")
CLOCK = "tokens_per_s: 100, spread: 0.8, jitter: 0.2"
LATE = ("cohort.availability=deadline", f"cohort.options={{deadline_s: 0.7, late: use, {CLOCK}}}")
BUFFERED = ("cohort.availability=buffered", "cohort_size=2", f"cohort.options={{concurrency: 4, {CLOCK}}}")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


@dataclass
class Watched(Trainer):
    """Keeps what each client began from and sends, by (round in which it began, client)."""

    inner: Trainer
    changes: dict[tuple[int, int], TensorDict] = field(default_factory=dict)
    private: dict[tuple[int, int], TensorDict] = field(default_factory=dict)

    def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
        for job in jobs:
            (result,) = self.inner.train([job])
            assert result.payload is not None
            assert result.state is not None
            start, end = job.start.groups[MODEL], result.payload[MODEL]
            key = job.plan.round_idx, job.client_id
            self.changes[key] = {name: end[name].double() - start[name].double() for name in start}
            self.private[key] = snapshot(result.state.private)
            yield result

    def num_steps(self, num_examples: int) -> int:
        return self.inner.num_steps(num_examples)


def watched(federation: Federation) -> Watched:
    trainer = Watched(federation.trainer)
    federation.trainer = trainer
    return trainer


def timeless(federation: Federation, *, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in record.items() if not key.startswith(("time/", *without))}
        for record in federation.folder.records()
    ]


@pytest.mark.parametrize("options", [LATE, BUFFERED], ids=["deadline", "buffered"])
@pytest.mark.parametrize("method", ["fedit", "fedsa_lora"])
def test_each_step_is_the_weighted_sum_of_changes_since_their_own_begin(
    builder: Builder, options: tuple[str, ...], method: str
) -> None:
    """FedBuff's equation, and the weighted mean of stale changes, in dense float64 from what clients really sent."""
    federation = builder("run", f"method={method}", *UNEQUAL, *options)
    sent, plans = watched(federation), [federation.schedule.plan(round_idx) for round_idx in range(6)]
    server = {name: tensor.double() for name, tensor in snapshot(federation.server.shared).items()}
    states, step = list[TensorDict](), federation.step

    def stepped(*args: Any) -> Any:
        after = type(step).__call__(step, *args)
        states.append(snapshot(after.shared))
        return after

    federation.step = stepped  # type: ignore[assignment]
    federation.run()
    num_stale = 0
    for plan, found in zip(plans, states, strict=True):
        num_rows = {client: federation.schedule.num_examples[client] for client in plan.arriving}
        factors = {client: (1 + plan.staleness(client)) ** -0.5 for client in plan.arriving}
        num_stale += sum(plan.staleness(client) > 0 for client in plan.arriving)
        if options is BUFFERED:
            weights = {client: factors[client] / 2 for client in plan.arriving}
        else:
            total = sum(num_rows[client] * factors[client] for client in plan.arriving)
            weights = {client: num_rows[client] * factors[client] / total for client in plan.arriving}
        for name, tensor in server.items():
            step_of = (
                weights[client] * sent.changes[plan.began.get(client, plan.round_idx), client][name]
                for client in plan.arriving
            )
            server[name] = (tensor + sum(step_of, start=torch.zeros(()).double())).float().double()
            assert torch.allclose(found[name].double(), server[name], rtol=0, atol=2e-8)
    assert num_stale >= 2


@pytest.mark.parametrize("options", [LATE, BUFFERED], ids=["deadline", "buffered"])
def test_a_client_has_its_new_private_tensors_when_its_result_comes(builder: Builder, options: tuple[str, ...]) -> None:
    federation = builder("run", "method=fedsa_lora", *UNEQUAL, *options)
    sent, plans = watched(federation), [federation.schedule.plan(round_idx) for round_idx in range(6)]
    assert federation.clients is not None
    wanted = {client: snapshot(state.private) for client, state in federation.clients.items()}
    finish = federation._finish

    def look(record: dict[str, Any], changed: set[int], started_s: float) -> None:
        if record["round"]:
            plan = plans[record["round"] - 1]
            for client in plan.arriving:
                wanted[client] = sent.private[plan.began.get(client, plan.round_idx), client]
            assert changed == {*plan.arriving, *plan.late}
        assert federation.clients is not None
        assert_equal({client: state.private for client, state in federation.clients.items()}, wanted)
        finish(record, changed, started_s)

    federation._finish = look  # type: ignore[method-assign]
    federation.run()
    assert any(plan.late for plan in plans)


@pytest.mark.parametrize("options", [LATE, BUFFERED], ids=["deadline", "buffered"])
@pytest.mark.parametrize("method", ["fedsa_lora", "fedit"])
def test_stopped_after_any_round_it_goes_on_to_the_same_bits(
    builder: Builder, options: tuple[str, ...], method: str
) -> None:
    given = [f"method={method}", "local.optimizer_state=keep", *UNEQUAL, *options]
    whole = builder.run("whole", *given)
    under_way = [bool(plan.late or plan.began) for plan in map(whole.schedule.plan, range(6))]
    assert sum(under_way) >= 3
    for stop in range(1, 6):
        first = builder(f"halves-{stop}", *given)
        first.config.num_rounds = stop
        first.run()
        second = builder(f"halves-{stop}", *given)
        assert second.server.round_idx == stop
        second.run()
        assert_equal(results(second), results(whole))
        # At its last round a shorter run is evaluated too.
        for one, other in zip(timeless(whole), timeless(second), strict=True):
            assert one == {key: other[key] for key in one}


@pytest.mark.parametrize("method", ["fedex_lora", "fedit", "fedsa_lora", "flora", "fedsvd"])
def test_a_clock_without_a_deadline_changes_no_bit(builder: Builder, method: str) -> None:
    plain = builder.run("plain", f"method={method}", "num_clients=4")
    clock = builder.run("clock", f"method={method}", "num_clients=4", "cohort.availability=deadline")
    assert_equal(results(clock), results(plain))
    assert timeless(clock, without=("clock/", "clients/invited", "clients/arrived")) == timeless(plain)
    assert all(record["clock/round_s"] > 0 for record in clock.folder.records()[1:])


def test_with_nobody_late_using_them_changes_no_bit(builder: Builder) -> None:
    plain = builder.run("plain", "method=fedit", "num_clients=4", "analysis=[]")
    options = ("cohort.availability=deadline", "cohort.options={deadline_s: 1e9, late: use}")
    used = builder.run("used", "method=fedit", "num_clients=4", *options)
    assert_equal(results(used)[0], results(plain)[0])
    fedbuff = ("cohort.availability=buffered", "cohort_size=4", "cohort.options={concurrency: 4}")
    uniform = builder.run("uniform", "method=fedit", "num_clients=4", "method.weighting=uniform")
    assert_equal(results(builder.run("fedbuff", "method=fedit", "num_clients=4", *fedbuff))[0], results(uniform)[0])


def test_the_server_learning_rate_of_fedbuff(builder: Builder) -> None:
    """eta_g is that of FedAvgM without momentum."""
    given = ["method=fedit", "num_clients=5", *BUFFERED, "num_rounds=1"]
    plain = builder("plain", *given)
    before = snapshot(plain.server.shared)
    plain.run()
    double = builder.run("double", *given, "server.optimizer=fedavgm", "server.beta1=0", "server.lr=2")
    for name, tensor in before.items():
        once, twice = plain.server.shared[name] - tensor, double.server.shared[name] - tensor
        assert torch.allclose(twice, 2 * once, atol=1e-7)


def test_the_record_tells_who_came_and_what_the_clock_shows(builder: Builder) -> None:
    federation = builder("run", "method=fedit", *UNEQUAL, *LATE)
    plans = [federation.schedule.plan(round_idx) for round_idx in range(6)]
    federation.run()
    first, *records = federation.folder.records()
    assert not any(key.startswith("clock/") for key in first)
    for record, plan in zip(records, plans, strict=True):
        assert record["clients/invited"] == list(plan.invited)
        assert record["clients/arrived"] == list(plan.arriving)
        assert record.get("clients/late", []) == list(plan.late)
        stale = [plan.round_idx - plan.began.get(client, plan.round_idx) for client in plan.arriving]
        assert record.get("clients/staleness", [0] * len(stale)) == stale
        assert "clients/lost" not in record
        assert record["clock/round_s"] == plan.round_s
        assert record["aggregation/num_clients"] == len(plan.arriving)
        trained = {key.split("/")[1] for key in record if key.endswith("/train_loss")}
        assert trained == {str(client) for client in plan.arriving}
    costs = cumulative_costs(federation.folder.records())
    assert costs[-1]["cost/simulated_s"] == pytest.approx(sum(plan.round_s or 0 for plan in plans))


@pytest.mark.parametrize("options", [LATE, BUFFERED], ids=["deadline", "buffered"])
def test_late_results_count_as_sent_in_the_round_in_which_they_come(builder: Builder, options: tuple[str, ...]) -> None:
    federation = builder("run", "method=rolora", *UNEQUAL, *options)
    plans = [federation.schedule.plan(round_idx) for round_idx in range(6)]
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in federation.server.shared.items()}
    trains = [sum(sizes[name] for name in plan.trains & sizes.keys()) for plan in plans]
    federation.run()
    for record, plan in zip(federation.folder.records()[1:], plans, strict=True):
        sent = sum(trains[plan.began.get(client, plan.round_idx)] for client in plan.arriving)
        assert record["communication/uplink_bytes"] == sent
    assert any(trains[began] != trains[plan.round_idx] for plan in plans for began in plan.began.values())


def test_those_who_stay_away_are_lost_and_those_who_are_too_late_are_late(builder: Builder) -> None:
    away = builder(
        "away", "method=fedex_lora", *UNEQUAL, "cohort.availability=bernoulli", "cohort.options={dropout: 0.5}"
    )
    away.run()
    for record in away.folder.records()[1:]:
        assert sorted([*record["clients/arrived"], *record.get("clients/lost", [])]) == record["clients/invited"]
        assert "clients/late" not in record
        assert "clock/round_s" not in record
    assert any("clients/lost" in record for record in away.folder.records())
    options = f"cohort.options={{deadline_s: 0.7, {CLOCK}}}"
    late = builder.run("late", "method=flora", *UNEQUAL, "cohort.availability=deadline", options)
    for record in late.folder.records()[1:]:
        assert sorted([*record["clients/arrived"], *record.get("clients/late", [])]) == record["clients/invited"]
        assert "clients/lost" not in record
    assert any("clients/late" in record for record in late.folder.records())


def test_a_late_client_that_diverges_is_lost(builder: Builder) -> None:
    federation = builder("run", "method=fedit", *UNEQUAL, *LATE, "cohort.failures=drop")
    plans = [federation.schedule.plan(round_idx) for round_idx in range(6)]
    round_idx, client = next((plan.round_idx, client) for plan in plans for client in plan.late)
    comes = next(plan.round_idx for plan in plans if plan.began.get(client) == round_idx)

    @dataclass
    class Diverging(Watched):
        def train(self, jobs: Iterable[ClientJob]) -> Iterator[ClientResult]:
            for result in super().train(jobs):
                if (round_idx, client) in self.changes and result.client_id == client:
                    del self.changes[round_idx, client]
                    assert result.payload is not None
                    result.payload[MODEL][next(iter(result.payload[MODEL]))].fill_(torch.nan)
                    yield ClientResult(client_id=client, payload=result.payload, peak=None)
                else:
                    yield result

    federation.trainer = Diverging(federation.trainer)
    federation.run()
    records = federation.folder.records()
    assert client in records[round_idx + 1]["clients/lost"]
    assert client in records[comes + 1]["clients/lost"]
    assert client not in records[comes + 1]["clients/arrived"]
    assert client not in records[round_idx + 1].get("clients/late", [])


REFUSED = {
    "a rule of single results": (["method=fedex_lora"], "method=fedex_lora makes its server of single results"),
    "a rule that refactors": (["method=fedsvd"], "method=fedsvd makes"),
    "SCAFFOLD": (["method=fedit", "method.optimizer=sgd", "local.scaffold=true"], "control that travels beside"),
    "masks": (["method=fedit", "privacy.secure_aggregation=true"], "the masks of privacy.secure_aggregation=true"),
    "pooled rows": (["method=centralized"], "method=centralized has none"),
}


@pytest.mark.parametrize("options", [LATE, BUFFERED], ids=["deadline", "buffered"])
@pytest.mark.parametrize("case", REFUSED)
def test_late_results_are_refused_where_their_sum_means_nothing(
    builder: Builder, case: str, options: tuple[str, ...]
) -> None:
    given, match = REFUSED[case]
    with pytest.raises(UserError, match=match):
        builder("run", *given, *UNEQUAL, *options)


@pytest.mark.parametrize("method", ["fedit", "fedsa_lora"])
def test_several_clients_in_one_pass(builder: Builder, method: str) -> None:
    """Groups are of those who train in a round, not of those who come; SGD keeps rounding errors small."""
    given = [f"method={method}", *UNEQUAL, *LATE, "method.optimizer=sgd", "local.lr=0.1"]
    one, several = builder.run("one", *given), builder.run("several", *given, "local.clients_per_batch=2")
    for name, tensor in one.server.shared.items():
        assert torch.allclose(several.server.shared[name], tensor, atol=1e-6)
    assert [record["clients/arrived"] for record in one.folder.records()[1:]] == [
        record["clients/arrived"] for record in several.folder.records()[1:]
    ]
