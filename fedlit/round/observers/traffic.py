"""Bytes that the clients of a round would really send and receive, from shapes alone."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from fedlit.algebra.tensors import num_bytes
from fedlit.round.observers import Observer, RoundView
from fedlit.round.rules import AggregationRule
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms


@dataclass(frozen=True, kw_only=True)
class TrafficObserver(Observer):
    """Counts what every invited client receives of a round and every one that returned sends (see the rules' traffic).

    groups: names of the groups beside the model, which travel both ways as they are.
    transforms: tell which tensors have a value that is known.
    silent: nothing travels: no rule, or data that are pooled.
    """

    rule: AggregationRule
    groups: tuple[str, ...] = ()
    transforms: Transforms = field(default_factory=Transforms)
    silent: bool = False

    def record(self, view: RoundView) -> dict[str, Any]:
        """Return the bytes of all clients together."""
        server = replace(view.before, folded_ranks=view.after.folded_ranks)
        up, down = self.of_round(server, view.plan.invited, view.cohort.client_ids, view.plan.trains)
        # Who began in an earlier round received it then, and sends what trained then.
        for client in view.plan.began.keys() & set(view.cohort.client_ids):
            up += self.of_round(server, [client], [client], view.plan.trained[client])[0]
        return {"communication/uplink_bytes": up, "communication/downlink_bytes": down}

    def of_round(
        self, server: ServerState, invited: Collection[int], returned: Collection[int], trained: Collection[str]
    ) -> tuple[int, int]:
        """Return the bytes up and down of a round that begins from `server`."""
        if self.silent:
            return 0, 0
        beside = sum(num_bytes(server.group(group)) for group in self.groups)
        sent = set(trained) - self.transforms.unsent(server)
        parts = self.rule.traffic(server, {client: client in returned for client in invited}, sent).values()
        return (
            sum(part.uplink_bytes for part in parts) + beside * len(returned),
            sum(part.downlink_bytes for part in parts) + beside * len(invited),
        )
