"""A folder that appears under its name only when everything is in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedlit.errors import UserError
from fedlit.process.storage import partial_path


def require_new(folder: Path, option: str) -> None:
    """Raise a UserError if something is there already: nothing is overwritten. `option` names the remedy."""
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already; give another place with {option}, or move it away")


@contextmanager
def new_folder(folder: Path, option: str) -> Iterator[Path]:
    """Give a folder to fill, which becomes `folder` at the end; after an error nothing is left of it.

    Raises:
        UserError: `folder` exists.
        OSError: it cannot be written.
    """
    require_new(folder, option)
    partial = partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _let_others_read(partial)
        require_new(folder, option)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _let_others_read(folder: Path) -> None:
    """Give every file the rights of new files here: safetensors lets nobody but its owner read what it writes."""
    rights = 0o666 & (folder.stat().st_mode | ~0o777)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)
