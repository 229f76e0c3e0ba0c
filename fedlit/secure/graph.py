"""Who shares masks and keys with whom: everybody with everybody, or the sparse graph of SecAgg+.

In SecAgg+ (Bell, Bonawitz, Gascón, Lepoint, Raykova 2020, eprint 2020/704) each client has k neighbours: a Harary graph
over a random order of the clients. It stays connected whichever k - 1 clients are lost, and costs k instead of n - 1
agreements, shares and masks a client.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

Graph = Mapping[int, tuple[int, ...]]
"""The neighbours of every client in ascending order, without itself."""


def draw_graph(clients: Collection[int], degree: int | None, generator: np.random.Generator) -> Graph:
    """Return the graph of a round.

    Args:
        clients: ids.
        degree: k, at least 2; None, or n - 1 and more, for the complete graph. Where k and n are odd there is no graph
            in which everybody has k neighbours: one client then has k + 1.
        generator: draws the order; nothing is drawn for a complete graph.
    """
    ordered = sorted(clients)
    num = len(ordered)
    if degree is None or degree >= num - 1:
        return {client: tuple(other for other in ordered if other != client) for client in ordered}
    assert degree >= 2, "a graph of pairs is not connected"
    around = [ordered[place] for place in generator.permutation(num)]
    joined: dict[int, set[int]] = {client: set() for client in ordered}
    for first, second in _harary(num, degree):
        joined[around[first]].add(around[second])
        joined[around[second]].add(around[first])
    return {client: tuple(sorted(others)) for client, others in joined.items()}


def _harary(num: int, degree: int) -> list[tuple[int, int]]:
    """Return the edges of the Harary graph H(k, n) over the places of a ring."""
    edges = [(place, (place + step) % num) for place in range(num) for step in range(1, degree // 2 + 1)]
    if degree % 2:
        half = (num + 1) // 2
        edges += [(place, (place + half) % num) for place in range(half)]
    return edges


def parts(graph: Graph, clients: Sequence[int]) -> list[list[int]]:
    """Return the connected parts that are left of a graph when only these clients are kept."""
    left, found = set(clients), []
    while left:
        begin = min(left)
        left.discard(begin)
        part, waiting = [begin], [begin]
        while waiting:
            near = left.intersection(graph[waiting.pop()])
            left -= near
            waiting += near
            part += near
        found.append(sorted(part))
    return found
