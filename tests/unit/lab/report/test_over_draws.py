"""Statistics over draws: a planted gap is found, none is not, and too few draws say so instead of a number."""

import csv
import io
import itertools
import statistics
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedlit.config import PartitionConfig, RunConfig
from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Collection, collect
from fedlit.lab.report.cells import measure_all
from fedlit.lab.report.contenders import conditions_of
from fedlit.lab.report.layout import make_layout
from fedlit.lab.report.over_draws.claims import Claims, claims_of, reference_of
from fedlit.lab.report.over_draws.differences import Row, against
from fedlit.lab.report.over_draws.figures import draw_statistics
from fedlit.lab.report.over_draws.files import DIFFERENCES, SHARES, differences_csv, shares_csv
from fedlit.lab.report.over_draws.sections import sections_of, silence
from fedlit.lab.report.over_draws.shares import complete_table
from fedlit.lab.report.render import latex, markdown
from fedlit.lab.report.writing import write_report

Settings = Mapping[str, Any]
Make = Callable[..., Collection]
METHODS = ("fedit", "ffa_lora", "flora")


def cells(
    num_draws: int, num_seeds: int, methods: Sequence[str] = METHODS, datas: Sequence[str] = ("a",)
) -> list[dict[str, Any]]:
    grid = itertools.product(datas, methods, range(num_draws), range(num_seeds))
    return [{"data": data, "method": m, "partition.seed": draw, "seed": seed} for data, m, draw, seed in grid]


def noise(*key: object) -> float:
    return float(np.random.default_rng(zlib.crc32(repr(key).encode())).normal())


def scorer(gap: float, of_draw: float = 0.1, both: float = 0.005, rest: float = 0.001) -> Any:
    """Return a loss of known variances: ffa_lora is worse by a gap."""

    def score(s: Settings, number: int) -> dict[str, float]:
        draw = of_draw * noise(s["data"], s["partition.seed"])
        pair = both * noise(s["data"], s["method"], s["partition.seed"])
        loss = 2.0 + gap * (s["method"] == "ffa_lora") + draw + pair
        return {"global/loss": loss + rest * noise(*s.values())}

    return score


def made(make_collection: Make, all_cells: Sequence[Settings], score: Any, **more: Any) -> Collection:
    found = make_collection(all_cells, score, **more)
    return replace(found, varied=tuple(key for key in found.varied if key != "partition.seed"))


def claims(collection: Collection, **more: Any) -> Claims:
    layout = make_layout(collection, None, ["loss"])
    return claims_of(layout, measure_all(layout, "last"), **more)


def row_of(found: Claims, first: str, second: str) -> Row:
    (row,) = (row for row in found.rows if {row.first, row.second} == {first, second})
    return row.seen_from(second)


def text_of(found: Claims) -> str:
    return "".join(markdown(table) for _, table in sections_of(found)) + silence(found)


def test_a_planted_gap_is_found_and_no_gap_is_not(make_collection: Make) -> None:
    """The draws lie ten times as far apart as the methods: without pairs nothing could be seen."""
    found = claims(made(make_collection, cells(10, 2), scorer(0.02)))
    gap, none = row_of(found, "ffa_lora", "fedit"), row_of(found, "flora", "fedit")
    assert gap.found.low is not None and gap.found.high is not None
    assert gap.found.low < 0.02 < gap.found.high
    assert gap.found.p == 2 / 2**10
    assert gap.p_holm == pytest.approx(3 * 2 / 2**10)
    assert gap.p_table == 2 / 2**10
    assert gap.better == "fedit"
    assert none.p_holm is not None and none.p_holm > 0.05
    assert gap.needed is not None and none.needed is not None and gap.needed < none.needed
    assert all(a is not None and b is not None and a < b for a, b in zip(gap.flips, none.flips, strict=True))


def test_the_difference_is_over_draws_of_means_over_seeds(make_collection: Make) -> None:
    score = scorer(0.02)
    found = row_of(claims(made(make_collection, cells(4, 2), score)), "ffa_lora", "fedit").found
    by_draw = [
        statistics.mean(
            score({"data": "a", "method": m, "partition.seed": d, "seed": s}, 3)["global/loss"] for s in (0, 1)
        )
        for m in ("ffa_lora", "fedit")
        for d in range(4)
    ]
    differences = [one - other for one, other in zip(by_draw[:4], by_draw[4:], strict=True)]
    assert (found.num_pairs, found.mean) == (4, pytest.approx(statistics.mean(differences)))
    assert found.std == pytest.approx(statistics.stdev(differences))


@pytest.mark.parametrize("num_draws", [2, 3, 5])
def test_below_six_draws_a_word_stands_for_the_p_value(num_draws: int, make_collection: Make) -> None:
    found = claims(made(make_collection, cells(num_draws, 2), scorer(0.02)))
    assert {(row.found.p, row.p_holm, row.p_table) for row in found.rows} == {(None, None, None)}
    text = text_of(found)
    assert f"too few draws ({num_draws} of 6)" in text
    assert "no two-sided test can reach 0.05" in text
    assert "0.0625" not in text  # the p-value of five pairs


def test_one_draw_is_one_sentence(make_collection: Make) -> None:
    for config in (RunConfig(), RunConfig(partition=PartitionConfig(seed=3))):
        one = [{k: v for k, v in cell.items() if k != "partition.seed"} for cell in cells(1, 3)]
        score = scorer(0.02)
        collection = make_collection(one, lambda s, n, f=score: f({**s, "partition.seed": 0}, n), config=config)
        found = claims(collection)
        if config.partition.seed is None:  # every seed is a draw of its own
            assert [row.found.num_pairs for row in found.rows] == [3] * 3
            assert "Every draw has a seed of its own" in text_of(found)
            assert all(scores.own_seeds for scores in found.scores)
        else:
            assert sections_of(found) == []
            assert text_of(found) == silence(found)
            assert silence(found).startswith("No statistics over draws: one draw of the partition.")


def test_one_method_is_compared_with_nothing(make_collection: Make, tmp_path: Path) -> None:
    collection = made(make_collection, cells(6, 2, methods=("fedit",)), scorer(0.0))
    found = claims(collection)
    assert (found.rows, text_of(found)) == ((), "")
    write_report(collection, tmp_path, scores=["loss"], figures=False)
    assert (tmp_path / "differences.csv").read_text() == ",".join(DIFFERENCES) + "\n"
    assert (tmp_path / "statistics.tex").read_text() == ""


def test_the_shares_are_those_that_were_planted(make_collection: Make) -> None:
    score = scorer(0.2, of_draw=0.1, both=0.03, rest=0.03)
    (shared,) = claims(made(make_collection, cells(40, 2), score)).shares
    by_source = {share.source: share for share in shared.found.shares}
    expected = {"method": 0.2**2 * 2 / 9, "draw": 0.01, "method x draw": 0.0009, "seed": 0.0, "residual": 0.0009}
    assert set(by_source) == set(expected)
    for source, variance in expected.items():
        share = by_source[source]
        assert share.low is not None and share.high is not None
        assert share.low - 0.02 <= variance / sum(expected.values()) <= share.high + 0.02, source
    assert (shared.found.num_methods, shared.found.num_draws, shared.found.num_seeds) == (3, 40, 2)


def test_a_draw_that_lacks_one_method_is_left_out_of_the_shares_and_said(make_collection: Make) -> None:
    missing = {("flora", 2, 0), ("flora", 2, 1), ("fedit", 5, 1)}
    kept = [c for c in cells(8, 2) if (c["method"], c["partition.seed"], c["seed"]) not in missing]
    found = claims(made(make_collection, kept, scorer(0.02)))
    table, note = complete_table(found.scores[0])
    assert table.shape == (3, 6, 2)
    assert note == "left out draws 2, 5, where not every method has 2 seeds"
    assert note in text_of(found)
    assert row_of(found, "flora", "fedit").found.num_pairs == 7  # draw 5 by the seed that both have
    assert row_of(found, "ffa_lora", "fedit").found.num_pairs == 8
    assert "p, table is over the 7 draws that all methods have" in text_of(found)
    score = scorer(0.02)
    one = score({"data": "a", "method": "flora", "partition.seed": 3, "seed": 1}, 3)["global/loss"]
    assert table[2, 2, 1] == pytest.approx(one)


def test_the_table_keeps_the_number_of_seeds_that_keeps_most_runs(make_collection: Make) -> None:
    """Of one method nothing but seed 0: one seed of all draws, not two of none."""
    kept = [c for c in cells(6, 2) if c["method"] != "flora" or c["seed"] == 0]
    table, note = complete_table(claims(made(make_collection, kept, scorer(0.02))).scores[0])
    assert table.shape == (3, 6, 1)
    assert note == "12 runs beyond 1 seed"


def test_one_seed_has_three_shares(make_collection: Make) -> None:
    found = claims(made(make_collection, cells(6, 1), scorer(0.02)))
    assert [share.source for share in found.shares[0].found.shares] == ["method", "draw", "method x draw"]
    heads = dict(sections_of(found))["Shares of the variance"].heads
    assert heads == ("score", "table", "method", "draw", "method x draw")


def test_unfinished_runs_take_no_part(make_collection: Make) -> None:
    collection = made(
        make_collection, cells(6, 1), scorer(0.02), state=lambda s: "killed" if s["partition.seed"] == 0 else "done"
    )
    assert {row.found.num_pairs for row in claims(collection).rows} == {5}
    collection = made(
        make_collection, cells(6, 1), scorer(0.02), state=lambda s: "running" if s["method"] == "flora" else "done"
    )
    assert [(row.first, row.second) for row in claims(collection).rows] == [("fedit", "ffa_lora")]


def test_conditions_stand_apart_and_are_corrected_together(make_collection: Make) -> None:
    found = claims(made(make_collection, cells(7, 1, datas=("a", "b")), scorer(0.05)))
    assert [(scores.score, scores.condition) for scores in found.scores] == [("loss", "data a"), ("loss", "data b")]
    rows = [row for row in found.rows if {row.first, row.second} == {"fedit", "ffa_lora"}]
    assert [row.condition for row in rows] == ["data a", "data b"]
    assert all(row.found.p == 2 / 2**7 and row.p_holm is not None and row.p_holm >= 6 * 2 / 2**7 for row in rows)
    assert {row.p_table for row in rows} == {2 / 2**7}
    text = text_of(found)
    assert "no difference could pass Holm; it takes 8 draws" in text


def test_all_methods_are_shown_against_the_best_and_the_reference(make_collection: Make) -> None:
    found = claims(made(make_collection, cells(6, 1), scorer(-0.05)), reference="FLORA")
    assert (found.scores[0].best(), found.reference) == ("ffa_lora", "flora")
    table = dict(sections_of(found))["Differences over draws"]
    assert [(row[1].text, row[2].text) for row in table.cells] == [
        ("fedit", "ffa_lora"),
        ("flora", "ffa_lora"),
        ("fedit", "flora"),
        ("ffa_lora", "flora"),
    ]
    seen = against(found.rows, found.scores[0], "ffa_lora")
    assert all(row.found.mean is not None and row.found.mean > 0 for row in seen)
    assert all((row.found.low or 0) <= (row.found.mean or 0) <= (row.found.high or 0) for row in seen)


def test_the_reference_is_fedit_or_the_first_and_a_misspelt_one_is_told() -> None:
    assert reference_of(["FFA-LoRA", "FedIT"], "") == "FedIT"
    assert reference_of(["scl", "flora"], "") == "scl"
    assert reference_of([], "") == ""
    with pytest.raises(UserError, match=r"--reference=fedot is no method of this table; did you mean 'fedit'\?"):
        reference_of(["scl", "fedit"], "fedot")


def test_the_files_hold_every_two_methods_and_every_source(make_collection: Make) -> None:
    found = claims(made(make_collection, cells(7, 2), scorer(0.02)))
    rows = list(csv.DictReader(io.StringIO(differences_csv(found))))
    assert tuple(rows[0]) == DIFFERENCES
    assert [(row["first"], row["second"]) for row in rows] == list(itertools.combinations(METHODS, 2))
    by_hand = row_of(found, "fedit", "ffa_lora")
    assert float(rows[0]["mean"]) == by_hand.found.mean
    assert float(rows[0]["flip_all_draws"]) == by_hand.flips[-1]
    assert (rows[0]["num_draws"], rows[0]["is_exact"], rows[0]["better"]) == ("7", "True", "fedit")
    shares = list(csv.DictReader(io.StringIO(shares_csv(found))))
    assert tuple(shares[0]) == SHARES
    assert [row["source"] for row in shares] == ["method", "draw", "method x draw", "seed", "residual"]
    assert sum(float(row["share"]) for row in shares) == pytest.approx(1)


def test_with_too_few_draws_the_files_say_why(make_collection: Make) -> None:
    found = claims(made(make_collection, cells(3, 1), scorer(0.02)))
    row = next(iter(csv.DictReader(io.StringIO(differences_csv(found)))))
    assert (row["p"], row["p_holm"], row["p_table"], row["low"], row["is_exact"]) == ("",) * 5
    assert row["reason"].startswith("3 pairs; ")


def test_the_report_has_the_sections_in_all_forms(make_collection: Make, tmp_path: Path) -> None:
    collection = made(make_collection, cells(6, 2), scorer(0.02))
    text = write_report(collection, tmp_path, scores=["loss"])
    assert text == (tmp_path / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Differences over draws",
        "## Shares of the variance",
    ]
    source = (tmp_path / "statistics.tex").read_text()
    assert source.count(r"\toprule") == source.count(r"\bottomrule") == 2
    figures = {f"{kind}.{suffix}" for kind in ("differences-loss", "flips-loss", "shares") for suffix in ("png", "pdf")}
    assert figures <= {path.name for path in tmp_path.iterdir()}


def test_one_draw_has_no_figures(make_collection: Make, tmp_path: Path) -> None:
    assert draw_statistics(claims(made(make_collection, cells(1, 3), scorer(0.02))), "mine", tmp_path) == []


def test_latex_is_that_of_a_table(make_collection: Make) -> None:
    found = claims(made(make_collection, cells(6, 2), scorer(0.02)))
    for name, table in sections_of(found):
        source = latex(table, name)
        rows = [line for line in source.splitlines() if line.endswith(r"\\")]
        assert {row.count(" & ") for row in rows} == {len(table.heads) - 1}


def test_a_sweep_and_its_folders_say_the_same(
    write_sweep: Callable[..., Collection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files: of the sweep, and of the folder of its runs, where the draw is read off the configurations."""
    monkeypatch.chdir(tmp_path)
    methods = "{method: fedit, local.lr: 0.01}, {method: ffa_lora, local.lr: 0.03}"
    axes = f"axes:\n  method: [{methods}]\n  partition.seed: [0, 1, 2, 3, 4, 5]\n  seed: [0, 1]\n"
    Path("draws.yaml").write_text(f"experiment: demo\n{axes}")

    def score(s: Settings, number: int) -> dict[str, float]:
        loss = 2.0 + 0.05 * (s["method"] == "ffa_lora") + 0.1 * noise(s["partition.seed"]) + 0.01 * noise(*s.values())
        return {"global/loss": loss, "global/rouge_l": 0.5}

    found = [claims(write_sweep("draws.yaml", score, overrides=["num_rounds=3"])), claims(collect(["runs/draws"]))]
    assert [row.found for row in found[0].rows] == [row.found for row in found[1].rows]
    (row,) = found[0].rows
    assert (row.first, row.second, row.found.num_pairs, row.found.p) == ("fedit", "ffa_lora", 6, 2 / 2**6)
    assert Path("runs/draws/draws-fedit-draw3-seed1/config.yaml").is_file()


def test_a_mean_is_over_draws_however_many_seeds_each_has(make_collection: Make) -> None:
    uneven = [each for each in cells(6, 3) if each["partition.seed"] or not each["seed"]]  # one seed of draw 0
    found = claims(made(make_collection, uneven, scorer(0.02))).scores[0]
    for method in METHODS:
        by_draw = [statistics.mean(run.score for run in found.runs[method][draw].values()) for draw in range(6)]
        assert found.mean(method) == pytest.approx(statistics.mean(by_draw), abs=1e-12)
        assert len(found.runs[method][0]) == 1
        assert len(found.runs[method][1]) == 3


def test_draws_are_no_condition() -> None:
    settings = {"method": "fedit", "data": "a", "partition.seed": 3, "seed": 1}
    assert conditions_of(settings, ("method",)) == ("data='a'",)
