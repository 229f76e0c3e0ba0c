"""Theorem 3 on a run that was really trained: its checkpoint's weights, its shards, its examples' losses."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedlit
from fedlit.errors import UserError
from fedlit.lab.analyses.base import Run, runs_of
from fedlit.lab.analyses.generalisation import Generalisation, measured
from fedlit.lab.analyses.writing import write_analyses
from fedlit.lab.analysis.collection import collect
from fedlit.store.example_scores import read

ROWS = [{"prompt": f"{n} + 1 =", "response": f"{n + 1}"} for n in range(60)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Return a run of FedFTG and one of FFA-LoRA, one round of one step each, shards of unequal size."""
    folder = tmp_path_factory.mktemp("runs")
    for method in ("fedftg", "ffa_lora"):
        fedlit.run(
            {"method": method, "local.lr": 1e-3, "logging.wandb": "disabled", "run.dir": str(folder)},
            rows=[ROWS[:20], ROWS[20:]],
            **{"num_rounds": 1, "local": {"steps": 1}, "run.name": method},
            partition={"min_test_rows": 3},
            eval={"max_new_tokens": 1},
        )
    return runs_of(collect([str(folder)]))


def test_entropy_is_of_the_result_s_weights(runs: list[Run]) -> None:
    found = measured(runs[0])
    model = fedlit.load_result(runs[0].folder).model
    weights = [each.detach().double() for name, each in model.named_parameters() if name.endswith("up_proj.weight")]
    entropy = sum(float(-(w.softmax(1) * w.softmax(1).log()).sum()) for w in weights)
    assert found.entropy == pytest.approx(entropy, rel=1e-10)
    assert found.bits == sum(32 * w.numel() for w in weights)
    assert found.at_uniform == pytest.approx(sum(w.shape[0] * math.log(w.shape[1]) for w in weights))
    assert entropy < found.at_uniform


def test_rows_sigma_and_gap(runs: list[Run]) -> None:
    found = measured(runs[0])
    frame = read(runs[0].folder)
    losses = (frame["loss_sum"] / frame["loss_count"])[frame["set"] == "global"]
    assert found.sigma == pytest.approx((losses.max() - losses.min()) / 2)
    assert found.std == pytest.approx(np.std(losses))
    assert list(found.num_rows) == [17, 37]
    last = runs[0].records[-1]
    train = (last["client/0/train_loss"] + last["client/1/train_loss"]) / 2
    assert found.gap == pytest.approx(last["global/loss"] - train)


def test_bits_of_ffa_are_r_q_sum_d(runs: list[Run]) -> None:
    found = measured(runs[1])
    model = fedlit.load_result(runs[1].folder).model
    heights = [each.shape[0] for name, each in model.named_parameters() if "lora_B" in name]
    assert found.bits == runs[1].config.method.options["lora_rank"] * 32 * sum(heights)
    assert found.entropy is None


def test_the_section_is_written(runs: list[Run], tmp_path: Path) -> None:
    told: list[str] = []
    assert write_analyses([Generalisation()], runs, tmp_path / "out", "two", told.append) == 1
    assert told == []
    text = (tmp_path / "out" / "analyses.md").read_text()
    assert "Estimated: sigma" in text and "| fedftg |" in text
    assert (tmp_path / "out" / "generalisation.png").stat().st_size > 5000


def test_what_is_missing_is_said(runs: list[Run], tmp_path: Path) -> None:
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(UserError, match="json is missing"):
        measured(replace(runs[0], partition=None))
    with pytest.raises(UserError, match="example_scores=true"):
        measured(replace(runs[0], folder=tmp_path))
