"""fedlit's server as a Strategy: it plans the rounds, and its rule aggregates, to the bit of `fedlit run`."""

import time
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedlit.sites import messages
from fedlit.sites.center import Center
from fedlit.store.records import Record
from fedlit_app.carried import carried, message_in


class CenterStrategy(Strategy):
    """A strategy whose aggregate is fedlit's.

    What Flower calls arrays and configurations of a round is not used: the centre keeps the server's state, and every
    client's message is its own.

    Args:
        center: fedlit's server.
        wait_s: seconds to wait for all sites at the start.
        timeout_s: seconds to wait for the answers of a round.
    """

    def __init__(self, center: Center, wait_s: float, timeout_s: float) -> None:
        self.center = center
        self.wait_s = wait_s
        self.timeout_s = timeout_s
        self.clients: dict[int, int] = {}
        """Client id of every node that has joined."""
        self._asked: set[int] = set()

    def summary(self) -> None:
        """Log what is federated."""
        config = self.center.config
        log(INFO, "\t├──> fedlit: method %s, %s clients", config.method.name, config.num_clients)
        log(INFO, "\t└──> Rounds: %s of %s are done", self.center.round_idx, config.num_rounds)

    def start(self, grid: Grid, *args: Any, **options: Any) -> Result:
        """Wait for all sites, score the untrained model, and run the rounds."""
        self.gather(grid)
        self.score(grid)
        result = super().start(grid, *args, **options)
        self.center.export()
        last = self._addressed(self.center.conclude(), f"{MessageType.EVALUATE}.export")
        for reply in grid.send_and_receive(last, timeout=self.timeout_s) if last else ():
            if reply.has_error():
                client = self.clients[reply.metadata.src_node_id]
                log(WARNING, "client %s has not written its model: %s", client, reply.error.reason)
        return result

    def gather(self, grid: Grid) -> None:
        """Let the sites join, until all are there.

        Raises:
            TimeoutError: some did not come in time.
        """
        ends_s = time.monotonic() + self.wait_s
        while self.center.waits_for:
            self.meet(grid)
            if self.center.waits_for and time.monotonic() > ends_s:
                raise TimeoutError(f"{self.center.waits_for} sites did not join within {self.wait_s:.0f} s")
            time.sleep(0.2 if self.center.waits_for else 0)
        for line in self.center.notices():
            log(WARNING, line)

    def meet(self, grid: Grid) -> None:
        """Ask nodes that are new who they are."""
        new = [node for node in grid.get_node_ids() if node not in self._asked]
        self._asked.update(new)
        ask = [Message(messages_content(), dst_node_id=node, message_type=MessageType.QUERY) for node in new]
        for reply in grid.send_and_receive(ask, timeout=self.timeout_s) if ask else ():
            if reply.has_error():
                log(WARNING, "node %s did not join: %s", reply.metadata.src_node_id, reply.error.reason)
            else:
                client = self.center.join(message_in(reply.content))
                self.clients = {node: each for node, each in self.clients.items() if each != client}
                self.clients[reply.metadata.src_node_id] = client

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Invite the round's clients; nobody where all rounds are done."""
        if self.center.done:
            return []
        self.meet(grid)  # a site that came back
        return self._addressed(self.center.invite(), MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take what came, in the order in which it came, and let the rule make the next server of it."""
        if self.center.done:
            return None, None
        for client, answer in self._answers(replies):
            if not self.center.take(client, answer):
                log(WARNING, "client %s is left out of round %s: %s", client, server_round, answer.facts.get("failure"))
        record = self.center.aggregate()
        log(INFO, "aggregate of round %s: %s", server_round, record["aggregation/checksum"])
        return None, metrics_of(record)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for the scores that sites alone can compute."""
        return self._addressed(self.center.ask(), MessageType.EVALUATE) if self.center.unscored else []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Score the rest here, and write the round's record."""
        if not self.center.unscored:
            return None
        for client, answer in self._answers(replies):
            self.center.score(client, answer)
        return metrics_of(self.center.finish())

    def score(self, grid: Grid) -> None:
        """Score and record a state that is not yet: that of the untrained model, or of a run that was stopped."""
        if self.center.unscored:
            replies = grid.send_and_receive(self.configure_evaluate(0, ArrayRecord(), ConfigRecord(), grid))
            self.aggregate_evaluate(0, replies)

    def _addressed(self, each: Mapping[int, messages.Message], kind: str) -> list[Message]:
        nodes = {client: node for node, client in self.clients.items()}
        return [
            Message(carried(message), dst_node_id=nodes[client], message_type=kind) for client, message in each.items()
        ]

    def _answers(self, replies: Iterable[Message]) -> Iterable[tuple[int, messages.Message]]:
        for reply in replies:
            client = self.clients[reply.metadata.src_node_id]
            if reply.has_error():
                log(WARNING, "client %s does not answer: %s", client, reply.error.reason)
                self.center.lose(client)
            else:
                yield client, message_in(reply.content)


def messages_content() -> Any:
    """Return the content of a message that only asks."""
    return carried(messages.Message(kind="join"))


def metrics_of(record: Record) -> MetricRecord:
    """Return what of a record Flower's metrics can hold."""
    return MetricRecord({key: value for key, value in record.items() if type(value) in (int, float)})
