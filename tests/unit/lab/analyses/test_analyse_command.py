"""`fedlit analyse`: run folders in, one new folder out, each mistake one line."""

from pathlib import Path

import pytest
from recorded_rounds import write_runs

from fedlit.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_runs(tmp_path_factory.mktemp("recorded") / "runs", ("fedit", "fedex_lora"))


def test_only_what_is_named_is_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    assert main(["analyse", str(folder), "--only", "stability, norms", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert {path.stem for path in out.glob("*.csv")} == {"stability", "norms"}
    headings = [line for line in (out / "analyses.md").read_text().splitlines() if line.startswith("## ")]
    assert headings == ["## Growth of the norm", "## Stability of the score over the rounds"]


def test_the_default_folder_is_beside_the_runs_and_new(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse", str(folder), "--only", "fairness"]) == 0
    assert (folder / "analyses" / "fairness.pdf").is_file()
    assert main(["analyse", str(folder), "--only", "fairness"]) == 2
    assert "is not empty, and nothing is overwritten; give a new folder with --out" in capsys.readouterr().err


def test_what_cannot_be_made_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse", str(folder), "--only", "initialisation", "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told == ["initialisation: no run is of SCL, whose backbone would be looked at; run method=scl"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "ranks"], "--only=ranks is no analysis; did you mean 'rank'? Valid: deviation, rank, subspaces"),
        (["--ou", "x"], "unknown option --ou; did you mean '--out'?"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse", str(folder), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_runs_without_a_record_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_runs(tmp_path / "runs", ("fedit",)) / "fedit"
    (run / "metrics.jsonl").unlink()
    assert main(["analyse", str(run)]) == 2
    assert "none of the runs of fedit has a record yet; run them first" in capsys.readouterr().err
    assert not (run / "analyses").exists()
