"""What the analyses of recorded rounds read off them, against sums over the records written out here."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_rounds import LAYERS, NUM_CLIENTS, recorded
from scipy import stats

from fedlit.config.analysis import ANALYSES as MEASURED
from fedlit.lab.analyses.base import Findings, Run
from fedlit.lab.analyses.excess_risk import gap_of
from fedlit.lab.analyses.fairness import over_clients
from fedlit.lab.analyses.named import ANALYSES
from fedlit.lab.analyses.norm_growth import growth

NAMES = [name for name in ANALYSES if name not in ("generalisation", "initialisation", "memory")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return recorded(tmp_path_factory.mktemp("recorded"))


def rows_of(findings: Findings, table: str) -> dict[str, Any]:
    """Return the rows of a table by their setting, the last of each."""
    found = next(each for each in findings.tables if each.name == table)
    return {str(row["setting"]): row for row in found.rows}


def findings(name: str, runs: list[Run]) -> Findings:
    return ANALYSES[name].findings([run for run in runs if ANALYSES[name].fits(run)])


@pytest.mark.parametrize("name", NAMES)
def test_every_table_has_its_columns_and_every_line_its_points(name: str, runs: list[Run]) -> None:
    found = findings(name, runs)
    for table in found.tables:
        assert table.rows and all(set(row) <= set(table.columns) for row in table.rows), table.name
    for picture in found.pictures:
        assert picture.caption.endswith(".")
        for panel in picture.panels:
            assert panel.lines, (picture.name, panel.title)
            for line in panel.lines:
                assert len(line.x) == len(line.y) > 0
                assert all(map(math.isfinite, line.y))


def test_deviation_trends(runs: list[Run]) -> None:
    row = rows_of(findings("deviation", runs), "deviation_trends")["fedit"]
    first = np.array([1e-3 * (1 + i) for i in range(len(LAYERS))]).reshape(4, 2)  # blocks, projections q and v
    assert row["first block"] == pytest.approx(first[0].mean())
    assert row["last block"] == pytest.approx(first[-1].mean())
    assert row["correlation with depth"] == pytest.approx(stats.spearmanr(range(4), first.mean(1)).statistic)
    assert row["query / value"] == pytest.approx(first[:, 0].mean() / first[:, 1].mean())
    assert row["last / first round"] == pytest.approx(1 / 6)
    assert row["deviation / update"] == pytest.approx(first.mean() / 6 / 0.01)
    assert [row["exact"], rows_of(findings("deviation", runs), "deviation_trends")["fedex_lora"]["exact"]] == [
        False,
        True,
    ]


def test_deviation_against_steps(tmp_path: Path) -> None:
    runs = [
        run for steps in (1, 2, 16) for run in recorded(tmp_path / str(steps), ("fedit",), **{"local.steps": steps})
    ]
    picture = next(each for each in findings("deviation", runs).pictures if each.name == "deviation-steps")
    (line,) = picture.panels[0].lines
    assert (line.name, list(line.x)) == ("fedit", [1, 2, 16])
    assert line.y == pytest.approx([1e-3 * np.mean(range(1, len(LAYERS) + 1))] * 3)


def test_rank_bounds_are_checked(runs: list[Run], tmp_path: Path) -> None:
    row = rows_of(findings("rank", runs), "rank_trends")["flexlora"]
    assert (row["least eta"], row["largest eta"], row["upper bound"]) == (NUM_CLIENTS - 1 / 8, NUM_CLIENTS, NUM_CLIENTS)
    assert row["within bounds"] is True
    broken = recorded(tmp_path, ("fedit",))[0]
    broken.records[2][f"rank/eta/{LAYERS[0]}"] = 0.875
    found = findings("rank", [broken])
    assert rows_of(found, "rank_trends")["fedit"]["within bounds"] is False
    assert "outside for fedit" in found.notes[0]


def test_the_norm_s_bound_is_the_lemma_s(runs: list[Run]) -> None:
    run = next(run for run in runs if run.label == "fedit")
    measured, bound = growth(run)
    assert list(measured) == [4 * number for number in range(7)]
    for number in range(7):  # B + eta S t_agg D, D = 2 in round 1
        assert bound[4 * number] == pytest.approx(5.0 + run.config.local.lr * number * 4 * 2.0)
        assert measured[4 * number] == pytest.approx(5.0 + 0.3 * number)
    assert rows_of(findings("norms", runs), "norms")["fedit"]["slope"] == pytest.approx(
        1.8 / (run.config.local.lr * 24 * 2.0)
    )


def test_the_bound_of_theorem_2(runs: list[Run]) -> None:
    row = rows_of(findings("excess_risk", runs), "excess_risk_bounds")["scl"]
    run = next(run for run in runs if run.label == "scl")
    assert row["alpha D^2 S t_agg"] == pytest.approx(run.config.local.lr * 2.0**2 * 24)
    assert row["largest gap"] == pytest.approx(max(gap_of(run.train_loss()).values()))


def test_training_losses_are_weighted_by_steps(tmp_path: Path) -> None:
    run = recorded(tmp_path, ("fedit",))[0]
    record = run.rounds[0]
    record |= {"client/0/train_loss": 1.0, "client/0/num_steps": 1, "client/1/train_loss": 3.0, "client/1/num_steps": 2}
    record |= {"client/2/train_loss": math.nan}
    assert run.train_loss()[1] == pytest.approx((1 + 6) / 3)


def test_fairness_is_over_the_clients_own_rows(runs: list[Run]) -> None:
    run = next(run for run in runs if run.label == "fedit")
    losses = [run.records[-1][f"client/{client}/own/loss"] for client in range(NUM_CLIENTS)]
    last = over_clients(run, "loss")[6]
    assert (last.worst, last.spread) == (max(losses), pytest.approx(np.std(losses)))
    assert over_clients(run, "rouge_l")[6].worst == pytest.approx(0.16)


def test_ratio_of_the_runs_own_bytes(runs: list[Run]) -> None:
    rows = rows_of(findings("communication", runs), "communication")
    order = ["fedit", "ffa_lora", "fedex_lora"]
    assert [rows[name]["ratio to fedex_lora"] for name in order] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rows["fedit"]["down (MB)"] == pytest.approx(6 * 2000 / 1e6)


def test_forgetting_is_a_rise(runs: list[Run]) -> None:
    row = rows_of(findings("forgetting", runs), "forgetting")["fedsa_lora"]
    assert (row["before"], row["after"], row["rise"]) == (2.0, pytest.approx(2.12), pytest.approx(0.12))


@pytest.mark.parametrize("name", ANALYSES)
def test_a_remedy_names_what_a_run_can_be_given(name: str) -> None:
    asked = re.findall(r"analysis=\[(?:\.\.\.,)?(\w+)\]", ANALYSES[name].remedy)
    assert {*asked} <= {*MEASURED}
    assert asked or not any(key.startswith(("lora/", "rank/", "norms/", "general/")) for key in ANALYSES[name].needs)
