"""However often a run is killed, its .wandb files together hold every round once, and all that belongs to it."""

import dataclasses
import json
import logging
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import NUM_ROUNDS, MadeUpRun, files_of, in_child, record_of
from wandb.proto.wandb_internal_pb2 import Record

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.lab.callbacks import Callback
from fedlit.lab.callbacks.plots import RunPlots
from fedlit.lab.callbacks.wandb_content import chosen_samples, partition_rows, summary_scores
from fedlit.lab.callbacks.wandb_files import History, read_history
from fedlit.lab.callbacks.wandb_run import WandbRun, run_id
from fedlit.tasks import Sample

MakeRun = Callable[..., MadeUpRun]
ALL_ROUNDS = list(range(NUM_ROUNDS + 1))
KILLED = -signal.SIGKILL


def with_plots(run: MadeUpRun) -> list[Callback]:
    return [RunPlots(run.folder / "plots"), WandbRun(run.config.logging)]


def without_plots(run: MadeUpRun) -> list[Callback]:
    return [WandbRun(run.config.logging)]


def history(run: MadeUpRun) -> History:
    return read_history(run.folder / "wandb", (run.folder / "wandb" / "run_id").read_text().strip())


@pytest.fixture(scope="module")
def inspected(whole: MadeUpRun) -> list[dict[str, Any]]:
    """The records of that run's file as wandb's own command reads them."""
    words = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", *map(str, files_of(whole.folder))]
    output = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    """A run that nobody interrupted, with an artifact, a group and tags."""
    from fedlit.config import LoggingConfig, MethodConfig  # noqa: PLC0415

    logging_config = LoggingConfig(
        wandb="offline", samples_every=3, group="a-sweep", tags=["one", "two"], artifact=True
    )
    config = RunConfig(
        method=MethodConfig(name="fedit", options={"lora_rank": 8}), num_rounds=NUM_ROUNDS, logging=logging_config
    )
    run = MadeUpRun(tmp_path_factory.mktemp("whole") / "mine", config, with_plots)
    (run.folder / "environment.json").write_text('{"commit": "abc"}')
    (run.folder / "adapter").mkdir()
    (run.folder / "adapter" / "adapter_config.json").write_text("{}")
    assert run.attempt() == 0
    return run


def test_a_run_is_described(whole: MadeUpRun, inspected: list[dict[str, Any]]) -> None:
    (described,) = [record["run"] for record in inspected if record["type"] == "run"]
    assert (described["run_group"], described["job_type"]) == ("a-sweep", "fedit")
    assert (described["tags"], described["project"]) == (["one", "two"], "fedlit")
    assert described["display_name"] == "mine"
    config = described["config"]["update"]
    assert config["method"]["lora_rank"] == 8
    assert config["environment"] == {"commit": "abc"}
    assert config["local"]["lr"] == whole.config.local.lr
    metrics = [record["metric"] for record in inspected if record["type"] == "metric"]
    assert {metric.get("glob_name"): metric.get("step_metric") for metric in metrics}["*"] == "round"


def test_our_reader_agrees_with_wandbs_own(whole: MadeUpRun, inspected: list[dict[str, Any]]) -> None:
    theirs = [record["history"]["item"] for record in inspected if record["type"] == "history"]
    ours = [{key.replace("/", "."): value for key, value in entry.items()} for entry in history(whole).entries]
    assert len(ours) == len(theirs) == NUM_ROUNDS + 2
    assert ours == [{key.replace("/", "."): value for key, value in entry.items()} for entry in theirs]


def test_every_round_is_one_entry_with_its_numbers_and_costs(whole: MadeUpRun) -> None:
    found = history(whole)
    assert found.rounds == ALL_ROUNDS
    assert found.finished
    for entry in found.entries[:-1]:
        assert entry["_step"] == entry["round"]
        numbers = {key: value for key, value in record_of(entry["round"]).items() if isinstance(value, int | float)}
        assert numbers.items() <= entry.items()
    last = found.entries[NUM_ROUNDS]
    costs = {key: value for key, value in last.items() if key.startswith("cost/")}
    assert costs == pytest.approx({
        "cost/uploaded_mb": 6.0, "cost/downloaded_mb": 12.0, "cost/client_s": 9.0, "cost/tokens": 600,
        "cost/wall_s": 14.0, "cost/device_hours": 28 / 3600,
    })  # fmt: skip
    assert found.entries[0]["cost/tokens"] == 0


def test_tables_and_pictures_are_there_and_on_disk(whole: MadeUpRun) -> None:
    found = history(whole)
    assert found.rounds_with("partition") == [0]
    assert found.rounds_with("plots/label_distribution") == [0]
    assert found.rounds_with("samples") == [0, 3, 6]
    final = found.entries[-1]
    assert "round" not in final
    assert final["plots/deviation/_type"] == "image-file"
    (file,) = files_of(whole.folder)
    table = json.loads((file.parent / "files" / found.entries[3]["samples/path"]).read_text())
    assert table["columns"] == ["round", "prompt", "reference", "output"]
    assert table["data"][1] == [3, "p2", "r2", "3.2"]
    assert len(table["data"]) == 16
    partition = json.loads((file.parent / "files" / found.entries[0]["partition/path"]).read_text())
    assert partition["columns"] == ["client", "num_train", "num_test", "topic: a", "topic: b"]
    assert partition["data"] == [[0, 5, 1, 5, 1], [1, 3, 1, 0, 4]]


def test_the_summary_holds_best_and_last_and_the_artifact_the_result(
    whole: MadeUpRun, inspected: list[dict[str, Any]]
) -> None:
    summary: dict[str, Any] = {}
    artifacts = {}
    for record in inspected:
        if record["type"] == "summary":
            summary |= record["summary"].get("update", {})
        if record["type"] == "artifact":
            artifacts[record["artifact"]["type"]] = record["artifact"]
    assert (summary["best/global/loss"], summary["best_round/global/loss"]) == (1.0, 4)
    assert (summary["last/global/loss"], summary["last/global/rouge_l"]) == (3.0, pytest.approx(0.6))
    (content,) = artifacts["model"]["manifest"]["contents"]
    assert content["path"] == "adapter_config.json"
    assert content["local_path"] == str(whole.folder / "adapter" / "adapter_config.json")  # not a copy elsewhere


@pytest.mark.parametrize(
    "deaths",
    [
        [{"die_in": 2, "told": False}, {"die_in": 5}],
        [{"die_in": 0}, {"die_in": 6}],
    ],
)
def test_killed_again_and_again_it_is_one_history(made_up: MakeRun, deaths: list[dict[str, Any]]) -> None:
    """Between record and entry, and before what wandb holds back is on disk."""
    run = made_up(without_plots)
    for death in deaths:
        assert run.attempt(**death) == KILLED
    assert not history(run).finished
    assert run.attempt() == 0
    found = history(run)
    assert found.rounds == ALL_ROUNDS
    assert [entry["_step"] for entry in found.entries if "round" in entry] == ALL_ROUNDS
    assert found.finished
    tables = found.rounds_with("samples")
    assert tables == sorted(set(tables))
    assert tables[-1] == NUM_ROUNDS


def test_a_finished_run_leaves_no_trace_when_it_is_started_again(whole: MadeUpRun, tmp_path: Path) -> None:
    """Nor does its copy, which is the same run."""
    copy = MadeUpRun(tmp_path / "elsewhere" / "mine", whole.config, without_plots)
    shutil.rmtree(copy.folder)
    shutil.copytree(whole.folder, copy.folder, symlinks=True)
    before = (files_of(copy.folder), history(copy))
    assert copy.attempt() == 0
    assert (files_of(copy.folder), history(copy)) == before


def test_a_finished_run_that_is_given_more_rounds_goes_on(made_up: MakeRun) -> None:
    """Its rounds come after the pictures of its first end, which took a step, and it ends a second time."""
    run = made_up(with_plots)
    longer = run.config
    run.config = replace(longer, num_rounds=4)
    assert run.attempt() == 0
    first = history(run)
    assert first.finished
    run.config = longer
    assert run.attempt() == 0
    found = history(run)
    assert found.finished
    assert found.rounds == ALL_ROUNDS
    steps = [entry["_step"] for entry in found.entries]
    assert steps == sorted(set(steps))
    assert found.num_ends == 2
    assert found.keys_at_end >= first.keys_at_end != set()


def test_a_run_stopped_early_has_its_last_samples(made_up: MakeRun) -> None:
    run = made_up(without_plots, samples_every=5)
    assert run.attempt(last=2) == 0
    found = history(run)
    assert found.rounds == [0, 1, 2]
    assert found.rounds_with("samples") == [0]
    assert found.entries[-1]["samples/_type"] == "table-file"


def test_a_lost_helper_process_ends_neither_run_nor_history(
    made_up: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    run = made_up(without_plots)

    class SignalsHelper(Callback):
        def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
            if record["round"] == 4:
                time.sleep(1.5)  # what came before is on disk
                signal_helpers(signal.SIGTERM)  # as SLURM does to all processes of a job

    run.make_callbacks = lambda run: [SignalsHelper(), WandbRun(run.config.logging)]
    assert in_child(lambda: (logging.basicConfig(force=True), run.run())) == 0
    warning = capfd.readouterr().err
    assert "W&B stopped (" in warning
    assert "Traceback" not in warning
    assert history(run).rounds == [0, 1, 2, 3]
    run.make_callbacks = without_plots
    assert run.attempt() == 0
    assert history(run).rounds == ALL_ROUNDS


def signal_helpers(number: signal.Signals) -> None:
    """Send a signal to wandb's helper processes of this process."""
    pid = os.getpid()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"wandb-core" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), number)
    time.sleep(0.3)


def test_a_torn_tail_is_left_out(whole: MadeUpRun, tmp_path: Path) -> None:
    (file,) = files_of(whole.folder)
    data = file.read_bytes()
    identity = file.stem.removeprefix("run-")
    torn = tmp_path / "offline-run-1-x" / file.name
    torn.parent.mkdir()
    found = []
    for length in [0, 3, 7, *range(100, len(data), 997), len(data) - 1]:
        torn.write_bytes(data[:length])
        found.append(read_history(tmp_path, identity))
    assert all(history.rounds == ALL_ROUNDS[: len(history.rounds)] for history in found)
    assert {len(history.rounds) for history in found} >= {0, NUM_ROUNDS + 1}
    assert not any(history.finished for history in found)


def test_long_messages_span_blocks(made_up: MakeRun) -> None:
    """Of several blocks of 32 KiB each."""
    run = made_up(without_plots)

    def log() -> None:
        import wandb  # noqa: PLC0415

        opened = wandb.init(mode="offline", dir=str(run.folder), id=run_id(run.folder / "wandb"))
        for number in range(4):
            entry = {f"client/{i}/{'long' * 10}": number + i / 7 for i in range(1500)}
            opened.log({"round": number, **entry}, step=number, commit=True)
        opened.finish()

    assert in_child(log) == 0
    found = history(run)
    assert found.rounds == [0, 1, 2, 3]
    assert found.entries[3][f"client/1499/{'long' * 10}"] == 3 + 1499 / 7
    assert files_of(run.folder)[0].stat().st_size > 6 * 32 * 1024


@pytest.mark.parametrize("left", range(20))
def test_a_block_whose_end_has_no_room_for_a_chunk_is_padded(left: int, tmp_path: Path) -> None:
    """LevelDB's rule, by a writer of its own: the first message leaves `left` bytes of the first block."""
    path = tmp_path / "offline-run-1-x" / "run-x.wandb"
    path.parent.mkdir()
    overhead = len(message(0, 1000)) - 1000
    first = message(0, 32768 - 7 - 7 - left - overhead)
    path.write_bytes(b":W&B\xe1\xbe\x00" + log_of([first, message(1, 70_000), message(2, 3)], start=7))
    assert read_history(tmp_path, "x").rounds == [0, 1, 2]


def message(number: int, num_padding_bytes: int) -> bytes:
    record = Record()
    record.history.item.add(key="round", value_json=str(number))
    record.history.item.add(key="k" * num_padding_bytes, value_json="0")
    return bytes(record.SerializeToString())


def log_of(messages: Sequence[bytes], start: int) -> bytes:
    """Return messages in LevelDB's log format, for a file that has `start` bytes already."""
    data = bytearray(start)
    for content in messages:
        rest, is_first = content, True
        while is_first or rest:
            room = 32768 - len(data) % 32768
            if room < 7:
                data += bytes(room)
                continue
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[is_first, not rest]
            typed = bytes([kind]) + part
            data += struct.pack("<IH", zlib.crc32(typed), len(part)) + typed
            is_first = False
    return bytes(data[start:])


def test_a_file_of_another_format_is_a_notice_and_the_record_is_believed(
    made_up: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    run = made_up(without_plots)
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(record_of(i)) + "\n" for i in range(3)))
    strange = run.folder / "wandb" / "offline-run-1-x" / f"run-{run_id(run.folder / 'wandb')}.wandb"
    strange.parent.mkdir()
    strange.write_bytes(b":W&B\xe1\xbe\x07 of tomorrow")
    callback = WandbRun(run.config.logging)
    with caplog.at_level(logging.WARNING):
        callback.on_start(run.summary, run.records, ())
    assert "another format" in caplog.text
    assert "metrics.jsonl" in caplog.text
    assert files_of(run.folder) == [strange]  # nothing was missing, so nothing was opened


def test_the_id_stays(tmp_path: Path) -> None:
    first = run_id(tmp_path / "a" / "wandb")
    assert run_id(tmp_path / "a" / "wandb") == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert run_id(tmp_path / "b" / "wandb") == first
    assert run_id(tmp_path / "a" / "wandb") != first


def test_wandb_mode_disabled_is_respected(made_up: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = made_up(without_plots, wandb="auto")
    run.run()
    assert not (run.folder / "wandb").exists()


@pytest.mark.slow  # wandb tries for some seconds
def test_without_its_server_auto_goes_on_offline(made_up: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a compute node without internet, in spite of a login."""
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("fedlit.lab.callbacks.wandb_run._INIT_TIMEOUT_S", 4.0)
    run = made_up(without_plots, wandb="auto")
    assert run.attempt() == 0
    assert history(run).rounds == ALL_ROUNDS
    assert history(run).finished
    assert run.attempt() == 0
    assert history(run).rounds == ALL_ROUNDS
    refused = made_up_again(run, "online")

    def expect() -> None:
        with pytest.raises(UserError, match="W&B cannot start"):
            refused.run()

    assert in_child(expect) == 0


def made_up_again(run: MadeUpRun, mode: str) -> MadeUpRun:
    """Return another run of the same configuration, save for W&B's mode."""
    config = dataclasses.replace(run.config, logging=dataclasses.replace(run.config.logging, wandb=mode))
    return MadeUpRun(run.folder.with_name("other"), config, run.make_callbacks)


def test_what_wandb_refuses_is_one_line(made_up: MakeRun) -> None:
    run = made_up(without_plots, project="no/such:project")

    def expect() -> None:
        with pytest.raises(UserError, match="W&B cannot start") as caught:
            run.run()
        assert "\n" not in str(caught.value)

    assert in_child(expect) == 0


def test_the_untrained_model_is_not_the_best_of_a_run() -> None:
    records = [
        {"round": 0, "global/loss": 1.0, "own/accuracy": 0.9},
        {"round": 1, "global/loss": 3.0},
        {"round": 2, "global/loss": 2.0, "own/accuracy_worst": 0.1},
        {"round": 3, "global/loss": 2.0},
    ]
    assert summary_scores(records, RunConfig()) == {
        "chosen_on": "test",
        "last/global/loss": 2.0, "best/global/loss": 2.0, "best_round/global/loss": 2,
        "last/own/accuracy": 0.9,
        "last/own/accuracy_worst": 0.1, "best/own/accuracy_worst": 0.1, "best_round/own/accuracy_worst": 2,
    }  # fmt: skip


def test_the_best_of_a_run_is_what_validation_chose() -> None:
    records = [
        {"round": 0, "global/loss": 9.0, "validation/loss": 9.0},
        {"round": 1, "global/loss": 3.0, "validation/loss": 2.0},
        {"round": 2, "validation/loss": 2.5},
        {"round": 3, "global/loss": 1.0, "validation/loss": 3.0},
    ]
    assert summary_scores(records, RunConfig()) == {
        "chosen_on": "validation",
        "last/global/loss": 1.0, "best/global/loss": 3.0, "best_round/global/loss": 1,
        "last/validation/loss": 3.0, "best/validation/loss": 2.0, "best_round/validation/loss": 1,
    }  # fmt: skip


def test_many_labels_share_a_column() -> None:
    labels = {f"{i:03}": 1 for i in range(60)}
    client = {"client_id": 0, "num_train": 60, "num_test": 0, "train_labels": labels, "test_labels": {}}
    columns, (row,) = partition_rows({"label": "topic", "clients": [client]})
    assert columns[-1] == "10 other labels"
    assert (len(columns), row[-1], sum(row[3:])) == (54, 10, 60)
    plain = partition_rows({"label": None, "clients": [{**client, "train_labels": None}]})
    assert plain == (["client", "num_train", "num_test"], [[0, 60, 0]])


@pytest.mark.parametrize("num_samples", [0, 1, 15, 16, 17, 100])
def test_samples_are_spread_and_never_repeated(num_samples: int) -> None:
    samples = [Sample(prompt=str(i), reference="", prediction="") for i in range(num_samples)]
    chosen = chosen_samples(samples)
    assert len(chosen) == min(num_samples, 16)
    assert len({sample.prompt for sample in chosen}) == len(chosen)
    assert chosen[:1] == samples[:1]
