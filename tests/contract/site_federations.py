"""Federations of a centre and sites in one process, whose messages are bytes and come in any order."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_federations import Builder

from fedlit.config import fingerprint
from fedlit.sites.center import Center
from fedlit.sites.driving import round_trip, run_all, scored
from fedlit.sites.messages import Message
from fedlit.sites.site import Site
from fedlit.sites.workplace import Workplace


@dataclass
class Sites:
    """The sites of a federation, what each of them keeps, and how their answers come back.

    order: seed of the order in which they join and answer. away: clients that do not answer, by round_idx.
    results: where they write models of their own. sent: bytes to and from clients, by direction and kind.
    """

    sites: dict[int, Site]
    order: int = 0
    away: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    states: dict[int, bytes] = field(default_factory=dict)
    results: Path = Path()
    sent: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.order)

    def join(self, center: Center) -> None:
        for client in self.rng.sample(sorted(self.sites), len(self.sites)):
            center.join(Message.from_bytes(self.sites[client].join(self.states.get(client)).to_bytes()))

    def exchange(self, kind: str, messages: Mapping[int, Message]) -> Iterator[tuple[int, Message]]:
        for client in self.rng.sample(sorted(messages), len(messages)):
            if client in self.away.get(int(messages[client].facts["round_idx"]), ()):
                continue
            data = messages[client].to_bytes()
            site, message = self.sites[client], Message.from_bytes(data)
            if kind == "train":
                answer, self.states[client] = site.train(message, self.states.get(client))
            elif kind == "evaluate":
                answer, self.states[client] = site.evaluate(message, self.states.get(client))
            else:
                place = self.results / f"client-{client:05d}"
                answer = Message(kind=kind, facts={"folder": str(site.export(message, self.states.get(client), place))})
            self.sent.setdefault(("down", kind), []).append(data)
            self.sent.setdefault(("up", kind), []).append(answer.to_bytes())
            yield client, Message.from_bytes(answer.to_bytes())

    def round(self, center: Center) -> dict[str, Any]:
        round_trip(center, self.exchange)
        return scored(center, self.exchange)


def of_sites(builder: Builder, name: str, *options: str, **given: Any) -> tuple[Center, Sites]:
    """Return a centre that all sites have joined, and these, of the federation that Builder makes of the options."""
    inputs = builder.inputs(name, *options)
    given = {"results": builder.folder / f"{name}-own", **given}
    at_centre, at_sites = Workplace.of(inputs, builder.load), Workplace.of(inputs, builder.load)
    center = Center(workplace=at_centre, simulated=True, server=at_centre.server)
    first = Site(workplace=at_sites, client_id=0, told=fingerprint(inputs.config))
    sites = Sites({client: first.of_client(client) for client in range(inputs.config.num_clients)}, **given)
    sites.join(center)
    return center, sites


def run_sites(builder: Builder, name: str, *options: str, **given: Any) -> tuple[Center, Sites]:
    """Return both after the last round."""
    center, sites = of_sites(builder, name, *options, **given)
    run_all(center, sites.exchange)
    return center, sites


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return records without what a centre has not: times, and what is measured on clients' rows before training."""
    without = ("time/", "init/")
    return [{key: value for key, value in record.items() if not key.startswith(without)} for record in records]
