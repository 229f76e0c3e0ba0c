"""Names that a package gives without importing the module that holds them before somebody asks."""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any


def names_of(module: str, names: Collection[str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__` (PEP 562) that looks these names up in a module of the package."""

    def getattr_of_package(name: str) -> Any:
        if name in names:
            return getattr(import_module(module), name)
        raise AttributeError(f"module {module.rpartition('.')[0]!r} has no attribute {name!r}")

    return getattr_of_package
