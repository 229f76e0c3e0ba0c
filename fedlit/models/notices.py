"""What a person should know of a model though it is no mistake for certain."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import transformers
from transformers import AutoTokenizer

from fedlit.config import ModelConfig
from fedlit.models import folder, vocabulary
from fedlit.models.backbone import Purpose, tokenizer_key
from fedlit.models.places import MEMORY, location


def notices(
    config: ModelConfig, purpose: Purpose, model: Any, tokenizer: Any, unwritten: Mapping[str, int]
) -> Iterator[str]:
    """Yield what is no mistake for certain, and what a person should know of a model."""
    from_files, key = not config.path.startswith(f"{MEMORY}:"), f"model.path={config.path}"
    path = location(config.path) if from_files else ""
    for name, code in folder.own_code(path) if from_files else ():
        yield f"{name} of {key} names code of its own ({code[:120]}), which is never run; transformers' own is used"
    if config.weights == "random":
        return
    if from_files and purpose.spec.generates and (stored := folder.classifier(path)) is not None:
        yield f"{key} was stored as {stored}: its head is left out, and its words may not be those of a language model"
    if tokenizer is None:
        return
    if unwritten:
        token, number = next(iter(unwritten.items()))
        yield f"the tokenizer of {tokenizer_key(config)} has {token[:40]!r} (id {number}) beyond the model's embedding"
    signs = list(
        vocabulary.foreign_signs(tokenizer, model, folder.description(path, "config.json") if from_files else {})
    )
    if (
        from_files
        and config.tokenizer is not None
        and (other := vocabulary.other_token(tokenizer, _own_tokenizer(path))) is not None
    ):
        signs.append(other)
    if signs:
        yield f"the tokenizer of {tokenizer_key(config)} may be another model's: {'; '.join(signs)}"


def _own_tokenizer(path: str) -> Any:
    """Return the tokenizer that lies beside the weights; None if there is none."""
    with suppress(Exception), quiet():
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' reports of new heads and of token ids off the console: what matters of them is an error."""
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


def without_progress_bars() -> None:
    """Keep transformers' progress bars off the console for the rest of the process."""
    transformers.utils.logging.disable_progress_bar()
