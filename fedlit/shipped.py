"""Where the files lie that stand at the top of the repository and travel inside the wheel: configurations, job scripts,
the tested versions.
"""

from pathlib import Path

from fedlit.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Return the path of a shipped file or folder, such as `configs` or `slurm/array.sbatch`.

    In a wheel it lies inside the package, in a clone at the top of the repository.

    Raises:
        UserError: the installation is not complete.
    """
    for folder in (_PACKAGE / "shipped", _PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise UserError(f"fedlit's own {name} is not there (looked in {_PACKAGE}); install fedlit again")
