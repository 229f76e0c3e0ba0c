"""Every key of a run with its default and meaning, or what a word names.

usage: fedlit help [--config-dir DIR] [word ...] [plugins=[module]]

words:
  data, local       the choices of a group and its keys, the keys of a section
  local.lr          one key
  method=fedit      a method: its parts, each option with type, default, range and meaning
  rule=fedex_lora   a part: adapter, optimizer, rule or transform, and those of plugins
"""

from collections.abc import Sequence

from fedlit.commands.endings import without_traceback
from fedlit.config.places import take_config_dirs
from fedlit.config.topics import help_on


def main(words: Sequence[str]) -> int:
    """Print the help and return the exit code."""
    return without_traceback(lambda: show_help(take_config_dirs(words)))


def show_help(words: Sequence[str] = ()) -> int:
    """Print what the words ask for; everything without words."""
    if {"-h", "--help"} & set(words):
        print(__doc__, end="")
    else:
        print(help_on(words), end="")
    return 0
