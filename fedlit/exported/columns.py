"""What a run's model is asked by: the columns of its rows that a person fills in, known without torch."""

from fedlit.config import RunConfig
from fedlit.data.columns import text_columns
from fedlit.errors import UserError
from fedlit.tasks.causal_lm.forms import form_of


def is_conversation(config: RunConfig) -> bool:
    """Tell whether a person talks with the model, which remembers what was said before."""
    return config.data.task == "causal_lm" and config.data.messages is not None


def asked_columns(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns to fill in, in order, and those of them that may not be blank.

    Raises:
        UserError: the task is of a plugin, and nobody knows here how it is asked.
    """
    data = config.data
    if data.task == "causal_lm":
        return form_of(data).asked(data)
    known = {"sequence_classification": tuple(text_columns(data)), "image_classification": (data.image,)}
    if data.task not in known:
        raise UserError(f"data.task={data.task} is of a plugin, which nobody can ask here; merge the run instead")
    return known[data.task], known[data.task]
