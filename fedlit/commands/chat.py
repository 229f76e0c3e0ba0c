"""Ask the result of a run on the terminal: each line is a row for the run's own template, and the model goes on.

Answers are made as in the run's evaluation: the same template, decoding and stop texts. Where the template has several
columns each is asked for by its name. A classifier says the class and its probability; for images a line is the path of
one. Every question stands by itself. The model of a run on conversations answers by its chat template and remembers
what was said: /new begins anew, /system TEXT as well, with that as the system turn.

Ctrl-D or Ctrl-C ends it. Lines may come from a file or a pipe, too.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from fedlit.arguments import CommandParser, integer, positive
from fedlit.commands.endings import tell, without_traceback
from fedlit.config.reading import require_text
from fedlit.errors import UserError
from fedlit.lines import printable
from fedlit.process.storage import user_path

if TYPE_CHECKING:
    from fedlit.exported.answers import Answers

EXAMPLES = """\
examples:
  fedlit chat runs/fedit-medquad-tinyllama-seed0
  fedlit chat runs/medquad --prompt "What causes anemia?" --max-new-tokens 40
  fedlit chat runs/helpdesk --prompt "/system Be brief." --prompt "My printer is on fire." --prompt "It still is."
  fedlit chat runs/mnli --prompt "A man sleeps." --prompt "A man is awake."
"""


def main(words: Sequence[str]) -> int:
    """Answer until nobody asks any more, and return the exit code."""
    parser = CommandParser("chat", __doc__, EXAMPLES)
    parser.add_argument("run", type=user_path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="longest answer (default: as evaluated)")
    parser.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="answer this and end; one for each column of the template, or for each turn of a conversation",
    )
    parser.add_argument("--client", type=integer, metavar="N", help="whose, where every client has its own result")
    parser.add_argument("--unfinished", action="store_true", help="of a run that is not done: its newest checkpoint")

    def run() -> int:
        try:
            return _chat(parser.parse(words))
        except KeyboardInterrupt:
            if sys.stdin is not None and sys.stdin.isatty():
                tell("")  # the prompt of the terminal begins on a line of its own
            return 0

    return without_traceback(run)


def _chat(options: argparse.Namespace) -> int:
    for text in options.prompt or ():
        require_text(text, "--prompt")
    from fedlit.exported.found import find_result  # noqa: PLC0415  so that --help comes at once

    result = find_result(options.run, unfinished=options.unfinished, client_id=options.client)
    from fedlit.exported.columns import asked_columns, is_conversation  # noqa: PLC0415

    columns, required = asked_columns(result.config)
    given: list[dict[str, str]] = []
    if options.prompt is not None:
        turns = [[text] for text in options.prompt] if is_conversation(result.config) else [options.prompt]
        given = [_given(turn, columns, required) for turn in turns]
    from fedlit.exported.answers import load_answers  # noqa: PLC0415  torch: seconds, after all mistakes
    from fedlit.exported.unfinished import settled  # noqa: PLC0415
    from fedlit.models.progress import without_progress_bars  # noqa: PLC0415

    without_progress_bars()
    with settled(result) as settled_result:
        answers = load_answers(settled_result, max_new_tokens=options.max_new_tokens)
    if options.prompt is not None:
        for row in given:
            _say(answers, row)
        return 0
    for row in _rows(columns, required):
        try:
            for name, text in row.items():
                require_text(text, name)
            _say(answers, row)
        except UserError as error:
            tell(f"error: {error}")
    return 0


def _given(prompts: Sequence[str], columns: Sequence[str], required: Sequence[str]) -> dict[str, str]:
    """Return the row of --prompt."""
    if len(prompts) != len(columns):
        raise UserError(
            f"{len(prompts)} --prompt, and the run's rows are asked by {len(columns)} columns: {', '.join(columns)}; "
            "give one for each, in this order"
        )
    row = dict(zip(columns, prompts, strict=True))
    if blank := [name for name in required if not row[name].strip()]:
        raise UserError(f"--prompt for {blank[0]} is blank; give a text")
    return row


def _say(answers: "Answers", row: dict[str, str]) -> None:
    """Print the answer to a row; on a terminal nothing in it acts on the terminal."""
    obeyed = answers.obeyed(row)
    if obeyed is not None:
        tell(printable(obeyed))
        return
    answer = answers.answer(row)
    if answer.notice:
        tell(f"warning: {answer.notice}")
    text = answer.text
    if sys.stdout.isatty():
        text = "\n".join(map(printable, text.split("\n")))
    print(text, flush=True)


def _rows(columns: Sequence[str], required: Sequence[str]) -> Iterator[dict[str, str]]:
    """Yield what somebody types, until the end of the input; a blank line is no answer to what is required."""
    while True:
        row: dict[str, str] = {}
        for name in columns:
            text = _line(name)
            while text is not None and name in required and not text.strip():
                text = _line(name)
            if text is None:
                return
            row[name] = text
        yield row


def _line(name: str) -> str | None:
    """Return a line from the terminal, with a prompt, or from a pipe without; None at the end.

    Raises:
        UserError: it is not UTF-8.
    """
    if sys.stdin is None:
        return None
    try:
        if sys.stdin.isatty():
            with suppress(ImportError):
                import readline  # noqa: F401, PLC0415  input() then edits lines and remembers them
            return input(f"{printable(name)}> ")
        line = sys.stdin.readline()
    except EOFError:
        tell("")
        return None
    except UnicodeDecodeError:
        raise UserError("what is asked is not UTF-8; write it in UTF-8") from None
    return line.rstrip("\n") if line else None
