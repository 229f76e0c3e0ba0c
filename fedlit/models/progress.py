"""The progress reports of transformers."""

import transformers


def without_progress_bars() -> None:
    """Keep bars of loading and saving off the console of a command that says in a line what it has done."""
    transformers.utils.logging.disable_progress_bar()
