"""Hold what a run claims of its privacy against what its canaries show (privacy.canaries=<number>).

Canaries are clients of an audit: each sends a direction of its own, or stays away, by a coin. From how far the model
moved along the directions the coins are guessed; the better that goes, the larger epsilon must be at least (Steinke et
al. 2023). The bound lies below the claim, but for one audit in twenty by chance. The exit code is 1 if it does not.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlit.arguments import CommandParser
from fedlit.commands.endings import without_traceback
from fedlit.errors import UserError
from fedlit.process.storage import user_path
from fedlit.store.layout import AUDIT

BROKEN_EXIT_CODE = 1
EXAMPLES = """\
examples:
  fedlit audit runs/audited
  fedlit audit runs/audited --confidence 0.99
"""


def main(words: Sequence[str]) -> int:
    """Print the bound beside the claim and return the exit code."""
    parser = CommandParser("audit", __doc__, EXAMPLES)
    parser.add_argument("run", help="folder of a run with canaries")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the lower bound (default 0.95)")

    def look() -> int:
        options = parser.parse(words)
        if not 0 < options.confidence < 1:
            raise UserError(f"--confidence {options.confidence} is out of range; give a number above 0 and below 1")
        return tell(read_audit(user_path(options.run)), options.confidence)

    return without_traceback(look)


def read_audit(folder: Path) -> dict[str, Any]:
    """Return what a run's canaries have told.

    Raises:
        UserError: the folder has no such file, or a damaged one.
    """
    path = folder / AUDIT
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        assert len(told["scores"]) == len(told["in"]) > 0
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); give the folder of a run with privacy.canaries=<number>"
        ) from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path} is damaged; run the audit again in another run.dir") from None
    return dict(told)


def tell(told: dict[str, Any], confidence: float) -> int:
    """Print the verdict; return 1 if the canaries show more than the run claims, else 0."""
    from fedlit.privacy.audit import best_bound  # noqa: PLC0415  scipy; --help comes at once

    bound = best_bound(told["scores"], told["in"], told["delta"], confidence)
    claimed = float("inf") if told["epsilon"] is None else told["epsilon"]
    num_in = sum(told["in"])
    print(f"canaries   {len(told['in'])}, {num_in} of them in; after round {told['round']}")
    print(
        f"claimed    epsilon {claimed:.4g} at delta {told['delta']:g} (noise multiplier {told['noise_multiplier']:g})"
    )
    print(f"shown      epsilon at least {bound.epsilon:.4g}, with confidence {confidence:g}: {_guesses(bound)}")
    if bound.epsilon > claimed:
        print("BROKEN     the canaries show more than the run claims")
        return BROKEN_EXIT_CODE
    print("holds      the canaries show no more than the run claims")
    return 0


def _guesses(bound: Any) -> str:
    return f"{bound.num_correct} of {bound.num_guesses} guesses right"
