"""The job scripts in a user's own folder."""

from pathlib import Path

from fedlit.lab.sweeps.scripts import NAMES, copy_scripts

REPOSITORY = Path(__file__).parents[4]


def test_all_scripts_of_the_repository_are_copied(tmp_path: Path) -> None:
    assert sorted(NAMES) == sorted(
        path.name for path in (REPOSITORY / "slurm").iterdir() if path.suffix in (".sbatch", ".sh")
    )
    written, kept = copy_scripts(tmp_path / "slurm")
    assert ([path.name for path in written], kept) == (list(NAMES), [])
    assert all(path.read_bytes() == (REPOSITORY / "slurm" / path.name).read_bytes() for path in written)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("mine")
    (tmp_path / "array.sbatch").symlink_to("nowhere")
    written, kept = copy_scripts(tmp_path)
    assert [path.name for path in kept] == ["array.sbatch", "job.sh"]
    assert len(written) == 2
    assert (tmp_path / "job.sh").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
