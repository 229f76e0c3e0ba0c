"""Models that differ from client to client, as an evaluation goes through them: one by one, or several at once."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric

from fedlit.errors import DivergenceError, UserError


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

    def __init__(self, client_ids: Sequence[int], metrics: Sequence[Metric]) -> None:
        self._client_ids = client_ids
        self._metrics = metrics

    def update(self, *values: Any) -> None:
        """Update each client's metric with its share of values that have one for each example."""
        for place, metric in enumerate(self._metrics):
            try:
                metric.update(*(self._share(value, place) for value in values))
            except DivergenceError as error:
                raise replace(error, client_id=self._client_ids[place]) from error

    def _share(self, value: Any, place: int) -> Any:
        if not isinstance(value, Tensor | Sequence) or (isinstance(value, Tensor) and not value.ndim):
            raise UserError(
                f"local.clients_per_batch: a metric of this task is given a {type(value).__name__}, and no values of "
                "single examples that could be divided among clients; give local.clients_per_batch=1"
            )
        size, rest = divmod(len(value), len(self._metrics))
        assert not rest, "as many examples for each client"
        return value[place * size : (place + 1) * size]


def split_metrics(by_client: Mapping[int, Mapping[str, Metric]]) -> dict[str, Metric]:
    """Return metrics by name, each of which divides what it is given among the clients' own, by client id."""
    ids, each = list(by_client), list(by_client.values())
    return {name: cast(Metric, SplitMetric(ids, [metrics[name] for metrics in each])) for name in each[0]}
