"""Runs cases: writes their files, asks the forking server, takes everything away again."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from cases import Case
from outcome import Outcome

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SMALL = [
    *("num_clients=2", "num_rounds=2", "local.steps=1", "local.batch_size=2", "partition.alpha=1"),
    *("partition.min_test_rows=2", "eval.max_examples=2", "eval.max_new_tokens=2", "eval.batch_size=2"),
    *("logging.wandb=disabled", "logging.loggers=[]", "data=jsonl", "data.path=rows.jsonl"),
]
"""A run of half a second."""
COMPARED = ["run.dir=runs/compared"]
"""Where the run of `compare.py --methods fedit` is."""
ROWS = [{"prompt": f"add {i}", "response": f"sum {i}", "label": "ab"[i % 2]} for i in range(24)]
PAIR = """\
# two methods, one seed = 2 cells
experiment: demo
axes:
  method: [fedit, ffa_lora]
"""


def jsonl(rows: list[Any]) -> bytes:
    """Return rows as a .jsonl file holds them."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


FILES = {"rows.jsonl": jsonl(ROWS), "pair.yaml": PAIR.encode()}
"""What lies in every working folder."""


class Runner:
    """Forked processes of the scripts, in working folders that last as long as a case."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fz"))
        home = self._folder / "home"
        home.mkdir()
        # Nothing of this machine: no network, no SLURM, no other program, no login.
        environment = {
            **{name: os.environ[name] for name in ("PYTHONPATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ},
            **{"HOME": str(home), "HF_HOME": str(home / "hf"), "MPLCONFIGDIR": str(home / "mpl")},
            **{"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "PATH": "/nowhere", "PYTHONUTF8": "1", "COLUMNS": "80"},
        }
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "forking_server.py")],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()
        self.template = self._folder / "template"
        self._make_template()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, case: Case) -> Outcome:
        """Run a case in a working folder of its own."""
        folder = self._folder / "case"
        folder.mkdir()
        try:
            self._fill(folder, case)
            return self._ask(case, folder)
        finally:
            shutil.rmtree(folder)

    def _fill(self, folder: Path, case: Case) -> None:
        if case.runs:
            shutil.copytree(self.template / "runs", folder / "runs")
        for path, content in {**FILES, **case.files}.items():
            remove(folder / path)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).mkdir() if content is None else (folder / path).write_bytes(content)
        for path in case.removed:
            remove(folder / path)
        if (folder / "configs").is_dir():
            for group in (REPOSITORY / "configs").iterdir():
                if group.is_dir() and not (folder / "configs" / group.name).exists():
                    (folder / "configs" / group.name).symlink_to(group)

    def _ask(self, case: Case, folder: Path) -> Outcome:
        script = next(path for path in (REPOSITORY / "experiments" / case.script, HERE / case.script) if path.exists())
        request = {"script": str(script), "words": case.words, "folder": str(folder), "stdout": case.stdout}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Outcome(**self._read(), script=case.script, stdout=case.stdout)

    def _read(self) -> Any:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())

    def _make_template(self) -> None:
        """Run both cells of the sweep `pair` and the only run of a comparison to their ends."""
        self.template.mkdir()
        self._fill(self.template, Case(script="", words=()))
        cells = [Case(script="sweep.py", words=("run", "pair.yaml", f"--index={index}", *SMALL)) for index in range(2)]
        for case in (*cells, Case(script="federate.py", words=("method=fedit", *SMALL, *COMPARED, "run.name=fedit"))):
            outcome = self._ask(case, self.template)
            assert outcome.code == 0, outcome.stderr


def remove(path: Path) -> None:
    """Remove a file or a folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
