"""fedlit merge, chat and aggregate as a user types them: what they print, their exit codes, no torch for a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, environment, merge
from safetensors.torch import load_file, save_file

from fedlit.cli import main

HEAVY = {"torch", "lightning", "transformers", "peft", "safetensors"}


def fedlit(
    *words: str, folder: Path, asks: str | None = None, timing: bool = False
) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, *(["-X", "importtime"] if timing else []), "-m", "fedlit"]
    return subprocess.run(
        [*python, *words],
        cwd=folder,
        env=environment(),
        input=asks or "",
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["run", *merge(SMALL, ("num_rounds=1",)), f"run.dir={folder}", "run.name=done"]) == 0
    return folder / "done"


def test_chat_answers_lines_and_prompts_alike(run: Path) -> None:
    done = fedlit("chat", str(run), folder=run.parent, asks="def read(file)\n\nclass Reader(object)\n")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 2  # the blank line is no question
    once = fedlit("chat", str(run), "--prompt", "class Reader(object)", folder=run.parent)
    assert (once.returncode, once.stdout.splitlines(), once.stderr) == (0, lines[1:], "")
    assert sorted(path.name for path in run.glob("*.partial")) == []


def test_merge_says_where_it_wrote_and_writes_once(run: Path) -> None:
    done = fedlit("merge", str(run), "--dtype", "bfloat16", folder=run.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith(f"{run / 'merged'} (bfloat16, ")
    assert "AutoModelForCausalLM.from_pretrained(" in done.stdout
    assert {tensor.dtype for tensor in load_file(run / "merged" / "model.safetensors").values()} == {torch.bfloat16}
    again = fedlit("merge", str(run), folder=run.parent, timing=True)
    told = [line for line in again.stderr.splitlines() if not line.startswith("import time:")]
    assert (again.returncode, again.stdout) == (2, "")
    assert told == [f"error: {run / 'merged'} exists already; give another place with --output, or move it away"]
    assert not {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()} & HEAVY


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    """Two adapters of ranks 2 and 4 on one layer."""
    for name, rank in (("a", 2), ("b", 4)):
        folder = tmp_path / name
        folder.mkdir()
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q"]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        torch.manual_seed(rank)
        tensors = {"A": torch.randn(rank, 6), "B": torch.randn(5, rank)}
        named = {f"base_model.model.q.lora_{key}.weight": tensor for key, tensor in tensors.items()}
        save_file(named, folder / "adapter_model.safetensors")
    return tmp_path


def test_aggregate_writes_the_residual_beside(
    adapters: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(adapters)
    assert main(["aggregate", "a", "a", "--rule=fedex", "--residual=d", "--out=c"]) == 0
    done = capsys.readouterr()
    assert done.err == ""
    assert done.out.splitlines()[-2:] == ["c", "d"]
    assert (adapters / "d" / "adapter_config.json").is_file()


def test_aggregate_prints_every_rule(
    adapters: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "aggregate a b/ --rule flexlora --rank 1 --weights 3,1 --out c"
    monkeypatch.chdir(adapters)
    assert main(words.split()) == 0
    done = capsys.readouterr()
    assert done.err == ""
    _, _, *rules, out = done.out.splitlines()
    assert [line.split()[0] for line in rules] == [
        "flexlora",
        "fedit",
        "hetlora",
        "fedex",
        "flora",
        "lora_fair",
        "fedrot",
    ]
    assert rules[0].endswith("(written)")
    assert "needs equal ranks, which are 2 and 4" in rules[1]
    assert float(rules[4].split()[3]) < 1e-6 < float(rules[0].split()[3])
    assert out == "c"
    assert load_file(adapters / "c" / "adapter_model.safetensors")["base_model.model.q.lora_A.weight"].shape == (1, 6)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("merge nowhere", "nowhere is no folder; give the folder of a run"),
        ("merge a", "a is no run folder (no config.yaml)"),
        ("merge a --dtype float31", "did you mean 'float32'?"),
        ("merge a --outptu x", "did you mean '--output'?"),
        ("merge", "see 'fedlit merge --help'"),
        ("chat nowhere", "nowhere is no folder"),
        ("chat a --max-new-tokens 0", "'0' is no integer of at least 1"),
        ("chat a --promt x", "did you mean '--prompt'?"),
        ("aggregate a b --rule flexlroa --out c", "did you mean 'flexlora'?"),
        ("aggregate a b --rule flora", "--out"),
        ("aggregate a b --rule flora --out a", "a exists already"),
        ("aggregate a nowhere --rule flora --out c", "nowhere is no folder"),
        ("aggregate a b --rule flora --out c --weights 1", "--weights=1 are 1 for 2 folders"),
        ("aggregate a b --rule flora --out c --weights 0,0", "one above 0"),
        ("aggregate a b --rule flora --out c --weights=-1,2", "all must be 0 or more"),
        ("aggregate a b --rule flora --out c --weights 1,x", "is no number"),
        ("aggregate a b --rule flora --out c --rank 3", "--rank belongs to --rule=flexlora"),
        ("aggregate a b --rule flexlora --out c --residual-rank 3", "--residual-rank belongs to --rule=fedex"),
        ("aggregate a b --rule flexlora --out c --rank 3 --energy .9", "leave one of them out"),
        ("aggregate a b --rule flexlora --out c --energy 2", "above 0 and at most 1"),
        ("aggregate a b --rule flora --out c --dtype int8", "--dtype=int8 is no type"),
        ("aggregate a b --rule flora --out c --residual d", "--residual belongs to --rule=fedex"),
        ("aggregate a b --rule flora --out c --align b", "--align belongs to --rule=fedrot"),
        ("aggregate a b --rule fedrot --out c --align c", "--align=c is no factor"),
        ("aggregate a b --rule flora --out c --regularization 1", "--regularization belongs to --rule=lora_fair"),
        ("aggregate a b --rule lora_fair --out c --regularization=-1", "must be 0 or more"),
        ("aggregate a b --rule lora_fair --out c --regularization few", "is no number"),
        ("aggregate a b --rule fedex --out c --residual c", "--out and --residual are both c"),
        ("aggregate a b --rule fedex --out c --residual a", "a exists already; give another place with --residual"),
        ("aggregate a b --rule fedex --out c --residual d --residual-rank 0", "leaves nothing for --residual"),
    ],
)
def test_a_mistake_is_one_line(
    words: str, told: str, adapters: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(adapters)
    assert main(words.split()) == 2
    done = capsys.readouterr()
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert done.err.startswith("error: ")
    assert told in done.err
    assert len(done.err) <= 400
    assert sorted(path.name for path in adapters.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("words", ["merge a", "chat a", "aggregate a b --rule flora --out a"])
def test_a_mistake_is_told_before_torch_is_imported(words: str, adapters: Path) -> None:
    done = fedlit(*words.split(), folder=adapters, timing=True)
    assert done.returncode == 2
    assert not {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()} & HEAVY


def test_a_rule_that_cannot_is_one_line(
    adapters: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(adapters)
    words = "aggregate a b --rule fedit --out c"
    assert main(words.split()) == 2
    done = capsys.readouterr()
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert "--rule=fedit: layer q needs equal ranks" in done.err
    assert not (adapters / "c").exists()
