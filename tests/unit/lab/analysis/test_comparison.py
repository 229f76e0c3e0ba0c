"""The table tells what the records say: the last round, means over rounds and clients, the best in bold."""

from dataclasses import replace

import pytest

from fedlit.lab.analysis.comparison import markdown, summarize
from fedlit.store.records import Record
from fedlit.store.task_version import TaskVersion


def record(number: int, loss: float, **more: float) -> Record:
    trained = {
        "aggregation/num_clients": 2,
        "communication/uplink_bytes": 4000 * number,
        "communication/downlink_bytes": 8000 * number,
        "lora/deviation": 0.1 * number,
    }
    scores = {"global/loss": loss, "global/rouge_l": 1 / loss, "global/bleu_4": 0.0}
    return {"round": number, **(trained if number else {}), **scores, **more}


def test_a_line_is_the_last_round_and_the_means_over_rounds() -> None:
    result = summarize("fedit", [record(0, 4.0), record(1, 3.0), record(2, 2.0)], lr=0.01)
    assert result.scores["global/loss"] == 2.0
    assert result.uplink_bytes == pytest.approx((4000 + 8000) / 4)
    assert result.downlink_bytes == pytest.approx((8000 + 16000) / 4)
    assert result.deviation == pytest.approx(0.15)


def test_the_untrained_model_has_scores_alone() -> None:
    result = summarize("zero-shot", [record(0, 4.0)], lr=None)
    assert (result.uplink_bytes, result.deviation, result.lr) == (None, None, None)


def test_the_table_marks_the_best_of_each_column() -> None:
    results = [
        summarize("fedit", [record(1, 2.0)], lr=0.01),
        summarize("fedsa_lora", [record(1, 4.0, **{"global/loss_std": 0.5})], lr=None),
    ]
    lines = markdown(results, ("loss", "rouge_l", "bleu_4")).splitlines()
    assert lines[0] == "| method | lr | loss | ROUGE-L | BLEU-4 | kB up | kB down | deviation |"
    assert lines[2] == "| `fedit` | 0.01 | **2.000** | **0.500** | 0.000 | 2.0 | 4.0 | 1.0e-01 |"
    assert lines[3].startswith("| `fedsa_lora` |  | 4.000 ± 0.500 | 0.250 |")


def test_a_method_of_another_task_version_is_marked_and_not_the_best() -> None:
    usual = TaskVersion(parts={"template": "x"}, rows={"global": "r"})
    results = [
        replace(summarize(name, [record(1, loss)], lr=0.01), version=version)
        for name, loss, version in (
            ("fedit", 2.0, usual),
            ("flora", 3.0, usual),
            ("ffa_lora", 1.0, TaskVersion(parts={"template": "y"}, rows={"global": "r"})),
            ("scl", 0.5, TaskVersion(parts={"template": "x"}, rows={"global": "s"})),
        )
    ]
    lines = markdown(results, ("loss",)).splitlines()
    assert lines[0].startswith("Warning: task versions differ in loss (template, test rows)")
    assert [line.split(" | ")[2] for line in lines[4:8]] == ["**2.000**", "3.000", "1.000 [a]", "0.500 [b]"]
    assert "a: another task version (template)" in lines
    assert "b: other test rows" in lines
    assert any(line.startswith(f"Task versions {usual.protocol[:8]} (3 runs)") for line in lines)
