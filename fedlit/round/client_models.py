"""Models that differ from client to client, as an evaluation goes through them: one by one, or several at once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric


def one_by_one(client_ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Return each client as a group."""
    return [(client_id,) for client_id in client_ids]


@dataclass(frozen=True, kw_only=True)
class ClientModels:
    """Models that differ from client to client.

    mine: the clients whose model this process holds; None while all of them have the same one. load: puts a client's
    private tensors into the model. groups: those that go through one forward pass. load_together: within it the model
    is several clients', whatever it is given being divided among them evenly, in their order.
    """

    population: Collection[int]
    mine: Collection[int] | None
    load: Callable[[int], None]
    groups: Callable[[Sequence[int]], list[tuple[int, ...]]] = one_by_one
    load_together: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda _clients: nullcontext()


class SplitMetric:
    """Stands for the metrics of k clients where a task updates one with the examples of all, client after client."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def update(self, *values: Any) -> None:
        """Update each client's metric with its share of values that have one for each example."""
        for place, metric in enumerate(self._metrics):
            metric.update(*(self._share(value, place) for value in values))

    def _share(self, value: Any, place: int) -> Any:
        assert isinstance(value, Tensor | Sequence), f"a metric takes values of examples, not {type(value).__name__}"
        size, rest = divmod(len(value), len(self._metrics))
        assert not rest, "as many examples for each client"
        return value[place * size : (place + 1) * size]


def split_metrics(by_client: Sequence[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Return metrics by name, each of which divides what it is given among the clients' own."""
    names = by_client[0]
    return {name: cast(Metric, SplitMetric([metrics[name] for metrics in by_client])) for name in names}
