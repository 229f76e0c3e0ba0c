"""A few answers on the console after each evaluation (`logging.samples_shown`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedlit.lab.callbacks import Callback
from fedlit.lines import one_line
from fedlit.store.samples import read_samples
from fedlit.tasks import Sample

MAX_TEXT_LINES = 3
_LABELS = ("prompt", "reference", "answer")
_INDENT = 2
_MIN_TEXT_WIDTH = 20


class SamplesShown(Callback):
    """Prints the first `num_shown` answers of the round that samples.jsonl keeps, each text on a few lines at most."""

    def __init__(self, console: Console, folder: Path, num_shown: int) -> None:
        self._console = console
        self._folder = folder
        self._num_shown = num_shown

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Print them, if the round was evaluated."""
        for line in read_samples(self._folder, record["round"])[: self._num_shown]:
            self._console.print(sample_block(line, self._console.width))


def sample_block(line: Mapping[str, Any], width: int) -> Table:
    """Return a line of samples.jsonl as a person reads it, in `width` columns; nothing in it acts on a terminal."""
    room = max(width - _INDENT - max(map(len, _LABELS)) - 2, _MIN_TEXT_WIDTH)
    block = Table.grid(padding=(0, 2, 0, 0))
    block.add_column(no_wrap=True)
    block.add_column(overflow="fold")
    for label, text in zip(_LABELS, texts_of(line), strict=True):
        block.add_row(f"{' ' * _INDENT}{label}", Text(fitted(text, room)))
    return block


def texts_of(line: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return prompt, references and answer of a line of samples.jsonl, the answer with whose model gave it."""
    references = [str(text) for text in line.get("references", ())]
    more = f" (and {len(references) - 1} more)" if len(references) > 1 else ""
    facts = [f"client {line['client']}"] if line.get("client") is not None else []
    facts += [f"p = {line['probability']:.3f}"] if isinstance(line.get("probability"), float) else []
    told = f" ({', '.join(facts)})" if facts else ""
    reference = f"{references[0] if references else ''}{more}"
    return str(line.get("prompt", "")), reference, f"{line.get('prediction', '')}{told}"


def fitted(text: str, room: int) -> str:
    """Return a text as one line that takes MAX_TEXT_LINES lines of `room` columns at most, printable: of a longer one
    the middle is left out.
    """
    limit = MAX_TEXT_LINES * room
    line = one_line(text, limit)
    while Text(line).cell_len > limit:  # signs two columns wide
        line = one_line(line, len(line) * limit // (Text(line).cell_len + 1))
    return line
