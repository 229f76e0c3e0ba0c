"""The table of `docs/howto/private.md`: epsilon of some federations, as dp-accounting says it when called directly."""

import re
from pathlib import Path

import dp_accounting
import pytest
from dp_accounting import pld, rdp

from fedlit.privacy.accounting import Mechanism, spent

DELTA = 1e-5
RELATIONS = dp_accounting.NeighboringRelation
PAGE = Path(__file__).resolve().parents[3] / "docs/howto/private.md"

# clients, cohort, rounds, noise multiplier; then epsilon of Poisson cohorts and of cohorts of a fixed size.
TABLE = {
    (3, 3, 50, 1.0): (54.4, 54.4),
    (10, 10, 50, 4.0): (8.6, 8.6),
    (100, 10, 100, 1.0): (7.05, 83.9),
    (100, 10, 100, 2.0): (2.34, 14.1),
    (200, 20, 100, 4.0): (0.983, 5.38),
    (1000, 50, 200, 1.0): (4.77, 58.4),
    (1000, 50, 200, 0.5): (24.7, 1870.0),
    (10000, 100, 500, 1.0): (1.33, 15.6),
    (1000000, 1000, 1000, 1.0): (0.149, 5.13),
}


def poisson(clients: int, cohort: int, rounds: int, noise: float) -> float:
    """Return epsilon of Poisson cohorts without a line of ours."""
    accountant = pld.PLDAccountant(RELATIONS.ADD_OR_REMOVE_ONE)
    event = dp_accounting.PoissonSampledDpEvent(cohort / clients, dp_accounting.GaussianDpEvent(noise))
    return float(accountant.compose(event, rounds).get_epsilon(DELTA))


def fixed(clients: int, cohort: int, rounds: int, noise: float) -> float:
    """Return epsilon of cohorts of a fixed size, without a line of ours: half of the noise, since one client in the
    place of another changes the sum by twice what a client can add."""
    if cohort == clients:
        return poisson(clients, cohort, rounds, noise)
    accountant = rdp.RdpAccountant(list(range(2, 33)), RELATIONS.REPLACE_ONE)
    event = dp_accounting.SampledWithoutReplacementDpEvent(clients, cohort, dp_accounting.GaussianDpEvent(noise / 2))
    return float(accountant.compose(event, rounds).get_epsilon(DELTA))


def ours(sampling: str, clients: int, cohort: int, rounds: int, noise: float) -> float:
    mechanism = Mechanism(
        sampling=sampling,  # type: ignore[arg-type]
        cohort_size=cohort,
        population=clients,
        noise_multiplier=noise,
    )
    return spent(mechanism, rounds, DELTA).epsilon


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_table_is_what_dp_accounting_says(row: tuple[int, int, int, float]) -> None:
    for sampling, direct, shown in zip(("poisson", "fixed"), (poisson, fixed), TABLE[row], strict=True):
        epsilon = ours(sampling, *row)
        assert float(f"{epsilon:.3g}") == shown
        if sampling == "poisson" or row[0] == row[1]:
            assert epsilon == pytest.approx(direct(*row), rel=1e-6)


@pytest.mark.parametrize("row", [(100, 10, 100, 1.0), (1000, 50, 200, 1.0), (100, 10, 100, 2.0)], ids=str)
def test_a_fixed_size_is_what_dp_accounting_says_of_the_same_orders(row: tuple[int, int, int, float]) -> None:
    assert ours("fixed", *row) == pytest.approx(fixed(*row), rel=1e-6)


def markdown() -> str:
    """Return the table as the page has it."""
    lines = ["| clients | cohort | rounds | noise | Poisson (PLD) | fixed size (RDP) |", "|---|---|---|---|---|---|"]
    for (clients, cohort, rounds, noise), (of_poisson, of_fixed) in TABLE.items():
        numbers = (f"{clients:,}", f"{cohort:,}", rounds, f"{noise:g}", f"{of_poisson:g}", f"{of_fixed:g}")
        lines.append("| " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def test_the_page_has_the_table() -> None:
    if not PAGE.exists():
        pytest.skip("the page is not written yet")
    found = re.search(r"^\| clients \| cohort \| .*?(?=\n[^|]|\n\n|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, "docs/howto/private.md lacks the table of `markdown()`"
    assert found[0].strip() == markdown()
