"""Sums that hide single clients: changes of bounded length, and noise on the integers.

A client's whole change, all groups of its payload together, is shortened to the clip norm C in the sum's own
arithmetic, so that the bound holds for the integers themselves, whatever type the tensors have. The sum of all gets
discrete Gaussian noise (Canonne, Kamath, Steinke 2020, arXiv 2004.00010) once. Every mean divides by a number m that is
fixed before clients are drawn: the number that came would tell of each of them.

Shapes: P scalars in a payload, in units of 2**-44; a client's integers have an L2 norm of at most C / m * 2**44.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from fedlit.algebra.pieces import in_double, joined, pieces
from fedlit.errors import UserError
from fedlit.privacy.discrete_gaussian import sample
from fedlit.round.fixed_point import FRACTION_BITS, Encoded, encode
from fedlit.seeding import numpy_generator

NOISE_PIECE = 2**16
"""Scalars whose noise comes from one stream: processes draw pieces of their own, and no bit depends on who draws."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveClip:
    """The number of clients below the clip norm, released beside the sum (Andrew et al. 2021, arXiv 1905.03871).

    quantile: of the norms, at which the clip norm should stand. lr: of its logarithm. count_noise: standard deviation
    of the noise on the number of clients.
    """

    quantile: float
    lr: float
    count_noise: float

    def next_norm(self, norm: float, share_below: float) -> float:
        """Return the next round's clip norm from the noisy share of clients that were not above this one's."""
        return norm * math.exp(-self.lr * (share_below - self.quantile))


@dataclass(frozen=True, kw_only=True)
class Release:
    """What one round lets out: its sums, each with a bound on every client and with noise.

    expected: m, which every mean divides by. noise_multiplier: standard deviation of the noise of a sum over the norm
    that a client can add: z times the root of the number of sums. noise_scale: what else multiplies it (a simulated
    deployment's cohort is larger).
    """

    seed: int
    round_idx: int
    expected: int
    clip_norm: float
    noise_multiplier: float
    noise_scale: float = 1.0
    adaptive: AdaptiveClip | None = None

    def require_room(self, num_clients: int, num_scalars: int = 0) -> None:
        """Raise a UserError if so many clients and the noise could leave the 64 bits of a sum, or if rounding takes up
        the clip norm of so many scalars.
        """
        if self._room(num_scalars, 1 / self.expected) <= 0:
            raise UserError(
                f"privacy.clip_norm={self.clip_norm:g} is lost in the rounding of a sum of {num_scalars:,} numbers; "
                "give a larger one"
            )
        if num_clients * self._bound + 12 * self.deviation >= 2.0**62:
            raise UserError(
                f"clip norm {self.clip_norm:g} and noise multiplier {self.noise_multiplier:g} leave the range "
                f"of a sum of {self.expected} clients; lower privacy.clip_norm, or the noise"
            )

    @property
    def num_beside(self) -> int:
        """Integers that stand after those of the payload in the first sum."""
        return 0 if self.adaptive is None else 1

    @property
    def deviation(self) -> int:
        """Standard deviation of a sum's noise, in units of 2**-44, rounded up."""
        return math.ceil(self.noise_multiplier * self.noise_scale * self._bound)

    @property
    def _bound(self) -> float:
        """The norm of a client's integers at most."""
        return self.clip_norm / self.expected * 2.0**FRACTION_BITS

    def encoded(
        self, values: Mapping[str, Tensor], reference: Mapping[str, Tensor], weight: float, sum_index: int
    ) -> Encoded:
        """Return a client's integers for a sum, of bounded norm; nothing waits for the device."""
        squared = [
            in_double(ends).sub_(joined(starts)).square_().sum()
            for ends, starts in pieces((values[name] for name in reference), reference.values())
        ]
        if not squared:
            return chain(encode(values, reference, weight), self._counted(0.0, weight, sum_index))
        norm = torch.stack(squared).sum().sqrt()
        num = sum(tensor.numel() for tensor in reference.values())
        room = self._room(num, weight)
        # Below the grid nothing may be sent: there is no room for rounding.
        factor = (room / norm.clamp(min=room)).clamp(max=1.0) if room > 0 else torch.zeros_like(norm)
        return chain(
            encode(values, reference, factor * weight),
            self._counted((norm <= self.clip_norm).double(), weight, sum_index),
        )

    def _room(self, num_scalars: int, weight: float) -> float:
        """Return what is left of the clip norm for the change: rounding to integers moves each by a half at most,
        float64 the rest.
        """
        return self.clip_norm * (1 - 1e-12) - 0.5 * math.sqrt(num_scalars) / (weight * 2.0**FRACTION_BITS)

    def _counted(self, below: Tensor | float, weight: float, sum_index: int) -> Iterator[Tensor]:
        """Yield the integer of a client that is below the clip norm, or above: half of one, of either sign."""
        if self.adaptive is not None and sum_index == 0:
            share = (torch.as_tensor(below, dtype=torch.float64) - 0.5) * weight * 2.0**FRACTION_BITS
            yield share.round_().long().reshape(1)

    def add_noise(self, parts: Sequence[Tensor], sum_index: int, process: int, num_processes: int) -> None:
        """Add this process's share of the noise to its part of a sum, in place: flat tensors, one after the other."""
        num, deviation = sum(map(len, parts)), self.deviation
        mine = range(process, math.ceil(num / NOISE_PIECE), num_processes) if deviation else ()
        first, at = 0, iter(parts)
        part = next(at, None)
        for index in mine:
            start, stop = index * NOISE_PIECE, min(num, (index + 1) * NOISE_PIECE)
            noise = self._drawn(deviation, stop - start, f"noise/{sum_index}/{index}")
            while part is not None and first < stop:
                low, high = max(start, first), min(stop, first + len(part))
                if low < high:
                    part[low - first : high - first] += noise[low - start : high - start].to(part.device)
                if first + len(part) > stop:
                    break
                first, part = first + len(part), next(at, None)

    def add_noise_to_count(self, buffer: Tensor, process: int) -> None:
        """Add the noise on the number of clients below the clip norm, which stands last in the first sum, in place."""
        if self.adaptive is not None and process == 0:
            scale = self.noise_scale * 2.0**FRACTION_BITS / self.expected
            buffer[-1:] += self._drawn(math.ceil(self.adaptive.count_noise * scale), 1, "noise/count").to(buffer.device)

    def _drawn(self, deviation: int, num: int, purpose: str) -> Tensor:
        """Return integers (num,) of a stream of their own."""
        return torch.from_numpy(sample(deviation, num, numpy_generator(self.seed, purpose, round_idx=self.round_idx)))

    def share_below(self, total: Tensor) -> float | None:
        """Return the noisy share of clients below the clip norm from the first sum; None if it is not asked for. The
        clients that are expected, and did not come, count half.
        """
        return None if self.adaptive is None else float(total[-1].item()) * 2.0**-FRACTION_BITS + 0.5
