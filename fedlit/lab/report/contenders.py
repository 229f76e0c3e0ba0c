"""Which settings are compared with one another, the methods mostly, and which are the conditions they meet under."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.config.keys import REPEATS
from fedlit.lab.analysis.collection import Collection, bound_keys

Settings = Mapping[str, Any]


def contender_keys(collection: Collection) -> tuple[str, ...]:
    """Return the keys that tell contenders apart; every other key that varies is a condition.

    These are `method` and those of its options that belong to it: an option that some methods lack, or that has one
    value in each (rank 8 of one, d = 9 of another), and settings of local training that go with a method. Where the
    method is the same everywhere they are its options that vary, and where those are the same too, the settings of
    local training and of the server.
    """
    varied = collection.varied
    if "method" in varied:
        all_settings = [entry.settings for entry in collection.entries]
        own = (key for key in varied if key.startswith("method.") and not _is_axis(key, all_settings))
        return ("method", *own, *bound_keys(collection.entries))
    for beginnings in (("method.",), ("local.", "server.")):
        if found := tuple(key for key in varied if key.startswith(beginnings)):
            return found
    return ()


def conditions_of(settings: Settings, contenders: Sequence[str]) -> tuple[str, ...]:
    """Return what contenders with these settings meet under, as texts that can be compared."""
    return tuple(f"{key}={value!r}" for key, value in sorted(settings.items()) if key not in {*contenders, *REPEATS})


def _is_axis(key: str, all_settings: Sequence[Settings]) -> bool:
    """Tell whether every method is run with several values of an option."""
    values: dict[str, set[str]] = {}
    for settings in all_settings:
        if key not in settings:
            return False
        values.setdefault(str(settings["method"]), set()).add(repr(settings[key]))
    return all(len(found) > 1 for found in values.values())
