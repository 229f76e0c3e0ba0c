"""Rows of the interpreter's own standard library: a signature is the prompt, its docstring's summary the response.

A demonstration and a test need real text that is there on every machine, offline and at once. The modules are parsed
with `ast`, never imported. Source: the standard library's files (PSF licence); they differ a little between Python
versions.
"""

import ast
import itertools
import re
import sysconfig
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

from fedlit.errors import UserError

DEMO_PACKAGES: tuple[str, ...] = (
    "asyncio",
    "email",
    "http",
    "importlib",
    "logging",
    "mailbox",
    "multiprocessing",
    "tarfile",
    "unittest",
    "urllib",
    "xml",
)
"""Top-level packages and modules whose docstrings are rows; the embedded backbone has never read them."""

# A shorter first paragraph says nothing, a longer one is a description rather than a summary.
_RESPONSE_WORDS = range(3, 61)
_MIN_COMMENT_LINES = 3
_MIN_TOPIC_CHARS = 200

# Tests, installed packages, compiled parts and generated tables hold little prose or differ between machines.
_SKIPPED_FOLDERS = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",
        "idle_test",
        "idlelib",
        "lib-dynload",
        "site-packages",
        "test",
        "tests",
    }
)
_SKIPPED_PREFIXES = ("config-", "_sysconfigdata", "sitecustomize", "usercustomize")

# Where a statement holds other statements; visiting these alone is several times faster than visiting every node.
_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def read_rows() -> list[dict[str, str]]:
    """Return the documented classes and functions of DEMO_PACKAGES, ordered by path and then by place in the file.

    A row has `prompt` (the signature without annotations), `response` (the docstring's first paragraph on one line, 3
    to 60 words), `label` (the top-level package) and `name` (the dotted name). Of rows with one response the first
    is kept. A package that this interpreter lacks is left out. Raises UserError if there is no source or no docstring.
    """
    root = _stdlib()
    rows: list[dict[str, str]] = []
    responses: set[str] = set()
    for package in DEMO_PACKAGES:
        for path in _sources(root, package):
            for name, node in _definitions(ast.parse(path.read_bytes()), _module_name(root, path)):
                response = _summary(ast.get_docstring(node) or "")
                if len(response.split()) not in _RESPONSE_WORDS or response in responses:
                    continue
                responses.add(response)
                rows.append({"prompt": signature(node), "response": response, "label": package, "name": name})
    if not rows:
        raise UserError(
            f"no docstrings of {DEMO_PACKAGES[0]}, {DEMO_PACKAGES[1]}, ... under {root}: "
            "use an interpreter whose standard library has its .py files, or choose another data=<name>"
        )
    return rows


def pretraining_texts() -> list[str]:
    """Return texts of every other package of the standard library: docstrings, language topics, long comments and code.

    A module gives its docstring and its comments of three lines and more, a documented function its source, a
    documented class its signature and docstring, `pydoc_data` the chapters of the language reference. Ordered by
    package and path; no text occurs twice. Raises UserError if there is no standard library folder.
    """
    root = _stdlib()
    packages = sorted({path.name.removesuffix(".py") for path in root.iterdir()} - set(DEMO_PACKAGES))
    texts = (text for package in packages for path in _sources(root, package) for text in _texts(path))
    return list(dict.fromkeys(texts))


def signature(node: _Definition) -> str:
    """Return the definition's first line without annotations and colon, e.g. `def dumps(obj, *, indent=None)`."""
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in [*node.bases, *node.keywords])
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{prefix} {node.name}({ast.unparse(_without_annotations(node.args))})"


def _without_annotations(args: ast.arguments) -> ast.arguments:
    def bare(arg: ast.arg) -> ast.arg:
        return ast.arg(arg=arg.arg)

    return ast.arguments(
        posonlyargs=[bare(arg) for arg in args.posonlyargs],
        args=[bare(arg) for arg in args.args],
        vararg=bare(args.vararg) if args.vararg else None,
        kwonlyargs=[bare(arg) for arg in args.kwonlyargs],
        kw_defaults=args.kw_defaults,
        kwarg=bare(args.kwarg) if args.kwarg else None,
        defaults=args.defaults,
    )


def _stdlib() -> Path:
    root = Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise UserError(
            f"no standard library folder at {root}: use an interpreter whose standard library has its .py files, "
            "or choose another data=<name>"
        )
    return root


def _module_name(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _sources(root: Path, package: str) -> list[Path]:
    """Return the package's source files, sorted; of a module its one file, of what is not there none."""
    module = root / f"{package}.py"
    paths = sorted((root / package).rglob("*.py"))
    return [path for path in ([module] if module.is_file() else paths) if not _is_skipped(path.relative_to(root))]


def _is_skipped(path: Path) -> bool:
    return not _SKIPPED_FOLDERS.isdisjoint(path.parts) or path.parts[0].startswith(_SKIPPED_PREFIXES)


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Definition]]:
    """Yield (dotted name, definition) of every class and function below `node`, in the order of the source."""
    for block in _BLOCKS:
        for child in getattr(node, block, ()):
            if isinstance(child, _Definition):
                name = f"{prefix}.{child.name}"
                yield name, child
                yield from _definitions(child, name)
            else:
                yield from _definitions(child, prefix)


def _summary(docstring: str) -> str:
    """Return the first paragraph with every run of white space made one space."""
    return " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())


def _texts(path: Path) -> Iterator[str]:
    with tokenize.open(path) as file:
        source = file.read()
    tree, lines = ast.parse(source), source.splitlines()
    if docstring := ast.get_docstring(tree):
        yield docstring
    for _, node in _definitions(tree, ""):
        docstring = ast.get_docstring(node)
        if docstring and isinstance(node, ast.ClassDef):
            body = textwrap.indent(f'"""{docstring}"""', "    ")
            yield f"{signature(node)}:\n{body}"
        elif docstring:
            yield textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
    yield from _comments(lines)
    if "pydoc_data" in path.parts:
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        yield from (text for text in constants if isinstance(text, str) and len(text) >= _MIN_TOPIC_CHARS)


def _comments(lines: list[str]) -> Iterator[str]:
    """Yield the text of every run of comment lines that is long enough to be prose."""
    stripped = [line.strip() for line in lines]
    for is_comment, group in itertools.groupby(stripped, key=lambda line: line.startswith("#")):
        block = [line.lstrip("#").removeprefix(" ") for line in group] if is_comment else []
        if len(block) >= _MIN_COMMENT_LINES:
            yield "\n".join(block).strip("\n")
