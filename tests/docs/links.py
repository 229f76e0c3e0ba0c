"""Links of a page to files and headings of the repository, whether it is in the site or not."""

import re
from functools import cache
from urllib.parse import unquote

from pages import REPOSITORY, read_page
from prose import running_text

_LINK = re.compile(
    r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\((?P<to>[^()\s]+)(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"(?P<html>[^\"]+)\""
)
_TARGET = re.compile(r"^\(([\w-]+)\)=\s*$", re.MULTILINE)


def broken_links(page: str) -> list[str]:
    """Return the links that lead nowhere, with their places."""
    found = []
    for number, line in enumerate(running_text(page), start=1):
        for link in _LINK.finditer(re.sub(r"`[^`]*`", "", line)):
            to = unquote(link["to"] or link["html"])
            if not re.match(r"[a-z+]+:|#?\{", to) and (reason := _broken(page, to)):
                found.append(f"{page}:{number}: {to}: {reason}")
    return found


def _broken(page: str, to: str) -> str:
    name, _, anchor = to.partition("#")
    target = (REPOSITORY / page).parent / name if name else REPOSITORY / page
    if page.startswith("docs/") and name.startswith("/"):
        target = REPOSITORY / "docs" / name[1:]
    candidates = [target, target.with_name(f"{target.name}.md"), target.with_name(f"{target.name}.ipynb")]
    path = next((path for path in candidates if path.exists()), None)
    if path is None:
        return "there is no such file"
    if anchor and path.suffix == ".md" and anchor not in anchors(path.resolve().relative_to(REPOSITORY).as_posix()):
        return "there is no such heading"
    return ""


@cache
def anchors(page: str) -> frozenset[str]:
    """Return what a link to a page may have behind `#`: its headings as GitHub and MyST write them, and its targets."""
    found = set(_TARGET.findall(read_page(page)))
    for line in running_text(page):
        if heading := re.match(r"#{1,6}\s+(.*?)\s*#*$", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            while (name := f"{slug}-{number}" if number else slug) in found:
                number += 1
            found.add(name)
    return frozenset(found)
