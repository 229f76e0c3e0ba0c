"""What travels, as bytes: each kind of message has one fixed size, so traffic is counted without sending anything.

| message | from | holds | bytes |
|---|---|---|---|
| keys | a client; the server hands them on | id, two public keys | 72 |
| share | a client to one neighbour, through the server | owner, holder, two sealed shares | 98 |
| masked vector | a client | 8 bytes an integer | 8 P |
| question | the server | per neighbour: id, whether it sent something | 9 |
| answer | a client | per neighbour: id, which secret, one share | 42 |
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from struct import Struct

from fedlit.secure.primitives import TAG_BYTES
from fedlit.secure.shamir import SHARE_BYTES

KEYS = Struct(">q32s32s")
"""Client, public key for sealing shares, public key for masks."""

PLAIN_SHARES = Struct(f">{SHARE_BYTES}s{SHARE_BYTES}s")
"""A share of the secret mask key and one of the seed of the self mask; never sent like this."""

SHARES = Struct(f">qq{PLAIN_SHARES.size + TAG_BYTES}s")
"""Owner, holder, PLAIN_SHARES sealed."""

QUESTION = Struct(">qB")
"""Owner, which of its secrets a share is asked of."""

ANSWER = Struct(f">qB{SHARE_BYTES}s")
"""Owner, which of its secrets, the share."""

INTEGER_BYTES = 8


class Secret(IntEnum):
    """What the server may learn of a client: one of the two, never both."""

    MASK_KEY = 0
    """of a client that sent nothing: its pairwise masks stand unmatched in what its neighbours sent"""
    SELF_SEED = 1
    """of a client that sent something: its self mask is in the sum"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureBytes:
    """Bytes of one direction, of one client or of several."""

    keys: int = 0
    shares: int = 0
    vectors: int = 0
    unmasking: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.named().values())

    def named(self) -> dict[str, int]:
        """Return them by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __add__(self, other: "SecureBytes") -> "SecureBytes":
        mine, its = self.named(), other.named()
        return SecureBytes(**{name: mine[name] + its[name] for name in mine})


@dataclass(frozen=True, kw_only=True, slots=True)
class SecureTraffic:
    """Bytes of secure aggregation both ways; the model, which travels down as ever, is not among them."""

    uplink: SecureBytes = SecureBytes()
    downlink: SecureBytes = SecureBytes()

    def __add__(self, other: "SecureTraffic") -> "SecureTraffic":
        return SecureTraffic(uplink=self.uplink + other.uplink, downlink=self.downlink + other.downlink)


def traffic_of_client(
    num_neighbours: int, *, num_integers: int, sent: bool = True, asked: bool = True, answered: bool = True
) -> SecureTraffic:
    """Return the bytes of one client in a round.

    Args:
        num_neighbours: k; all of them are invited, and all share keys.
        num_integers: P, of all sums of the round together.
        sent: it sent its masked vectors.
        asked: the server asked it for shares (of those who sent, in a round that is not void before).
        answered: it gave them.
    """
    members = num_neighbours + 1  # a client holds a share of its own seed too
    up = SecureBytes(
        keys=KEYS.size,
        shares=SHARES.size * num_neighbours,
        vectors=INTEGER_BYTES * num_integers if sent else 0,
        unmasking=ANSWER.size * members if answered else 0,
    )
    down = SecureBytes(
        keys=KEYS.size * num_neighbours,
        shares=SHARES.size * num_neighbours,
        unmasking=QUESTION.size * members if asked else 0,
    )
    return SecureTraffic(uplink=up, downlink=down)
