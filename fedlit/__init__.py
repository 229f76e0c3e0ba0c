"""fedlit: federated fine-tuning of foundation models, exact and reproducible.

`fedlit.run` runs a federation, `fedlit.load_config` checks a configuration, `fedlit.load_result` reads a run's folder.
Importing the package imports neither torch nor anything else; each name below is looked up when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedlit.api import load_config as load_config
    from fedlit.api import load_result as load_result
    from fedlit.api import run as run
    from fedlit.config import RunConfig as RunConfig
    from fedlit.errors import DivergenceError as DivergenceError
    from fedlit.errors import FedlitError as FedlitError
    from fedlit.errors import LostPeer as LostPeer
    from fedlit.errors import OutOfMemory as OutOfMemory
    from fedlit.errors import Stopped as Stopped
    from fedlit.errors import UserError as UserError
    from fedlit.lab.callbacks import Callback as Callback
    from fedlit.lab.callbacks import Stop as Stop
    from fedlit.result import Result as Result

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(("load_config", "load_result", "run"), "fedlit.api"),
    **dict.fromkeys(
        ("FedlitError", "UserError", "DivergenceError", "OutOfMemory", "LostPeer", "Stopped"), "fedlit.errors"
    ),
    **dict.fromkeys(("Callback", "Stop"), "fedlit.lab.callbacks"),
    "Result": "fedlit.result",
    "RunConfig": "fedlit.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fedlit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
