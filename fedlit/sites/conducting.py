"""A centre behind a framework that drives: it calls with one answer after the other, and asks what to send next.

`driving.run_all` is for those that let us drive. A framework's round is an exchange here, of one of four kinds: all
sites join, the invited ones train, those that are asked evaluate, and those with a model of their own export it at the
end. A round of the federation is one or two of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedlit.errors import UserError
from fedlit.sites.center import Center
from fedlit.sites.messages import Message
from fedlit.store.records import Record

JOIN, TRAIN, EVALUATE, EXPORT = "join", "train", "evaluate", "export"


@dataclass(kw_only=True)
class Conductor:
    """Makes a centre's rounds of exchanges.

    center: whose rounds they are. names: by client id, what the framework calls its site; filled as they join.
    records: of the rounds since this process began.
    """

    center: Center
    names: dict[int, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    _kind: str = JOIN
    _asked: set[int] = field(default_factory=set)

    def take(self, name: str, answer: Message) -> None:
        """Take in what a site answers in this exchange. One that was not asked says nothing of weight.

        Raises:
            UserError: as those of `Center.join` and `Center.take`; the name of another site's client.
        """
        if self._kind == JOIN:
            self._join(name, answer)
            return
        clients = [client_id for client_id in self._asked if self.names[client_id] == name]
        for client_id in clients:
            if self._kind == TRAIN:
                self.center.take(client_id, answer)
            elif self._kind == EVALUATE:
                self.center.score(client_id, answer)
            self._asked.discard(client_id)

    def next(self) -> dict[str, Message]:
        """End this exchange and return the messages of the next one by site; none where all is done, and exported.

        Sites that have not joined yet are none of them: while `waits`, the next exchange is to be a `join` of all.

        Raises:
            UserError: of the round that ends here, or of the run folder.
        """
        if self.waits or self._kind == EXPORT:
            return {}
        if self._kind == TRAIN:
            for client_id in self._asked:
                self.center.lose(client_id)
            self.center.aggregate()
        elif self._kind == EVALUATE:
            self.records.append(self.center.finish())
        return self._begun()

    @property
    def waits(self) -> bool:
        """Whether some sites have not joined."""
        return bool(self.center.waits_for)

    def _begun(self) -> dict[str, Message]:
        """Return the messages of the scores that are due, else of the next round."""
        if self.center.unscored:
            if asked := self.center.ask():
                return self._sent(EVALUATE, asked)
            self.records.append(self.center.finish())
        if self.center.done:
            self.center.export()
            return self._sent(EXPORT, self.center.conclude())
        return self._sent(TRAIN, self.center.invite())

    def _sent(self, kind: str, messages: Mapping[int, Message]) -> dict[str, Message]:
        self._kind, self._asked = kind, set(messages)
        return {self.names[client_id]: message for client_id, message in messages.items()}

    def _join(self, name: str, answer: Message) -> None:
        client_id = self.center.join(answer)
        if self.names.setdefault(client_id, name) != name:
            raise UserError(
                f"{self.names[client_id]} and {name} both join as client {client_id}; give each site its own number"
            )
