"""The file that tells who comes and when: a run goes on with the one that it began with."""

import hashlib
from pathlib import Path

from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.process.storage import user_path
from fedlit.round.availability.options import FILES
from fedlit.store.environment import stored_environment

KEY = "cohort_file"


def cohort_file(config: RunConfig) -> dict[str, str]:
    """Return what environment.json is to tell of the file in `cohort.options`: its SHA-256; nothing without one, or
    where it cannot be read, which the availability tells.
    """
    path = _path(config)
    if path is None:
        return {}
    try:
        return {KEY: hashlib.sha256(user_path(path).read_bytes()).hexdigest()}
    except OSError:
        return {}


def require_same_cohort_file(folder: Path, config: RunConfig) -> None:
    """Raise a UserError if the folder's run began with another file. What happened before decides on who comes later:
    with other devices, results that are under way would come in a round of which nobody knows.
    """
    before, today = stored_environment(folder).get(KEY), cohort_file(config).get(KEY)
    if before is not None and today is not None and before != today:
        raise UserError(
            f"{folder} began with another file than cohort.options.{FILES[config.cohort.availability]}={_path(config)} "
            "is today; bring it back, or choose another run.name"
        )


def _path(config: RunConfig) -> str | None:
    name = FILES.get(config.cohort.availability)
    return None if name is None else config.cohort.options.get(name)
