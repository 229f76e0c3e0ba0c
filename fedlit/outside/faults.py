"""Which part from outside an exception was raised in: the traceback is for its author, the last line for everybody."""

from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from fedlit.outside.kinds import KINDS
from fedlit.registry import origin, registered, shown_path


def plugin_fault(error: BaseException) -> str:
    """Return which part from outside an exception was raised in, with file and line; '' if in none."""
    parts: dict[Any, tuple[str, str]] = {}
    modules: set[str] = set()
    for kind in KINDS:
        for name, part in registered(kind).items():
            cls = part if isinstance(part, type) else type(part)
            parts[cls] = kind, name
            modules |= {cls.__module__, *origin(kind, name).modules}
    steps = list(_steps(error.__traceback__))
    inside = [step for step in steps if _module(step.tb_frame) in modules]
    if not inside:
        return ""
    frame = inside[-1].tb_frame
    place = f"{shown_path(frame.f_code.co_filename)}:{inside[-1].tb_lineno}"
    owners = [type(step.tb_frame.f_locals.get("self")) for step in reversed(steps)]
    known = next((parts[owner] for owner in owners if owner in parts), None)
    of_part = f"the {known[0]} {known[1]} of " if known else ""
    return f"in {of_part}the plugin {_module(frame)}, {place}"


def note_plugin(error: BaseException) -> str:
    """Add to an exception which part from outside it was raised in, which Python writes below the last line, and
    return it.
    """
    fault = plugin_fault(error)
    if fault and fault not in getattr(error, "__notes__", ()):
        error.add_note(fault)
    return fault


def _steps(step: TracebackType | None) -> Iterator[TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
