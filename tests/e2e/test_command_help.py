"""What every command, and its door under experiments/, owes its user: help at once with an example, and one line for a
wrong name.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment

from fedlit.cli import COMMANDS as OF_FEDLIT

COMMANDS = sorted(set((REPOSITORY / "experiments").glob("*.py")) - {REPOSITORY / "experiments" / "pretrain_tiny.py"})
"""All but the one that made the packaged model, which trains by itself and imports torch at once."""
NAMES = {"federate": "run", "dashboard": "page", "prefetch": "fetch"}
HEAVY = ("torch", "lightning", "transformers", "datasets", "wandb", "matplotlib", "plotly")


def run(*words: str, folder: Path, timing: bool = False) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, *(["-X", "importtime"] if timing else [])]
    return subprocess.run(
        [*python, *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("script", COMMANDS, ids=lambda path: path.name)
def test_help_comes_at_once_and_has_an_example(script: Path, tmp_path: Path) -> None:
    done = run(str(script), "--help", folder=tmp_path, timing=True)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported or "fedlit.config.help" in imported  # the list of imports is one
    assert imported & set(HEAVY) == set()
    assert f"fedlit {NAMES.get(script.stem, script.stem)} " in done.stdout.replace("\n", " ")


@pytest.mark.parametrize("command", OF_FEDLIT)
def test_help_of_a_command_comes_at_once_and_has_an_example(command: str, tmp_path: Path) -> None:
    done = run("-m", "fedlit", command, "--help", folder=tmp_path, timing=True)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "fedlit.commands.endings" in imported  # the list of imports is one
    assert imported & set(HEAVY) == set()
    example = "fedlit " if command == "help" else f"fedlit {command} "
    assert example in done.stdout.replace("\n", " ")
    assert [line for line in done.stderr.splitlines() if not line.startswith("import time:")] == []


SWEEP, REPORT, DASHBOARD, PREFETCH, FEDERATE, COMPARE = (
    f"{name}.py" for name in ("sweep", "report", "dashboard", "prefetch", "federate", "compare")
)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ([FEDERATE, "data=medqad"], "medquad"),
        ([FEDERATE, "local.step=3"], "local.steps"),
        ([COMPARE, "--methods", "fedti"], "fedit"),
        ([SWEEP, "count", "scl_tabel2"], "scl_table2"),
        ([SWEEP, "statsu", "demo"], "status"),
        ([SWEEP, "submit", "demo", "--only-unfinishd"], "--only-unfinished"),
        ([REPORT, "scl_tabel2"], "scl_table2"),
        ([DASHBOARD, "scl_tabel2"], "scl_table2"),
        ([DASHBOARD, "demo", "--outptu=x.html"], "--output"),
        ([PREFETCH, "scl_tabel2"], "scl_table2"),
        ([PREFETCH, "demo", "--dryrun"], "--dry-run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(words: list[str], nearest: str, tmp_path: Path) -> None:
    done = run(str(REPOSITORY / "experiments" / words[0]), *words[1:], folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert f"did you mean '{nearest}'?" in done.stderr
    assert list(tmp_path.iterdir()) == []


GUIDE = REPOSITORY / "docs" / "start" / "slurm.md"
OF_OTHERS = (
    "srun: error:",
    "sbatch: error:",
    "The IPv6",
    "No API key",
    "DUE TO TIME LIMIT",
    "oom_kill",
    "Out Of Memory",
)
"""Beginnings of messages that SLURM, torch and wandb write."""


def sources() -> str:
    """Return all code, its texts joined over line ends, and a dot where something is filled in."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "fedlit").rglob("*.py"))
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "slurm").glob("*.s*"))
    return re.sub(r"\{[^{}]*\}", ".", re.sub(r'"\s*\n\s*f?"', "", code)) + scripts


def test_the_guide_to_slurm_quotes_messages_that_exist() -> None:
    code = sources()
    rows = re.findall(r"^\| (`.*?) \|", GUIDE.read_text(encoding="utf-8").split("## Troubleshooting")[1], re.M)
    quotes = [quote for row in rows for quote in re.findall(r"`([^`]+)`", row)]
    own = [quote for quote in quotes if not any(other in quote for other in OF_OTHERS)]
    assert len(own) > 12
    for quote in own:
        for part in re.split(r"\.\.\.|<folder>|\b\d+\b|\(OSError.*\)|\(OfflineModeIsEnabled\)", quote):
            if len(part.strip(" ()':;,=")) > 6 and "Couldn't reach" not in part:
                assert part.strip(" ()'") in code, f"nothing says {part!r}"


def test_the_guide_to_slurm_knows_every_state_and_exit_code() -> None:
    from fedlit.commands import endings as command  # noqa: PLC0415  only this test needs it
    from fedlit.lab.sweeps.queue import BUSY  # noqa: PLC0415
    from fedlit.process.interrupt import STOPPED_EXIT_CODE  # noqa: PLC0415
    from fedlit.store.status import STATES  # noqa: PLC0415

    text = GUIDE.read_text(encoding="utf-8")
    told = {state for row in re.findall(r"^\| (`[a-z_`, ]+) \|", text, re.M) for state in re.findall(r"`(\w+)`", row)}
    assert told == {*STATES, *BUSY}
    codes = {value for name, value in vars(command).items() if name.endswith("_EXIT_CODE")} | {STOPPED_EXIT_CODE}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)} == {0, 1, *codes}


def test_the_guide_to_slurm_names_files_that_exist() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for path in re.findall(r"(?:experiments|slurm|configs)/[\w/.-]+\.(?:py|sbatch|sh|yaml)", text):
        assert (REPOSITORY / path).is_file(), path
    for command, rest in re.findall(r"experiments/(sweep|report|dashboard|prefetch)\.py ([\w ]+)", text):
        words = [word for word in rest.split() if word not in ("submit", "status", "show", "run", "list")]
        for sweep in words[:1]:
            assert (REPOSITORY / "configs" / "sweep" / f"{sweep}.yaml").is_file(), (command, sweep)


def test_help_shows_a_part_from_outside(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom fedlit.plugins import AggregationRule, option, register\n"
        "@register('rule', 'mine')\n@dataclass(frozen=True)\nclass Mine(AggregationRule):\n"
        "    '''Mine alone.'''\n    trim: float = option(0.1, 'what is cut')\n"
        "    def __call__(self, cohort, server):\n        return server\n"
    )
    done = run("-m", "fedlit", "help", "plugins=[mine]", "method.rule=mine", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rule=mine: Mine alone." in done.stdout
    assert re.search(r"method\.trim=0\.1 +what is cut \(number\)", done.stdout)


def test_a_word_without_help_is_one_line(tmp_path: Path) -> None:
    done = run("-m", "fedlit", "help", "locall", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no help on locall; did you mean 'local'?") and done.stderr.count("\n") == 1
