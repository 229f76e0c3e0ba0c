"""What a page says in its text of what its commands leave behind: looked at once the page has run."""

import re
from collections.abc import Callable
from pathlib import Path

from pages import read_page

Outputs = dict[str, str]
"""What each command and program printed, by its first line."""


def wrong_claims(page: str, folder: Path, outputs: Outputs) -> list[str]:
    """Return what a page promises and its run did not keep."""
    found = [f"{page}: {text.splitlines()[0]!r} prints what the page does not show" for text in _loud(outputs)]
    claim = CLAIMS.get(page)
    return [*found, *(f"{page}: {line}" for line in (claim(page, folder, outputs) if claim else []))]


def _loud(outputs: Outputs) -> list[str]:
    """Return the programs that print without being asked: `fedlit.run` in Python is silent."""
    return [
        text
        for text, said in outputs.items()
        if text.startswith("import fedlit\n") and said.strip() and not re.search(r"\bprint\(|quiet=False|logging", text)
    ]


def _results(page: str, folder: Path, outputs: Outputs) -> list[str]:
    """The lines of the card print what `fedlit chat` says; the page names every file; a dry push sends nothing."""
    text, run, wrong = read_page(page), folder / "runs" / "mine", []
    files = [path.name for name in ("adapter", "merged") for path in (run / name).iterdir()]
    wrong += [f"does not name {name}" for name in files if f"`{name}`" not in text and not name.startswith("tokenizer")]
    said = [answer for command, answer in outputs.items() if command.startswith("fedlit chat")]
    shown = [answer for code, answer in outputs.items() if "AutoModelForCausalLM" in code]
    if not said or [said[0].strip().splitlines()[-1:]] != [each.strip().splitlines()[-1:] for each in shown]:
        wrong.append(f"the model says {shown}, the chat {said}")
    pushed = [answer for command, answer in outputs.items() if command.startswith("fedlit push")]
    if not any("nothing was sent (--dry-run)" in answer for answer in pushed):
        wrong.append("a dry push does not say that nothing was sent")
    return wrong


def _own_data(_page: str, folder: Path, outputs: Outputs) -> list[str]:
    """From files to a chat: the table with the best rates, and the page."""
    report = next((said for command, said in outputs.items() if command.startswith("fedlit report")), "")
    wrong = [] if "| method | best lr |" in report else ["the report has no best rates"]
    here = (folder / "runs" / "hospitals-sweep" / "dashboard.html").is_file()
    return wrong if here else [*wrong, "there is no page of the sweep"]


def _plugins(_page: str, folder: Path, outputs: Outputs) -> list[str]:
    """A part of one's own has help, and a run with it a result."""
    helped = any("method.share=0.5" in said for command, said in outputs.items() if command.startswith("fedlit help"))
    wrong = [] if helped else ["the option of the part has no help"]
    return wrong if list(folder.glob("runs/*/adapter")) else [*wrong, "the run has no adapter"]


CLAIMS: dict[str, Callable[[str, Path, Outputs], list[str]]] = {
    "docs/howto/results.md": _results,
    "docs/start/own-data.md": _own_data,
    "docs/howto/plugins.md": _plugins,
}
