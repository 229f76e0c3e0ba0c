"""Checks a command of a page without running it: by the package's own parsers, loaders and sweeps.

What starts work (a run, a report, a download) is replaced; all before it is the product's own code. A file of data that
only the reader has is stood in for by an empty one, `...` leaves a command open, so that only its keys are checked.
Everything here changes the process: it is used in a forked one.
"""

import argparse
import importlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from pages import REPOSITORY

TOOLS = frozenset(
    """
    cat cd chmod cp deactivate df echo export find git grep head hf hostname kill less ls mkdir module mv
    nvidia-smi pip pwd rm sacct salloc scancel scontrol scp sed sinfo sleep sort source sphinx-build squeue
    ssh tail tee tensorboard touch unset unzip wandb wc wget which sha256sum diff cmp test [ true pre-commit
    ulimit rsync tar
    """.split()  # noqa: SIM905  a list would take sixty lines
)
"""Commands that are not ours: only the shell's reading of them is checked."""

SCRIPTS = {
    "federate.py": "run",
    "compare.py": "compare",
    "sweep.py": "sweep",
    "report.py": "report",
    "dashboard.py": "page",
    "prefetch.py": "fetch",
}
"""Files of experiments/ behind commands."""

BATCH = {"federate.sbatch": "run", "multi-node.sbatch": "run", "array.sbatch": "array"}
NO_FILE = re.compile(r"(?:data|model|partition)\.\w*path=(?P<path>\S+) \(.*is not (?:there|a file)")


class Wrong(Exception):
    """What is wrong with a command."""


class Reached(Exception):
    """The work that is not done has been reached."""


def check_command(words: Sequence[str]) -> None:
    """Check one command in the working folder; raises Wrong."""
    name, rest = Path(words[0]).name, list(words[1:])
    if name == "fedlit":
        _check_fedlit(rest)
    elif name == "fabric":
        _check_fabric(rest)
    elif name == "torchrun":
        _check_torchrun(rest)
    elif name in ("python", "python3"):
        _check_python(rest)
    elif name in ("sbatch", "srun"):
        _check_slurm(name, rest)
    elif name == "make":
        _check_make(rest)
    elif name == "pytest":
        _check_paths(rest)
    elif name not in TOOLS:
        raise Wrong(f"unknown command {words[0]!r}")


def _check_fedlit(words: list[str], *, is_open: bool = False) -> None:
    """Check words of `fedlit`, up to where work begins."""
    is_open = is_open or any(word in ("...", "[...]") for word in words)
    words = [word for word in words if word not in ("...", "[...]")]
    replace_work(is_open=is_open)
    from fedlit import cli  # noqa: PLC0415  after the replacements

    seen: set[str] = set()
    for _ in range(8):
        before = dict(os.environ)
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                code = cli.main(words)
            except Reached:
                code = 0
            except SystemExit as end:
                code = end.code or 0
        os.environ.clear()
        os.environ.update(before)
        if code == 0:
            return
        said = err.getvalue().strip() or out.getvalue().strip()
        missing = NO_FILE.search(said)
        if missing is None or missing["path"] in seen:
            raise Wrong(said.splitlines()[-1] if said else f"exit code {code}")
        seen.add(missing["path"])
        _stand_in(missing["path"].strip("\"'").partition("#")[0])
    raise Wrong("too many files are missing")


def _stand_in(text: str) -> None:
    """Make an empty file where the reader has one."""
    path = Path(re.sub(r"[*?]+", "1", text))
    if path.is_absolute():
        raise Wrong(f"{text} is a place of one machine")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch() if path.suffix else path.mkdir()


def replace_work(*, is_open: bool) -> None:
    """Put a look at the configuration in the place of all work."""
    from fedlit.config import load_config  # noqa: PLC0415
    from fedlit.config.sweep import load_sweep  # noqa: PLC0415

    def reached(*_args: Any, **_options: Any) -> int:
        raise Reached

    def run(words: Sequence[str]) -> int:
        load_config(words, checked=not is_open)
        return 0

    def told_run(words: Sequence[str]) -> int:
        from fedlit.commands.endings import without_traceback  # noqa: PLC0415

        _write_stored(words)
        return without_traceback(lambda: run(words))

    def expand(options: argparse.Namespace) -> int:
        sweep = load_sweep(options.sweep)
        cells = sweep.cells(options.overrides)
        if not cells:
            raise Wrong(f"{options.sweep} has no cell")
        for cell in {id(cell): cell for cell in (cells[0], cells[-1])}.values():
            load_config(cell.arguments, checked=not is_open)
        return 0

    def look(options: argparse.Namespace) -> int:
        for target in options.targets:
            if "=" not in target and not target.startswith(("runs", "/", ".")) and target.rstrip("/") == target:
                load_sweep(target)
        return 0

    def fetch(words: Sequence[str], *, dry_run: bool) -> int:
        from fedlit.lab.prefetch import run_configs  # noqa: PLC0415

        run_configs(words)
        return 0

    def export(options: argparse.Namespace) -> int:
        if not options.what[0].startswith("runs/"):
            load_config(options.what, checked=not is_open)
        return 0

    nothing: Callable[..., int] = lambda *_args, **_options: 0  # noqa: E731
    work: dict[str, dict[str, Callable[..., int]]] = {
        "run": {"run_federation": told_run},
        "compare": {"run_locally": reached},
        "sweep": {
            "run_command": expand,
            "status_command": expand,
            "submit_command": expand,
            "scripts_command": nothing,
        },
        "sweep_end": {"cancel_command": expand, "clean_command": expand},
        "chat": {"_chat": nothing},
        "merge": {"_merge": nothing},
        "push": {"_push": nothing},
        "aggregate": {"_aggregate": nothing},
        "export": {"_export": export},
        "page": {"_build": look},
        "report": {"_report": look},
        "analyse": {"_analyse": look},
        "fetch": {"prefetch": fetch},
        "doctor": {"show": nothing},
        "audit": {"read_audit": nothing, "tell": nothing},
    }
    for module, replaced in work.items():
        loaded = importlib.import_module(f"fedlit.commands.{module}")
        for name, function in replaced.items():
            if not hasattr(loaded, name):
                raise AssertionError(f"fedlit.commands.{module} has no {name}: the check of pages must follow")
            setattr(loaded, name, function)


def _write_stored(words: Sequence[str]) -> None:
    """Write the config.yaml of a run that the page would have made by now."""
    from fedlit.config import load_config  # noqa: PLC0415
    from fedlit.config.record import nested_values  # noqa: PLC0415

    for word in words:
        path = Path(word)
        if "=" not in word and path.name == "config.yaml" and not path.is_absolute() and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(nested_values(load_config([f"run.name={path.parent.name}"]))), encoding="utf-8")


def _check_fabric(words: list[str]) -> None:
    from lightning.fabric.cli import _main  # noqa: PLC0415  the test suite has imported Lightning already

    command = _main.commands.get(words[0]) if words else None
    if command is None:
        raise Wrong(f"fabric {words[:1]} is no command")
    import click  # noqa: PLC0415

    own, others = _split_at_script(words[1:])
    try:
        command.make_context("fabric run", [*own, str(REPOSITORY / "experiments" / "federate.py")])
    except click.ClickException as error:
        raise Wrong(f"fabric: {error.format_message()}") from error
    _check_script(others)


def _check_torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser  # noqa: PLC0415

    parser = get_args_parser()
    with redirect_stderr(io.StringIO()) as said:
        try:
            options = parser.parse_args(words)
        except SystemExit as end:
            raise Wrong(f"torchrun: {said.getvalue().strip().splitlines()[-1]}") from end
    if options.module:
        _check_python(["-m", options.training_script, *options.training_script_args])
    else:
        _check_script([options.training_script, *options.training_script_args])


def _split_at_script(words: list[str]) -> tuple[list[str], list[str]]:
    for i, word in enumerate(words):
        if word.endswith(".py"):
            return words[:i], words[i:]
    raise Wrong("no script is named")


def _check_python(words: list[str]) -> None:
    if words[:1] == ["-c"]:
        compile(words[1], "python -c", "exec")
    elif words[:2] == ["-m", "fedlit"]:
        _check_fedlit(words[2:])
    elif words[:1] == ["-m"]:
        if words[1] not in ("venv", "pip", "pytest", "sphinx", "build"):
            raise Wrong(f"python -m {words[1]} is not known here")
        if words[1] == "pytest":
            _check_paths(words[2:])
    elif words and words[0] not in ("--version", "-V"):
        _check_script(words)


def _check_script(words: list[str]) -> None:
    script = Path(words[0])
    if script.parts[:1] == ("experiments",) and script.name in SCRIPTS and len(script.parts) == 2:
        if not (REPOSITORY / script).is_file():
            raise Wrong(f"there is no {script}")
        _check_fedlit([SCRIPTS[script.name], *words[1:]])
    elif (REPOSITORY / script).is_file():
        text = (REPOSITORY / script).read_text(encoding="utf-8")
        unknown = [word for word in words[1:] if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text]
        if unknown:
            raise Wrong(f"{script} has no option {unknown[0]}")
    elif not script.is_file():
        raise Wrong(f"{script} is neither in the repository nor written by the page")


def _check_slurm(name: str, words: list[str]) -> None:
    for i, word in enumerate(words):
        if word in ("fedlit", "python", "fabric", "torchrun"):
            return check_command(words[i:])
        if word.endswith(".sbatch"):
            if not (REPOSITORY / word).is_file() and not Path(word).is_file():
                raise Wrong(f"there is no {word}")
            kind = BATCH.get(Path(word).name)
            if kind == "run":
                _check_fedlit(["run", *words[i + 1 :]])
            elif kind == "array":
                _check_array(words[i + 1 :])
            return None
    if name == "sbatch" and not any("--wrap" in word for word in words):
        raise Wrong("sbatch without a script")
    return None


def _check_array(words: list[str]) -> None:
    if not words:
        raise Wrong("slurm/array.sbatch needs a sweep")
    sweep = REPOSITORY / words[0]
    _check_fedlit(["sweep", "count", str(sweep) if sweep.is_file() else words[0], *words[1:]])


def _check_make(words: list[str]) -> None:
    targets = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for word in words:
        if (
            "=" not in word
            and not word.startswith("-")
            and not re.search(rf"^{re.escape(word)}:", targets, re.MULTILINE)
        ):
            raise Wrong(f"make has no target {word}")


def _check_paths(words: list[str]) -> None:
    for word in words:
        if word.startswith("tests") and not (REPOSITORY / word.partition("::")[0]).exists():
            raise Wrong(f"there is no {word}")
