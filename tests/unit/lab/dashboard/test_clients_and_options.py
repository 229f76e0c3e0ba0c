"""Curves of single clients, and in what runs differ."""

from dataclasses import replace
from pathlib import Path

from fedlit.config import load_config
from fedlit.lab.analysis.collection import Entry
from fedlit.lab.dashboard.clients import MOST_CLIENTS, client_curves
from fedlit.lab.dashboard.options import ABSENT, differing_options
from fedlit.lab.dashboard.rates import best_rates
from fedlit.lab.dashboard.series import points_of
from fedlit.store.status import RunStatus


def entry(*words: str, name: str = "run", records: tuple[dict[str, object], ...] = ()) -> Entry:
    return Entry(
        name=name,
        folder=Path(name),
        settings={},
        status=RunStatus(state="done"),
        config=load_config(["model=tiny", "data=pydoc", *words]),
        records=records,
        partition={"clients": [{"client_id": 0, "name": "north"}, {"client_id": 1}]},
    )


RECORDS = (
    {"round": 0, "global/loss": 3.0, "client/0/own/rouge_l": 0.1},
    {
        "round": 1,
        "client/0/train_loss": 2.0,
        "client/1/train_loss": 2.5,
        "client/0/num_steps": 4,
        "client/1/own/rouge_l": 0.25,
    },
)


def test_scores_of_clients_are_columns_by_round_and_carry_names() -> None:
    (run,) = client_curves([entry(records=RECORDS), entry(name="none")], {"rouge_l": 100.0})
    assert (run.names, run.rounds, run.num_clients) == (["north", "client 1"], [0, 1], 2)
    found = {score.heading: (score.unit, score.lines) for score in run.scores}
    assert found == {
        "own ROUGE-L": ("F1 × 100", [[10.0, None], [None, 25.0]]),
        "training loss": ("nats per token or example", [[None, 2.0], [None, 2.5]]),
    }


def test_of_many_clients_the_first_are_drawn() -> None:
    record = {"round": 1, **{f"client/{i}/train_loss": float(i) for i in range(60)}}
    (run,) = client_curves([entry(records=(record,))], {})
    assert (len(run.names), len(run.scores[0].lines), run.num_clients) == (MOST_CLIENTS, MOST_CLIENTS, 60)


def test_options_that_differ_are_told_key_by_key() -> None:
    found = differing_options(
        [
            entry("method=fedit", "local.lr=0.1", "run.dir=a", name="one"),
            entry("method=full", "local.lr=0.2", "run.dir=b", name="two"),
            replace(entry(name="three"), config=None),
        ]
    )
    values = dict(zip(found.keys, found.values, strict=True))
    assert found.runs == ["one", "two"]
    assert values["local.lr"] == ["0.1", "0.2"]
    assert values["method.lora_rank"][1] == ABSENT
    assert not any(key.startswith("run.") for key in found.keys)
    assert "data.name" not in found.keys


def test_points_are_in_the_unit_of_the_paper() -> None:
    points = points_of(entry(records=RECORDS[:1]), {"loss": 2.0, "rouge_l": 100.0})
    assert points[0]["global/loss"] == 6.0
    assert points[0]["round"] == 0


def test_the_best_rate_is_chosen_on_validation_and_the_test_set_is_marked() -> None:
    def tried(lr: float, seed: int, validation: float | None, test: float) -> Entry:
        record: dict[str, object] = {"round": 1, "global/rouge_l": test}
        record |= {} if validation is None else {"validation/rouge_l": validation}
        found = entry(f"local.lr={lr}", name=f"{lr}-{seed}", records=({"round": 0}, record))
        return replace(found, settings={"method": "fedit", "local.lr": lr, "seed": seed})

    (rate,) = best_rates([tried(0.1, s, 0.5, 0.1) for s in (0, 1)] + [tried(0.2, s, 0.4, 0.9) for s in (0, 1)])
    assert (rate.label, rate.value, rate.score, rate.on_test) == ("fedit", "0.1", "0.5000", False)
    assert rate.heading == "validation ROUGE-L"
    assert rate.tried == "0.1: 0.5000, 0.2: 0.4000"
    (rate,) = best_rates([tried(0.1, 0, None, 0.1), tried(0.2, 0, None, 0.9)])
    assert (rate.value, rate.on_test) == ("0.2", True)
    assert best_rates([tried(0.1, 0, None, 0.1)]) == []
