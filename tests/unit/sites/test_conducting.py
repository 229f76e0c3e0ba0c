"""A framework's exchanges make a centre's rounds: who is asked what, in which order, and what ends it."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from fedlit.errors import UserError
from fedlit.sites.center import Center
from fedlit.sites.conducting import Conductor
from fedlit.sites.messages import Message


@dataclass
class Played:
    """A centre of two clients and two rounds that notes what is asked of it; it asks client 1 for scores."""

    asks: bool = True
    calls: list[Any] = field(default_factory=list)
    joined: set[int] = field(default_factory=set)
    round_idx: int = 0
    recorded: int = -1
    exported: int = 0
    own: tuple[int, ...] = ()

    @property
    def waits_for(self) -> int:
        return 2 - len(self.joined)

    @property
    def unscored(self) -> bool:
        return self.recorded != self.round_idx

    @property
    def done(self) -> bool:
        return not self.unscored and self.round_idx == 2

    def join(self, message: Message) -> int:
        self.joined.add(message.facts["client_id"])
        return int(message.facts["client_id"])

    def invite(self) -> dict[int, Message]:
        return {client: Message(kind="train", facts={"to": client}) for client in (0, 1)}

    def take(self, client: int, message: Message) -> bool:
        self.calls.append(("take", client, message.facts["from"]))
        return True

    def lose(self, client: int) -> None:
        self.calls.append(("lose", client))

    def aggregate(self) -> dict[str, float]:
        self.calls.append("aggregate")
        self.round_idx += 1
        return {}

    def ask(self) -> dict[int, Message]:
        return {1: Message(kind="evaluate")} if self.asks else {}

    def score(self, client: int, message: Message) -> None:
        self.calls.append(("score", client))

    def finish(self) -> dict[str, int]:
        self.recorded = self.round_idx
        return {"round": self.round_idx}

    def export(self) -> None:
        self.exported += 1

    def conclude(self) -> dict[int, Message]:
        return {client: Message(kind="export") for client in self.own}


def conductor(center: Played) -> Conductor:
    return Conductor(center=cast(Center, center))


def join(name: str, client_id: int) -> tuple[str, Message]:
    return name, Message(kind="join", facts={"client_id": client_id})


def answer(name: str) -> tuple[str, Message]:
    return name, Message(kind="train", facts={"from": name})


def test_a_federation_is_joined_scored_trained_and_exported() -> None:
    center = Played()
    made = conductor(center)
    kinds = []
    made.take(*join("b", 1))
    made.take(*join("a", 0))
    while messages := made.next():
        kinds.append({name: message.kind for name, message in messages.items()})
        for name in ("b", "a"):  # all answer, in any order; those that were not asked say nothing of weight
            made.take(*answer(name))
    assert kinds == [{"b": "evaluate"}, *[{"a": "train", "b": "train"}, {"b": "evaluate"}] * 2]
    assert [record["round"] for record in made.records] == [0, 1, 2]
    assert center.calls.count("aggregate") == 2
    assert center.calls.count(("score", 1)) == 3
    assert ("score", 0) not in center.calls
    assert ("take", 1, "b") in center.calls  # by the number with which it joined
    assert center.exported == 1


def test_where_the_centre_scores_alone_a_round_is_one_exchange() -> None:
    made = conductor(Played(asks=False))
    made.take(*join("a", 0))
    made.take(*join("b", 1))
    kinds = []
    while messages := made.next():
        kinds.append({message.kind for message in messages.values()})
    assert kinds == [{"train"}, {"train"}]


def test_nothing_is_sent_until_all_have_joined() -> None:
    made = conductor(Played())
    made.take(*join("a", 0))
    assert made.waits
    assert made.next() == {}
    made.take(*join("a", 0))  # asked again with the others
    made.take(*join("b", 1))
    assert not made.waits
    assert made.next()


def test_a_site_that_does_not_answer_is_lost_in_that_round() -> None:
    center = Played(asks=False)
    made = conductor(center)
    made.take(*join("a", 0))
    made.take(*join("b", 1))
    made.next()
    made.take(*answer("a"))
    made.next()
    assert center.calls == [("take", 0, "a"), ("lose", 1), "aggregate"]


def test_two_sites_are_not_one_client() -> None:
    made = conductor(Played())
    made.take(*join("a", 0))
    with pytest.raises(UserError, match="a and b both join as client 0; give each site its own number"):
        made.take(*join("b", 0))


def test_sites_with_models_of_their_own_write_them_at_the_end() -> None:
    made = conductor(Played(asks=False, own=(1,)))
    made.take(*join("a", 0))
    made.take(*join("b", 1))
    kinds = []
    while messages := made.next():
        kinds.append({name: message.kind for name, message in messages.items()})
        for name in messages:
            made.take(*answer(name))
    assert kinds == [{"a": "train", "b": "train"}] * 2 + [{"b": "export"}]
