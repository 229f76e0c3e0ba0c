"""Where a run's files and folders lie, and that nothing else is in their place, seen before anything is loaded."""

import os
import re
import stat
from pathlib import Path

from fedlit.errors import UserError

AUDIT = "audit.json"
"""What an audit's canaries have told; of a run with privacy.canaries."""

FILES = (
    *("config.yaml", "environment.json", "partition.json", "chat_template.jinja", "status.json", "lock.json"),
    *("metrics.jsonl", "samples.jsonl", "metrics.csv", AUDIT, "wandb/run_id"),
)
FOLDERS = ("checkpoints", "checkpoints/clients", "plots", "adapter", "examples", "wandb")

_RUN_ID = re.compile(r"[^\s/\\#?%:]{1,128}")
_SHOWN = 200


def require_place(folder: Path) -> None:
    """Raise a UserError if a run folder cannot be made or written, as far as that is seen without making it."""
    path = folder
    while True:
        try:
            found = path.stat()
            break
        except FileNotFoundError:
            if path.is_symlink():
                raise _refusal(folder, f"{_short(path)} is a link to nothing") from None
            path = path.parent
        except (OSError, ValueError) as error:
            raise _refusal(folder, getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise _refusal(folder, f"{_short(path)} is no folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _refusal(folder, f"{_short(path)} is read-only for this user")
    longest = max((len(os.fsencode(part)) for part in folder.parts), default=0)
    if longest > (limit := os.pathconf(path, "PC_NAME_MAX")):
        raise _refusal(folder, f"a name of {longest} bytes, the file system takes {limit}")


def make_folder(folder: Path) -> None:
    """Make a run folder, unless it is there.

    Raises:
        UserError: it cannot be made.
    """
    require_place(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(folder, str(error.strerror)) from error


def require_layout(folder: Path) -> None:
    """Raise a UserError for a folder where a run keeps a file, and the other way round."""
    for name in FILES:
        if (path := folder / name).is_dir():
            raise UserError(f"{_short(path)} is a folder where a run keeps a file; move it away")
    for name in FOLDERS:
        path = folder / name
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise UserError(f"{_short(path)} is a file where a run keeps a folder; move it away")


def read_text(path: Path) -> str:
    """Return the content of a small file of a run.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except OSError as error:
        reason = str(error.strerror)
    raise UserError(f"{_short(path)} cannot be read ({reason}); mend it, or move the folder away")


def read_run_id(path: Path) -> str | None:
    """Return the id of a run at W&B that its folder keeps, None where there is none yet.

    Raises:
        UserError: what is there is no id.
    """
    if not path.exists():
        return None
    text = read_text(path).strip()
    if not _RUN_ID.fullmatch(text):
        raise UserError(f"{_short(path)} holds no id of a W&B run; remove it, and the run gets a new one")
    return text


def _refusal(folder: Path, reason: str) -> UserError:
    return UserError(f"the run folder {_short(folder)} cannot be made ({reason}); choose another run.dir or run.name")


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= _SHOWN // 2 else f"{text[:20]}...{text[-_SHOWN // 2 + 23 :]}"
