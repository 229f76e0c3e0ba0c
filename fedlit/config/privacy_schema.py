"""The options of privacy: what a run claims, and what it pays for that."""

from dataclasses import dataclass

from fedlit.options import option
from fedlit.ranges import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, POSITIVE_COUNT, PROBABILITY

UNITS = ("none", "client", "example")


@dataclass
class PrivacyConfig:
    """Differential privacy, and sums that show no single client (`pip install 'fedlit[privacy]'`)."""

    unit: str = option("none", values=UNITS)
    """whose part in the result is hidden: `none`, a whole `client` (clipped changes, noise on the sum) or a single
    `example` of a client (DP-SGD in its local steps)"""
    epsilon: float | None = option(None, range=POSITIVE)
    """the most that may be spent in all rounds; without `privacy.noise_multiplier` the noise is made to fit it, with it
    the run ends before the round that would spend more; null for no limit"""
    delta: float = option(1e-5, range=PROBABILITY)
    """delta of (epsilon, delta); should be well below 1 / the number of units"""
    noise_multiplier: float | None = option(None, range=NOT_NEGATIVE)
    """standard deviation of the noise over `privacy.clip_norm`; null to compute it from `privacy.epsilon`"""
    clip_norm: float | None = option(None, range=POSITIVE)
    """largest L2 norm of what one client changes in a round (unit=client) or of an example's gradient (unit=example)"""
    accountant: str = option("auto", values=("auto", "pld", "rdp"))
    """`pld` (privacy loss distributions, tight), `rdp` (Renyi) or `auto`: PLD where it can, else RDP"""
    clip_quantile: float | None = option(None, range=FRACTION)
    """adapt the clip norm to this quantile of the clients' norms, from `privacy.clip_norm` on (Andrew et al., arXiv
    1905.03871); null for a fixed one"""
    clip_lr: float = option(0.2, range=POSITIVE)
    """learning rate of the logarithm of an adaptive clip norm"""
    clip_count_noise: float | None = option(None, range=POSITIVE)
    """standard deviation of the noise on the number of clients below an adaptive norm; null for a twentieth of a
    round's clients, and at least the noise multiplier"""
    noise_cohort_size: int | None = option(None, range=POSITIVE_COUNT)
    """clients of a round of the deployment that is simulated: noise and epsilon are of it; null for cohort_size"""
    population: int | None = option(None, range=POSITIVE_COUNT)
    """clients of the deployment that is simulated; null for num_clients"""
    canaries: int = option(0, range=COUNT)
    """clients of an audit, added to the population: each sends a direction of its own or stays away, by a coin; the
    result is good for `fedlit audit` alone"""
    secure_aggregation: bool = False
    """mask what clients send, so that only the sum can be read (Bonawitz et al. 2017); the sum stays the same bits"""
    neighbours: int | None = option(None, range=POSITIVE_COUNT)
    """clients that each one shares masks with (SecAgg+, Bell et al. 2020); null for all of the round"""
    threshold: float = option(0.6667, range=PROBABILITY)
    """share of a client's neighbours whose answers are needed to take its masks off; a round with fewer is void"""
    unmask_dropout: float = option(0.0, range=FRACTION)
    """share of clients that vanish after they have sent their masked change and before they help to unmask the sum"""
