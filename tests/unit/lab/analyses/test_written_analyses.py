"""The folder that `fedlit analyse` leaves: every picture, every table, one text; nothing overwritten."""

import csv
from pathlib import Path

import pytest
from PIL import Image
from recorded_rounds import METHODS, recorded, write_runs

from fedlit.errors import UserError
from fedlit.lab.analyses.base import Run, place_of, runs_of
from fedlit.lab.analyses.named import ANALYSES, chosen
from fedlit.lab.analyses.writing import write_analyses
from fedlit.lab.analysis.collection import collect
from fedlit.lab.analysis.column import DPI, WIDTH


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def written(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return the folder of all analyses of the recorded runs, and the lines that were told."""
    folder, told = tmp_path_factory.mktemp("analyses"), list[str]()
    for run in runs:  # what no analysis reads may be gone
        run.config.eval.general, run.config.analysis = "gone.yaml", [*run.config.analysis, "forgetting"]
    write_analyses(list(ANALYSES.values()), runs, folder, "recorded", told.append)
    return folder, told


def test_labels_are_the_methods(runs: list[Run]) -> None:
    assert [run.label for run in runs] == sorted(METHODS)


def test_repeats_have_one_label(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_runs(tmp_path / str(seed), ("fedit", "scl"), seed=seed)
    found = runs_of(collect([str(tmp_path / "0"), str(tmp_path / "1")]))
    assert sorted(run.label for run in found) == ["fedit", "fedit", "scl", "scl"]


def test_every_picture_is_a_column_wide_and_linked(written: tuple[Path, list[str]]) -> None:
    folder, told = written
    assert [line.partition(":")[0] for line in told] == []
    text = (folder / "analyses.md").read_text()
    pictures = sorted(folder.glob("*.png"))
    assert pictures and [path.with_suffix(".pdf") for path in pictures] == sorted(folder.glob("*.pdf"))
    for path in pictures:
        with Image.open(path) as image:
            assert abs(image.width - WIDTH * DPI) <= 1
            assert image.convert("L").getextrema() != (255, 255)
        assert f"({path.name})" in text


def test_tables_are_files_with_rows(written: tuple[Path, list[str]]) -> None:
    folder, _ = written
    tables = sorted(folder.glob("*.csv"))
    assert tables
    for path in tables:
        rows = list(csv.DictReader(path.open()))
        assert rows, path.name
        assert all(None not in row and None not in row.values() for row in rows), path.name


def test_a_picture_of_the_same_runs_has_the_same_bytes(runs: list[Run], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_analyses([ANALYSES["stability"]], runs, tmp_path / name, "recorded", print)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_what_cannot_be_made_is_a_line_with_the_remedy(tmp_path: Path) -> None:
    told: list[str] = []
    runs = recorded(tmp_path / "runs", ("fedftg",))
    assert write_analyses([ANALYSES["deviation"]], runs, tmp_path / "out", "one", told.append) == 0
    assert told == [
        "deviation: no run has lora/deviation/... or scl/deviation/... or lora/spread/... in its record; "
        + ANALYSES["deviation"].remedy
    ]
    assert told[0].removeprefix("deviation: ") in (tmp_path / "out" / "analyses.md").read_text()


def test_nothing_is_overwritten(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        write_analyses([ANALYSES["stability"]], runs, tmp_path, "recorded", print)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_unknown_analysis_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'stability'"):
        chosen(["stabilty"])
    assert [each.name for each in chosen(["stability", "deviation"])] == ["deviation", "stability"]


def test_places_of_layers() -> None:
    assert place_of("transformer.h.11.attn.c_attn") == place_of("h.11.c_attn")
    assert place_of("vit.encoder.layer.2.output.dense").projection == "output.dense"
    assert place_of("lm_head").block == -1
