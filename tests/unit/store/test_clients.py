"""With many clients a record keeps what is said of all; each one's numbers are a table that is killed and resumed with
the records.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from fedlit.config import RunConfig, RunFolderConfig
from fedlit.store.clients import MANY, NAME, append_clients, read_clients, split_clients
from fedlit.store.folder import RunFolder

LOSSES = [0.5, 1.5, 4.0, 3.0, 2.25]


def record(number: int, *clients: int) -> dict[str, Any]:
    found: dict[str, Any] = {"round": number, "global/loss": 1.0, "clients/lost": [9]}
    for place, client in enumerate(clients):
        found |= {f"client/{client}/train_loss": LOSSES[place], f"client/{client}/num_steps": 10}
        found |= {f"client/{client}/own/confusion_matrix": [[client, 1], [0, 2]]}
    return found


def test_few_clients_stay_in_the_record() -> None:
    assert split_clients(record(1, 0, 1), MANY) == (record(1, 0, 1), [])


def test_of_many_clients_the_record_says_what_all_have() -> None:
    kept, lines = split_clients(record(3, 700, 5, 12, 1, 40), MANY + 1)
    assert not [key for key in kept if key.startswith("client/")]
    assert kept["round"] == 3 and kept["global/loss"] == 1.0 and kept["clients/lost"] == [9]
    assert kept["clients/train_loss"] == pytest.approx(statistics.fmean(LOSSES))
    assert kept["clients/train_loss_median"] == 2.25
    assert kept["clients/train_loss_q10"] == pytest.approx(0.9) and kept["clients/train_loss_q90"] == pytest.approx(3.6)
    assert kept["clients/num_steps"] == 50
    assert kept["clients/own/confusion_matrix"] == [[758, 5], [0, 10]]
    assert [line["client"] for line in lines] == [1, 5, 12, 40, 700]
    assert lines[0] == {
        "round": 3, "client": 1, "train_loss": 3.0, "num_steps": 10, "own/confusion_matrix": [[1, 1], [0, 2]]
    }  # fmt: skip


def test_the_order_of_clients_changes_no_bit() -> None:
    one = {f"client/{client}/x": value for client, value in enumerate([0.1, 0.2, 0.3, 1e16, -1e16])}
    first = split_clients({"round": 1, **one}, MANY + 1)
    again = split_clients({"round": 1, **dict(reversed(one.items()))}, MANY + 1)
    assert first == again


def test_one_client_alone_is_its_own_quantile() -> None:
    kept, _ = split_clients({"round": 1, "client/3/x": 0.5}, MANY + 1)
    assert kept == {
        "round": 1,
        **dict.fromkeys(["clients/x", "clients/x_q10", "clients/x_median", "clients/x_q90"], 0.5),
    }


def test_what_the_record_says_by_itself_is_not_said_again() -> None:
    kept, _ = split_clients({"round": 1, "clients/num_tokens": 7, "client/1/num_tokens": 3}, MANY + 1)
    assert kept["clients/num_tokens"] == 7


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(RunConfig(run=RunFolderConfig(dir=str(tmp_path), name="a")))
    made.path.mkdir()
    return made


def test_the_table_goes_back_with_the_records(folder: RunFolder, tmp_path: Path) -> None:
    copies = []
    for number in range(4):
        kept, lines = split_clients(record(number, 1, 2), MANY + 1)
        folder.append(kept, lines)
        copies.append(tmp_path / f"copy{number}")
        copies[-1].write_bytes(folder.records_path.read_bytes())
    whole = (folder.path / NAME).read_bytes()
    assert [(line["round"], line["client"]) for line in read_clients(folder.path)] == [
        (number, client) for number in range(4) for client in (1, 2)
    ]
    folder.restore_records(copies[2].read_text(encoding="utf-8"))
    assert {line["round"] for line in read_clients(folder.path)} == {0, 1, 2}
    kept, lines = split_clients(record(3, 1, 2), MANY + 1)
    folder.append(kept, lines)
    assert (folder.path / NAME).read_bytes() == whole
    folder.restore_records(None)
    assert not (folder.path / NAME).exists()


@pytest.mark.parametrize("cut", [b'{"round": 3, "cl', b"", b"\xff\n", b"[1]\n", b'{"round": 3, "client": 1}\n'])
def test_a_kill_between_table_and_record_leaves_no_trace(folder: RunFolder, tmp_path: Path, cut: bytes) -> None:
    for number in range(3):
        kept, lines = split_clients(record(number, 1, 2), MANY + 1)
        folder.append(kept, lines)
    whole = (folder.path / NAME).read_bytes()
    copy = tmp_path / "copy"
    copy.write_bytes(folder.records_path.read_bytes())
    with (folder.path / NAME).open("ab") as file:
        file.write(cut)
    folder.restore_records(copy.read_text(encoding="utf-8"))
    assert (folder.path / NAME).read_bytes() == whole
    assert [json.loads(line)["round"] for line in folder.records_path.read_text().splitlines()] == [0, 1, 2]


def test_a_run_of_few_clients_has_no_table(folder: RunFolder) -> None:
    folder.append(*split_clients(record(0, 1, 2), 2))
    append_clients(folder.path, [])
    assert not (folder.path / NAME).exists() and read_clients(folder.path) == []
