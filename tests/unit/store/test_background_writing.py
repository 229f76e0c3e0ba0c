"""A checkpoint is written beside the next round: killed anywhere the run goes on, and nothing is said to be saved that
is not.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_child import in_child
from killed_writers import CLIENTS, CPU, MOMENTS, SAVED, killed_run, outcome, run

import fedlit.store.writing
from fedlit.errors import UserError
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints

LAST = 5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the outcome of the run that is left alone."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, LAST) is None
    return outcome(folder)


@pytest.mark.parametrize("kill_in", [3, 4])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_of_the_writing_it_goes_on_to_the_same(
    moment: str, kill_in: int, whole: dict[str, Any], tmp_path: Path
) -> None:
    assert in_child(lambda: killed_run(tmp_path / "run", kill_in, moment, LAST)) == -signal.SIGKILL
    saved = run(tmp_path / "run", LAST)
    assert saved == (kill_in if moment in SAVED else kill_in - 1)
    assert outcome(tmp_path / "run") == whole
    left = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {name.partition("-")[0] for name in left} == {"round", "records", "clients"}
    assert sum(name.startswith("records-") for name in left) <= 2


def test_the_whole_run_keeps_what_it_needs_and_no_more(whole: dict[str, Any]) -> None:
    assert whole.keys() == {"files", "round-0004", "round-0005"}
    assert len(whole["files"]) == CLIENTS + 2  # two clients of the older checkpoint have changed since


class Gate:
    """Lets a function of the writer wait until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        function = getattr(fedlit.store.writing, name)

        def wait(*arguments: Any) -> Any:
            self.reached.set()
            assert self.opened.wait(60)
            return function(*arguments)

        monkeypatch.setattr(fedlit.store.writing, name, wait)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(folder=tmp_path / "checkpoints", keep=2)


def save(checkpoints: Checkpoints, number: int, clients: dict[int, ClientState] | None = None) -> ServerState:
    records = checkpoints.folder.parent / "metrics.jsonl"
    with records.open("a") as file:
        file.write(f'{{"round": {number}}}\n')
    server = ServerState(round_idx=number, shared={"w": torch.full((5,), float(number))})
    checkpoints.save(server, clients or {}, set(clients or {}), records)
    return server


def test_the_next_round_goes_on_while_it_is_written(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    save(checkpoints, 0)
    assert checkpoints.settle() == 0
    gate = Gate(monkeypatch, "save_file")
    save(checkpoints, 1)
    assert gate.reached.wait(60)
    assert checkpoints.saved_round == 0
    assert checkpoints.newest() == (checkpoints.folder / "round-0000", [])
    with (checkpoints.folder.parent / "metrics.jsonl").open("a") as file:
        file.write('{"round": 2}\n')  # the next round's record comes before this checkpoint is there
    gate.opened.set()
    assert checkpoints.settle() == 1
    assert checkpoints.newest() == (checkpoints.folder / "round-0001", [])
    assert checkpoints.records(checkpoints.folder / "round-0001") == '{"round": 0}\n{"round": 1}\n'


def test_the_next_save_waits(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, "_write_manifest")
    save(checkpoints, 0)
    assert gate.reached.wait(60)
    threading.Timer(0.2, gate.opened.set).start()
    save(checkpoints, 1)
    assert gate.opened.is_set()
    assert checkpoints.saved_round == 0
    assert checkpoints.settle() == 1
    assert [thread.name for thread in threading.enumerate() if thread.name == "checkpoint"] == []


@pytest.mark.parametrize("meets_it", [Checkpoints.settle, lambda checkpoints: save(checkpoints, 2)])
def test_a_full_disk_is_told_in_one_line_by_whoever_waits(
    meets_it: Callable[[Checkpoints], Any], checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 0)
    checkpoints.settle()

    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fedlit.store.writing, "_write_manifest", refuse)
        save(checkpoints, 1)
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\).*the same command goes on"):
            meets_it(checkpoints)
    assert checkpoints.saved_round == 0
    assert checkpoints.newest() == (checkpoints.folder / "round-0000", [])
    assert checkpoints.settle() == 0  # told once


def test_a_bug_of_the_writer_comes_out_as_it_is(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedlit.store.writing, "save_file", lambda *_: 1 / 0)
    save(checkpoints, 0)
    with pytest.raises(ZeroDivisionError):
        checkpoints.settle()
    assert checkpoints.saved_round is None


@pytest.mark.parametrize("of", ["server", "client"])
def test_what_is_changed_in_place_while_it_is_written_is_no_checkpoint(
    of: str, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = {"exp_avg": torch.ones(3)}
    clients = {4: ClientState(optimizer={"state": {0: moments}, "param_groups": [{"betas": (0.9, 0.99)}]})}
    gate = Gate(monkeypatch, "save_file")
    server = save(checkpoints, 0, clients)
    assert gate.reached.wait(60)
    (server.shared["w"] if of == "server" else moments["exp_avg"]).add_(1)
    gate.opened.set()
    with pytest.raises(UserError, match="changed in place"):
        checkpoints.settle()
    assert checkpoints.newest() == (None, [])


def test_a_part_of_a_larger_tensor_is_written_alone(checkpoints: Checkpoints) -> None:
    stacked = torch.randn(100, 50)
    save(checkpoints, 0, {client: ClientState(private={"b": stacked[client]}) for client in (0, 1)})
    checkpoints.settle()
    files = [*(checkpoints.folder / "clients").iterdir()]
    assert len(files) == 2
    assert all(path.stat().st_size < 50 * 4 + 3000 for path in files)
    _, clients = checkpoints.load(checkpoints.folder / "round-0000", CPU, {0, 1})
    assert torch.equal(clients[1].private["b"], stacked[1])


@pytest.mark.parametrize(("leave", "saved"), [(False, 1), (True, 0)])
def test_an_exit_waits_for_the_writer_or_leaves_out_the_rest(
    leave: bool, saved: int, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(checkpoints, 0)
    checkpoints.settle()
    gate = Gate(monkeypatch, "save_file")
    save(checkpoints, 1)
    assert gate.reached.wait(60)
    threading.Timer(0.2, gate.opened.set).start()
    checkpoints.close(leave=leave)
    assert checkpoints.saved_round == saved
    assert checkpoints.newest() == (checkpoints.folder / f"round-{saved:04d}", [])


class Opened:
    """Notes what Python opens, in all threads."""

    files: list[tuple[str, str]] | None = None

    def see(self, event: str, arguments: Any) -> None:
        if self.files is not None and event in ("open", "os.scandir", "os.listdir"):
            self.files.append((event, str(arguments[0])))


@pytest.mark.parametrize("also_keep", [None, 0])
def test_a_round_costs_the_clients_that_it_changed(also_keep: int | None, tmp_path: Path) -> None:
    """Files opened and bytes written with 8 of 300 clients are those with 8 of 8; a long record adds nothing."""
    opened, costs = Opened(), {}
    sys.addaudithook(opened.see)
    for population in (8, 300):
        checkpoints = Checkpoints(folder=tmp_path / f"{population}", keep=2)
        clients = {client: ClientState(private={"b": torch.ones(5000)}) for client in range(population)}
        records = tmp_path / f"{population}.jsonl"
        records.write_text(f'{{"round": {population}}}\n' * population)
        for number in range(6):
            with records.open("a") as file:
                file.write(f'{{"round": {number}}}\n')
            server = ServerState(round_idx=number, shared={"w": torch.ones(5000)})
            opened.files, before = [], written()
            checkpoints.save(server, clients, set(range(8)), records, also_keep=also_keep)
            checkpoints.settle()
            costs[population] = (len(opened.files), written() - before)
            files, opened.files = opened.files, None
        # Neither the names of all clients' files are read, nor what older checkpoints say of them.
        assert not [name for event, name in files if event == "os.scandir" and name.endswith("clients")]
        assert [name for _, name in files if "manifest.json" in name] == [
            f"{checkpoints.folder}/round-0005.partial/manifest.json"
        ]
    assert costs[300][0] == costs[8][0]
    assert costs[300][1] == pytest.approx(costs[8][1], abs=100)  # longer numbers
    assert costs[300][1] < 1.15 * 9 * 20_000


def written() -> int:
    """Return the bytes that this process has given to the kernel to write; 0 where nobody tells."""
    counters = Path("/proc/self/io")
    lines = counters.read_text().splitlines() if counters.is_file() else ["wchar: 0"]
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def test_the_table_of_clients_is_begun_anew_when_most_of_it_is_old(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fedlit.store.writing, "_SPARE_LINES", 0)
    clients = {client: ClientState(private={"b": torch.ones(3)}) for client in (0, 1, 2)}
    for number in range(9):
        save(checkpoints, number, clients)
        checkpoints.settle()
        tables = sorted(checkpoints.folder.glob("clients-*.jsonl"))
        assert len(tables) <= 2
        assert all(len(path.read_text().splitlines()) <= 9 for path in tables)
        assert checkpoints.newest() == (checkpoints.folder / f"round-{number:04d}", [])
    assert tables[0].name != "clients-0000.jsonl"


@pytest.mark.parametrize("kind", ["records", "clients"])
def test_a_table_that_somebody_removes_is_begun_anew(kind: str, checkpoints: Checkpoints) -> None:
    clients = {client: ClientState(private={"b": torch.ones(3)}) for client in (0, 1, 2)}
    for number in range(3):
        save(checkpoints, number, clients if number == 0 else {**clients})
        checkpoints.settle()
        (table,) = checkpoints.folder.glob(f"{kind}-*.jsonl")
        if number == 1:
            table.unlink()
    assert checkpoints.newest() == (checkpoints.folder / "round-0002", [])
    assert checkpoints.load(checkpoints.folder / "round-0002", CPU, {0, 1, 2})[1].keys() == {0, 1, 2}
