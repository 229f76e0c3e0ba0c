"""What greedy decoding needs of transformers: a cache with room that rows may leave, and for which models it will do.

Shapes: n rows, T tokens read so far.
"""

import inspect
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_READ = ("input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache")
_NO_RULES = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_new_tokens", "use_cache"),
    *("transformers_version", "_from_model_config"),
)
"""Generation settings that `generate` is given anyway, or that change nothing."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """Keys and values of one attention layer in a tensor that has room for all tokens to come.

    transformers' own layer copies all it holds at every token.
    """

    def __init__(self, room: int) -> None:
        """room: tokens after those of the first forward pass."""
        super().__init__()
        self._room = room
        self._held: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add what a forward pass made, (n, heads, new tokens, size); return all (n, heads, T, size)."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._held is None:
            self.lazy_initialization(key_states, value_states)
            self._held = (self._empty(key_states, end), self._empty(value_states, end))
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self._held)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` alone."""
        if self._held is not None:
            length = self.get_seq_length()
            keys, values = (held.index_select(0, indices) for held in self._held)
            self._held = (keys, values)
            self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def _empty(self, states: Tensor, length: int) -> Tensor:
        return states.new_empty((*states.shape[:2], length + self._room, states.shape[-1]))


def cache_with_room(model: nn.Module, room: int) -> Any:
    """Return an empty DynamicCache with room for so many tokens after those of the first forward pass; None for a model
    that keeps something else than keys and values of single rows.
    """
    cache = DynamicCache(config=model.config)
    if not cache.layers or any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def decodes_alone(model: nn.Module) -> bool:
    """Tell whether greedy decoding of a model is its forward pass and nothing else, so that rows may leave.

    Not so where its generation settings have rules of their own, where it prepares its inputs in its own way, or where
    it keeps something else than keys and values from one token to the next.
    """
    settings, config = getattr(model, "generation_config", None), getattr(model, "config", None)
    if settings is None or any(value for name, value in settings.to_diff_dict().items() if name not in _NO_RULES):
        return False
    kind: Any = type(model)
    for name in ("generate", "prepare_inputs_for_generation"):
        if getattr(kind, name, None) is not getattr(GenerationMixin, name):
            return False
    if getattr(config, "is_encoder_decoder", True):
        return False
    return set(_READ) <= set(inspect.signature(kind.forward).parameters) and cache_with_room(model, 0) is not None
