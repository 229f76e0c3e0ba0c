"""How many examples a property sees: a few on every push, as many as it names in `make test-all`."""

import os

PROFILE = os.environ.get("FEDLIT_EXAMPLES", "push")


def few(all_of_them: int, on_push: int = 25) -> int:
    """Return the number of examples of the tier that runs."""
    return on_push if PROFILE == "push" else all_of_them
