"""Data sets and models, from the files of `configs/`, and the scores."""

from collections import defaultdict
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from markdown import code, prose, table
from tables_of_keys import anchor

from fedlit.config.help import first_comment, option_comments
from fedlit.config.keys import show
from fedlit.config.loading import CONFIG_DIR, list_choices
from fedlit.options import flat
from fedlit.scores import SCORES


def overview(group: str) -> str:
    """Return one line for each file of a group."""
    rows = [
        (f"[{code(f'{group}={name}')}](#{anchor(name)})", prose(first_comment(path.read_text(encoding="utf-8"))))
        for name, path in list_choices(CONFIG_DIR, group).items()
    ]
    return table(("choice", "what it is"), rows, "choices")


def files(group: str) -> str:
    """Return a section for each file of a group: its head, its settings with their comments, its prompt."""
    return "\n\n".join(_file(group, name, path) for name, path in list_choices(CONFIG_DIR, group).items())


def _file(group: str, name: str, path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    comments = option_comments(text, prefix="")
    rows = []
    for key, value in flat(content).items():
        shown = "to be given" if value == "???" else code(show(value))
        rows.append((code(f"{group}.{key}"), shown, prose(comments.get(key, ""))))
    blocks = [f"({anchor(name)})=\n## {name}", head(text), table(("key", "value", "meaning"), rows, "settings")]
    if isinstance(content.get("template"), str) and content.get("prompt") is None:
        blocks += [f"The prompt, and after it the response:\n\n{_prompt(content)}"]
    return "\n\n".join(blocks)


def head(text: str) -> str:
    """Return the comment at the top of a file as a paragraph; what stands indented in it, as lines of code."""
    lines = [line[1:] for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    blocks: list[tuple[bool, list[str]]] = []
    for line in lines:
        indented = line.startswith("  ")
        if not blocks or blocks[-1][0] != indented or line.startswith(" projections: "):
            blocks.append((indented, []))
        blocks[-1][1].append(line.strip())
    shown = ["```text\n" + "\n".join(part) + "\n```" if raw else prose(" ".join(part)) for raw, part in blocks]
    return "\n\n".join(shown)


def _prompt(content: dict[str, Any]) -> str:
    response = content.get("response", "response")
    return f"```text\n{content['template']}{{{response}}}\n```"


def projections() -> str:
    """Return which modules `qkv`, `attention` and `mlp` stand for in each known architecture."""
    from fedlit.models.projections import PROJECTIONS  # noqa: PLC0415  torch

    same: dict[Any, list[str]] = defaultdict(list)
    for name, found in PROJECTIONS.items():
        same[(found.attention, found.mlp)].append(name)
    rows = [
        (", ".join(map(code, names)), ", ".join(map(code, attention)), ", ".join(map(code, mlp)))
        for (attention, mlp), names in same.items()
    ]
    return table(("`model_type`", "attention (query, key, value, output)", "MLP"), rows, "projections")


def scores() -> str:
    """Return every score of the package: heading, unit and direction."""
    from fedlit.tasks.registry import task_names, task_spec  # noqa: PLC0415

    rows = []
    for name, score in SCORES.items():
        tasks = [task for task in task_names() if name == "loss" or name in task_spec(task).scores]
        better = "lower" if score.lower_is_better else "higher"
        rows.append((code(name), prose(score.heading), prose(score.unit), better, ", ".join(map(code, tasks))))
    return table(("score", "in tables", "unit", "better is", "tasks"), rows, "scores")
