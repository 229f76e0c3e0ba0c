"""What two rows must share to be the same question: they are then for testing in all clients or in none."""

from fedlit.config.schema import DataConfig
from fedlit.data.images import digest
from fedlit.data.prompts import Row, render


def input_text(row: Row, config: DataConfig) -> str:
    """Return what goes into the model as one text: the prompt, the texts of a pair, or the digest of an image."""
    if config.task == "causal_lm":
        return render(row, config)[0]
    if config.task == "sequence_classification":
        return "\x1e".join(row[column] for column in config.text)
    return digest(row[config.image])
