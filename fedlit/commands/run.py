"""Run one federation, or go on with it; `fedlit run --help` lists every option.

fedlit run [--config-dir DIR ...] [--explain] [my.yaml ...] [group=choice ...] [key=value ...]
"""

from collections.abc import Sequence

from fedlit.commands.endings import is_first_process, run_federation, without_traceback
from fedlit.commands.help import show_help
from fedlit.config.explain import explanation, explanation_json
from fedlit.config.keys import nearest, show
from fedlit.config.loading import resolve_words
from fedlit.config.places import OPTION, take_config_dirs
from fedlit.errors import UserError

EXPLAIN = {"--explain": explanation, "--explain=text": explanation, "--explain=json": explanation_json}


def main(words: Sequence[str]) -> int:
    """Run the federation that `words` describe, or explain it, and return the exit code."""
    return without_traceback(lambda: _run(take_config_dirs(words)), speaks=is_first_process())


def _run(words: Sequence[str]) -> int:
    if {"-h", "--help"} & set(words):
        return show_help()
    options = [word for word in words if word.startswith("--") and not word.startswith("--devices")]
    for word in options:
        valid = (*EXPLAIN, OPTION, "--help")
        if word not in valid and (near := nearest(word.partition("=")[0], valid)) != ".":
            raise UserError(f"unknown option {show(word)}{near} Valid options: {', '.join(valid)}")
    others = [word for word in words if word not in EXPLAIN]
    for word in (word for word in words if word in EXPLAIN):
        if is_first_process():
            print(EXPLAIN[word](resolve_words(others)), end="")
        return 0
    return run_federation(others)
