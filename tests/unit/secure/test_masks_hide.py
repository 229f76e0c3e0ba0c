"""A masked vector alone, and all that a server holds before it unmasks, is uniform and tells nothing of the vector."""

import hashlib
import hmac
from collections import Counter

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from masked_rounds import masked
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from fedlit.round.fixed_point import encode
from fedlit.secure import SecureAggregation
from fedlit.secure.channel import MaskedChannel
from fedlit.secure.masks import MaskSum
from fedlit.secure.messages import Secret
from fedlit.secure.players import sealing_key, self_mask_key
from fedlit.secure.primitives import BLOCK, KeyStream

NUM = 200_000
SENDERS = [3, 5, 8, 9, 12]


def channel(round_idx: int = 0, degree: int | None = None) -> MaskedChannel:
    return MaskedChannel(SecureAggregation(seed=7, threshold=0.6, neighbours=degree), round_idx, [1, *SENDERS], SENDERS)


@pytest.fixture(scope="module")
def plain() -> Tensor:
    """What a client would send without masks: changes of 1e-3, far from uniform."""
    server = {"weight": torch.zeros(NUM)}
    values = {"weight": 1e-3 * torch.randn(NUM, generator=torch.Generator().manual_seed(0))}
    return torch.cat(list(encode(values, server, 0.2)))


def require_uniform(vector: Tensor) -> None:
    """Bits of all 64 places, bytes of all 8, bits of neighbouring integers: each within what chance allows."""
    integers: NDArray[np.uint64] = vector.numpy().view(np.uint64)
    ones = [int(((integers >> np.uint64(place)) & np.uint64(1)).sum()) for place in range(64)]
    assert all(abs(count - NUM / 2) < 5 * (NUM / 4) ** 0.5 for count in ones)
    columns = integers.view(np.uint8).reshape(NUM, 8)
    for column in columns.T:
        assert stats.chisquare(np.bincount(column, minlength=256)).pvalue > 1e-4
    same = [int(((~(integers[1:] ^ integers[:-1]) >> np.uint64(place)) & np.uint64(1)).sum()) for place in range(64)]
    assert all(abs(count - NUM / 2) < 5 * (NUM / 4) ** 0.5 for count in same)


def correlation(one: Tensor, other: Tensor) -> float:
    """Return the correlation of two vectors, times the root of their length: standard normal if unrelated."""
    return float(np.corrcoef(one.double().numpy(), other.double().numpy())[0, 1]) * NUM**0.5


def require_unrelated(one: Tensor, other: Tensor) -> None:
    """Neither as numbers nor in any bit."""
    assert abs(correlation(one, other)) < 5
    differ = (one ^ other).numpy().view(np.uint64)
    for place in range(64):
        count = int(((differ >> np.uint64(place)) & np.uint64(1)).sum())
        assert abs(count - NUM / 2) < 5 * (NUM / 4) ** 0.5


def test_the_tests_see_what_is_not_uniform(plain: Tensor) -> None:
    with pytest.raises(AssertionError):
        require_uniform(plain)
    with pytest.raises(AssertionError):
        require_uniform(plain * 2**20)
    with pytest.raises(AssertionError):
        require_unrelated(plain, plain + 1)
    mask = masked(channel(), 5, torch.zeros(NUM, dtype=torch.int64))
    with pytest.raises(AssertionError):
        require_unrelated(mask, mask + plain)


@pytest.mark.parametrize("degree", [None, 2])
def test_a_masked_vector_is_uniform_and_unrelated_to_the_plain_one(plain: Tensor, degree: int | None) -> None:
    for client in SENDERS[:3]:
        sent = masked(channel(degree=degree), client, plain)
        require_uniform(sent)
        assert abs(correlation(sent, plain)) < 5


def test_masks_of_clients_sums_and_rounds_are_unrelated() -> None:
    nothing = torch.zeros(NUM, dtype=torch.int64)
    first = channel()
    masks = [
        masked(first, 5, nothing),
        masked(first, 8, nothing),
        masked(first, 5, nothing, 1),
        masked(first, 5, nothing, 2),
        masked(channel(1), 5, nothing),
    ]
    for place, mask in enumerate(masks):
        for other in masks[:place]:
            require_unrelated(mask, other)
            require_uniform(mask - other)


def test_no_key_is_used_for_two_masks() -> None:
    """A pair's key stands with both of its clients, a client's own with itself, each in one sum of one round."""
    used = Counter(
        key
        for round_idx in (0, 1)
        for sum_index in (0, 1, 2)
        for client in (1, *SENDERS)
        for key, _ in channel(round_idx)._masks_on(client, sum_index)
    )
    assert Counter(used.values()) == {1: 2 * 3 * 6, 2: 2 * 3 * 15}


def test_each_kind_of_mask_hides_alone(plain: Tensor) -> None:
    """The pairwise masks when the seed of the self mask is known, and the self mask when all pairwise ones are: a
    server that takes a client for lost holds its key, and the vector may still come.
    """
    round_ = channel()
    own = [(self_mask_key(round_._player(5).self_seed, 0, 0, 5), 1)]
    pairs = [(round_._pair_mask_key(5, other, 0), 1 if other > 5 else -1) for other in (1, 3, 8, 9, 12)]
    sent = masked(round_, 5, plain)
    for known in (own, pairs):
        left = sent - torch.from_numpy(MaskSum(known).take(NUM))
        require_uniform(left)
        assert abs(correlation(left, plain)) < 5
    assert torch.equal(sent - torch.from_numpy(MaskSum(own + pairs).take(NUM)), plain)


def test_a_sum_of_some_is_uniform_too(plain: Tensor) -> None:
    """Also after the self masks are off: pairwise masks cancel in the sum of all only."""
    round_ = channel()
    for clients in ([3, 5], SENDERS[:-1]):
        total = sum((masked(round_, client, plain, len(clients)) for client in clients), start=torch.zeros_like(plain))
        require_uniform(total)
        seeds = [(self_mask_key(round_._player(client).self_seed, 0, len(clients), client), 1) for client in clients]
        require_uniform(total - torch.from_numpy(MaskSum(seeds).take(NUM)))


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with no salt, 32 bytes."""
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\1", "sha256")


def stream(key: bytes, num: int) -> NDArray[np.uint64]:
    """ChaCha20 of a key, at once."""
    cipher = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * num)), dtype="<u8")


def test_what_is_sent_is_the_papers_equation() -> None:
    """y_u = x_u + PRG(b_u) + sum over v > u of PRG(s_uv) - sum over v < u of PRG(s_uv) mod R, in Python's integers."""
    round_ = MaskedChannel(SecureAggregation(seed=7), 2, [1, *SENDERS], SENDERS)
    num = BLOCK + 77
    values = torch.randint(-(2**62), 2**62, (num,), generator=torch.Generator().manual_seed(0))
    sent = masked(round_, 8, values, 1)
    me = round_._player(8)
    expected = values.numpy().astype(object)
    words = [number.to_bytes(8, "big") for number in (2, 1, 8)]
    expected = expected + stream(hkdf(me.self_seed, b"fedlit/self mask" + b"".join(words)), num).astype(object)
    for other in (1, 3, 5, 9, 12):
        shared = me.mask_pair.agree(round_._player(other).mask_pair.public)
        pair = b"".join(number.to_bytes(8, "big") for number in (2, 1, min(8, other), max(8, other)))
        mask = stream(hkdf(shared, b"fedlit/pair mask" + pair), num).astype(object)
        expected = expected + mask if other > 8 else expected - mask
    assert [value % 2**64 for value in expected] == [value % 2**64 for value in sent.tolist()]


def test_the_stream_is_that_of_the_standard() -> None:
    """RFC 8439, appendix A.1, test vector 1; and blocks follow one another."""
    block = np.empty(8, dtype=np.int64)
    KeyStream(bytes(32)).fill(block)
    assert block.astype("<i8").tobytes().hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    whole, parts, cut = np.empty(BLOCK, dtype=np.int64), KeyStream(b"k" * 32), []
    KeyStream(b"k" * 32).fill(whole)
    for size in (5, 1, 1000, BLOCK - 1006):
        cut.append(np.empty(size, dtype=np.int64))
        parts.fill(cut[-1])
    assert np.array_equal(np.concatenate(cut), whole)


def test_masks_never_change_without_a_word() -> None:
    """No sum would tell: other masks cancel as well."""
    sent = masked(MaskedChannel(SecureAggregation(seed=1), 3, [0, 2, 5, 7], [0, 2, 5, 7]), 2, torch.arange(1000), 1)
    digest = hashlib.sha256(sent.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "45b4eb32911d2317c4e84cb32788849521ebea92c86682a2d9773d24ea378a10"


def test_shares_can_be_opened_by_their_holder_alone() -> None:
    round_ = channel()
    owner, holder, other = (round_._player(client) for client in (3, 5, 8))
    agreement = owner.sealing_agreement(holder.keys_message)
    assert agreement == holder.sealing_agreement(owner.keys_message)
    message = owner.shares_message(5, sealing_key(agreement, 0, 3, 5))
    assert holder.read_shares(message, sealing_key(agreement, 0, 3, 5)) == owner.shares[5]
    assert owner.shares[5] not in message and owner.shares[5][:33] not in message
    wrong = [
        (other, sealing_key(other.sealing_agreement(owner.keys_message), 0, 3, 8)),  # another's own key
        (other, sealing_key(agreement, 0, 3, 5)),  # the right key, told to another
        (holder, sealing_key(agreement, 0, 5, 3)),  # that of the answer
        (holder, sealing_key(agreement, 1, 3, 5)),  # of another round
        (holder, sealing_key(holder.sealing_agreement(other.keys_message), 0, 3, 5)),
    ]
    for reader, key in wrong:
        with pytest.raises(ValueError, match="a sealed share was not made with this key for this receiver"):
            reader.read_shares(message, key)
    for place in (0, 20, len(message) - 1):
        changed = bytes([*message[:place], message[place] ^ 1, *message[place + 1 :]])
        with pytest.raises(ValueError, match="a sealed share"):
            holder.read_shares(changed, sealing_key(agreement, 0, 3, 5))


def test_a_clients_secrets_are_its_own_and_new_each_round() -> None:
    players = [channel(round_idx)._player(client) for round_idx in (0, 1) for client in (3, 5)]
    secrets = {player.secret(which) for player in players for which in Secret}
    publics = {player.keys_message[8:40] for player in players} | {player.keys_message[40:] for player in players}
    assert len(secrets) == 8 and len(publics) == 8 and not secrets & publics
