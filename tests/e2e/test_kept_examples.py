"""What a run keeps of single examples adds up to its records, in every task and protocol, and is the same for one
process, two, and a run that was stopped between rounds.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CommandLine, Zygote, merge
from pandas import DataFrame  # type: ignore[import-untyped]
from test_every_task import CASES, SMALL, VIT

from fedlit.metrics.classification import Classification, Regression
from fedlit.metrics.data_to_text import Bleu
from fedlit.metrics.text import Bleu4
from fedlit.store.example_scores import path_of, read, rounds
from fedlit.store.samples import NAME, read_samples

PROTOCOLS = {
    "forced": (
        lambda folder: [*CASES["references"][0](folder)[:-2], "partition.name=iid", "eval.protocol=teacher_forced"]
    ),
}
BUILDS = {name: build for name, (build, _) in CASES.items() if "digits" not in name} | PROTOCOLS
TWO_ON_PUSH = {"choices", "regression", "forced"}
"""Cases that are run on two processes on each push, all others on one."""
WITHOUT = {"nist", "cider", "meteor_15"}
"""Scores of all texts together that are no sums over texts."""


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def scores_of(rows: DataFrame) -> dict[str, float]:
    """Return what the rows of one set and client give for the scores of a record."""
    found: dict[str, float] = {}
    known = {"set", "client", "position", "example", "group", "prediction", "probability", "predicted", "target"}
    for name in [name for name in rows.columns if name not in known]:
        score, _, ending = name.rpartition("_")
        if ending == "sum":
            found[score] = math.fsum(rows[name]) / sum(rows[f"{score}_count"])
        elif ending == "counts":
            bleu = Bleu4() if score == "bleu_4" else Bleu()
            found[score] = bleu.of_counts([sum(column) for column in zip(*rows[name], strict=True)])
        elif ending != "count":
            found[name] = mean(rows[name])
            groups = {group: mean(part[name]) for group, part in rows.groupby("group")}
            found |= {f"{name}/{group}": value for group, value in groups.items()}
            if groups:
                found[f"{name}_macro"] = mean([*groups.values()])
    if "predicted" in rows:
        columns = torch.tensor(rows["predicted"].to_numpy()), torch.tensor(rows["target"].to_numpy())
        numbers = "accuracy" not in rows
        metric: Any = Regression() if numbers else Classification(int(max(map(max, columns))) + 1)
        metric.update(*columns)
        found |= {key: float(value) for key, value in metric.compute().items() if key != "confusion_matrix"}
    return found


def assert_adds_up(folder: Path, key: str, which: str, record: dict[str, Any], rows: DataFrame) -> None:
    """Compare the scores of some rows with those under `key` in the record."""
    told = {name.removeprefix(f"{key}/"): value for name, value in record.items() if name.startswith(f"{key}/")}
    told = {name: value for name, value in told.items() if isinstance(value, float) and name not in WITHOUT}
    found = scores_of(rows[rows["set"] == which])
    for name, value in told.items():
        if "/" in name and name.partition("/")[0] in ("own", "validation"):
            continue
        if name.endswith(("train_loss", "_norm", "_std")) or "time" in name:
            continue
        assert found[name] == pytest.approx(value, abs=1e-12), (folder, name)
    assert "loss" in told


@pytest.fixture(scope="module")
def finished(request: pytest.FixtureRequest, zygote: Zygote) -> Path:
    """Run a case in one process and return its folder."""
    case = str(request.param)
    zygote.run(case, *arguments_of(case, zygote))
    return zygote.folder / case


def arguments_of(case: str, zygote: Zygote) -> list[str]:
    return merge(SMALL, tuple(BUILDS[case](zygote.folder)))


@pytest.mark.parametrize(
    "finished",
    [case if case in TWO_ON_PUSH else pytest.param(case, marks=pytest.mark.slow) for case in BUILDS],
    indirect=True,
    scope="module",
)
def test_processes_change_no_byte(finished: Path, zygote: Zygote, forked_command_line: CommandLine) -> None:
    one, case = finished, finished.name
    zygote.run(f"{case}-2", *arguments_of(case, zygote), num_processes=2)
    two = zygote.folder / f"{case}-2"
    assert rounds(one) == rounds(two) == [0, 1, 2]
    for number in range(3):
        assert path_of(one, number).read_bytes() == path_of(two, number).read_bytes()
    assert (one / NAME).read_bytes() == (two / NAME).read_bytes()
    assert forked_command_line.result(two.name) == forked_command_line.result(one.name)


@pytest.mark.parametrize("finished", BUILDS, indirect=True, scope="module")
def test_the_rows_add_up(finished: Path) -> None:
    one = finished
    if one.name in CASES:
        found = {key.removeprefix("global/") for key in records(one)[-1] if key.startswith("global/")}
        assert {name for name in found if not name.endswith("_std")} == CASES[one.name][1]
    assert rounds(one) == [0, 1, 2]
    for record in records(one):
        number = record["round"]
        rows = read(one, number)
        assert_adds_up(one, "global", "global", record, rows)
        assert rows["position"].is_monotonic_increasing and len(rows) == len({*rows["example"]}) > 0
    by_round = {number: read_samples(one, number) for number in range(3)}
    names = [[line["example"] for line in lines] for lines in by_round.values()]
    assert names[0] == names[1] == names[2] and len(names[0]) == min(8, len(read(one)))
    last = read(one).set_index("example")
    for line in by_round[2]:
        row = last.loc[line["example"]]
        assert (line["prediction"], line["position"]) == (row["prediction"], row["position"])
        assert line["prompt"] and line["references"]
        if "probability" in row:
            assert 0 < line["probability"] == row["probability"] <= 1


@pytest.mark.parametrize("method", ["fedit", "local_only"])
def test_rows_of_clients_and_of_validation_add_up(method: str, zygote: Zygote) -> None:
    """Of one model and of private ones: sets of nobody, own parts, a validation set."""
    more = ("eval.on=both", f"method={method}", "partition.validation_fraction=0.1", "eval.test=every")
    arguments = merge(SMALL, (*VIT, *more))
    name = f"kept-{method}"
    zygote.run(name, *arguments)
    zygote.run(f"{name}-2", *arguments, num_processes=2)
    one, two = zygote.folder / name, zygote.folder / f"{name}-2"
    for record in records(one):
        rows = read(one, record["round"])
        assert {*rows["set"]} == {"global", "own", "validation"}
        for client in range(3):
            of_client = rows[rows["client"] == client]
            assert_adds_up(one, f"client/{client}/own", "own", record, of_client)
            if method == "local_only" and record["round"]:
                assert_adds_up(one, f"client/{client}", "global", record, of_client)
                assert_adds_up(one, f"client/{client}/validation", "validation", record, of_client)
        if method == "fedit" or not record["round"]:
            for which in ("global", "validation"):
                assert_adds_up(one, which, which, record, rows[rows["client"].isna()])
        assert path_of(one, record["round"]).read_bytes() == path_of(two, record["round"]).read_bytes()
        lines = read_samples(one, record["round"])
        assert {which: sum(line["set"] == which for line in lines) for which in ("global", "own", "validation")} == (
            dict.fromkeys(("global", "own", "validation"), 8)
        )
    assert (one / NAME).read_bytes() == (two / NAME).read_bytes()
    chosen = [[(line["set"], line["example"]) for line in read_samples(one, number)] for number in range(3)]
    assert sorted(chosen[0]) == sorted(chosen[1]) == sorted(chosen[2])


def test_a_run_with_more_rounds_keeps_what_the_longer_one_keeps(zygote: Zygote) -> None:
    arguments = merge(SMALL, tuple(CASES["topics"][0](zygote.folder)))
    zygote.run("longer", *arguments)
    zygote.run("shorter", *merge(arguments, ("num_rounds=1",)))
    longer, shorter = zygote.folder / "longer", zygote.folder / "shorter"
    # As a kill after these files and before the record leaves it.
    path_of(shorter, 2).write_bytes(b"of a round that has no record")
    with (shorter / NAME).open("a", encoding="utf-8") as file:
        file.write('{"round": 2, "set": "global"}\n{"round": 2, "se')
    zygote.run("shorter", *arguments)
    assert (shorter / NAME).read_bytes() == (longer / NAME).read_bytes()
    for number in range(3):
        assert path_of(shorter, number).read_bytes() == path_of(longer, number).read_bytes()


def test_nothing_is_kept_that_is_not_asked_for(zygote: Zygote) -> None:
    arguments = merge(SMALL, tuple(CASES["topics"][0](zygote.folder)))
    zygote.run("nothing", *arguments, "run.example_scores=false", "logging.samples_kept=0")
    zygote.run("three", *arguments, "run.example_scores=false", "logging.samples_kept=3")
    zygote.run("all", *arguments)
    nothing, three, whole = (zygote.folder / name for name in ("nothing", "three", "all"))
    assert not (nothing / NAME).exists() and not rounds(nothing) and not rounds(three)
    kept = {line["example"] for line in read_samples(three, 2)}
    assert len(kept) == 3 and kept < {line["example"] for line in read_samples(whole, 2)}
