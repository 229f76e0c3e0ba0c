import math
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedlit.errors import UserError
from fedlit.partition.dealing import _log_dirichlet, dirichlet, iid, natural, pathological, quantity

LABELS = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=80).filter(lambda labels: len(set(labels)) > 1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def check_equal_and_disjoint(shards: list[list[int]], num_rows: int, num_clients: int) -> None:
    assert [len(shard) for shard in shards] == [num_rows // num_clients] * num_clients
    numbers = [i for shard in shards for i in shard]
    assert len(numbers) == len(set(numbers)) == num_rows - num_rows % num_clients
    assert set(numbers) <= set(range(num_rows))
    assert all(shard == sorted(shard) for shard in shards)
    assert all(type(i) is int for i in numbers)


@given(labels=LABELS, data=st.data(), alpha=st.floats(1e-320, 1.7e308), seed=st.integers(0, 99))
def test_dirichlet_deals_equal_disjoint_shards(labels: list[str], data: st.DataObject, alpha: float, seed: int) -> None:
    num_clients = data.draw(st.integers(1, len(labels)))
    shards = dirichlet(labels, num_clients, alpha, rng(seed))
    check_equal_and_disjoint(shards, len(labels), num_clients)
    assert shards == dirichlet(labels, num_clients, alpha, rng(seed))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [1e-320, 1e-12, 1e-6, 0.1, 1.0, 1e6, 1e300, 1.7e308])
def test_dirichlet_ends_when_labels_are_used_up(alpha: float) -> None:
    labels = ["a"] * 97 + ["b"] + ["c"] * 2
    for seed in range(5):
        for num_clients in (1, 3, 10, 100):
            check_equal_and_disjoint(dirichlet(labels, num_clients, alpha, rng(seed)), 100, num_clients)


def test_dirichlet_depends_on_the_seed_and_on_the_rows_only() -> None:
    labels = list("aabbbccccd") * 10
    assert dirichlet(labels, 4, 0.1, rng(0)) != dirichlet(labels, 4, 0.1, rng(1))
    renamed = [f"label {label}" for label in labels]
    assert dirichlet(labels, 4, 0.1, rng(0)) == dirichlet(renamed, 4, 0.1, rng(0))


def shares(labels: Sequence[str], shards: list[list[int]]) -> NDArray[np.float64]:
    names = sorted(set(labels))
    return np.array([[Counter(labels[i] for i in shard)[name] / len(shard) for name in names] for shard in shards])


def test_large_alpha_gives_the_global_label_frequencies() -> None:
    labels = ["a"] * 12_000 + ["b"] * 6_000 + ["c"] * 2_000
    for alpha in (1e5, 1e300):
        assert np.abs(shares(labels, dirichlet(labels, 4, alpha, rng())) - [0.6, 0.3, 0.1]).max() < 0.03


def test_smaller_alpha_is_dominated_by_fewer_labels() -> None:
    labels = [f"{i % 40:02}" for i in range(4_000)]
    alphas = (1e-6, 1.0, 10.0, 1000.0)
    draws = [np.concatenate([shares(labels, dirichlet(labels, 10, a, rng(s))) for s in range(4)]) for a in alphas]
    largest = [draw.max(axis=1).mean() for draw in draws]
    assert largest == sorted(largest, reverse=True)
    num_labels = [(draw > 0).sum(axis=1).mean() for draw in draws]
    assert num_labels == sorted(num_labels)
    assert num_labels[0] < 10  # of 40 labels; 4 would be a client with whole labels only
    assert num_labels[-1] > 35


def naive(labels: Sequence[str], num_clients: int, alpha: float, rng: np.random.Generator) -> list[list[int]]:
    """The published procedure in plain probabilities, with NumPy's own Dirichlet and choice."""
    names = sorted(set(labels))
    pools = {name: [i for i, label in enumerate(labels) if label == name] for name in names}
    q = rng.dirichlet(alpha * np.array([len(pools[name]) for name in names]) / len(labels), size=num_clients)
    shards: list[list[int]] = [[] for _ in range(num_clients)]
    for _ in range(len(labels) // num_clients):
        for client_id in rng.permutation(num_clients):
            k = rng.choice(len(names), p=q[client_id])
            shards[client_id].append(pools[names[k]].pop(rng.integers(len(pools[names[k]]))))
            if not pools[names[k]]:
                q[:, k] = 0
                q /= np.maximum(q.sum(axis=1, keepdims=True), 1e-300)
    return shards


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_label_shares_are_those_of_the_published_procedure(alpha: float) -> None:
    labels = ["a"] * 60 + ["b"] * 50 + ["c"] * 40 + ["d"] * 10
    means = []
    for function in (dirichlet, naive):
        draws = np.array([shares(labels, function(labels, 4, alpha, rng(seed))) for seed in range(150)])
        largest = draws.max(axis=2)
        means.append((largest.mean(), (draws**2).mean(axis=(0, 1)), largest.std() / largest.size**0.5))
    (mean, squares, error), (naive_mean, naive_squares, naive_error) = means
    assert abs(mean - naive_mean) < 4 * (error + naive_error)
    assert np.allclose(squares, naive_squares, atol=0.03)


def test_rows_of_a_label_are_drawn_at_random() -> None:
    labels = ["a", "b"] * 150
    drawn = [shard[0] for seed in range(20) for shard in dirichlet(labels, 151, 1.0, rng(seed))]  # 149 rows left over
    assert abs(np.mean(drawn) - 149.5) < 6  # standard error about 1


def test_no_client_is_favoured_when_labels_run_out() -> None:
    winners = Counter(
        client_id
        for seed in range(800)
        for client_id, shard in enumerate(dirichlet("abbb", 4, 1e6, rng(seed)))
        if shard == [0]
    )
    assert all(abs(winners[client_id] / 800 - 0.25) < 0.07 for client_id in range(4))  # standard error 0.015


def test_log_dirichlet_is_a_dirichlet() -> None:
    shape = np.array([0.3, 1.5, 4.0])
    log_q = _log_dirichlet(shape, 40_000, rng())
    q = np.exp(log_q) / np.exp(log_q).sum(axis=1, keepdims=True)
    mean = shape / shape.sum()
    assert np.allclose(q.mean(axis=0), mean, atol=0.006)
    assert np.allclose(q.var(axis=0), mean * (1 - mean) / (shape.sum() + 1), atol=0.002)


def test_tiny_alpha_starts_with_labels_in_proportion_to_the_prior() -> None:
    labels = ["a"] * 700 + ["b"] * 300
    firsts = [labels[shard[0]] for s in range(200) for shard in dirichlet(labels, 500, 1e-9, rng(s))[:1]]
    assert 0.6 < firsts.count("a") / 200 < 0.8


@pytest.mark.parametrize("alpha", [1e-6, 0.1, 100.0])
def test_dirichlet_is_fast(alpha: float) -> None:
    labels = [str(i % 16) for i in range(15_000)]
    start = time.process_time()
    dirichlet(labels, 4, alpha, rng())
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_positive_and_finite(alpha: float) -> None:
    with pytest.raises(UserError, match=rf"partition\.alpha={alpha}: not a positive finite number"):
        dirichlet("ab", 1, alpha, rng())


def test_a_single_label_cannot_be_skewed() -> None:
    with pytest.raises(UserError, match=r"the label is 'a' in all rows.*partition.name=iid"):
        dirichlet("aaaa", 2, 0.1, rng())


def test_more_clients_than_rows() -> None:
    with pytest.raises(UserError, match="num_clients=4: more than the 3 rows; set num_clients=3 or less"):
        dirichlet("aab", 4, 0.1, rng())
    with pytest.raises(UserError, match="num_clients=4: more than the 3 rows"):
        iid(3, 4, rng())


@given(num_rows=st.integers(1, 60), data=st.data())
def test_iid_deals_equal_disjoint_shards(num_rows: int, data: st.DataObject) -> None:
    num_clients = data.draw(st.integers(1, num_rows))
    check_equal_and_disjoint(iid(num_rows, num_clients, rng()), num_rows, num_clients)


def test_iid_is_random_and_seeded() -> None:
    assert iid(100, 4, rng(0)) == iid(100, 4, rng(0)) != iid(100, 4, rng(1))
    assert iid(100, 2, rng(0))[0] != list(range(50))


@given(values=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), data=st.data())
def test_natural_deals_whole_values(values: list[str], data: st.DataObject) -> None:
    num_clients = data.draw(st.integers(1, len(set(values))))
    shards = natural(values, num_clients)
    assert sorted(i for shard in shards for i in shard) == list(range(len(values)))
    owned = [{values[i] for i in shard} for shard in shards]
    assert all(owned)
    assert sum(len(own) for own in owned) == len(set(values))
    counts = Counter(values)  # the greedy bound: no client is ahead of another by more than its smallest value
    loads = [len(shard) for shard in shards]
    assert all(load - min(counts[v] for v in own) <= min(loads) for load, own in zip(loads, owned, strict=True))
    names = dict(zip("abcdefgh", "stuvwxyz", strict=True))
    assert natural([names[value] for value in values], num_clients) == shards


def test_natural_largest_first_with_ties_by_name() -> None:
    assert natural("bbaacccd", 3) == [[4, 5, 6], [2, 3, 7], [0, 1]]


def test_natural_with_more_clients_than_values() -> None:
    with pytest.raises(UserError, match=r"num_clients=3: .*the column has 2; set num_clients=2 or less"):
        natural("aabb", 3)


@given(num_rows=st.integers(1, 200), data=st.data(), alpha=st.floats(1e-320, 1.7e308), seed=st.integers(0, 99))
def test_quantity_uses_every_row_once(num_rows: int, data: st.DataObject, alpha: float, seed: int) -> None:
    num_clients = data.draw(st.integers(1, num_rows))
    smallest = data.draw(st.integers(1, num_rows // num_clients))
    shards = quantity(num_rows, num_clients, alpha, smallest, rng(seed))
    assert sorted(i for shard in shards for i in shard) == list(range(num_rows))
    assert all(len(shard) >= smallest and shard == sorted(shard) for shard in shards)
    assert all(type(i) is int for shard in shards for i in shard)
    assert shards == quantity(num_rows, num_clients, alpha, smallest, rng(seed))


def sizes_of(alpha: float, seed: int, num_clients: int = 5) -> NDArray[np.float64]:
    return np.array([len(shard) for shard in quantity(4_000, num_clients, alpha, 1, rng(seed))], dtype=float)


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_quantity_sizes_are_a_dirichlet(alpha: float) -> None:
    sizes = np.array([sizes_of(alpha, seed) for seed in range(600)]) / 4_000
    variance = 0.2 * 0.8 / (5 * alpha + 1)  # of one component of Dir(alpha, ..., alpha)
    assert np.allclose(sizes.mean(axis=0), 0.2, atol=4 * math.sqrt(variance / 600))
    assert np.allclose(sizes.var(axis=0), variance, rtol=0.25)


def test_quantity_at_both_ends_of_alpha() -> None:
    assert max(sizes_of(1e-9, 0)) == 3_996
    assert np.ptp(sizes_of(1e9, 0)) <= 1
    assert np.ptp(sizes_of(1e300, 0)) <= 1


def test_quantity_draws_rows_at_random() -> None:
    labels = np.array([0] * 5_000 + [1] * 5_000)
    for shard in quantity(10_000, 4, 5.0, 500, rng(1)):
        assert abs(labels[shard].mean() - 0.5) < 0.1


def test_quantity_mistakes() -> None:
    with pytest.raises(UserError, match=r"num_clients=5: each needs 9 rows .* there are 40; set num_clients=4 or less"):
        quantity(40, 5, 1.0, 9, rng())
    with pytest.raises(UserError, match="num_clients=4: more than the 3 rows"):
        quantity(3, 4, 1.0, 1, rng())
    with pytest.raises(UserError, match=r"partition\.alpha=0: not a positive"):
        quantity(30, 4, 0, 1, rng())


@given(labels=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=80), data=st.data(), seed=st.integers(0, 99))
def test_pathological_gives_every_client_so_many_labels(labels: list[str], data: st.DataObject, seed: int) -> None:
    counts = Counter(labels)
    num_clients = data.draw(st.integers(1, min(12, len(labels))))
    wanted = data.draw(st.integers(1, len(counts)))
    if sum(min(count, num_clients) for count in counts.values()) < num_clients * wanted:
        with pytest.raises(UserError, match=r"partition\.classes_per_client=.*no more holders than rows"):
            pathological(labels, num_clients, wanted, rng(seed))
        return
    shards = pathological(labels, num_clients, wanted, rng(seed))
    held = [Counter(labels[i] for i in shard) for shard in shards]
    assert [len(own) for own in held] == [wanted] * num_clients
    numbers = [i for shard in shards for i in shard]
    assert len(numbers) == len(set(numbers))
    assert all(shard == sorted(shard) for shard in shards)
    for name, count in counts.items():
        parts = [own[name] for own in held if own[name]]
        assert sum(parts) in (0, count)  # a label is dealt whole, or left over whole
        assert not parts or max(parts) - min(parts) <= 1
    assert len({name for own in held for name in own}) == min(len(counts), num_clients * wanted)
    assert shards == pathological(labels, num_clients, wanted, rng(seed))


def test_pathological_as_mcmahan() -> None:
    labels = [str(i % 10) for i in range(6_000)]
    shards = pathological(labels, 100, 2, rng())
    assert [len(shard) for shard in shards] == [60] * 100
    assert len({tuple(sorted({labels[i] for i in shard})) for shard in shards}) > 30  # of 45 pairs
    assert shards != pathological(labels, 100, 2, rng(1))
    first = [sum(i < 3_000 for i in shard) for shard in shards]
    assert 20 < np.mean(first) < 40
    assert min(first) > 5  # rows of a label are shuffled before they are cut


def test_pathological_gives_more_holders_to_frequent_labels() -> None:
    labels = ["a"] * 600 + ["b"] * 300 + ["c"] * 100 + ["d"]
    shards = pathological(labels, 11, 1, rng())
    names = Counter(labels[shard[0]] for shard in shards)
    assert names == {"a": 6, "b": 3, "c": 1, "d": 1}
    assert sorted(len(shard) for shard in shards) == [1] + [100] * 10


def test_pathological_leaves_the_rarest_labels_over() -> None:
    labels = ["a"] * 5 + ["b"] * 9 + ["c"] * 7 + ["d"] * 6
    assert {labels[i] for shard in pathological(labels, 3, 1, rng()) for i in shard} == {"b", "c", "d"}


def test_pathological_mistakes() -> None:
    with pytest.raises(UserError, match=r"partition\.classes_per_client=3: the rows have 2 labels; set 2 or less"):
        pathological("aabb", 2, 3, rng())
    with pytest.raises(UserError, match="num_clients=5: more than the 4 rows"):
        pathological("aabb", 5, 1, rng())
    with pytest.raises(UserError, match="the 2 labels cannot have 3 x 2 in all; lower it, or num_clients=3"):
        pathological("aaab", 3, 2, rng())
