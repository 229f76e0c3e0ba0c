"""One round of secure aggregation: what its clients send, and how the masks are taken off.

The four rounds of the protocol, n clients invited, P integers each:

0. each client advertises two public keys (X25519), one for sealing shares and one for masks;
1. it shares its secret mask key and the seed of its self mask (Shamir, t of its neighbours and itself), each share
   sealed for its holder;
2. it sends its integers plus a mask of its own plus one with each neighbour, modulo 2**64; in a pair the one with the
   smaller id adds and the other subtracts, so in the sum these cancel;
3. the server says who sent something. Holders give shares of the seeds of those who did and of the mask keys of those
   who did not, never of both, and the server takes off the self masks and the pairwise masks left unmatched.

Several sums of one round are of the same senders, have one set of keys and shares, and masks of their own: the number
of the sum goes into their keys. A client that is lost between two sums makes the round void: its seed is known by then,
so the key that its neighbours' masks need must stay secret.

A process plays the clients it needs: for masks those it trained, for shares and answers those whose secrets it
recovers. Each key is agreed on once for both sides of a pair, since both sides compute the same bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.secure.aggregation import FEWEST, SecureAggregation, too_few
from fedlit.secure.graph import draw_graph, parts
from fedlit.secure.masks import MaskSum
from fedlit.secure.messages import ANSWER, PLAIN_SHARES, Secret, SecureTraffic, traffic_of_client
from fedlit.secure.players import Player, pair_mask_key, pair_sign, sealing_key, self_mask_key
from fedlit.secure.primitives import KeyPair
from fedlit.secure.shamir import SECRET_BYTES, combine
from fedlit.seeding import numpy_generator

_REMOVED_AT_ONCE = 2**17


@dataclass(frozen=True, kw_only=True, slots=True)
class Aborted:
    """Why a round is void.

    reason: one line. client_id: whose masks cannot be taken off, None where it is not about one client's shares.
    shares: how many there are of its secret, of `holders` that were given one; needed: how many it takes.
    """

    reason: str
    client_id: int | None = None
    shares: int = 0
    holders: int = 0
    needed: int = 0

    def __str__(self) -> str:
        return self.reason


class MaskedChannel:
    """The channel of one round; nothing is computed before it is used.

    Args:
        settings: of the run.
        round_idx: from 0.
        invited: ids of the clients that exchange keys and shares.
        arriving: those that may send something.
    """

    def __init__(
        self, settings: SecureAggregation, round_idx: int, invited: Sequence[int], arriving: Sequence[int]
    ) -> None:
        assert set(arriving) <= set(invited) and len(set(invited)) == len(invited)
        self._settings = settings
        self._round_idx = round_idx
        self._invited = tuple(sorted(int(client) for client in invited))
        self._arriving = frozenset(arriving)
        draws = numpy_generator(settings.seed, "secure/graph", round_idx=round_idx)
        self._graph = draw_graph(self._invited, settings.neighbours, draws)
        self._players: dict[int, Player] = {}
        self._sealing_agreements: dict[tuple[int, int], bytes] = {}
        self._mask_agreements: dict[tuple[int, int], bytes] = {}
        self._mask_keys: dict[tuple[int, int, int], bytes] = {}
        self._masked: set[tuple[int, int]] = set()
        self._unmasked: set[int] = set()
        self._senders: tuple[int, ...] | None = None
        self._answering: frozenset[int] = frozenset()
        self._asked = False
        self._revealed: dict[int, tuple[Secret, bytes]] = {}
        self.aborted: Aborted | None = None

    def sent(self, client_id: int, encoded: Iterable[Tensor], sum_index: int) -> Iterator[Tensor]:
        """Yield a client's integers with its masks on, piece by piece as they come, in new tensors.

        Args:
            client_id: of those arriving.
            encoded: P int64 in consecutive flat pieces, on any device.
            sum_index: which sum of the round, from 0. A client sends once to each: two vectors under one mask would
                show their difference.
        """
        assert client_id in self._arriving, f"client {client_id} is not expected to send anything"
        assert (client_id, sum_index) not in self._masked, f"client {client_id} has sent to sum {sum_index} already"
        assert self._senders is None or client_id in self._senders, "all sums of a round have the same senders"
        self._masked.add((client_id, sum_index))
        return self._pieces(MaskSum(self._masks_on(int(client_id), sum_index)), encoded)

    @staticmethod
    def _pieces(masks: MaskSum, encoded: Iterable[Tensor]) -> Iterator[Tensor]:
        for piece in encoded:
            yield piece + torch.from_numpy(masks.take(len(piece))).to(piece.device)

    def _masks_on(self, client_id: int, sum_index: int) -> list[tuple[bytes, int]]:
        """Return the keys and signs of all masks that a client adds."""
        own = self_mask_key(self._player(client_id).self_seed, self._round_idx, sum_index, client_id)
        shared = [
            (self._pair_mask_key(client_id, other, sum_index), pair_sign(client_id, other))
            for other in self._graph[client_id]
        ]
        return [(own, 1), *shared]

    def close(self, returned: Sequence[int], *, num_sums: int = 1) -> str | None:
        """Say which clients sent something, all processes the same; return why the round is void, or None.

        An empty round is not void: there is nothing to unmask. With more than one sum a client that vanishes before it
        helps to unmask the first cannot send to the second: the round is void.
        """
        assert self._senders is None, "a round is closed once"
        assert set(returned) <= self._arriving
        assert {client for client, _ in self._masked} <= set(returned)
        self._senders = tuple(sorted(int(client) for client in returned))
        self._answering = frozenset(
            client for client in self._senders if not self._settings.vanishes(self._round_idx, client)
        )
        self.aborted = self._refused()
        if self.aborted is None:
            self._asked = True
            self.aborted = self._short_of_shares() or self._gone_between(num_sums)
        return None if self.aborted is None else str(self.aborted)

    def _refused(self) -> Aborted | None:
        """Return why the server must not even ask."""
        assert self._senders is not None
        if self._senders and len(self._senders) < FEWEST:
            return Aborted(reason=too_few(len(self._senders)))
        separate = parts(self._graph, self._senders)
        if len(separate) > 1:
            smallest = min(separate, key=len)
            return Aborted(
                reason=f"those who sent something fall into {len(separate)} groups that share no masks, and the sum of "
                f"the smallest, {len(smallest)} of {len(self._senders)}, could be read; raise privacy.neighbours"
            )
        return None

    def _short_of_shares(self) -> Aborted | None:
        """Return the first client of whose secret too few shares are left."""
        for owner, which in self._needed():
            holders = len(self._graph[owner]) + 1
            shares, needed = len(self._holders_of(owner)), self._settings.num_shares_needed(holders - 1)
            if shares < needed:
                what = "self mask" if which is Secret.SELF_SEED else "masks with its neighbours"
                return Aborted(
                    reason=f"the {what} of client {owner} cannot be taken off: {shares} of {holders} holders gave a "
                    f"share, {needed} are needed (privacy.threshold={self._settings.threshold:g})",
                    client_id=owner,
                    shares=shares,
                    holders=holders,
                    needed=needed,
                )
        return None

    def _gone_between(self, num_sums: int) -> Aborted | None:
        """Return that a sender is missing in the second sum of a round that has one."""
        assert self._senders is not None
        gone = [client for client in self._senders if client not in self._answering]
        if num_sums == 1 or not gone:
            return None
        return Aborted(
            reason=f"client {gone[0]} vanished before the second of {num_sums} sums; its seed is known by then, so its "
            "mask key must not be; set privacy.unmask_dropout=0 or take a rule that asks one sum"
        )

    def _needed(self) -> list[tuple[int, Secret]]:
        """Return whose secret the server needs, and which: one of each client that left a mask in the sum."""
        assert self._senders is not None, "who sent something is known after close()"
        senders = set(self._senders)
        lost = [client for client in self._invited if client not in senders]
        lost = [client for client in lost if not senders.isdisjoint(self._graph[client])]
        return [(client, Secret.MASK_KEY) for client in lost] + [(client, Secret.SELF_SEED) for client in self._senders]

    def _holders_of(self, owner: int) -> list[int]:
        """Return who answers about a client, itself included if it is there."""
        return sorted(self._answering.intersection((owner, *self._graph[owner])))

    def before_reduce(self, buffer: Tensor, sum_index: int, process: int, num_processes: int) -> None:
        """Take this process's part of the masks off its own sum, in place, before the sums of all processes are added.

        In a deployment the server does all of it after the sum. Addition modulo 2**64 has no order, so the bits are the
        same, and here the work is shared: the secrets are dealt out among the processes.

        Args:
            buffer: P int64, flat: the sum of the masked vectors of this process's clients.
            sum_index: which sum of the round.
            process: this one's place among num_processes.
            num_processes: all of which call this, once for each sum.
        """
        assert self.aborted is None, "the masks of a void round stay on"
        assert sum_index not in self._unmasked, "masks are taken off once"
        self._unmasked.add(sum_index)
        owners = self._needed()[process::num_processes]
        masks = MaskSum([mask for owner, which in owners for mask in self._masks_left(owner, which, sum_index)])
        if owners:
            for start in range(0, len(buffer), _REMOVED_AT_ONCE):
                part = buffer[start : start + _REMOVED_AT_ONCE]
                part -= torch.from_numpy(masks.take(len(part))).to(part.device)

    def _masks_left(self, owner: int, which: Secret, sum_index: int) -> list[tuple[bytes, int]]:
        """Return the masks that a client left in the sum, from its recovered secret."""
        secret = self._recovered(owner, which)
        if which is Secret.SELF_SEED:
            return [(self_mask_key(secret, self._round_idx, sum_index, owner), 1)]
        assert self._senders is not None
        pair = KeyPair(secret)
        assert pair.public == self._player(owner).mask_pair.public, f"the shares of client {owner}'s key are wrong"
        left = []
        for sender in sorted(set(self._senders).intersection(self._graph[owner])):
            agreement = pair.agree(self._player(sender).mask_pair.public)
            key = pair_mask_key(agreement, self._round_idx, sum_index, owner, sender)
            left.append((key, pair_sign(sender, owner)))
        return left

    def _recovered(self, owner: int, which: Secret) -> bytes:
        """Return a client's secret from the shares of the first t holders that answered."""
        if owner not in self._revealed:
            player = self._player(owner)
            shares = {}
            for holder in self._holders_of(owner)[: player.threshold]:
                _, _, value = ANSWER.unpack(self._answer(holder, owner, which))
                shares[player.point(holder)] = int.from_bytes(value, "big")
            self._revealed[owner] = which, combine(shares).to_bytes(SECRET_BYTES, "big")
        known, secret = self._revealed[owner]
        assert known is which, f"client {owner} would show both of its secrets"
        return secret

    def _answer(self, holder: int, owner: int, which: Secret) -> bytes:
        """Return the holder's share of one of the owner's secrets, as it sends it to the server."""
        plain = self._player(owner).shares[owner]
        if holder != owner:
            key = sealing_key(self._sealing_agreement(owner, holder), self._round_idx, owner, holder)
            plain = self._player(holder).read_shares(self._player(owner).shares_message(holder, key), key)
        return ANSWER.pack(owner, which, PLAIN_SHARES.unpack(plain)[which])

    def traffic(self, num_integers: int) -> dict[int, SecureTraffic]:
        """Return what each invited client sent and received, once the round is closed.

        Args:
            num_integers: P of all sums of the round together.
        """
        assert self._senders is not None
        return {
            client: traffic_of_client(
                len(self._graph[client]),
                num_integers=num_integers,
                sent=client in self._senders,
                asked=self._asked and client in self._senders,
                answered=self._asked and client in self._answering,
            )
            for client in self._invited
        }

    def _player(self, client_id: int) -> Player:
        if client_id not in self._players:
            neighbours = self._graph[client_id]
            needed = self._settings.num_shares_needed(len(neighbours))
            self._players[client_id] = Player(self._settings.seed, self._round_idx, client_id, neighbours, needed)
        return self._players[client_id]

    def _pair_mask_key(self, first: int, second: int, sum_index: int) -> bytes:
        pair = min(first, second), max(first, second)
        if pair not in self._mask_agreements:
            message = self._player(pair[1]).keys_message
            self._mask_agreements[pair] = self._player(pair[0]).mask_agreement(message)
        if (*pair, sum_index) not in self._mask_keys:
            key = pair_mask_key(self._mask_agreements[pair], self._round_idx, sum_index, first, second)
            self._mask_keys[*pair, sum_index] = key
        return self._mask_keys[*pair, sum_index]

    def _sealing_agreement(self, first: int, second: int) -> bytes:
        pair = min(first, second), max(first, second)
        if pair not in self._sealing_agreements:
            message = self._player(pair[1]).keys_message
            self._sealing_agreements[pair] = self._player(pair[0]).sealing_agreement(message)
        return self._sealing_agreements[pair]
