"""What pyproject.toml cannot say of a wheel: one file of the repository's top travels inside the package."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ConstraintsHook(BuildHookInterface):
    """Puts constraints.txt beside the shipped configurations.

    `sources` renames folders only, and `force-include` would put a copy beside an editable installation too.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the file before the wheel is filled; an editable installation reads it in the clone."""
        if version != "editable":
            build_data["force_include"]["constraints.txt"] = "fedlit/shipped/constraints.txt"
