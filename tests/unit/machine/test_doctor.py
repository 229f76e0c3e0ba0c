"""What `fedlit doctor` says of made-up machines: versions, probes that crash, drivers, logins, SLURM, folders."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from fedlit import cli
from fedlit.commands import doctor
from fedlit.machine import Finding, Verdict, libraries, places, probe, services, software
from fedlit.machine.libraries import Probe, findings, read_probe, run_probe

TORCH: Mapping[str, Any] = {
    "version": "2.13.0+cpu",
    "threads": 2,
    "cuda": None,
    "gpus": [],
    "bf16": False,
    "mps": False,
    "backends": ["gloo"],
    "flash": False,
}
GPU = {"name": "Card", "memory": 80 * 10**9, "capability": [9, 0]}


def lines(found: Iterable[Finding]) -> dict[str, tuple[str, str]]:
    return {finding.name: (str(finding.verdict), f"{finding.text}; {finding.remedy}") for finding in found}


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Make these the only programs that are found."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_versions_are_held_against_the_tested_ones() -> None:
    required = ["torch>=2.6", "peft>=0.18", "galore-torch>=1.0", "wandb>=0.31"]
    tested = {
        "torch": "2.13.0",
        "peft": "0.21.2",
        "galore-torch": "1.0",
        "wandb": "0.31.0",
        "tqdm": "4.70",
        "mypy": "2",
    }
    installed = {"torch": "2.13.0+cpu", "peft": "0.17.0", "wandb": "0.32.0", "tqdm": "4.69"}
    found = lines(software.versions(required, tested, installed))
    assert found["galore-torch"] == ("problem", "is not installed; pip install 'galore-torch>=1.0'")
    assert found["peft"] == ("problem", "0.17.0 is not >=0.18; pip install 'peft>=0.18'")
    assert found["dependencies"][0] == "note"
    assert (
        "1 of 3 are the tested versions; other: peft 0.17.0 (tested 0.21.2), wandb 0.32.0" in found["dependencies"][1]
    )
    assert "tqdm 4.69 (tested 4.70)" in found["their own"][1]
    assert "mypy" not in str(found), "what is tested and not installed is an extra"
    right = lines(software.versions(required[:1], {"torch": "2.13.0"}, installed))
    assert right == {
        "dependencies": ("ok", "1 of 1 are the tested versions; "),
        "their own": ("ok", "0 of 0 are the tested versions; "),
    }


def test_this_installation_is_read() -> None:
    assert software.tested_versions()["galore-torch"] == "1.0"
    assert any(line.startswith("torch") for line in software.requirements())
    assert not any("rouge" in line for line in software.requirements()), "an extra's"
    assert software.installed_versions()["torch"] == metadata.version("torch")


def test_an_old_python_is_a_problem() -> None:
    assert software.python((3, 10, 4), "Linux").verdict is Verdict.PROBLEM
    assert software.python((3, 12, 0), "Linux").verdict is Verdict.OK


def test_an_import_that_fails_is_a_line() -> None:
    output = "\n".join(
        [
            "some library says hello",
            json.dumps({"begins": "torch"}),
            json.dumps({"import": ["torch", "ImportError: libcudart.so.12: cannot open shared object file"]}),
            json.dumps({"bytecode": 0}),
        ]
    )
    found = lines(findings(read_probe(output, None), driver=None))
    assert found == {
        "import": (
            "problem",
            "torch: ImportError: libcudart.so.12: cannot open shared object file; pip install --force-reinstall torch",
        )
    }


def test_what_only_some_runs_need_is_a_note() -> None:
    found = lines(findings(Probe(errors={"torch": None, "sklearn.cluster": "ImportError: old numpy"}), driver=None))
    assert found == {
        "import": ("note", "sklearn.cluster: ImportError: old numpy; pip install --force-reinstall scikit-learn")
    }


def test_a_library_that_ends_the_process_is_named(tmp_path: Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text(
        'import os, signal\nprint(\'{"begins": "torch"}\', flush=True)\nos.kill(os.getpid(), signal.SIGILL)\n'
    )
    (found,) = findings(run_probe([sys.executable, str(script)]), driver=None)
    assert (found.verdict, found.text) == (Verdict.PROBLEM, "torch ends with SIGILL")
    (gone,) = findings(run_probe([str(tmp_path / "nothing")]), driver=None)
    assert gone.verdict is Verdict.PROBLEM


def test_devices_and_drivers() -> None:
    on_cpu = lines(findings(Probe(errors={"torch": None}, torch=TORCH), driver=None))
    assert on_cpu["cuda"] == ("ok", "no GPU; torch 2.13.0+cpu computes on the CPU; ")
    assert on_cpu["import"][0] == "ok"
    wrong_build = lines(findings(Probe(torch=TORCH), driver="570.1"))
    assert wrong_build["cuda"][0] == "note"
    assert "there is a driver (570.1), and torch 2.13.0+cpu is built without CUDA" in wrong_build["cuda"][1]
    given = {**TORCH, "gpus": [GPU, GPU], "bf16": True, "cuda": "13.0", "backends": ["nccl"], "flash": True}
    on_gpu = lines(findings(Probe(torch=given, bitsandbytes="OSError: no kernels"), driver="580.2"))
    assert on_gpu["cuda:1"] == ("ok", "Card, 80.0 GB, capability 9.0, bf16; ")
    assert "for CUDA 13.0, driver 580.2" in on_gpu["cuda"][1]
    assert on_gpu["backends"][0] == "note"
    assert on_gpu["bitsandbytes"] == (
        "note",
        "OSError: no kernels; pip install bitsandbytes; only model.quantization=nf4 needs it",
    )


def test_missing_bytecode_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert libraries.bytecode(0).verdict is Verdict.OK
    found = libraries.bytecode(2_000)
    assert found.verdict is Verdict.NOTE
    assert found.text.startswith("2,000 imported modules have none")
    assert found.remedy.startswith("python -m compileall -q /")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert libraries.bytecode(2_000).remedy.startswith("unset PYTHONDONTWRITEBYTECODE, or python -m compileall")


def test_modules_without_bytecode_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.sysconfig, "get_path", lambda _name: str(tmp_path))
    for name in ("made_up_compiled", "made_up_plain", "made_up_other"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    __import__("made_up_compiled")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    __import__("made_up_plain")
    __import__("made_up_other")
    assert probe.missing_bytecode() == 2


def test_logins_are_seen_and_no_token_is_told(tmp_path: Path) -> None:
    assert services.wandb_login({}, tmp_path).text.startswith("no login to api.wandb.ai")
    assert services.hub_login({}, tmp_path).text.startswith("no login to the Hugging Face hub")
    secret = "abcdef0123456789"
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {secret}\n")
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text(secret)
    environ = {"WANDB_API_KEY": secret, "HF_TOKEN": secret}
    for variables in ({}, environ):
        told = [services.wandb_login(variables, tmp_path), services.hub_login(variables, tmp_path)]
        assert all(finding.verdict is Verdict.OK and "no login" not in finding.text for finding in told)
        assert secret not in str(told)
    other = services.wandb_login({"WANDB_BASE_URL": "https://wandb.example.org"}, tmp_path)
    assert other.text.startswith("no login to wandb.example.org")
    (tmp_path / ".netrc").write_text("machine\n")
    assert services.wandb_login({}, tmp_path).verdict is Verdict.NOTE


def test_what_keeps_a_run_offline_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch)
    found = lines(services.look_at_services({"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "4"}, tmp_path))
    assert found["HF_HUB_OFFLINE"][0] == "note"
    assert found["OMP_NUM_THREADS"] == ("ok", "4; ")
    assert found["slurm"][0] == "ok"
    assert found["METEOR 1.5"][0] == "note"


def test_slurm_with_and_without_a_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(
        tmp_path,
        monkeypatch,
        sbatch="echo slurm 24.11.3",
        sinfo="printf 'gpu* up 4 1-00:00:00\\nlong up 2 infinite\\n'",
    )
    told = list(services.slurm())
    assert [finding.text for finding in told] == [
        "slurm 24.11.3",
        "gpu up, 4 nodes, at most 1-00:00:00",
        "long up, 2 nodes, at most infinite",
    ]
    programs(tmp_path, monkeypatch, sinfo="exec /bin/sleep 20")
    assert [finding.verdict for finding in services.slurm(0.2)] == [Verdict.OK, Verdict.NOTE]


def test_folders_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.folder("runs", tmp_path / "a" / "b", "move").text.startswith(f"{tmp_path}/a/b, ")
    monkeypatch.setattr(places.os, "access", lambda _path, _mode: False)
    assert places.folder("runs", tmp_path, "move", needed=True).verdict is Verdict.PROBLEM
    assert places.folder("cache", tmp_path, "move").verdict is Verdict.NOTE
    (tmp_path / "meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n")
    (tmp_path / "memory.max").write_text("2000000000\n")
    found = lines(places.memory(tmp_path / "meminfo", tmp_path))
    assert found["memory"][1] == "4.1 GB of 8.2 GB are free; "
    assert found["memory limit"][1] == "2.0 GB, of this container or job; "
    (tmp_path / "memory.max").write_text("max\n")
    assert list(places.memory(tmp_path / "nothing", tmp_path)) == []


def test_the_exit_code_is_that_of_the_worst_line(capsys: pytest.CaptureFixture[str]) -> None:
    good, noted = Finding("python", "3.11"), Finding("cuda", "old\ncard", Verdict.NOTE, "buy another")
    assert doctor.show(iter([good, noted])) == 0
    shown = capsys.readouterr().out
    assert shown == (
        "ok       python         3.11\nnote     cuda           old\\ncard; buy another\n"
        "\n1 ok, 1 note, 0 problem; runs work here\n"
    )
    assert doctor.show(iter([good, Finding("torch", "gone", Verdict.PROBLEM, "install it")])) == 1
    assert capsys.readouterr().out.endswith("1 ok, 0 note, 1 problem\n")


def test_a_look_that_fails_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_given: object) -> Iterable[Finding]:
        raise RuntimeError("broken")

    for module, name in (
        (libraries, "look_at_libraries"),
        (software, "look_at_software"),
        (services, "look_at_services"),
    ):
        monkeypatch.setattr(module, name, fail)
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "problem  software       RuntimeError: broken" in shown
    assert "\nok       cores " in shown, "the other looks go on"


def test_on_a_terminal_it_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    doctor.show(iter([Finding("versions", "a long text " * 8, Verdict.NOTE, "do something")]))
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) > 4
    assert max(map(len, shown)) <= 60


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--al"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown option --al")


def test_here_it_finds_no_problem(tmp_path: Path) -> None:
    """All of it, as a person starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "fedlit", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    names = {line[9:24].strip() for line in done.stdout.splitlines()}
    assert {"python", "fedlit", "dependencies", "import", "cuda", "backends", "bytecode", "slurm", "W&B"} <= names
    assert "that were tried work" in done.stdout
