"""fedlit push: what it shows, what it sends to a hub that is not there, and what it sends to none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.errors
import pytest
from conftest import SMALL, merge
from test_results_commands import HEAVY, fedlit

from fedlit.cli import main
from fedlit.exported import push

BASE = ["--base-model", "owner/tiny"]


class FakeHub:
    """What HfApi would send, kept."""

    def __init__(self) -> None:
        self.repositories: dict[str, bool | None] = {}
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool | None, exist_ok: bool) -> None:
        assert (repo_type, exist_ok) == ("model", True)
        if self.error is not None:
            raise self.error
        self.repositories[repo_id] = private

    def create_commit(self, repo_id: str, operations: list[Any], **_: Any) -> SimpleNamespace:
        assert repo_id in self.repositories
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, with its merged model."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["run", *merge(SMALL, ("num_rounds=1",)), f"run.dir={folder}", "run.name=done"]) == 0
    run = folder / "done"
    assert main(["merge", str(run)]) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "done", ignore=shutil.ignore_patterns("checkpoints", "plots"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(push, "HfApi", lambda: fake)
    monkeypatch.setattr(push, "get_token", lambda: "hf_of_nobody")
    return fake


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that pushes and gives the only line of the refusal."""

    def refusal(*words: str) -> str:
        capsys.readouterr()
        assert main(["push", *words]) == 2
        done = capsys.readouterr()
        assert (done.out, done.err.count("\n")) == ("", 1)
        assert len(done.err) <= 400
        return done.err

    return refusal


def test_a_dry_run_shows_all_that_would_be_sent_and_asks_nobody(run: Path) -> None:
    """Nothing listens where the hub should be; torch is not needed to look at files."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = fedlit("push", str(run), "me/result", "--dry-run", *BASE, folder=run.parent, timing=True)
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, errors) == (0, [])
    assert not {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()} & HEAVY
    head, *lines = done.stdout.splitlines()
    names = [line.split()[0] for line in lines[:8]]
    assert names == sorted(path.name for path in (run / "adapter").iterdir())
    assert head.startswith(f"{run / 'adapter'} to me/result (model, public if it is new): 8 files, ")
    assert lines[8].startswith("login: ")
    assert "base_model: owner/tiny" in lines
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_what_is_sent_names_no_place_of_this_machine(
    run: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "me/result", "--private", *BASE]) == 0
    assert capsys.readouterr().out.startswith("https://hub/me/result/commit/1 (8 files, ")
    assert hub.repositories == {"me/result": True}
    sent, own = hub.files, run / "adapter"
    for name in ("adapter_model.safetensors", "tokenizer.json", "generation_config.json", "prompt_template.json"):
        assert sent[name] == (own / name).read_bytes()
    assert json.loads(sent["adapter_config.json"])["base_model_name_or_path"] == "owner/tiny"
    assert json.loads((own / "adapter_config.json").read_text())["base_model_name_or_path"] != "owner/tiny"
    card = sent["README.md"].decode()
    assert "base_model: owner/tiny" in card
    assert 'name = "me/result"' in card
    for content in sent.values():
        assert str(run.parent).encode() not in content
        assert str(Path(push.__file__).parents[2]).encode() not in content


def test_a_merged_model_is_sent_whole(run: Path, hub: FakeHub) -> None:
    assert main(["push", str(run), "me/result", "--merged"]) == 0
    assert hub.repositories == {"me/result": None}
    assert hub.files.keys() == {path.name for path in (run / "merged").iterdir()}
    assert hub.files["model.safetensors"] == (run / "merged" / "model.safetensors").read_bytes()


def test_a_base_that_others_do_not_have_is_told(run: Path, hub: FakeHub, told: Callable[..., str]) -> None:
    line = told(str(run), "me/result")
    assert "a place that others do not have; give its name on the hub with --base-model owner/name" in line
    assert hub.repositories == {}


def test_without_a_login_nothing_is_sent(
    run: Path, hub: FakeHub, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "get_token", lambda: None)
    assert "no login to the Hugging Face hub" in told(str(run), "me/result", *BASE)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("notes.md", "made in {run}", "names a place of this machine"),
        ("notes.txt", "see {home}/data/rows.jsonl", "names a place of this machine"),
        ("notes.json", '"hf_of_nobody"', "holds what looks like a token"),
        ("notes.yaml", "key: hf_" + "a" * 34, "holds what looks like a token"),
    ],
)
def test_a_file_that_tells_too_much_is_not_sent(
    file: str,
    text: str,
    reason: str,
    run: Path,
    hub: FakeHub,
    told: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (run / "adapter" / file).write_text(text.format(run=run, home="/home/somebody"))
    line = told(str(run), "me/result", *BASE)
    assert (str(run / "adapter" / file) in line, reason in line) == (True, True)
    assert hub.repositories == {}


def test_a_link_out_of_the_result_is_not_followed(run: Path, hub: FakeHub, told: Callable[..., str]) -> None:
    (run / "adapter" / "rows.bin").symlink_to(run / "config.yaml")
    assert "is no file of its own, but a link" in told(str(run), "me/result", *BASE)
    assert hub.repositories == {}


def test_what_the_hub_says_is_one_line(run: Path, hub: FakeHub, told: Callable[..., str]) -> None:
    hub.error = OSError("no route to host")
    assert "me/result was not pushed (OSError: no route to host)" in told(str(run), "me/result", *BASE)
    hub.error = huggingface_hub.errors.OfflineModeIsEnabled("offline")
    assert "HF_HUB_OFFLINE forbids to send anything" in told(str(run), "me/result", *BASE)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["me/re sult"], "is not the name of a repository on the hub"),
        (["result"], "nobody owns it; write it as owner/name"),
        (["me/result", "--base-model", "tiny"], "'tiny' is not the name of a model on the hub"),
        (["me/result", "--client", "0"], "has no result of client 0"),
        (["me/result", "--privat"], "did you mean '--private'?"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], reason: str, run: Path, told: Callable[..., str]) -> None:
    assert reason in told(str(run), *words)


def test_an_unfinished_run_and_an_older_result_are_told(run: Path, told: Callable[..., str]) -> None:
    shutil.rmtree(run / "merged")
    assert "run `fedlit merge" in told(str(run), "me/result", "--merged")
    (run / "adapter" / "fedlit.json").unlink()
    assert "an older version of fedlit wrote it" in told(str(run), "me/result")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "state": "stopped"}))
    assert "is not finished" in told(str(run), "me/result")
