"""What a tokenizer says held against what its model has: ids beyond the embedding, and signs of another vocabulary."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from fedlit.errors import UserError

FOREIGN_SHARE = 0.5
"""A tokenizer that fills less of the embedding is told: published ones fill nine tenths of it, padding included."""
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def without_rows(tokenizer: Any, model: nn.Module, key: str) -> dict[str, int]:
    """Return the tokens for which the model has no row, by text: added ones that stand in no text unless written there.

    A padding token among them is taken from the tokenizer, so that another id fills the padding, which is masked: the
    rows of a batch would otherwise be filled with an id that the embedding cannot look up.

    Args:
        tokenizer: of the run.
        model: with its embedding, which may be larger than the tokenizer.
        key: how messages name the tokenizer, such as `model.path=x`.

    Raises:
        UserError: a token that texts can lead to has an id beyond the embedding.
    """
    num_rows = _num_rows(model)
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= num_rows}
    if not beyond:
        return {}
    read = sorted((number, token) for token, number in beyond.items() if token not in tokenizer.get_added_vocab())
    if not read:
        put = _put_by_itself(tokenizer)
        read = sorted((number, token) for token, number in beyond.items() if number in put)
    if read:
        number, token = read[0]
        raise UserError(
            f"the tokenizer of {key} has {len(tokenizer)} tokens, among them {token[:40]!r} with id {number}, but the "
            f"model's embedding has {num_rows} rows; give the tokenizer that belongs to the model"
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= num_rows:
        tokenizer.pad_token = None
    return beyond


def require_unwritten(tokens: Mapping[str, int], texts: Iterable[str]) -> None:
    """Refuse texts in which a token without a row of the embedding is written out.

    Capitals make no difference: a tokenizer may look for its added tokens in a text without any.

    Raises:
        UserError: names the token and the beginning of the text.
    """
    folded = {token.casefold(): token for token in tokens}
    for text in texts if folded else ():
        plain = text.casefold()
        found = next((token for small, token in folded.items() if small in plain), None)
        if found is not None:
            raise UserError(
                f"the text {text[:60]!r} holds {found[:40]!r}, a token of the tokenizer with id {tokens[found]}, for "
                "which the model's embedding has no row; take it out of the text, or give a model that has the row"
            )


def foreign_signs(tokenizer: Any, model: nn.Module, described: Mapping[str, Any]) -> Iterator[str]:
    """Yield what speaks against a tokenizer being the model's own, each as one clause.

    Args:
        tokenizer: of the run.
        model: with its embedding.
        described: what config.json says, without the defaults of the architecture.
    """
    for name in _SPECIAL[:2]:
        own, its = described.get(name), getattr(tokenizer, name)
        allowed = own if isinstance(own, list) else [own]
        if own is not None and its is not None and its not in allowed:
            yield f"{name} is {its} in the tokenizer and {own} in config.json"
    num_tokens, num_rows = len(tokenizer), _num_rows(model)
    if num_tokens < FOREIGN_SHARE * num_rows:
        yield f"the tokenizer has {num_tokens:,} tokens and the embedding {num_rows:,} rows"


def other_token(tokenizer: Any, own: Any) -> str | None:
    """Return how a tokenizer differs from the model's own in what an id means, as one clause; None if it does not.

    own: the tokenizer that lies beside the weights, None if there is none.
    """
    if own is None:
        return None
    mine, its = own.get_vocab(), tokenizer.get_vocab()
    texts = {number: token for token, number in mine.items()}
    for token, number in sorted(its.items(), key=lambda item: item[1]):
        if number in texts and texts[number] != token:
            return f"id {number} is {token[:30]!r} in it and {texts[number][:30]!r} in the model's own"
    return None


def _num_rows(model: nn.Module) -> int:
    """Return the rows that input and output embedding have both."""
    both = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
    return min(int(module.weight.shape[0]) for module in both if module is not None)


def _put_by_itself(tokenizer: Any) -> set[int | None]:
    """Return the ids that a tokenizer puts around texts or in place of what it does not know."""
    around = {*tokenizer("").input_ids, *tokenizer("", "").input_ids}
    return around | {tokenizer.bos_token_id, tokenizer.eos_token_id, _unknown(tokenizer)}


def _unknown(tokenizer: Any) -> int | None:
    """Return the id for what a tokenizer does not know; None where there is nothing that it does not know.

    `unk_token` may be a name that transformers gave to a tokenizer that spells everything in bytes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.unk_token_id  # type: ignore[no-any-return]
    token = getattr(backend.model, "unk_token", None)
    return None if token is None else backend.token_to_id(token)
