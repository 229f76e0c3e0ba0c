"""Where models lie: inside the package, in a folder, on the hub, or in the memory of a caller."""

from pathlib import Path

from fedlit.errors import UserError

_PACKAGE = Path(__file__).parents[1]
MEMORY = "memory"
"""`model.path=memory:<checksum>` stands for a model that was given from Python, `model.tokenizer=` likewise."""
PACKAGED = {"tiny": _PACKAGE / "tiny"} | {
    path.parent.name: path.parent for path in sorted((_PACKAGE / "backbones").glob("*/config.json"))
}
"""Models inside the package by name; those below `backbones` come without weights."""


def location(path: str, key: str | None = None) -> str:
    """Return where a model lies: its folder, or its id on the hub as it is.

    Args:
        path: a name inside the package, a folder, or an id.
        key: how a message names it, `model.path=` by default.

    Raises:
        UserError: it looks like a folder and there is none, or was an object of Python's.
    """
    if path.startswith(f"{MEMORY}:"):
        raise UserError(
            f"{key or f'model.path={path}'} was given from Python as an object, and no file holds it; run it there, "
            "with fedlit.run(..., model=..., tokenizer=...)"
        )
    if path in PACKAGED:
        return str(PACKAGED[path])
    looks_local = path.startswith((".", "/", "~"))
    if looks_local and not Path(path).expanduser().is_dir():
        raise UserError(
            f"{key or f'model.path={path}'} is not a folder; give a local folder or a Hugging Face model id"
        )
    return str(Path(path).expanduser()) if looks_local else path
