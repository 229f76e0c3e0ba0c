"""Tell what this machine has for fedlit: versions, devices, backends, SLURM, logins, folders.

Each line is ok, a note (some runs need what is missing, or a version is not the tested one) or a problem (no run works
here until it is mended). The exit code is 1 if there is a problem, else 0. Nothing is sent, no token is read.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fedlit.arguments import CommandParser
from fedlit.commands.endings import without_traceback
from fedlit.lines import one_line
from fedlit.machine import Finding, Verdict, problem

PROBLEM_EXIT_CODE = 1
EXAMPLES = """\
examples:
  fedlit doctor
  srun --gres=gpu:1 fedlit doctor           # what a job of a partition finds
  fedlit doctor | grep -v '^ok'
"""
_COLOURS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.PROBLEM: "bold red"}


def main(words: Sequence[str]) -> int:
    """Look at everything and return the exit code."""
    parser = CommandParser("doctor", __doc__, EXAMPLES)

    def look() -> int:
        parser.parse(words)
        return show(look_at_everything())

    return without_traceback(look)


def look_at_everything() -> Iterator[Finding]:
    """Yield all findings; a look that fails is one of them."""
    from fedlit.machine.libraries import look_at_libraries  # noqa: PLC0415  so that --help comes at once
    from fedlit.machine.places import look_at_places  # noqa: PLC0415
    from fedlit.machine.services import look_at_services  # noqa: PLC0415
    from fedlit.machine.software import look_at_software  # noqa: PLC0415

    looks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("software", look_at_software),
        ("libraries", look_at_libraries),
        ("places", lambda: look_at_places(os.environ, Path.home(), Path.cwd())),
        ("services", lambda: look_at_services(os.environ, Path.home())),
    ]
    for name, look in looks:
        try:
            yield from look()
        except Exception as error:
            yield problem(
                name, f"{type(error).__name__}: {error}", "look at this by hand, and report it: doctor failed"
            )


def show(findings: Iterator[Finding]) -> int:
    """Print each finding, then how many of each kind; return the exit code."""
    counts: Counter[Verdict] = Counter()
    print_one = _printer()
    for finding in findings:
        counts[finding.verdict] += 1
        print_one(finding)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    print(f"\n{told}" + ("" if counts[Verdict.PROBLEM] else "; runs work here"))
    return PROBLEM_EXIT_CODE if counts[Verdict.PROBLEM] else 0


def _printer() -> Callable[[Finding], None]:
    """Return what prints a finding: a line of plain text, in colour and with hanging lines on a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return lambda finding: print(one_line(_plain(finding)), flush=True)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()

    def print_row(finding: Finding) -> None:
        row = Table.grid(padding=(0, 2))
        for width in (7, 14):
            row.add_column(width=width, no_wrap=True)
        row.add_column(overflow="fold")
        text = Text(one_line(finding.text))
        if finding.remedy:
            text.append(f"\n{one_line(finding.remedy)}", style="dim")
        row.add_row(Text(finding.verdict, style=_COLOURS[finding.verdict]), Text(one_line(finding.name)), text)
        console.print(row)

    return print_row


def _plain(finding: Finding) -> str:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return f"{finding.verdict:9}{finding.name:15}{finding.text}{remedy}"
