"""Who shares masks with whom: checked by networkx."""

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.secure.graph import Graph, draw_graph, parts
from fedlit.seeding import numpy_generator


def as_networkx(graph: Graph) -> networkx.Graph:
    found = networkx.Graph()
    found.add_nodes_from(graph)
    found.add_edges_from((client, other) for client, others in graph.items() for other in others)
    return found


@settings(max_examples=60, deadline=None)
@given(num=st.integers(3, 16), degree=st.integers(2, 17), seed=st.integers(0, 999))
def test_everybody_has_k_neighbours_and_k_losses_cut_it(num: int, degree: int, seed: int) -> None:
    clients = [5 * client + 2 for client in range(num)]
    graph = draw_graph(clients, degree, numpy_generator(seed, "graph"))
    assert list(graph) == clients
    for client, others in graph.items():
        assert list(others) == sorted(set(others)) and client not in others
        assert all(client in graph[other] for other in others)
    wanted = min(degree, num - 1)
    degrees = sorted(len(others) for others in graph.values())
    both_odd = wanted % 2 == 1 and num % 2 == 1
    assert degrees == [wanted] * (num - both_odd) + [wanted + 1] * both_odd
    assert networkx.node_connectivity(as_networkx(graph)) == wanted


@settings(max_examples=40, deadline=None)
@given(num=st.integers(3, 16), degree=st.integers(2, 5), seed=st.integers(0, 999), data=st.data())
def test_parts_are_the_connected_components(num: int, degree: int, seed: int, data: st.DataObject) -> None:
    graph = draw_graph(range(num), degree, numpy_generator(seed, "graph"))
    kept = sorted(data.draw(st.sets(st.integers(0, num - 1))))
    expected = networkx.connected_components(as_networkx(graph).subgraph(kept))
    assert sorted(parts(graph, kept)) == sorted(sorted(part) for part in expected)


@pytest.mark.parametrize("degree", [None, 4, 7])
def test_no_degree_and_a_large_one_are_everybody(degree: int | None) -> None:
    graph = draw_graph([9, 2, 5, 3, 4], degree, np.random.default_rng(0))
    assert graph == {client: tuple(other for other in (2, 3, 4, 5, 9) if other != client) for client in (2, 3, 4, 5, 9)}


def test_the_order_of_clients_is_drawn() -> None:
    graphs = [draw_graph(range(12), 4, numpy_generator(1, "graph", round_idx=round_idx)) for round_idx in (0, 0, 1)]
    assert graphs[0] == graphs[1] != graphs[2]
    same = draw_graph(list(reversed(range(12))), 4, numpy_generator(1, "graph"))
    assert same == graphs[0]


def test_nobody_has_no_parts() -> None:
    assert draw_graph([], None, np.random.default_rng(0)) == {}
    assert parts({}, []) == []
