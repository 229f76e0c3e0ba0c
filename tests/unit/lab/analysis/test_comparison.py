"""The table tells what the records say: the last round, means over rounds and clients, the best in bold."""

import pytest

from fedlit.lab.analysis.comparison import markdown, summarize
from fedlit.store.records import Record


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
