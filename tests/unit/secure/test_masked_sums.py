"""A masked round gives the plain sum to the bit, whoever is lost, or is void for a reason that can be checked."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_rounds import masked, plain_sum, run_round, vectors_of

from fedlit.round.fixed_point import FixedPointSum, decode, encode
from fedlit.secure import SecureAggregation
from fedlit.secure.channel import MaskedChannel
from fedlit.secure.graph import parts
from fedlit.secure.messages import Secret

Gone = Callable[[set[int]], None]


@pytest.fixture
def vanish(monkeypatch: pytest.MonkeyPatch) -> Gone:
    """Say which clients vanish after they have sent."""

    def say(gone: set[int]) -> None:
        monkeypatch.setattr(SecureAggregation, "vanishes", lambda self, round_idx, client: client in gone)

    return say


def is_void(settings_: SecureAggregation, channel: MaskedChannel, senders: list[int], round_idx: int) -> bool:
    """Return whether the paper's conditions fail, from the graph alone."""
    graph = channel._graph
    if senders and (len(senders) < 3 or len(parts(graph, senders)) > 1):
        return True
    there = {client for client in senders if not settings_.vanishes(round_idx, client)}
    for owner, others in graph.items():
        if owner in senders or set(others) & set(senders):
            held = len(there & {owner, *others})
            if Fraction(held, len(others) + 1) < Fraction(str(settings_.threshold)):
                return True
    return False


@settings(max_examples=80, deadline=None)
@given(
    num=st.integers(3, 12),
    degree=st.none() | st.integers(2, 8),
    threshold=st.sampled_from([0.51, 0.6, 0.6667, 1.0]),
    dropout=st.sampled_from([0.0, 0.0, 0.1, 0.3]),
    num_processes=st.integers(1, 4),
    seed=st.integers(0, 9999),
    data=st.data(),
)
def test_the_sum_is_the_plain_one_to_the_bit(
    num: int,
    degree: int | None,
    threshold: float,
    dropout: float,
    num_processes: int,
    seed: int,
    data: st.DataObject,
) -> None:
    invited = sorted(data.draw(st.sets(st.integers(0, 60), min_size=num, max_size=num)))
    lost = data.draw(st.sets(st.sampled_from(invited), max_size=3))
    vectors = vectors_of(set(invited) - lost, data.draw(st.integers(1, 40)), seed)
    protocol = SecureAggregation(seed=seed, threshold=threshold, neighbours=degree, unmask_dropout=dropout)
    round_idx = seed % 5
    total, reason = run_round(protocol, invited, vectors, round_idx=round_idx, num_processes=num_processes)
    channel = MaskedChannel(protocol, round_idx, invited, list(vectors))
    assert (total is None) == is_void(protocol, channel, list(vectors), round_idx), reason
    if total is not None:
        assert torch.equal(total, plain_sum(vectors, len(total)))


@pytest.mark.parametrize(("degree", "num_processes"), [(None, 1), (4, 2), (5, 3), (None, 4)])
def test_long_vectors_with_both_kinds_of_losses(vanish: Gone, degree: int | None, num_processes: int) -> None:
    vanish({3, 14})
    vectors = vectors_of(set(range(20)) - {2, 11}, 2**18 + 40_001)
    protocol = SecureAggregation(seed=3, neighbours=degree, threshold=0.51)
    total, reason = run_round(protocol, range(20), vectors, num_processes=num_processes)
    assert reason is None and total is not None
    assert torch.equal(total, plain_sum(vectors, len(total)))


def test_masks_come_off_before_the_sum_of_processes_or_after_it() -> None:
    invited, senders, num = list(range(9)), [0, 1, 3, 4, 5, 7, 8], 1000
    vectors = vectors_of(senders, num)
    protocol = SecureAggregation(seed=1, threshold=0.6)
    before, _ = run_round(protocol, invited, vectors, num_processes=3)
    channel = MaskedChannel(protocol, 0, invited, senders)
    after = plain_sum({client: masked(channel, client, vector) for client, vector in vectors.items()}, num)
    assert channel.close(senders) is None
    assert not torch.equal(after, plain_sum(vectors, num))
    channel.before_reduce(after, 0, 0, 1)
    assert before is not None and torch.equal(before, after)
    assert torch.equal(after, plain_sum(vectors, num))


def test_pieces_of_any_size_are_masked_the_same() -> None:
    vector = vectors_of([4], 100_003)[4]
    sent = [
        masked(MaskedChannel(SecureAggregation(seed=2), 0, [1, 4, 6], [1, 4, 6]), 4, vector, size=size)
        for size in (100_003, 2**15, 777)
    ]
    assert torch.equal(sent[0], sent[1]) and torch.equal(sent[0], sent[2])


def test_what_is_sent_is_new_and_what_was_given_stays() -> None:
    vector = torch.arange(10)
    sent = masked(MaskedChannel(SecureAggregation(seed=2), 0, [0, 1, 2], [0, 1, 2]), 1, vector)
    assert torch.equal(vector, torch.arange(10)) and not torch.equal(sent, vector)


def test_floats_through_the_fixed_point_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    server = {
        "a": torch.randn(3, 7, generator=generator, dtype=torch.float64),
        "b": torch.randn(5, generator=generator),
    }
    clients = {
        c: {n: t + torch.randn(t.shape, generator=generator, dtype=t.dtype) for n, t in server.items()}
        for c in range(6)
    }
    senders = [0, 1, 2, 4, 5]
    channel = MaskedChannel(SecureAggregation(seed=0, threshold=0.6), 7, range(6), senders)
    plain, secure = FixedPointSum(server), FixedPointSum(server)
    for client in senders:
        plain.add(encode(clients[client], server, 1 / 6))
        secure.add(channel.sent(client, encode(clients[client], server, 1 / 6), 0))
    assert channel.close(senders) is None
    channel.before_reduce(secure._buffer, 0, 0, 1)
    ours, theirs = decode(secure.reduce(), server, 5 / 6), decode(plain.reduce(), server, 5 / 6)
    assert all(torch.equal(ours[name], theirs[name]) for name in server)


def test_several_sums_of_a_round_have_one_set_of_keys(vanish: Gone) -> None:
    vanish(set())
    senders, first, second = [0, 1, 2, 4], vectors_of([0, 1, 2, 4], 50, 1), vectors_of([0, 1, 2, 4], 80, 2)
    channel = MaskedChannel(SecureAggregation(seed=0, threshold=0.7), 0, range(5), senders)
    sums = [plain_sum({c: masked(channel, c, v) for c, v in first.items()}, 50)]
    assert channel.close(senders, num_sums=2) is None
    channel.before_reduce(sums[0], 0, 0, 1)
    sums.append(plain_sum({c: masked(channel, c, v, 1) for c, v in second.items()}, 80))
    channel.before_reduce(sums[1], 1, 0, 1)
    assert torch.equal(sums[0], plain_sum(first, 50)) and torch.equal(sums[1], plain_sum(second, 80))


def test_one_client_sends_once_to_each_sum() -> None:
    channel = MaskedChannel(SecureAggregation(seed=0), 0, range(3), [0, 1])
    channel.sent(0, [], 0)
    channel.sent(0, [], 1)
    for client, sum_index in ((0, 0), (0, 1), (2, 0), (7, 0)):
        with pytest.raises(AssertionError):
            channel.sent(client, [], sum_index)
    with pytest.raises(AssertionError):
        channel.close([1])  # client 0 has sent something


def test_exactly_t_shares_suffice_and_one_fewer_is_void(vanish: Gone) -> None:
    num = 10
    vectors = vectors_of(range(num), 20)
    protocol = SecureAggregation(seed=4, threshold=0.7)
    vanish(set(range(3)))
    total, _ = run_round(protocol, range(num), vectors)
    assert total is not None and torch.equal(total, plain_sum(vectors, 20))
    vanish(set(range(4)))
    channel = MaskedChannel(protocol, 0, range(num), range(num))
    assert channel.close(range(num)) == (
        "the self mask of client 0 cannot be taken off: 6 of 10 holders gave a share, 7 are needed "
        "(privacy.threshold=0.7)"
    )
    assert channel.aborted is not None
    assert (channel.aborted.client_id, channel.aborted.shares) == (0, 6)
    assert (channel.aborted.holders, channel.aborted.needed) == (10, 7)
    with pytest.raises(AssertionError):
        channel.before_reduce(torch.zeros(20, dtype=torch.int64), 0, 0, 1)


def test_a_lost_client_needs_shares_of_its_key() -> None:
    channel = MaskedChannel(SecureAggregation(seed=4, threshold=0.9), 0, range(5), range(4))
    assert channel.close([0, 1, 2, 3]) == (
        "the masks with its neighbours of client 4 cannot be taken off: 4 of 5 holders gave a share, 5 are needed "
        "(privacy.threshold=0.9)"
    )


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([], None),
        ([2], "1 client sent something, and the sum of one client is its own change; 3 or more are needed"),
        (
            [2, 3],
            "2 clients sent something, and each of two clients could compute the other's change; 3 or more are needed",
        ),
    ],
)
def test_a_sum_of_one_or_two_is_not_shown(returned: list[int], words: str | None) -> None:
    """And of nobody there is nothing to show: an empty round is a round."""
    channel = MaskedChannel(SecureAggregation(seed=0, threshold=0.51), 0, range(4), range(4))
    for client in returned:
        masked(channel, client, torch.arange(3))
    assert channel.close(returned) == words
    assert {one.downlink.unmasking for one in channel.traffic(3).values()} == {0}
    if words is None:
        buffer = torch.zeros(3, dtype=torch.int64)
        channel.before_reduce(buffer, 0, 0, 1)
        assert torch.equal(buffer, torch.zeros(3, dtype=torch.int64))


def test_nobody_invited_is_an_empty_round() -> None:
    channel = MaskedChannel(SecureAggregation(seed=0), 0, [], [])
    assert channel.close([]) is None and channel.traffic(10) == {}
    channel.before_reduce(torch.zeros(3, dtype=torch.int64), 0, 0, 1)


def test_groups_without_masks_in_common_are_void() -> None:
    """On a ring two losses cut those who are left in two; both sums could be read."""
    protocol = SecureAggregation(seed=0, threshold=0.51, neighbours=2)
    graph = MaskedChannel(protocol, 0, range(10), range(10))._graph
    around = [0, graph[0][0]]
    while len(around) < 10:
        around.append(next(other for other in graph[around[-1]] if other != around[-2]))
    senders = sorted(set(range(10)) - {around[0], around[4]})
    assert MaskedChannel(protocol, 0, range(10), senders).close(senders) == (
        "those who sent something fall into 2 groups that share no masks, and the sum of the smallest, 3 of 8, could "
        "be read; raise privacy.neighbours"
    )


def test_a_client_gone_between_two_sums_makes_the_round_void(vanish: Gone) -> None:
    vanish({3})
    for num_sums, words in (
        (1, None),
        (
            2,
            "client 3 vanished before the second of 2 sums; its seed is known by then, so its mask key must not be; "
            "set privacy.unmask_dropout=0 or take a rule that asks one sum",
        ),
    ):
        channel = MaskedChannel(SecureAggregation(seed=0, threshold=0.51), 0, range(6), range(6))
        assert channel.close(range(6), num_sums=num_sums) == words


@settings(max_examples=40, deadline=None)
@given(num=st.integers(4, 10), degree=st.none() | st.integers(2, 6), seed=st.integers(0, 999), data=st.data())
def test_the_server_never_gets_shares_of_both_secrets(
    num: int, degree: int | None, seed: int, data: st.DataObject
) -> None:
    """What holders answer is watched, over all processes and two sums: seeds of those who sent, keys of the others."""
    answered: set[tuple[int, Secret]] = set()
    answer = MaskedChannel._answer

    def watched(self: MaskedChannel, holder: int, owner: int, which: Secret) -> bytes:
        answered.add((owner, which))
        return answer(self, holder, owner, which)

    lost = data.draw(st.sets(st.integers(0, num - 1), max_size=num // 3))
    senders = sorted(set(range(num)) - lost)
    protocol = SecureAggregation(seed=seed, threshold=0.51, neighbours=degree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskedChannel, "_answer", watched)
        for process in range(2):
            channel = MaskedChannel(protocol, 0, range(num), senders)
            if channel.close(senders) is None:
                for sum_index in (0, 1):
                    channel.before_reduce(torch.zeros(3, dtype=torch.int64), sum_index, process, 2)
    assert all((which is Secret.SELF_SEED) == (owner in senders) for owner, which in answered)


def test_a_second_secret_of_one_client_is_refused() -> None:
    channel = MaskedChannel(SecureAggregation(seed=0), 0, range(4), range(4))
    channel.close(range(4))
    channel.before_reduce(torch.zeros(3, dtype=torch.int64), 0, 0, 1)
    with pytest.raises(AssertionError, match="client 2 would show both of its secrets"):
        channel._recovered(2, Secret.MASK_KEY)


def test_who_vanishes_is_drawn_for_each_round_and_client() -> None:
    protocol = SecureAggregation(seed=0, unmask_dropout=0.25)
    drawn = [[protocol.vanishes(round_idx, client) for client in range(100)] for round_idx in range(20)]
    assert sum(map(sum, drawn)) == pytest.approx(500, abs=5 * math.sqrt(2000 * 0.25 * 0.75))
    assert all(one != other for one, other in pairwise(drawn))
    assert not any(SecureAggregation(seed=0).vanishes(0, client) for client in range(100))
