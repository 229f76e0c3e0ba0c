"""What a run's model is asked by: the columns of its rows that a person fills in, known without torch."""

from fedlit.config import RunConfig
from fedlit.data.columns import text_columns
from fedlit.data.prompts import prompt_template, required_columns, template_columns
from fedlit.errors import UserError


def asked_columns(config: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns to fill in, in order, and those of them that may not be blank.

    Raises:
        UserError: the task is of a plugin, and nobody knows here how it is asked.
    """
    data = config.data
    if data.task == "causal_lm":
        columns = tuple(template_columns(prompt_template(data, test=True)))
        return columns, tuple(name for name in required_columns(data) if name in columns)
    known = {"sequence_classification": tuple(text_columns(data)), "image_classification": (data.image,)}
    if data.task not in known:
        raise UserError(f"data.task={data.task} is of a plugin, which nobody can ask here; merge the run instead")
    return known[data.task], known[data.task]
