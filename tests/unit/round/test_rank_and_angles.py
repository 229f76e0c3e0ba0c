"""Ranks and principal angles that a round leaves are those of dense matrices, by NumPy and SciPy, for every recipe."""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_rounds import COHORTS, RECIPE_OPTIONS, Federation, Round, builder, mean_of
from scipy.linalg import subspace_angles
from scipy.stats import entropy
from torch import Tensor

from fedlit.algebra.low_rank import LowRank
from fedlit.algebra.spectra import Spectrum, effective_rank, principal_angles
from fedlit.round.observers.factors import LEFT, RIGHT, Small, coordinates
from fedlit.round.observers.ranks import Ranks
from fedlit.round.observers.subspaces import MOST_CLIENTS, paired

MEASURED = ("rank", "subspaces")


@pytest.fixture
def federation(small_llama: Callable[..., Any], tmp_path: Path) -> Callable[[str], Federation]:
    build = builder(small_llama, tmp_path)
    return lambda case: build(case, MEASURED)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def space(matrix: Tensor) -> np.ndarray[Any, Any]:
    """Return an orthonormal basis of the column space above rounding."""
    u, s, _ = np.linalg.svd(matrix.numpy())
    return u[:, : int((s > s[0] * max(matrix.shape) * np.finfo(float).eps).sum())] if s[0] else u[:, :0]


def mean_angle(first: Tensor, second: Tensor) -> float | None:
    one, two = space(first), space(second)
    return None if not (one.shape[1] and two.shape[1]) else float(np.rad2deg(subspace_angles(one, two)).mean())


def entropy_rank(matrix: Tensor) -> float:
    return float(np.exp(entropy(np.linalg.svd(matrix.numpy(), compute_uv=False))))


def expected(one: Round, name: str) -> dict[str, float]:
    """Return the numbers of a layer, from dense products."""
    mean, products = mean_of(one.weights, one.products, name), [client[name] for client in one.products]
    ranks = [np.linalg.matrix_rank(each.numpy()) for each in products]
    numerical = np.linalg.matrix_rank(mean.numpy())
    own = sum(weight * entropy_rank(each) for weight, each in zip(one.weights, products, strict=True))
    found = {
        "rank/numerical": float(numerical),
        "rank/effective": entropy_rank(mean),
        "rank/eta": numerical / max(ranks),
        "rank/eta_bound": sum(ranks) / max(ranks),
        "rank/client_effective": own,
        "rank/effective_eta": entropy_rank(mean) / own,
    }
    pairs = [
        ("clients", list(combinations(products, 2))),
        ("server", [(one.product_before[name], one.product_after[name])]),
    ]
    for whose, both in pairs:
        for side, of in (("out", lambda each: each), ("in", lambda each: each.T)):
            angles = [angle for a, b in both if (angle := mean_angle(of(a), of(b))) is not None]
            if angles:
                found[f"subspaces/{whose}_{side}"] = sum(angles) / len(angles)
    return found


@pytest.mark.parametrize("case", RECIPE_OPTIONS)
def test_three_rounds_measured_densely(case: str, federation: Callable[[str], Federation]) -> None:
    population = federation(case)
    single = {"rank/numerical", "rank/effective", "rank/eta"}
    for client_ids in COHORTS:
        one = population.round(client_ids)
        sums: dict[str, list[float]] = {}
        for layer in one.layers:
            for key, value in expected(one, layer.name).items():
                sums.setdefault(key, []).append(value)
                if key in single or key.startswith("subspaces/"):
                    assert one.record[f"{key}/{layer.name}"] == pytest.approx(value, rel=1e-6, abs=1e-5), key
        means = {key: sum(values) / len(values) for key, values in sums.items()}
        assert {key for key in one.record if key.count("/") == 1} == means.keys()
        for key, value in means.items():
            assert one.record[key] == pytest.approx(value, rel=1e-6, abs=1e-5), key
        assert 1 <= one.record["rank/eta"] <= one.record["rank/eta_bound"] <= len(client_ids)


def test_what_the_methods_are_known_for(federation: Callable[[str], Federation]) -> None:
    """FFA's frozen A keeps the rank and the rows' space of all clients; FedIT's mean has N times the rank."""
    frozen, plain = (federation(case).round((0, 1, 3)).record for case in ("ffa_lora", "fedit"))
    assert frozen["rank/eta"] == 1 and plain["rank/eta"] == plain["rank/eta_bound"] == 3
    assert frozen["subspaces/clients_in"] < 1e-6 < frozen["subspaces/clients_out"]
    assert plain["subspaces/clients_in"] > 1


def small(products: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float]) -> Small:
    left, right = coordinates([LowRank(b, a) for b, a in products])
    shape = (len(products[0][0]), products[0][1].shape[1])
    layer: Any = None
    return Small(layer=layer, shape=shape, weights=tuple(weights), drifts=(), tensors={LEFT: left, RIGHT: right})


def test_changes_that_cancel_have_no_rank_left() -> None:
    """The proposition's lower bound is no theorem."""
    b, a = random(7, 2), random(2, 5, seed=1)
    found = Ranks().numbers(small([(b, a), (-b, a)], [0.5, 0.5]))
    assert found["rank/eta"] == found["rank/numerical"] == found["rank/effective"] == 0
    assert found["rank/eta_bound"] == 2 and found["rank/client_effective"] == pytest.approx(entropy_rank(b @ a))


def test_clients_that_changed_nothing_have_ranks_and_no_ratio() -> None:
    zeros = (torch.zeros(7, 2).double(), random(2, 5))
    found = Ranks().numbers(small([zeros, zeros], [0.5, 0.5]))
    assert found == {"rank/numerical": 0, "rank/effective": 0, "rank/client_effective": 0}


def test_unequal_ranks_have_a_bound_of_their_own() -> None:
    """sum r_i / max r_i, below the number of clients; unequal weights change the effective rank, not the numerical."""
    thin = torch.cat([random(9, 1), torch.zeros(9, 2)], 1)
    wide = random(9, 3, seed=1)
    found = Ranks().numbers(small([(thin, random(3, 8, seed=2)), (wide, random(3, 8, seed=3))], [0.9, 0.1]))
    assert found["rank/numerical"] == 4 and found["rank/eta"] == found["rank/eta_bound"] == 4 / 3
    mean = 0.9 * thin @ random(3, 8, seed=2) + 0.1 * wide @ random(3, 8, seed=3)
    assert found["rank/effective"] == pytest.approx(entropy_rank(mean))


def test_effective_rank_counts_equal_values() -> None:
    assert effective_rank(torch.ones(5).double()) == pytest.approx(5)
    assert effective_rank(torch.tensor([3.0, 0.0, 0.0])) == 1
    assert effective_rank(torch.zeros(3)) == 0 and effective_rank(torch.zeros(0)) == 0


@pytest.mark.parametrize(("p", "q", "m"), [(2, 2, 9), (3, 2, 9), (2, 4, 5), (4, 4, 4), (1, 1, 2), (3, 3, 4)])
def test_angles_are_those_of_scipy(p: int, q: int, m: int) -> None:
    one, two = torch.linalg.qr(random(m, p)).Q, torch.linalg.qr(random(m, q, seed=1)).Q
    reference = np.rad2deg(subspace_angles(one.numpy(), two.numpy()))[::-1]
    np.testing.assert_allclose(principal_angles(one, two).numpy(), reference, atol=1e-10)


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 1e-4, 30.0, 45.0, 60.0, 89.9999, 90.0])
def test_small_and_right_angles_keep_their_digits(degrees: float) -> None:
    angle = np.deg2rad(degrees)
    one = torch.tensor([[1.0, 0], [0, 0], [0, 1]]).double()
    two = torch.tensor([[np.cos(angle), 0], [np.sin(angle), 0], [0, 1]]).double()
    assert principal_angles(one, two).tolist() == pytest.approx([0, degrees], rel=1e-9, abs=1e-13)


def test_of_many_clients_six_are_paired_at_even_distances() -> None:
    spectra = [Spectrum.of(random(3, 3, seed=seed), 1e-12) for seed in range(13)]
    pairs = paired(spectra)
    assert len(pairs) == MOST_CLIENTS * (MOST_CLIENTS - 1) // 2
    seen = {next(place for place, each in enumerate(spectra) if each is one) for pair in pairs for one in pair}
    assert seen == {0, 2, 4, 6, 8, 10}
    assert paired(spectra[:1]) == []
