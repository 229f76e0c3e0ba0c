"""A whole federation of a centre and sites, over whatever carries their messages."""

from collections.abc import Callable, Iterable, Mapping

from fedlit.sites.center import Center
from fedlit.sites.messages import Message
from fedlit.store.records import Record

Exchange = Callable[[str, Mapping[int, Message]], Iterable[tuple[int, Message]]]
"""Sends messages of a kind (`train`, `evaluate`, `export`) to clients by id, and yields the answers as they come, in
any order; of a client that does not answer, none."""


def run_all(center: Center, exchange: Exchange, told: Callable[[Record], None] = lambda _record: None) -> None:
    """Run all rounds of a centre that all sites have joined, and export the result. `told` gets every record."""
    while not center.done:
        if not center.unscored:
            round_trip(center, exchange)
        told(scored(center, exchange))
    center.export()
    if last := center.conclude():
        for _ in exchange("export", last):
            pass


def round_trip(center: Center, exchange: Exchange) -> None:
    """Train and aggregate one round."""
    invited = center.invite()
    missing = set(invited)
    for client_id, answer in exchange("train", invited):
        center.take(client_id, answer)
        missing.discard(client_id)
    for client_id in missing:
        center.lose(client_id)
    center.aggregate()


def scored(center: Center, exchange: Exchange) -> Record:
    """Score and record the state of a centre."""
    if asked := center.ask():
        for client_id, answer in exchange("evaluate", asked):
            center.score(client_id, answer)
    return center.finish()
