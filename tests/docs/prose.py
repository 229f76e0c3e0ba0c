"""What the running text of a page names in inline code: keys, choices of groups, commands and their options."""

import contextlib
import io
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache

import pages
from pages import REPOSITORY, blocks_of

from fedlit import cli
from fedlit.config.keys import METHOD_FIELDS, SCHEMA, is_section
from fedlit.config.loading import CONFIG_DIR, list_choices
from fedlit.recipes import RECIPES, all_options, takers

SECTIONS = tuple(sorted({key.split(".")[0] for key in SCHEMA if "." in key} | {"method"}))
ENDINGS = frozenset(
    [
        "bin",
        "csv",
        "gz",
        "html",
        "ipynb",
        "j2",
        "jinja",
        "json",
        "jsonl",
        "log",
        "md",
        "npz",
        "parquet",
        "pdf",
        "png",
        "py",
        "safetensors",
        "sbatch",
        "sh",
        "tex",
        "txt",
        "yaml",
        "yml",
        "zip",
    ]
)
SUBCOMMANDS = ["cancel", "clean", "count", "list", "run", "scripts", "show", "status", "submit"]

_SPAN = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_KEY = re.compile(rf"(?<![\w./@'\"-])(?:{'|'.join(SECTIONS)})(?:\.[a-z_]\w*)+(?![\w(/*])")
_CHOICE = re.compile(r"(?<![\w.-])(method|data|model|experiment)=([a-z0-9_][\w/-]*)(?![\w./<*-])")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

FOREIGN_KEYS: dict[str, str] = {
    "model.config": "of transformers",
    "model.eval": "of torch",
    "model.generate": "of transformers",
    "model.generation_config": "of transformers",
    "model.parameters": "of torch",
    "model.train": "of torch",
    "method.share": "of the page's own part",
    "data.dataset": "of torch",
    "server.folded": "of ServerState",
    "server.frozen": "of ServerState",
    "server.round_idx": "of ServerState",
    "server.shared": "of ServerState",
    "model.embed_tokens": "a parameter's name",
    "model.layers": "a parameter's name",
}
"""What begins like a key and is none."""

FOREIGN_CHOICES = {"method=mine", "data=my_data", "model=model", "method=my_method", "method=nudge"}

FOREIGN_OPTIONS = frozenset(
    # SLURM
    [
        "--account",
        "--array",
        "--constraint",
        "--cpus-per-task",
        "--export",
        "--gpus-per-node",
        "--gpus-per-task",
        "--gres",
        "--kill-on-bad-exit",
        "--mem",
        "--nodes",
        "--nodelist",
        "--ntasks",
        "--ntasks-per-node",
        "--open-mode",
        "--overlap",
        "--parsable",
        "--partition",
        "--qos",
        "--requeue",
        "--signal",
        "--test-only",
        "--time",
        "--wrap",
        "--accelerator",
        "--main-address",
        "--main-port",
        "--nnodes",
        "--node-rank",
        "--nproc-per-node",
        "--num-nodes",
        "--precision",
        "--rdzv-backend",
        "--rdzv-endpoint",
        "--standalone",
        "--strategy",
        "--no-compile",
        "--user",
        "--help",
        "--version",
    ]
)
"""Options of commands that are not ours."""


def running_text(page: str) -> list[str]:
    """Return the lines of a page, those of fenced blocks empty."""
    text = pages.read_page(page)
    lines = text.splitlines()
    for block in blocks_of(text, page):
        if not block.language.startswith("{") or "note" not in block.language:
            for i in range(block.line - 1, block.line + block.text.count("\n") + 1):
                if i < len(lines):
                    lines[i] = ""
    return lines


def spans(page: str) -> Iterator[tuple[int, str]]:
    """Yield the pieces of inline code, with the numbers of their lines; one may go over a line's end."""
    text = "\n".join(running_text(page))
    for paragraph in re.finditer(r"(?:[^\n]+\n?)+", text):
        for found in _SPAN.finditer(paragraph[0]):
            yield text.count("\n", 0, paragraph.start() + found.start()) + 1, " ".join(found[2].split())


def wrong_names(page: str) -> list[str]:
    """Return what the inline code of a page names and is not there, one line each."""
    return [f"{page}:{line}: {name}" for line, span in spans(page) for name in _wrong(span)]


def _wrong(span: str) -> Iterator[str]:
    for found in _KEY.finditer(span):
        if not _is_key(found[0]):
            yield f"`{span}`: there is no key {found[0]}"
    for group, choice in _CHOICE.findall(span):
        if choice not in _choices(group) and f"{group}={choice}" not in FOREIGN_CHOICES:
            yield f"`{span}`: there is no {group}={choice}"
    top = re.match(r"([a-z]\w*_\w*)=", span)
    if top and top[1] not in SCHEMA and (near := get_close_matches(top[1], SCHEMA, n=1, cutoff=0.85)):
        yield f"`{span}`: there is no key {top[1]}; {near[0]}?"
    words = span.split()
    if words[:1] == ["fedlit"] and len(words) > 1 and re.fullmatch("[a-z]+", words[1]):
        if words[1] not in cli.COMMANDS:
            yield f"`{span}`: there is no command {words[1]}"
            return
        known: frozenset[str] = options_of_command(words[1])
    elif words[:1] and words[0].startswith("--"):
        known = frozenset().union(options_of_scripts(), *map(options_of_command, cli.COMMANDS))
    else:
        return  # of another program
    for option in _OPTION.findall(span):
        if option not in known and option not in FOREIGN_OPTIONS:
            yield f"`{span}`: there is no option {option}"


def _is_key(name: str) -> bool:
    last = name.rsplit(".", 1)[-1]
    if name in SCHEMA or is_section(name, SCHEMA) or last in ENDINGS or name in FOREIGN_KEYS:
        return True
    if any(name.startswith(f"{key}.") for key in (*FOREIGN_KEYS, *_mappings())):
        return True
    below = name.removeprefix("method.")
    options = all_options()
    return name.startswith("method.") and (
        below in METHOD_FIELDS or below in options or is_section(below, options) or bool(takers(below))
    )


def _mappings() -> tuple[str, ...]:
    """Return the keys whose value is a mapping with names of a user's own."""
    return ("data.source_options", "data.score_options", "partition.options", "cohort.options", "logging.options")


@cache
def _choices(group: str) -> frozenset[str]:
    return frozenset(list_choices(CONFIG_DIR, group)) | (frozenset(RECIPES) if group == "method" else frozenset())


@cache
def options_of_scripts() -> frozenset[str]:
    """Return the options of the programs that stand beside the package."""
    paths = [*(REPOSITORY / "experiments").rglob("*.py"), REPOSITORY / "tests" / "fuzz" / "count.py"]
    return frozenset().union(*(re.findall(r"\"(--[a-z][a-z-]*)\"", path.read_text(encoding="utf-8")) for path in paths))


@cache
def options_of_command(command: str) -> frozenset[str]:
    """Return the options that a command's own help tells, those of its subcommands among them."""
    texts = [_help(command), *(_help(command, name) for name in SUBCOMMANDS if command == "sweep")]
    own = {"--explain", "--config-dir", "--devices"} if command == "run" else {"--config-dir"}
    return frozenset(own.union(*(_OPTION.findall(text) for text in texts)))


def _help(*words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return said.getvalue()
