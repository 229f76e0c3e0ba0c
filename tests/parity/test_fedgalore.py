"""FedGaLore's shared moments against rounds written down apart from the library's: projected Adam by its equations, and
second moments between bases by the dense covariance (n, n) that they stand for.

Shapes: W (m, n), P and Q (r, n) on the right, V (m, r); the left is the right of W^T. Float64 but for GaLore's SVD.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedlit.algebra.tensors import TensorDict
from fedlit.client.optimizers.galore import GaLore, Projection
from fedlit.client.optimizers.shared_moments import MOMENTS, NORMALISERS, SharedMoments, turned
from fedlit.client.trainers.base import go_on
from fedlit.errors import UserError
from fedlit.round.cohort import Cohort
from fedlit.round.jobs import LocalRound, Start
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan

LR, DECAY, SCALE, RANK, GAP, EPS, BETA1, BETA2 = 0.03, 0.2, 0.7, 3, 3, 1e-6, 0.9, 0.999
SHAPES = {"tall": (13, 7), "wide": (7, 11), "square": (9, 9), "vector": (5,), "small": (3, 8)}
WEIGHTS = (0.5, 0.2, 0.3)
NUM_ROUNDS, NUM_STEPS = 3, 4


def start_weights() -> TensorDict:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def gradient(name: str, client: int, number: int) -> Tensor:
    """Full rank, with directions that the clients have in common."""
    generator = torch.Generator().manual_seed(1000 * client + number)
    own = torch.randn(*SHAPES[name], generator=generator, dtype=torch.float64)
    common = torch.randn(*SHAPES[name], generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return own + 0.5 * common


# The library's parts, round by round.


@dataclass
class Run:
    """A server and its clients; what travels goes through the cohort's sum."""

    keep: bool
    weights: Sequence[float] = WEIGHTS
    rank: int | None = RANK
    proj_type: str = "std"
    shared: TensorDict = field(default_factory=start_weights)
    moments: TensorDict = field(default_factory=dict)
    states: dict[int, Any] = field(default_factory=dict)
    sent: dict[int, TensorDict] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {"rank": self.rank, "update_proj_gap": GAP, "scale": SCALE, "proj_type": self.proj_type}
        self.optimizer = GaLore(lr=LR, weight_decay=DECAY, galore=Projection(**given), shares_moments=True)
        (self.part,) = self.optimizer.local_parts()
        self.moments = self.part.first(self.shared)

    def round(self, round_idx: int) -> None:
        plan = RoundPlan(
            round_idx=round_idx,
            invited=tuple(range(len(self.weights))),
            arriving=tuple(range(len(self.weights))),
            weights=dict(enumerate(self.weights)),
            trains=frozenset(self.shared),
        )
        cohort = Cohort(plan, {MODEL: self.shared, MOMENTS: self.moments})
        for client in plan.arriving:
            parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in self.shared.items()}
            optimizer = go_on(self.optimizer.build(parameters), self.states.get(client))
            work = LocalRound(
                parameters=parameters,
                trained=parameters,
                optimizer=optimizer,
                start=Start(groups={MODEL: self.shared, MOMENTS: self.moments}),
                kept={},
                plan=plan,
                num_steps=NUM_STEPS,
                lr=LR,
            )
            self.part.begin(work)
            for step in range(NUM_STEPS):
                for name, parameter in parameters.items():
                    parameter.grad = gradient(name, client, round_idx * NUM_STEPS + step)
                optimizer.step()
            if self.keep:
                self.states[client] = optimizer.state_dict()
            trained = {name: parameter.detach() for name, parameter in parameters.items()}
            self.sent[client], kept = self.part.end(work, trained)
            assert not kept
            cohort.add(client, {MODEL: trained, MOMENTS: self.sent[client]})
        cohort.close(plan.arriving)
        self.shared = cohort.mean()
        self.moments = self.part.server_step(self.moments, cohort.mean(MOMENTS), 1.0)


# By hand, each matrix on the right.


def between(moment: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Row by row the covariance along the old directions, the mean of theirs along all others; its values along the new
    ones.
    """
    size = old.shape[1]
    rows = []
    for row in moment:
        covariance = old.T @ torch.diag(row) @ old + row.mean() * (torch.eye(size, dtype=old.dtype) - old.T @ old)
        # GaLore's SVD is in float32, so that a direction has length 1 to seven digits alone.
        missing = [row.mean() * (1 - direction @ direction) for direction in new]
        rows.append(torch.stack([d @ covariance @ d + rest for d, rest in zip(new, missing, strict=True)]))
    return torch.stack(rows)


def gram_schmidt(rows: Tensor) -> Tensor:
    found: list[Tensor] = []
    for given in rows:
        row = given
        for known in [*found, *found]:
            row = row - (row @ known) * known
        found.append(row / row.norm())
    return torch.stack(found)


@dataclass
class Hand:
    """The server's and the clients' numbers of one tensor, seen from the right."""

    name: str
    keep: bool
    weight: Tensor
    basis: Tensor | None
    second: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    normaliser: float = 0.0
    states: dict[int, tuple[Tensor, Tensor, int]] = field(default_factory=dict)

    def round(self, round_idx: int) -> None:
        """Algorithm: local steps of Adam in each client's projection, then the means, then the next basis."""
        ends = [self._client(client, round_idx) for client in range(len(WEIGHTS))]
        self.weight = sum_of([weight for weight, _, _, _ in ends])
        second = sum_of([second for _, second, _, _ in ends])
        self.normaliser = sum(p * normaliser for p, (_, _, normaliser, _) in zip(WEIGHTS, ends, strict=True))
        if self.basis is None:
            self.second = second
            return
        total = sum_of([self.basis @ projection.T @ projection for _, _, _, projection in ends])
        following = gram_schmidt(total)
        self.second, self.basis = between(second, self.basis, following), following

    def _client(self, client: int, round_idx: int) -> tuple[Tensor, Tensor, float, Tensor]:
        weight, normaliser = self.weight.clone(), self.normaliser
        none = torch.zeros((), dtype=torch.float64)
        first, projection, count = self.states.get(client, (none, none, 0))
        second = self.second
        for step in range(NUM_STEPS):
            given = self._gradient(client, round_idx * NUM_STEPS + step)
            if self.basis is not None and count % GAP == 0:
                stored = given.T if self._is_left else given
                left, _, right = torch.linalg.svd(stored.float(), full_matrices=False)
                projection = (left[:, :RANK].T if self._is_left else right[:RANK]).double()
            if self.basis is not None and step == 0 and normaliser:
                second = between(second, self.basis, projection)
            reduced = given if self.basis is None else given @ projection.T
            count += 1
            first = BETA1 * first + (1 - BETA1) * reduced
            second = BETA2 * second + (1 - BETA2) * reduced**2
            normaliser = BETA2 * normaliser + (1 - BETA2)
            update = first / (1 - BETA1**count) * sqrt(normaliser) / (second.sqrt() + EPS)
            weight = weight - LR * (update if self.basis is None else SCALE * update @ projection)
            weight = weight * (1 - LR * DECAY)
        if self.keep:
            self.states[client] = (first, projection, count)
        if self.basis is not None:
            second = between(second, projection, self.basis)
        return weight, second, normaliser, projection

    @property
    def _is_left(self) -> bool:
        return self.name == "wide"

    def _gradient(self, client: int, number: int) -> Tensor:
        given = gradient(self.name, client, number)
        return given.T if self._is_left else given


def sum_of(values: Sequence[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for p, value in zip(WEIGHTS, values, strict=True):
        total = total + p * value
    return total


def from_the_right(name: str, tensor: Tensor) -> Tensor:
    return tensor.T if name == "wide" else tensor


@pytest.mark.parametrize("keep", [False, True])
def test_rounds_are_those_by_hand(keep: bool) -> None:
    """A new projection within each round, too, which leaves the moments as they are, as GaLore does."""
    run = Run(keep=keep)
    hands = {}
    for name, tensor in start_weights().items():
        basis = run.moments.get(f"{name}/basis")
        assert (basis is None) == (name in ("vector", "small"))
        known = None if basis is None else from_the_right(name, basis)
        hands[name] = Hand(name=name, keep=keep, weight=from_the_right(name, tensor), basis=known)
    for round_idx in range(NUM_ROUNDS):
        run.round(round_idx)
        for place, (name, hand) in enumerate(hands.items()):
            hand.round(round_idx)
            torch.testing.assert_close(
                from_the_right(name, run.shared[name]), hand.weight, rtol=0, atol=1e-9, msg=f"{round_idx} {name}"
            )
            torch.testing.assert_close(
                from_the_right(name, run.moments[name]), hand.second, rtol=0, atol=1e-11, msg=f"{round_idx} {name}"
            )
            assert float(run.moments[NORMALISERS][place]) == pytest.approx(hand.normaliser, abs=1e-12)
            if hand.basis is not None:
                basis = from_the_right(name, run.moments[f"{name}/basis"])
                cosines = (basis @ hand.basis.T).abs()  # signs are free
                torch.testing.assert_close(cosines, torch.eye(RANK, dtype=torch.float64), rtol=0, atol=1e-7)
    assert run.moments["tall"].shape == (13, RANK)
    assert run.moments["wide"].shape == (RANK, 11)
    assert max(float((tensor - run.shared[name]).abs().max()) for name, tensor in start_weights().items()) > 0.1


def test_the_first_round_is_galore_s_to_the_bit() -> None:
    """Until the server has moments, a client is one of FedFTG."""
    run = Run(keep=False, weights=(1.0,))
    run.round(0)
    given = {"rank": RANK, "update_proj_gap": GAP, "scale": SCALE, "proj_type": "std"}
    parameters = {name: nn.Parameter(tensor) for name, tensor in start_weights().items()}
    optimizer = GaLore(lr=LR, weight_decay=DECAY, galore=Projection(**given)).build(parameters)
    for step in range(NUM_STEPS):
        for name, parameter in parameters.items():
            parameter.grad = gradient(name, 0, step)
        optimizer.step()
    for name, parameter in parameters.items():
        # x + (y - x) in fixed point
        torch.testing.assert_close(run.shared[name], parameter.detach(), rtol=0, atol=1e-12)


def test_one_client_without_a_projection_is_adam_that_does_not_stop() -> None:
    """Second moments that go to the server and back, and first ones that are kept: no round is to be seen."""
    run = Run(keep=True, weights=(1.0,), rank=None)
    for round_idx in range(NUM_ROUNDS):
        run.round(round_idx)
    parameters = {name: nn.Parameter(tensor) for name, tensor in start_weights().items()}
    plain = GaLore(lr=LR, weight_decay=DECAY, galore=Projection(rank=None)).build(parameters)
    for step in range(NUM_ROUNDS * NUM_STEPS):
        for name, parameter in parameters.items():
            parameter.grad = gradient(name, 0, step)
        plain.step()
    for name, parameter in parameters.items():
        torch.testing.assert_close(run.shared[name], parameter.detach(), rtol=0, atol=1e-9)
    others = Run(keep=False, weights=(1.0,), rank=None)
    for round_idx in range(NUM_ROUNDS):
        others.round(round_idx)
    assert float((others.shared["tall"] - run.shared["tall"]).abs().max()) > 1e-3


def test_the_moment_over_its_normaliser_is_the_weighted_mean_of_squares() -> None:
    """Of a tensor that is not projected: all steps of all clients and rounds, by p_i beta_2^age."""
    run = Run(keep=False)
    for round_idx in range(NUM_ROUNDS):
        run.round(round_idx)
    total, weight = torch.zeros(5, dtype=torch.float64), 0.0
    for client, p in enumerate(WEIGHTS):
        for number in range(NUM_ROUNDS * NUM_STEPS):
            share = p * BETA2 ** (NUM_ROUNDS * NUM_STEPS - 1 - number)
            total, weight = total + share * gradient("vector", client, number) ** 2, weight + share
    place = list(SHAPES).index("vector")
    mean = run.moments["vector"] / run.moments[NORMALISERS][place]
    torch.testing.assert_close(mean, total / weight, rtol=1e-9, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_between_bases_it_is_the_dense_covariance(side: str) -> None:
    generator = torch.Generator().manual_seed(3)
    old, new = (torch.linalg.qr(torch.randn(8, 3, generator=generator, dtype=torch.float64)).Q.T for _ in range(2))
    moment = torch.rand(5, 3, generator=generator, dtype=torch.float64)
    expected = between(moment, old, new)
    found = turned(moment, old, new, side) if side == "right" else turned(moment.T, old.T, new.T, side).T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert float(found.min()) > 0
    swapped = old[[2, 0, 1]] * torch.tensor([[-1.0], [1.0], [-1.0]], dtype=torch.float64)
    same = turned(moment, old, swapped, "right")
    torch.testing.assert_close(same, moment[:, [2, 0, 1]], rtol=0, atol=1e-14)


def test_the_basis_goes_to_the_directions_that_the_clients_have_in_common() -> None:
    """Three clients with two directions in common and one of their own: AJIVE's joint subspace, from sums alone."""
    generator = torch.Generator().manual_seed(4)
    common = torch.linalg.qr(torch.randn(12, 2, generator=generator, dtype=torch.float64)).Q
    projections = [
        torch.linalg.qr(torch.cat([common, torch.randn(12, 1, generator=generator, dtype=torch.float64)], 1)).Q.T
        for _ in range(3)
    ]
    part = SharedMoments(side=lambda _shape: "right", rank=3, seed=0)
    weight = torch.zeros(20, 12, dtype=torch.float64)
    server = part.first({"w": weight})
    mean_of = sum((p.T @ p / 3 for p in projections), torch.zeros(12, 12, dtype=torch.float64))
    for _ in range(30):
        mean = {**server, "w/basis": server["w/basis"] @ mean_of}
        server = part.server_step(server, mean, 1.0)
    basis = server["w/basis"]
    torch.testing.assert_close(basis @ basis.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float((common - basis.T @ (basis @ common)).norm()) < 1e-6
    stacked = torch.linalg.svd(torch.cat(projections), full_matrices=False).Vh[:2]  # by AJIVE's own formula
    assert float((stacked - (stacked @ basis[:2].T) @ basis[:2]).norm()) < 1e-6


def test_what_was_not_stepped_goes_back_as_it_came() -> None:
    """A parameter without a gradient in the whole round."""
    run = Run(keep=False, weights=(1.0,))
    run.round(0)
    parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in run.shared.items()}
    optimizer = run.optimizer.build(parameters)
    start = Start(groups={MODEL: run.shared, MOMENTS: run.moments})
    plan = RoundPlan(round_idx=1, invited=(0,), arriving=(0,), weights={0: 1.0}, trains=frozenset(parameters))
    work = LocalRound(
        parameters=parameters,
        trained=parameters,
        optimizer=optimizer,
        start=start,
        kept={},
        plan=plan,
        num_steps=1,
        lr=LR,
    )
    run.part.begin(work)
    parameters["tall"].grad = gradient("tall", 0, 50)
    optimizer.step()
    sent, _ = run.part.end(work, {})
    assert sent.keys() == run.moments.keys()
    for name, tensor in run.moments.items():
        if name == NORMALISERS:
            assert (sent[name] != tensor).tolist() == [name == "tall" for name in SHAPES]
        else:
            assert torch.equal(sent[name], tensor) == (not name.startswith("tall")), name


def test_both_sides_at_once_are_refused() -> None:
    with pytest.raises(UserError, match=r"method\.galore\.proj_type=full projects both sides"):
        GaLore(lr=LR, galore=Projection(proj_type="full"), shares_moments=True)
