"""What is refused in one line, what stays out of memory, and the bytes by a hand count."""

import subprocess
import sys
from itertools import chain

import pytest
from masked_rounds import run_round, vectors_of

from fedlit.errors import UserError
from fedlit.secure import SecureAggregation, SecureTraffic, primitives
from fedlit.secure.channel import MaskedChannel
from fedlit.secure.messages import ANSWER, KEYS, QUESTION, SHARES
from fedlit.secure.players import sealing_key


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"threshold": 0.5},
            "privacy.threshold=0.5: a server that asks one half of a client's neighbours for each of its two secrets "
            "would get both; take more than 0.5 and at most 1",
        ),
        (
            {"neighbours": 1},
            "privacy.neighbours=1: the masks of pairs leave sums of two clients readable; take 2 or more, or null for "
            "all clients of the round",
        ),
        ({"unmask_dropout": 1.5}, "privacy.unmask_dropout=1.5: a share of clients; take 0 to 1"),
    ],
)
def test_options_that_hide_nothing_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError) as caught:
        SecureAggregation(seed=0, **options)  # type: ignore[arg-type]
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (
            1,
            "privacy.secure_aggregation=true with rounds of 1 client: the sum of one client is its own change; take "
            "cohort_size=3 or more",
        ),
        (
            2,
            "privacy.secure_aggregation=true with rounds of 2 clients: each of two clients could compute the other's "
            "change; take cohort_size=3 or more",
        ),
    ],
)
def test_rounds_of_one_or_two_are_refused_before_the_run(size: int, words: str) -> None:
    with pytest.raises(UserError) as caught:
        SecureAggregation.require_cohort(size)
    assert str(caught.value) == words
    SecureAggregation.require_cohort(3)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(primitives, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        SecureAggregation(seed=0)
    assert str(caught.value) == (
        "privacy.secure_aggregation=true needs the library cryptography, which is not installed; pip install "
        "'fedlit[privacy]', or set privacy.secure_aggregation=false"
    )


def test_torch_and_the_library_are_imported_where_a_round_begins() -> None:
    code = (
        "import sys\nfrom fedlit.secure import SecureAggregation\n"
        "SecureAggregation(seed=0).expected_traffic(5, 100)\n"
        "print([name for name in ('torch', 'cryptography.hazmat') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("threshold", "members", "needed"),
    [(0.55, 100, 55), (0.7, 10, 7), (0.6667, 3, 3), (0.6667, 4, 3), (0.6667, 6, 5), (0.6667, 9, 7), (1.0, 8, 8)],
)
def test_the_threshold_is_rounded_up_from_the_decimal_as_written(threshold: float, members: int, needed: int) -> None:
    """0.55 * 100 is 55.000000000000007 in binary."""
    assert SecureAggregation(seed=0, threshold=threshold).num_shares_needed(members - 1) == needed


def test_the_default_is_the_papers_bound() -> None:
    for members in range(3, 2000):
        assert SecureAggregation(seed=0).num_shares_needed(members - 1) == 2 * members // 3 + 1


def test_bytes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five clients, all neighbours of one another; client 4 is lost, client 0 vanishes after it has sent."""
    monkeypatch.setattr(SecureAggregation, "vanishes", lambda self, round_idx, client: client == 0)
    channel = MaskedChannel(SecureAggregation(seed=0, threshold=0.6), 0, range(5), range(5))
    assert channel.close([0, 1, 2, 3]) is None
    found = {client: (one.uplink.named(), one.downlink.named()) for client, one in channel.traffic(10).items()}
    down = {"keys": 4 * 72, "shares": 4 * 98, "vectors": 0, "unmasking": 5 * 9}
    helps = {"keys": 72, "shares": 4 * 98, "vectors": 80, "unmasking": 5 * 42}
    assert found == {
        0: ({**helps, "unmasking": 0}, down),
        **dict.fromkeys((1, 2, 3), (helps, down)),
        4: ({**helps, "vectors": 0, "unmasking": 0}, {**down, "unmasking": 0}),
    }
    total = sum(channel.traffic(10).values(), start=SecureTraffic())
    assert total.uplink.total == 5 * 72 + 20 * 98 + 4 * 80 + 3 * 5 * 42
    assert total.downlink.total == 20 * 72 + 20 * 98 + 4 * 45


def test_sizes_are_those_of_the_messages() -> None:
    channel = MaskedChannel(SecureAggregation(seed=0), 0, range(4), range(4))
    owner = channel._player(1)
    assert len(owner.keys_message) == KEYS.size == 8 + 2 * 32
    for holder in (0, 2, 3):
        key = sealing_key(owner.sealing_agreement(channel._player(holder).keys_message), 0, 1, holder)
        assert len(owner.shares_message(holder, key)) == SHARES.size == 2 * 8 + 2 * 33 + 16
    channel.close(range(4))
    for holder, which in chain.from_iterable(
        ((holder, which) for _, which in channel._needed()) for holder in range(4)
    ):
        assert len(channel._answer(holder, 1, which)) == ANSWER.size == 8 + 1 + 33
    assert QUESTION.size == 9


@pytest.mark.parametrize("degree", [None, 2, 3, 6])
def test_what_a_round_will_cost_is_known_before(degree: int | None) -> None:
    protocol = SecureAggregation(seed=0, neighbours=degree)
    channel = MaskedChannel(protocol, 5, range(9), range(9))
    channel.close(range(9))
    assert sum(channel.traffic(77).values(), start=SecureTraffic()) == protocol.expected_traffic(9, 77)


def test_two_processes_draw_the_same_round() -> None:
    """Nothing depends on what was asked before, or by whom."""
    vectors = vectors_of(range(6), 30)
    protocol = SecureAggregation(seed=3, neighbours=4)
    first, _ = run_round(protocol, range(6), vectors, round_idx=9)
    second, _ = run_round(SecureAggregation(seed=3, neighbours=4), range(6), vectors, round_idx=9, num_processes=6)
    assert first is not None and second is not None and first.equal(second)


def test_neighbours_are_drawn_anew_each_round() -> None:
    protocol = SecureAggregation(seed=3, neighbours=4)
    graphs = [MaskedChannel(protocol, round_idx, range(20), [])._graph for round_idx in (0, 0, 1)]
    assert graphs[0] == graphs[1] != graphs[2]
    assert MaskedChannel(SecureAggregation(seed=4, neighbours=4), 0, range(20), [])._graph != graphs[0]
