"""The command `fedlit`: its first word picks a module of `fedlit.commands`, and nothing else is imported."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from fedlit import __version__
from fedlit.commands.endings import INTERRUPTED, INTERRUPTED_EXIT_CODE, tell, without_traceback
from fedlit.config.keys import nearest
from fedlit.config.places import is_file_name
from fedlit.errors import UserError

COMMANDS: Mapping[str, str] = {
    "run": "run one federation, or go on with it",
    "sweep": "list, run, submit and watch the cells of a sweep",
    "plan": "what a sweep will take, and which differences it can show",
    "compare": "every method side by side on one data set",
    "report": "the table of a sweep or of run folders",
    "page": "one HTML page about a sweep or run folders",
    "analyse": "what the papers analyse, made of finished runs",
    "merge": "a run's result as one model folder that transformers loads alone",
    "push": "a run's result to the Hugging Face hub",
    "chat": "ask a run's result on the terminal",
    "aggregate": "one-shot aggregation of LoRA adapters, wherever they were trained",
    "export": "a federation as an app of another framework, for real sites",
    "audit": "hold what a run claims of its privacy against what its canaries show",
    "fetch": "download models and data for compute nodes",
    "doctor": "what this machine has, and whether a run works on it",
    "help": "every key, and what a group, a section or a method takes",
}
"""Each is the module of the same name in `fedlit.commands`."""

INTRODUCTION = """\
Federated fine-tuning of foundation models.

usage: fedlit COMMAND [words ...]
"""

EXAMPLES = """\
examples:
  fedlit run experiment=demo
  fedlit run data=medquad data.path=medquad.jsonl.gz num_clients=3
  fedlit help data

'fedlit COMMAND --help' tells more; 'fedlit --version' the version.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words ask for and return the exit code."""
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        return without_traceback(_show_commands)
    if words[0] == "--version":
        return without_traceback(_show_version)
    if words[0] not in COMMANDS:
        return without_traceback(lambda: _refuse(words[0]))
    try:
        return int(import_module(f"fedlit.commands.{words[0]}").main(words[1:]))
    except KeyboardInterrupt:  # while the module is imported
        tell(INTERRUPTED)
        return INTERRUPTED_EXIT_CODE


def _show_commands() -> int:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name.ljust(width)}{text}" for name, text in COMMANDS.items()]
    print(INTRODUCTION, "commands:", *lines, "", EXAMPLES, sep="\n", end="")
    return 0


def _show_version() -> int:
    print(f"fedlit {__version__}")
    return 0


def _refuse(word: str) -> int:
    hint = f"; write 'fedlit run {word}'." if "=" in word or is_file_name(word) else nearest(word, COMMANDS)
    raise UserError(f"unknown command {word!r}{hint} Valid commands: {', '.join(COMMANDS)}")
