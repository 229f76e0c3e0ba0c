"""A user's mistake is one line on stderr (what, value, remedy), exit code 2, nothing written, no model loaded."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPT, CommandLine, environment

GOOD_ROWS = [{"prompt": f"p{number}", "response": f"r{number}", "label": "ab"[number % 2]} for number in range(40)]


def jsonl(path: Path, rows: list[object]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


CASES = {
    "unknown key": (["local.stepz=3"], ["local.stepz", "local.steps"]),
    "unknown method option": (["method.lora_rnk=3"], ["method.lora_rnk", "lora_rank"]),
    "unknown group file": (["method=fedot"], ["fedot", "fedit"]),
    "wrong type": (["num_rounds=many"], ["num_rounds", "many"]),
    "missing file": (["data=jsonl", "data.path=nowhere.jsonl"], ["nowhere.jsonl"]),
    "alpha": (["partition.alpha=0"], ["partition.alpha", "0"]),
    "cohort": (["cohort_size=4"], ["cohort_size", "4", "num_clients"]),
    "enumeration": (["eval.protocol=generated"], ["generated", "generate"]),
    "not json": (["data=jsonl", "data.path=not-json.jsonl"], ["not-json.jsonl", "3"]),
    "column": (["data=jsonl", "data.path=column.jsonl"], ["column.jsonl", "5", "response"]),
    "empty answer": (["data=jsonl", "data.path=empty.jsonl.gz"], ["empty.jsonl.gz", "7", "drop_empty"]),
    "too many clients": (["data=jsonl", "data.path=good.jsonl", "num_clients=50"], ["50", "40"]),
    "one label": (["data=jsonl", "data.path=one-label.jsonl"], ["label", "partition.name=iid"]),
    "unreadable image": (
        ["data=images", "data.path=pictures", "model=vit-small"],
        ["broken.png", "not a readable image"],
    ),
    "class out of range": (
        ["data=texts", "data.path=class.jsonl", "data.classes=[bad, good]"],
        ["class.jsonl", "3", "2"],
    ),
    "missing reference": (
        ["data=e2e", "data.path=refs.jsonl", "data.test_path=refs.jsonl", "partition.name=iid"],
        ["refs.jsonl", "2", "'ref'", "empty"],
    ),
    "split": (
        ["data=jsonl", "data.path=good.jsonl", "partition.name=file", "partition.path=split.json"],
        ["split.json", "40", "39"],
    ),
    "surrogate": (["data=jsonl", "data.path=surrogate.jsonl"], ["surrogate.jsonl", "line 3", "'prompt'", "surrogate"]),
    "name twice": (["data=jsonl", "data.path=twice.jsonl"], ["twice.jsonl, line 3", "'label'", "twice"]),
    "deep row": (["data=jsonl", "data.path=deep.jsonl"], ["deep.jsonl, line 3", "100 deep"]),
    "pointer": (["data=jsonl", "data.path=pointer.jsonl.gz"], ["pointer.jsonl.gz", "git lfs pull"]),
    "deep split": (
        ["data=jsonl", "data.path=good.jsonl", "partition.name=file", "partition.path=deep.json"],
        ["deep.json", "100 deep"],
    ),
    "unlabelled test set": (
        ["data=texts", "data.path=classes.jsonl", "data.test_path=unlabelled.jsonl"],
        ["unlabelled.jsonl, line 1", "-1", "unlabelled split?"],
    ),
    "training file as test file": (
        ["data=jsonl", "data.path=good.jsonl", "data.test_path=good.jsonl"],
        ["data.test_path=good.jsonl", "trained on"],
    ),
    "one prompt": (["data=jsonl", "data.path=one-prompt.jsonl"], ["one prompt", "data.test_path"]),
    "model": (["model.path=./no-such-model"], ["model.path", "no-such-model"]),
}


@pytest.fixture
def files(command_line: CommandLine) -> CommandLine:
    folder = command_line.folder
    jsonl(folder / "good.jsonl", list(GOOD_ROWS))
    jsonl(folder / "not-json.jsonl", [*GOOD_ROWS[:2], "{oops", *GOOD_ROWS[2:]])
    jsonl(folder / "column.jsonl", [*GOOD_ROWS[:4], {"prompt": "p", "label": "a"}])
    jsonl(folder / "empty.jsonl.gz", [*GOOD_ROWS[:6], {"prompt": "p", "response": " ", "label": "a"}])
    jsonl(folder / "one-label.jsonl", [{**row, "label": "a"} for row in GOOD_ROWS])
    jsonl(folder / "surrogate.jsonl", [*GOOD_ROWS[:2], {**GOOD_ROWS[2], "prompt": "cut \ud83d"}])
    jsonl(folder / "twice.jsonl", [*GOOD_ROWS[:2], '{"prompt": "p", "response": "r", "label": "a", "label": "b"}'])
    jsonl(folder / "deep.jsonl", [*GOOD_ROWS[:2], "[" * 100_000])
    (folder / "pointer.jsonl.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    (folder / "deep.json").write_text("[" * 100_000)
    jsonl(folder / "classes.jsonl", [{"text": f"t{number}", "label": number % 3} for number in range(40)])
    jsonl(folder / "unlabelled.jsonl", [{"text": f"u{number}", "label": -1} for number in range(9)])
    jsonl(folder / "one-prompt.jsonl", [{**row, "prompt": "p"} for row in GOOD_ROWS])
    jsonl(folder / "class.jsonl", [{"text": f"t{number}", "label": min(number, 2)} for number in range(40)])
    jsonl(folder / "refs.jsonl", [{"lin": "name : a", "ref": "a"}, {"lin": "name : a", "ref": ""}])
    (folder / "split.json").write_text(json.dumps([[0, 1, 2], [3, 4], [40]]))
    (folder / "pictures" / "dark").mkdir(parents=True)
    (folder / "pictures" / "dark" / "broken.png").write_text("no picture")
    return command_line


@pytest.mark.parametrize("case", CASES)
def test_one_clear_line(files: CommandLine, case: str) -> None:
    arguments, expected = CASES[case]
    done = files.run("bad", *arguments)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in expected:
        assert word in lines[0]
    assert not (files.folder / "bad").exists()


def test_strategy_of_fabric_run(files: CommandLine) -> None:
    """torch's launcher adds its own report and exits with 1; the script's line and code are in it."""

    fabric = Path(sys.executable).parent / "fabric"
    words = [str(fabric), "run", "--accelerator=cpu", "--strategy=ddp", str(SCRIPT)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False, cwd=files.folder)
    assert done.returncode != 0
    assert "error: --strategy=ddp" in done.stderr
    assert "exitcode: 2" in done.stderr or "exitcode  : 2" in done.stderr


@pytest.mark.slow
def test_another_configuration_in_the_folder(files: CommandLine) -> None:
    assert files.run("mine", "num_rounds=1", "eval.max_examples=2").returncode == 0
    before = {path: path.read_bytes() for path in (files.folder / "mine").rglob("*") if path.is_file()}
    done = files.run("mine", "num_rounds=1", "eval.max_examples=2", "local.lr=0.5")
    assert done.returncode == 2
    assert "local.lr" in done.stderr
    assert "run.name" in done.stderr
    assert before == {path: path.read_bytes() for path in (files.folder / "mine").rglob("*") if path.is_file()}


@pytest.mark.slow
def test_divergence_names_round_and_client_and_keeps_the_checkpoint(files: CommandLine) -> None:
    done = files.run("wild", "local.lr=1e38", "num_rounds=2", "eval.max_examples=2")
    assert done.returncode == 3, done.stderr
    assert "diverged: round 1, client" in done.stderr
    assert "Traceback" not in done.stderr
    assert (files.folder / "wild" / "checkpoints" / "round-0000" / "manifest.json").exists()
