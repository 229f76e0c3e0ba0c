"""The wheel: what is in it, and that it works where there is no clone, from an empty folder, by its own command."""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment

pytestmark = pytest.mark.skipif(
    find_spec("build") is None or find_spec("hatchling") is None, reason="build and hatchling come with fedlit[test]"
)
SHORT = [
    "experiment=demo",
    "num_rounds=1",
    "num_clients=2",
    "cohort_size=2",
    "local.steps=1",
    "eval.max_examples=2",
    "eval.max_new_tokens=2",
    "logging.wandb=disabled",
    "run.name=mine",
]
TOPS = ("fedlit/", "configs/", "slurm/", "experiments/", "tests/")
"""Folders that are copied where there is no git to tell which files belong to the repository."""


def tracked_files() -> list[Path]:
    """Return the files of the repository, relative to it."""
    if (REPOSITORY / ".git").exists() and shutil.which("git"):
        done = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return [Path(name) for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
    found = [path.relative_to(REPOSITORY) for top in TOPS for path in (REPOSITORY / top).rglob("*") if path.is_file()]
    top = [Path(path.name) for path in REPOSITORY.iterdir() if path.is_file()]
    return [path for path in (*top, *found) if "__pycache__" not in path.parts]


def build(source: Path, out: Path, *options: str) -> None:
    """Build from a folder with what is installed, without a network."""
    words = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", str(out), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, with what a working copy has beside them: caches, runs, notes."""
    folder = tmp_path_factory.mktemp("clone")
    for path in tracked_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / path, folder / path)
    for rubbish in ("fedlit/__pycache__/cli.cpython-311.pyc", "fedlit/runs/a/metrics.jsonl", "runs/b/config.yaml"):
        (folder / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (folder / rubbish).write_text("")
    return folder


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build(clone, out, "--wheel")
    (found,) = out.glob("fedlit-*.whl")
    return found


def expected_names(clone: Path) -> set[str]:
    """Return what belongs into the wheel, its metadata aside, by the files of the repository."""
    names = {str(path) for path in tracked_files()}
    package = {name for name in names if name.startswith("fedlit/")}
    configs = {f"fedlit/shipped/{name}" for name in names if name.startswith("configs/")}
    scripts = {
        f"fedlit/shipped/slurm/{path.name}" for path in (clone / "slurm").iterdir() if path.suffix in (".sh", ".sbatch")
    }
    return package | configs | scripts | {"fedlit/shipped/constraints.txt"}


def test_everything_is_in_it_and_nothing_else(wheel: Path, clone: Path) -> None:
    found = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert found == expected_names(clone)
    for name in ("py.typed", "tiny/model.safetensors", "shipped/configs/experiment/demo.yaml", "shipped/slurm/job.sh"):
        assert f"fedlit/{name}" in found
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.read("fedlit/shipped/constraints.txt")
    assert shipped == (clone / "constraints.txt").read_bytes()


def test_one_from_the_source_archive_is_the_same(wheel: Path, clone: Path, tmp_path: Path) -> None:
    build(clone, tmp_path, "--sdist")
    (archive,) = tmp_path.glob("fedlit-*.tar.gz")
    with tarfile.open(archive) as members:
        members.extractall(tmp_path, filter="data")
    build(tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "again", "--wheel")
    (again,) = (tmp_path / "again").glob("fedlit-*.whl")
    assert names_in(again) == names_in(wheel)
    assert again.read_bytes() == wheel.read_bytes()


def test_an_editable_installation_has_no_copies(clone: Path, tmp_path: Path) -> None:
    code = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, check=True, env=environment())
    (found,) = tmp_path.glob("*.whl")
    assert not [name for name in names_in(found) if name.startswith("fedlit/")]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel; the libraries are those of this Python."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    target = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*words, "--disable-pip-version-check", str(wheel)], check=True, timeout=240, env=environment())
    # A path file's lines come after the environment's own packages. They are not processed as a site folder, so that
    # an editable fedlit in them, a path file itself, is not found.
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (target / "libraries.pth").write_text("".join(f"{folder}\n" for folder in sorted(folders)))
    return place / "bin"


def run(bin_folder: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in environment().items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [found if (found := shutil.which(words[0], path=str(bin_folder))) else words[0], *words[1:]],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def succeed(bin_folder: Path, folder: Path, *words: str) -> str:
    done = run(bin_folder, folder, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path) -> None:
    shown = succeed(installed, tmp_path, "python", "-c", "import fedlit, yaml; print(fedlit.__file__, yaml.__file__)")
    own, library = shown.split()
    assert Path(own).is_relative_to(installed.parent)
    assert not Path(library).is_relative_to(installed.parent)


def test_it_looks_around(installed: Path, tmp_path: Path) -> None:
    assert succeed(installed, tmp_path, "fedlit", "--version").startswith("fedlit ")
    assert "medquad" in succeed(installed, tmp_path, "fedlit", "help", "data")
    assert "demo" in succeed(installed, tmp_path, "fedlit", "sweep", "list")
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_finds_a_wheel(installed: Path, tmp_path: Path) -> None:
    shown = succeed(installed, tmp_path, "fedlit", "doctor")
    line = next(line for line in shown.splitlines() if line.startswith("ok       fedlit "))
    assert str(installed.parent) in line
    assert line.endswith("(installed from a wheel)")


@contextmanager
def read_only(folder: Path) -> Iterator[list[str]]:
    """Let nobody write into a folder; yield the words that a command needs in front of it for that.

    Permissions do not stop root, for whom the folder is mounted read-only, if root may do that here.
    """
    if os.geteuid() == 0:
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        words = ["unshare", "--mount", "sh", "-c", mount, str(folder)]
        if shutil.which("unshare") is None or subprocess.run([*words, "true"], check=False).returncode != 0:
            pytest.skip("root writes everywhere, and may mount nothing here")
        yield words
        return
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    try:
        for path in folders:
            path.chmod(0o555)
        yield []
    finally:
        for path in folders:
            path.chmod(0o755)


def files_of(package: Path) -> set[Path]:
    return {path for path in package.rglob("*") if path.is_file()}


def test_it_runs_the_demo_where_nothing_of_it_can_be_written(installed: Path, tmp_path: Path) -> None:
    (package,) = installed.parent.glob("lib/python*/site-packages/fedlit")
    with read_only(installed.parent) as prefix:
        assert run(installed, tmp_path, *prefix, "touch", str(package / "written")).returncode != 0
        before = files_of(package)
        succeed(installed, tmp_path, *prefix, str(installed / "fedlit"), "run", *SHORT)
    assert files_of(package) == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    assert len((tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()) == 2
