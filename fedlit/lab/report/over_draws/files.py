"""The statistics as CSV, in the unit of the table: every two methods, every source, every method."""

from typing import Any

from fedlit.lab.analysis.csv_text import csv_text
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.over_draws.differences import FEW
from fedlit.statistics.paired import LEVEL

DIFFERENCES = (
    *("score", "condition", "first", "second", "num_draws", "mean", "std", "low", "high", "t_low", "t_high", "level"),
    *(
        "p",
        "p_holm",
        "p_table",
        "is_exact",
        *(f"flip_{num}_draws" for num in FEW),
        "flip_all_draws",
        "draws_needed",
        "better",
    ),
    "reason",
)
SHARES = (
    *("score", "condition", "source", "share", "low", "high", "variance", "num_methods", "num_draws", "num_seeds"),
    "note",
)
EXAMPLES = (
    *("score", "condition", "first", "second", "num_draws", "num_examples", "mean", "std_error_examples", "std_draws"),
    "std_error_draws",
)


def differences_csv(claims: Claims) -> str:
    """Return a line for every two methods in every score under every condition; numbers are of `first - second`."""
    rows: list[dict[str, Any]] = []
    for row in claims.rows:
        found = row.found
        numbers = {name: getattr(found, name) for name in ("mean", "std", "low", "high", "t_low", "t_high", "p")}
        flips = zip([name for name in DIFFERENCES if name.startswith("flip_")], row.flips, strict=True)
        rows.append(
            {
                **{name: getattr(row, name) for name in ("score", "condition", "first", "second", "better")},
                **{name: getattr(row, name) for name in ("p_holm", "p_table")},
                "num_draws": found.num_pairs,
                **numbers,
                "level": None if found.low is None and found.t_low is None else LEVEL,
                "is_exact": None if found.p is None else found.is_exact,
                **dict(flips),
                "draws_needed": row.needed,
                "reason": found.reason,
            }
        )
    return csv_text(rows, DIFFERENCES)


def shares_csv(claims: Claims) -> str:
    """Return a line for every source of every score; where nothing can be said one without a source, and the reason."""
    rows: list[dict[str, Any]] = []
    for shared in claims.shares:
        found = shared.found
        size = {"num_methods": found.num_methods, "num_draws": found.num_draws, "num_seeds": found.num_seeds}
        named = {"score": shared.score, "condition": shared.condition, **size, "note": shared.note}
        shares = [
            {name: getattr(s, name) for name in ("source", "share", "low", "high", "variance")} for s in found.shares
        ]
        rows += [{**named, **share} for share in shares or [{}]]
    return csv_text(rows, SHARES)


def examples_csv(claims: Claims) -> str:
    """Return a line for every method, without a `second`, and for every two of them.

    `std_error_examples` is that of one draw; `std_error_draws` is `std_draws` over the root of their number.
    """
    rows: list[dict[str, Any]] = []
    for error in claims.errors:
        names = ("score", "condition", "first", "second", "num_draws", "num_examples", "mean", "std_draws")
        over_draws = None if error.std_draws is None else error.std_draws / error.num_draws**0.5
        rows.append(
            {
                **{name: getattr(error, name) for name in names},
                "std_error_examples": error.std_error,
                "std_error_draws": over_draws,
            }
        )
    return csv_text(rows, EXAMPLES)
