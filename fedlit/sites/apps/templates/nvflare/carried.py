"""fedlit's messages in NVFlare's models, and what server, sites and job read."""

import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fedlit.config import RunConfig
from fedlit.sites.app_config import read_config
from fedlit.sites.messages import Message

TESTED = "2.9"
ALL, OWN = "*", "message"
"""Names in a model's params: the message of every site that has none by its own name, and the one that came here."""

if not version("nvflare").startswith(f"{TESTED}."):
    warnings.warn(f"nvflare {version('nvflare')} is here and this app was tested with {TESTED}", stacklevel=1)


def config() -> RunConfig:
    """Return the configuration of the federation, which all have from this job."""
    return read_config(Path(__file__).parent)


def carried(message: Message) -> np.ndarray:
    """Return a message as bytes, which NVFlare neither converts nor averages and sends in pieces."""
    return np.frombuffer(message.to_bytes(), dtype=np.uint8)


def message_in(array: np.ndarray) -> Message:
    """Return the message that such an array carries."""
    return Message.from_bytes(array.tobytes())
