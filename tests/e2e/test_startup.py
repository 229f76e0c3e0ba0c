"""What a start imports, and that no library but fedlit says anything on the console of a good run."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, environment

NEVER = ("bitsandbytes", "galore_torch", "torch._inductor.compile_fx", "wandb", "datasets", "tensorboard", "plotly")
"""What a run with LoRA and without W&B has no use for."""
OF_A_RUN = ("lightning", "torchmetrics", "matplotlib", "nltk", "sklearn", "pandas")
"""What a dry run has no use for."""
TORCH = ("torch", "transformers", "lightning", "peft", "scipy", "matplotlib", "pandas")


def modules_after(words: list[str], folder: Path, names: tuple[str, ...]) -> tuple[list[str], str, str]:
    """Run a command; return which of these modules it has imported, and both its outputs."""
    code = (
        "import sys\nfrom fedlit.cli import main\ntry:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n    code = end.code\n"
        f"found = [name for name in {names} if name in sys.modules]\n"
        "open('imported.txt', 'w').write(' '.join(found))\nsys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return (folder / "imported.txt").read_text().split(), done.stdout, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["sweep", "status", "demo"], ["sweep", "list"], ["doctor", "--help"]])
def test_what_only_looks_takes_no_torch(words: list[str], tmp_path: Path) -> None:
    found, _, err = modules_after(words, tmp_path, (*TORCH, *NEVER))
    assert (found, err) == ([], "")


def test_a_dry_run_takes_no_fabric(tmp_path: Path) -> None:
    found, out, err = modules_after(["run", *SMALL, "dry_run=true"], tmp_path, (*OF_A_RUN, *NEVER))
    assert found == []
    assert out.splitlines()[0].startswith("fedit of tiny on pydoc (dry run")
    assert err == ""


def test_a_run_takes_no_bitsandbytes_and_nobody_else_speaks(tmp_path: Path) -> None:
    words = ["run", *SMALL, "num_rounds=1", "local.steps=1", "eval.max_new_tokens=1", "run.name=mine"]
    words = [word for word in words if word not in ("num_rounds=3", "local.steps=2", "eval.max_new_tokens=8")]
    found, out, err = modules_after(words, tmp_path, NEVER)
    assert found == []
    assert err == ""
    assert "round" in out
