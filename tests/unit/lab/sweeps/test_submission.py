"""The command that hands cells to SLURM, and what becomes of its answer."""

import itertools
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedlit.config import load_sweep
from fedlit.errors import UserError
from fedlit.lab.sweeps.cells import check_cells
from fedlit.lab.sweeps.numbers import numbers as numbers_of
from fedlit.lab.sweeps.numbers import ranges
from fedlit.lab.sweeps.submission import TEMPLATE, Request, require_one_task, require_slurm, submit

REPOSITORY = Path(__file__).parents[4]
CELLS = tuple(load_sweep("demo").cells())
REQUEST = Request(
    sweep="demo",
    name="demo",
    indices=(0, 1, 2, 5),
    cells=CELLS,
    overrides=("data.template=### {prompt}\n", "seed=[0, 1]"),
    max_parallel=3,
    options=("--time=10",),
)


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    parts = [part.split("-") for part in ranges(numbers).split(",")] if numbers else []
    named = [number for part in parts for number in range(int(part[0]), int(part[-1]) + 1)]
    assert named == sorted(numbers)
    assert all(int(two[0]) > int(one[-1]) + 1 for one, two in itertools.pairwise(parts)), "ranges that touch"


def test_the_command() -> None:
    words = REQUEST.command
    assert words[:4] == ["sbatch", "--parsable", "--job-name=demo", "--array=0-2,5%3"]
    assert words[4:] == ["--time=10", "slurm/array.sbatch", "demo", *REQUEST.overrides]


@given(st.sets(st.integers(0, 60), min_size=1))
def test_numbers_are_read_back(chosen: set[int]) -> None:
    assert list(numbers_of(ranges(chosen), 61)) == sorted(chosen)


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "1,,2", "0-61", "61", "-1", "9" * 30, "0 1", "1_0"])
def test_what_is_no_list_of_cells_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"^--cells=.*(write it as 0-3,7|give 0 to 60)$"):
        numbers_of(text, 61)


def test_several_cells_of_an_element() -> None:
    words = replace(REQUEST, cells_per_task=3).command
    assert words[3] == "--array=0-1%3"
    assert words[5:] == ["slurm/array.sbatch", "demo", "--cells=0-2,5", "--cells-per-task=3", *REQUEST.overrides]


def test_several_processes_of_an_element_with_several_cells_are_refused(clone: Path) -> None:
    require_one_task(replace(REQUEST, options=("--ntasks-per-node=2",)))
    request = replace(REQUEST, cells_per_task=3)
    require_one_task(request)
    for option in ("--ntasks-per-node=2", "--nodes=3", "--ntasks=2"):
        with pytest.raises(UserError, match=rf"{option} .*; give --sbatch={option[:-2]}=1, or leave"):
            require_one_task(replace(request, options=(option,)))
    text = (clone / TEMPLATE).read_text().replace("--ntasks-per-node=1", "--ntasks-per-node=4")
    (clone / TEMPLATE).write_text(text)
    with pytest.raises(UserError, match="--ntasks-per-node=4"):
        require_one_task(request)
    require_one_task(replace(request, options=("--ntasks-per-node=1",)))


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with the job script, and a program for sbatch."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / TEMPLATE).write_bytes((REPOSITORY / TEMPLATE).read_bytes())
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\nprintf "%s\\0" "$@" > words\n[[ -d slurm/logs ]] && echo "7;here"\n')
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_a_submission_notes_job_cells_and_consoles(clone: Path) -> None:
    done = submit(REQUEST)
    assert (clone / "words").read_text().split("\0")[:-1] == REQUEST.command[1:]
    assert (done.job, done.indices, done.overrides) == ("7", (0, 1, 2, 5), REQUEST.overrides)
    assert done.cells == tuple(CELLS[index].name for index in done.indices)
    assert done.log_of(CELLS[5].name) == "slurm/logs/demo-7_5.out"
    shared = submit(replace(REQUEST, cells_per_task=3))
    assert [shared.element(cell) for cell in shared.cells] == ["7_0", "7_0", "7_0", "7_1"]
    assert shared.log_of(CELLS[5].name) == "slurm/logs/demo-7_1.out"


def test_an_option_of_the_user_says_where_consoles_go(clone: Path) -> None:
    (clone / "bin" / "sbatch").write_text("#!/bin/bash\necho 7\n")
    done = submit(
        Request(sweep="demo", name="demo", indices=(2,), cells=CELLS, overrides=(), options=("--output=%a.txt",))
    )
    assert done.log_of(CELLS[2].name) == "2.txt"


def test_what_sbatch_says_against_it_is_one_line(clone: Path) -> None:
    (clone / "bin" / "sbatch").write_text(
        "#!/bin/bash\nprintf 'sbatch: error: invalid partition\\nat all\\n' >&2\nexit 1\n"
    )
    with pytest.raises(UserError, match=r"invalid partition at all; mend the marked lines") as caught:
        submit(REQUEST)
    assert "\n" not in str(caught.value)


def test_no_slurm_and_no_clone_are_one_line(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_slurm()
    monkeypatch.chdir(clone / "slurm")
    with pytest.raises(
        UserError, match=r"has no slurm/array.sbatch; submit from the repository's root, or let 'fedlit sweep scripts'"
    ):
        require_slurm()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"sbatch is not there.*--local"):
        require_slurm()


def test_the_script_takes_the_words_of_the_command() -> None:
    """The script's last line, run by bash with srun's `start` in its place."""
    last = [line for line in (REPOSITORY / TEMPLATE).read_text().splitlines() if line.startswith("start ")]
    words = REQUEST.command[REQUEST.command.index(str(TEMPLATE)) + 1 :]
    script = f'SLURM_ARRAY_TASK_ID=5\nstart() {{ printf "%s\\0" "$@"; }}\n{last[0]}\n'
    done = subprocess.run(["bash", "-c", script, "array", *words], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == ["-m", "fedlit", "sweep", "run", "demo", "--index", "5", *REQUEST.overrides]


def test_the_first_cell_that_does_not_load_is_named() -> None:
    check_cells(CELLS)
    with pytest.raises(UserError, match=r"cell 2, demo-ffa_lora-seed0: method.lora_rank=-1 .*out of range"):
        check_cells([*CELLS[:2], *load_sweep("demo").cells(["method=ffa_lora", "method.lora_rank=-1"])])
