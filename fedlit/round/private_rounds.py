"""What privacy does in the rounds of a run: it bounds, hides and counts what every round lets out."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedlit.config import RunConfig
from fedlit.privacy.accounting import noise_of_the_change
from fedlit.privacy.claim import Claim
from fedlit.round.canaries import Canaries
from fedlit.round.cohort import Cohort
from fedlit.round.ledger import GROUP, SCORES, Ledger, book
from fedlit.round.plan import RoundPlan, Schedule
from fedlit.round.private_sums import AdaptiveClip, Release
from fedlit.round.rules.base import AggregationRule
from fedlit.round.server import ServerState
from fedlit.secure import SecureAggregation
from fedlit.secure.channel import MaskedChannel


@dataclass(frozen=True, kw_only=True)
class PrivateRounds:
    """The privacy of one run.

    claim: None where the run makes none. num_steps: local steps of a client in a round, by its number. canaries: of an
    audit. masks: None where what clients send is not masked.
    """

    config: RunConfig
    rule: AggregationRule
    claim: Claim | None
    num_steps: Callable[[int], int] = lambda _client_id: 0
    canaries: Canaries | None = None
    masks: SecureAggregation | None = None

    @property
    def adaptive(self) -> AdaptiveClip | None:
        """How the clip norm adapts, if it does."""
        privacy = self.config.privacy
        if privacy.unit != "client" or privacy.clip_quantile is None:
            return None
        noise = privacy.clip_count_noise
        if noise is None:  # in a small cohort a twentieth would leave nothing of the noise to the changes
            noise = max(self._deployed / 20, self.claim.noise_multiplier if self.claim else 0.0)
        return AdaptiveClip(quantile=privacy.clip_quantile, lr=privacy.clip_lr, count_noise=noise)

    def require_noise(self) -> None:
        """Raise a UserError if the number below an adaptive norm has so little noise that the changes get none."""
        if self.claim is not None:
            self._noise_of_a_round()

    def _noise_of_a_round(self) -> float:
        """Return the noise multiplier that is left to the changes, beside the number below an adaptive norm."""
        assert self.claim is not None
        noise, adaptive = self.claim.noise_multiplier, self.adaptive
        return noise_of_the_change(noise, adaptive.count_noise) if adaptive is not None and noise else noise

    @property
    def _cohort_size(self) -> int:
        return self.config.cohort_size or self.config.num_clients + self.config.privacy.canaries

    @property
    def _deployed(self) -> int:
        return self.config.privacy.noise_cohort_size or self._cohort_size

    def opened(self, server: ServerState, num_clients: int) -> ServerState:
        """Return the server before the first round, with a ledger where there is a claim.

        Raises:
            UserError: a clip norm and noise that the sums cannot hold, or that are lost in their rounding.
        """
        if self.claim is None:
            return server
        server = Ledger.opened(num_clients, self.config.privacy.clip_norm or math.inf).in_server(server)
        if (release := self._release(0, server)) is not None:
            release.require_room(num_clients, sum(tensor.numel() for tensor in server.shared.values()))
        if self.canaries is None:
            return server
        return server.with_group(GROUP, {SCORES: torch.zeros(self.canaries.num, dtype=torch.float64)})

    def release(self, plan: RoundPlan, server: ServerState) -> Release | None:
        """Return what the round may let out; None where its sums are not private.

        Raises:
            UserError: an adaptive clip norm has left the range of the sums.
        """
        release = self._release(plan.round_idx, server)
        if release is not None:
            release.require_room(len(Ledger.of(server).rounds))
        return release

    def _release(self, round_idx: int, server: ServerState) -> Release | None:
        if self.claim is None or self.claim.unit != "client":
            return None
        num_sums = self.rule.num_sums(server)
        return Release(
            seed=self.config.seed,
            round_idx=round_idx,
            expected=self._cohort_size,
            clip_norm=Ledger.of(server).clip_norm,
            # A round is one release of this multiplier: k sums of k times the variance each.
            noise_multiplier=self._noise_of_a_round() * math.sqrt(num_sums),
            noise_scale=self._cohort_size / self._deployed,
            adaptive=self.adaptive,
        )

    def channel(self, plan: RoundPlan) -> MaskedChannel | None:
        """Return what masks the clients' sums of a round; None where nothing does."""
        return None if self.masks is None else MaskedChannel(self.masks, plan.round_idx, plan.invited, plan.arriving)

    def booked(self, cohort: Cohort, before: ServerState, after: ServerState) -> ServerState:
        """Return the server after a round, with what it has spent."""
        if cohort.void is not None and self.claim is not None:
            # That the masks stayed on tells of how many came: it counts as if the sum had been read. Steps on examples
            # were taken, and what a client keeps of them comes out in a later round.
            taken = cohort.num_steps if self.claim.unit == "example" else {}
            return Ledger.of(before).after(taken).in_server(after)
        return after if cohort.is_idle else book(cohort, before, after, self.adaptive, self.canaries)

    def allows(self, server: ServerState, schedule: Schedule) -> bool:
        """Tell whether the next round may be run: whether it keeps within the budget."""
        if self.claim is None or self.claim.limit is None or not server.group(GROUP):
            return True
        # Who comes is drawn only where it counts: a population may be large.
        coming = schedule.plan(server.round_idx).arriving if self.claim.unit == "example" else ()
        ledger = Ledger.of(server).after({client_id: self.num_steps(client_id) for client_id in coming})
        return self.claim.allows(ledger.releases, ledger.steps)
