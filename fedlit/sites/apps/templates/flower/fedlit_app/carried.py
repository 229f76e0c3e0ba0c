"""fedlit's messages in Flower's, and what both apps read."""

import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fedlit.config import RunConfig
from fedlit.sites.app_config import read_config
from fedlit.sites.messages import Message

TESTED = "1.41"
RECORD, ARRAY = "fedlit", "message"

if not version("flwr").startswith(f"{TESTED}."):
    warnings.warn(f"flwr {version('flwr')} is here and this app was tested with {TESTED}", stacklevel=1)


@cache
def config() -> RunConfig:
    """Return the configuration of the federation, which all nodes have from this app."""
    return read_config(Path(__file__).parent)


def carried(message: Message) -> RecordDict:
    """Return a message as the content of one of Flower's: an array of bytes, which Flower sends in pieces."""
    array = Array(np.frombuffer(message.to_bytes(), dtype=np.uint8))
    return RecordDict({RECORD: ArrayRecord({ARRAY: array})})


def message_in(content: RecordDict) -> Message:
    """Return the message that such a content carries."""
    return Message.from_bytes(content.array_records[RECORD][ARRAY].numpy().tobytes())
