"""The job scripts in a user's own folder, where they are edited."""

from pathlib import Path

from fedlit.shipped import shipped

FOLDER = Path("slurm")
"""Seen from where jobs are submitted."""

NAMES = ("array.sbatch", "federate.sbatch", "multi-node.sbatch", "job.sh")


def copy_scripts(folder: Path = FOLDER) -> tuple[list[Path], list[Path]]:
    """Copy the job scripts and return those that were written and those that were there already, which stay.

    Raises:
        OSError: the folder cannot be written.
    """
    written, kept = [], []
    for name in NAMES:
        path = folder / name
        if path.exists() or path.is_symlink():
            kept.append(path)
            continue
        content = shipped(f"slurm/{name}").read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(path)
    return written, kept
