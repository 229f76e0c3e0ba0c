"""A client of one round, as any process can play it.

In a deployment a client draws its secrets from its own machine's randomness and they never leave it. Here they come
from a named stream (`secure/client`, round, client), whose seed has 63 bits and is known to every process: masks are
made and taken off as they would be, but they hide nothing from whoever runs the simulation.
"""

from functools import cached_property
from struct import Struct

from fedlit.secure.messages import KEYS, PLAIN_SHARES, SHARES, Secret
from fedlit.secure.primitives import KEY_BYTES, KeyPair, derive, seal, unseal
from fedlit.secure.shamir import SHARE_BYTES, coefficients, drawn_bytes, share
from fedlit.seeding import numpy_generator

_PAIR_INFO = Struct(">qqqq")
_SELF_INFO = Struct(">qqq")
_SHARE_INFO = Struct(">qqq")


class Player:
    """One client in one round.

    Args:
        seed: of the run.
        round_idx: from 0.
        client_id: its own.
        neighbours: of its graph, in ascending order.
        threshold: t, how many shares give one of its secrets back. Its n = k + 1 shares are of its k neighbours and of
            itself, as in the paper.
    """

    def __init__(self, seed: int, round_idx: int, client_id: int, neighbours: tuple[int, ...], threshold: int) -> None:
        draws = numpy_generator(seed, "secure/client", round_idx=round_idx, client_id=client_id)
        self.client_id = client_id
        self.neighbours = neighbours
        self.members = tuple(sorted((client_id, *neighbours)))
        self.threshold = threshold
        self._round_idx = round_idx
        self._sealing = KeyPair(draws.bytes(KEY_BYTES))
        self.mask_pair = KeyPair(draws.bytes(KEY_BYTES))
        self.self_seed = draws.bytes(KEY_BYTES)
        self._higher = {secret: draws.bytes(drawn_bytes(threshold)) for secret in Secret}

    @cached_property
    def keys_message(self) -> bytes:
        """Its two public keys, as it sends them."""
        return KEYS.pack(self.client_id, self._sealing.public, self.mask_pair.public)

    def point(self, holder: int) -> int:
        """Return where the polynomials of this client's secrets are evaluated for a holder: its place, from 1."""
        return self.members.index(holder) + 1

    def secret(self, which: Secret) -> bytes:
        """Return one of the two secrets that are shared."""
        return self.mask_pair.secret if which is Secret.MASK_KEY else self.self_seed

    @cached_property
    def shares(self) -> dict[int, bytes]:
        """PLAIN_SHARES of both secrets for each holder, itself included."""
        points = range(1, len(self.members) + 1)
        columns = [
            share(int.from_bytes(self.secret(which), "big"), coefficients(self._higher[which]), points)
            for which in (Secret.MASK_KEY, Secret.SELF_SEED)
        ]
        return {
            holder: PLAIN_SHARES.pack(*(value.to_bytes(SHARE_BYTES, "big") for value in values))
            for holder, *values in zip(self.members, *columns, strict=True)
        }

    def sealing_agreement(self, keys_message: bytes) -> bytes:
        """Return what this client and the sender of the keys agree on for sealing shares."""
        return self._sealing.agree(KEYS.unpack(keys_message)[1])

    def mask_agreement(self, keys_message: bytes) -> bytes:
        """Return what this client and the sender of the keys agree on for their masks."""
        return self.mask_pair.agree(KEYS.unpack(keys_message)[2])

    def shares_message(self, holder: int, key: bytes) -> bytes:
        """Return this client's shares for one neighbour, sealed with `sealing_key`: no other can read them."""
        context = _SHARE_INFO.pack(self._round_idx, self.client_id, holder)
        return SHARES.pack(self.client_id, holder, seal(key, self.shares[holder], context))

    def read_shares(self, message: bytes, key: bytes) -> bytes:
        """Return the PLAIN_SHARES in a message to this client.

        Raises:
            ValueError: it is for somebody else, or from another round.
        """
        owner, _, sealed = SHARES.unpack(message)
        context = _SHARE_INFO.pack(self._round_idx, owner, self.client_id)
        return unseal(key, sealed, context)


def sealing_key(agreement: bytes, round_idx: int, owner: int, holder: int) -> bytes:
    """Return the key of the one message with an owner's shares for a holder."""
    return derive(agreement, b"fedlit/shares" + _SHARE_INFO.pack(round_idx, owner, holder))


def pair_mask_key(agreement: bytes, round_idx: int, sum_index: int, first: int, second: int) -> bytes:
    """Return the key of the mask that two clients share in one sum of a round; equal for both orders of the two."""
    ids = min(first, second), max(first, second)
    return derive(agreement, b"fedlit/pair mask" + _PAIR_INFO.pack(round_idx, sum_index, *ids))


def self_mask_key(seed: bytes, round_idx: int, sum_index: int, client_id: int) -> bytes:
    """Return the key of a client's self mask in one sum of a round."""
    return derive(seed, b"fedlit/self mask" + _SELF_INFO.pack(round_idx, sum_index, client_id))


def pair_sign(client_id: int, other: int) -> int:
    """Return the sign with which a client adds the mask it shares with another: the two cancel."""
    return 1 if client_id < other else -1
