"""FedDPA's instance-wise weights: how much an input is like a few that a client has trained on.

Shapes: n rows, T tokens, H hidden size, S references.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedlit.errors import UserError
from fedlit.models.input_ends import input_ends

_READ = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "pixel_values")


class Mixer(nn.Module):
    """Weighs the private LoRA of all layers by the input: the weight of row i is

        scale * mean_s cos(e(x_i), e_s), cut to [0, 1],

    with e(x) the representation of an input in the backbone without either LoRA, and e_s those of S inputs of the
    client's last training. The backbone is frozen, so that a stored representation never goes stale. Of a language
    model e(x) is the last hidden state at the last token of the prompt, of an encoder its mean over all tokens. A
    client without references has the weight 0: its model is the server's.

    references: (S, H), filled while a client trains; rows of zeros are none.
    weight: of the layers' next forward pass: a number, one of each row (n,), or None for the backbone alone.
    detached: the shared LoRA gets no gradient: a pass of the private one.
    """

    def __init__(self, num_references: int, hidden_size: int, scale: float, dtype: torch.dtype, device: Any) -> None:
        super().__init__()
        empty = torch.zeros(num_references, hidden_size, dtype=dtype, device=device)
        self.references = nn.Parameter(empty, requires_grad=False)
        self.scale = scale
        self.weight: float | Tensor | None = 0.0
        self.detached = False
        self._num_missing = 0
        self._of_rows: Tensor | None = None
        self._representing = False

    def begin(self, *, collects: bool) -> None:
        """Let a client's training begin: with `collects` its first S inputs become the references."""
        self._num_missing = len(self.references) if collects else 0

    @contextmanager
    def weighing(self, weight: float, *, detached: bool) -> Iterator[None]:
        """Let training passes within the block have this weight."""
        before = self.weight, self.detached
        self.weight, self.detached = weight, detached
        try:
            yield
        finally:
            self.weight, self.detached = before

    def before(self, model: nn.Module, _arguments: Any, inputs: dict[str, Any]) -> None:
        """Look at what a model is about to see: a forward pre-hook of the whole model."""
        if self._representing:
            return
        if model.training:
            if self._num_missing and self.detached:  # a batch goes through once for each LoRA
                self._collect(self._represented(model, inputs))
            return
        cache = inputs.get("past_key_values")
        if cache is not None and self._of_rows is not None and cache.get_seq_length() > 0:
            self.weight = self._of_rows  # an answer goes on: the weight is that of its prompt
            return
        self.weight = self._of_rows = self.weights(self._represented(model, inputs))
        if cache is not None:
            self._follow(cache)

    @torch.no_grad()
    def weights(self, represented: Tensor) -> Tensor:
        """Return the private LoRA's weight of each row (n,), of representations (n, H)."""
        references = self.references
        likeness = functional.cosine_similarity(represented.unsqueeze(1), references.unsqueeze(0), dim=2)  # (n, S)
        known = (references != 0).any(1).sum().clamp(min=1)
        return (self.scale * likeness.sum(1) / known).clamp(0.0, 1.0)

    @torch.no_grad()
    def _collect(self, represented: Tensor) -> None:
        start = len(self.references) - self._num_missing
        taken = represented[: self._num_missing]
        self.references.data[start : start + len(taken)] = taken
        self._num_missing -= len(taken)

    def _follow(self, cache: Any) -> None:
        """Let the weights lose the rows that a cache loses: a decoded row leaves the batch when it has ended."""
        select = cache.batch_select_indices

        def both(indices: Tensor) -> None:
            select(indices)
            if self._of_rows is not None:
                self._of_rows = self._of_rows.index_select(0, indices)

        cache.batch_select_indices = both

    @torch.no_grad()
    def _represented(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Return the representations (n, H) of a batch's inputs, in the type of the references."""
        body: Any = model.base_model
        given = {name: inputs[name] for name in _READ if inputs.get(name) is not None}
        if "input_ids" in given and "use_cache" in inspect.signature(body.forward).parameters:
            given["use_cache"] = False
        weight, training = self.weight, body.training
        self.weight, self._representing = None, True
        body.eval()
        try:
            output = body(**given)
        finally:
            self.weight, self._representing = weight, False
            body.train(training)
        hidden = _pooled(output[0], given, generates=hasattr(model, "lm_head") or model.can_generate())  # type: ignore[operator]
        if hidden.shape[1] != self.references.shape[1]:
            raise UserError(
                f"method.adapter=lora_dual: the backbone represents an input by {hidden.shape[1]} numbers and its "
                f"configuration says {self.references.shape[1]}; choose another model, or method=fedalt"
            )
        return hidden.to(self.references.dtype)


def _pooled(hidden: Tensor, given: dict[str, Any], *, generates: bool) -> Tensor:
    """Return (n, H) of hidden states (n, T, H), or (n, H, height, width) of an image."""
    if hidden.ndim == 4:
        return hidden.flatten(2).mean(2)
    if hidden.ndim == 2:
        return hidden
    if generates and "input_ids" in given:
        ends = input_ends()
        if ends is None:
            return hidden[:, -1]
        places = torch.tensor(ends).to(hidden.device, non_blocking=True)
        chosen: Tensor = hidden[torch.arange(len(hidden), device=hidden.device), places]
        return chosen
    mask = given.get("attention_mask")
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.mean(1)
    weights = mask.to(hidden.dtype).unsqueeze(2)
    mean: Tensor = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
    return mean


def hidden_size(model: Any) -> int:
    """Return H of a model's last hidden states, by its configuration; raises UserError if that does not say."""
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for part in (text, config, getattr(config, "vision_config", None)):
        size = getattr(part, "hidden_size", None)
        if size is not None:
            return int(size)
        if sizes := getattr(part, "hidden_sizes", None):
            return int(sizes[-1])
    raise UserError(
        "method.adapter=lora_dual weighs inputs by the backbone's last hidden state, and the configuration of this "
        "model does not say how large it is (hidden_size); choose another model, or method=fedalt"
    )
