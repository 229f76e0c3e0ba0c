"""Clients' names from the rows to the result: files of images, values of a column, names from Python."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_runs import ROWS, small_run
from PIL import Image

import fedlit

DEALT = {"north\x1b[2J": ROWS[:10], "south": ROWS[10:]}


def test_names_from_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = small_run(
        tmp_path, rows=DEALT, quiet=False, config={"num_clients": None, "method": "fedsa_lora"}, num_clients=2
    )
    assert result.client_names == fedlit.load_result(result.folder).client_names == ("north\x1b[2J", "south")
    printed = capfd.readouterr().out
    assert r"of each    north\x1b[2J 8, south 12" in printed
    assert "scores of each client after round 2" in printed
    assert "\x1b" not in printed
    first, second = (dict(result.client_model(client_id).named_parameters()) for client_id in (0, 1))
    named = result.client_model("south")
    assert result.client_model(1) is named
    assert first.keys() == second.keys()
    with pytest.raises(fedlit.UserError, match=r"client 'west' is none of this run; known are north\\x1b\[2J, south;"):
        result.client_model("west")


def test_the_name_of_the_client_that_diverged(tmp_path: Path) -> None:
    with pytest.raises(fedlit.DivergenceError, match=r"round 1, client [01] \((north|south)"):
        small_run(tmp_path, rows=DEALT, config={"num_clients": None, "local.lr": 1e30}, num_clients=2)


def pictures(root: Path) -> Path:
    for site in ("north", "south"):
        for number in range(12):
            kind = ("benign", "malign")[number % 2]
            path = root / site / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = np.full((8, 8), number + 100 * (site == "south"), np.uint8)
            Image.fromarray(shade).save(path)
    return root


def test_folders_of_images_are_clients(tmp_path: Path) -> None:
    config: dict[str, Any] = {"method": "fedit", "data": "images", "model": "vit-small", "num_rounds": 1}
    config |= {"data.path": str(pictures(tmp_path / "sites")), "partition.min_test_rows": 2, "num_clients": 2}
    config |= {"local": {"steps": 1, "batch_size": 2}, "logging": {"wandb": "disabled"}, "eval.on": "clients"}
    with pytest.raises(fedlit.UserError, match=r"give partition.name=files num_clients=2 to make each a client"):
        fedlit.run(config, run={"dir": tmp_path, "name": "pooled"})
    result = fedlit.run({**config, "partition.name": "files"}, run={"dir": tmp_path, "name": "dealt"})
    assert result.client_names == ("north", "south")
    record = json.loads((result.folder / "partition.json").read_text())
    assert [sum(client["train_labels"].values()) for client in record["clients"]] == [10, 10]
    assert {row // 12 for row in record["clients"][1]["train"]} == {1}, "each client has the images of its folder"
    assert len(result.records[-1]["client/0/own/confusion_matrix"]) == 2
    assert result.model.config.id2label == {0: "benign", 1: "malign"}
