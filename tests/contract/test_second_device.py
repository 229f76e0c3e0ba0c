"""Every recipe on a device that is not the CPU: nothing forgets its device, and each place that waits is listed."""

from pathlib import Path

import pytest
import tiny_federations
from away_federations import Sizes, Waits, on_cpu, scores, second_device, waits_in_steps
from tiny_federations import Builder, assert_equal, results

from fedlit.recipes import RECIPES

NUM_CLIENTS, NUM_ROUNDS, NUM_BLOCKS = 3, 2, 2
SMALL = (
    f"num_clients={NUM_CLIENTS}",
    f"num_rounds={NUM_ROUNDS}",
    "local.steps=2",
    f"eval.every={NUM_ROUNDS}",
    # As a GPU's kernels do, eager attention is seen operation by operation.
    "model.attention_implementation=eager",
)
SIZES = Sizes(clients=NUM_CLIENTS, layers=3 * NUM_BLOCKS, rounds=NUM_ROUNDS, saves=NUM_ROUNDS + 1, evaluations=2)

WAITS = {
    "algebra/reads.py:_read": Waits(client=1, why="its losses, how far it went, the largest number it sends"),
    "algebra/tensors.py:distance": Waits(round=1, why="how far the server went"),
    "algebra/tensors.py:norm": Waits(save=1, why="how large the server is, at the start too"),
    "algebra/tensors.py:on_cpu": Waits(
        client=1,
        round=2,
        save=1,
        why="factors that wait for the analyses, and what is taken of a few layers; the checksum; a checkpoint",
    ),
    "algebra/tensors.py:first_not_finite": Waits(round=1, why="whether the server is finite"),
    "algebra/together.py:_read": Waits(client=1, why="the deviation: the norms of a client's changes, of all layers"),
}
"""The waits of a run of fedit beside those of an evaluation. A row that is not as seen any more: put in what the test
says. One wait of a client would be best, and a row by layer has no place in a trainer or a rule of the mean.
"""
EVALUATES = ("metrics/", "tasks/", "round/evaluation.py", "round/examples.py")
"""Places that read scores, answers and losses: as often as there are batches and new tokens."""
_GALORE = {"client/optimizers/savable_galore.py:step": "an SVD of each matrix as often as its subspace is renewed"}
_PRIVATE = {"algebra/tensors.py:snapshot": "what a client begins with, once in a run"}
_TRANSFORMED = {"round/cohort.py:require_summable": "the largest number that a client sends after a transform"}
_TRUNCATED = {
    "algebra/leading.py:_projected": "CUDA's SVD reads if it converged",
    "algebra/leading.py:leading_of_factors": "CUDA's eigh reads if it converged, twice a layer",
}
_CUT = {
    **_TRUNCATED,
    "algebra/low_rank.py:svd": "CUDA's SVD reads if it converged",
    "algebra/together.py:ranks_of_energy": "CUDA's SVD reads if it converged",
    "algebra/together.py:_least_rank": "whether what is folded has outgrown its factors",
}
ALSO = {
    "fedftg": _GALORE,
    "fedgalore": {
        "client/optimizers/shared_galore.py:heard": "an SVD of each matrix as often as its subspace is renewed",
        "client/optimizers/shared_moments.py:begin": "whose second moments are known, once a client",
    },
    "fedex_lora": {"algebra/together.py:_least_rank": "whether what is folded has outgrown its factors"},
    "fedmomentum": _CUT,
    "florist": {**_TRANSFORMED, **_CUT},
    "lora_fair": {"round/rules/lora_fair.py:__call__": "an SVD of the mean A of each layer"},
    "flexlora": {**_TRANSFORMED, **_TRUNCATED},
    "fedask": {"round/cohort.py:require_summable": "the largest number of a client in each of two sums", **_TRUNCATED},
    "ravan": _TRANSFORMED,
    "flora": {**_TRANSFORMED, "algebra/together.py:_least_rank": "whether what is folded has outgrown its factors"},
    "hetlora": _TRANSFORMED,
    "fedsvd": {"algebra/low_rank.py:svd": "CUDA's SVD reads if it converged"},
    "fedrot_lora": {
        **_TRANSFORMED,
        "algebra/rotations.py:procrustes": "an SVD of r x r of each layer and client",
    },
    "fedsa_lora": _PRIVATE,
    "feddpa": _PRIVATE,
    "fedalt": _PRIVATE,
    "local_only": _PRIVATE,
}
"""Further places of single recipes."""
IN_STEPS = {"fedftg": _GALORE.keys(), "fedgalore": {"client/optimizers/shared_galore.py:heard"}}
"""The places that wait between local steps: of the recipes that are not here there are none."""


@pytest.mark.parametrize("method", sorted(RECIPES))
def test_a_federation_ends_with_the_bits_of_the_cpu(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Builder(tmp_path, num_layers=NUM_BLOCKS)
    with second_device(monkeypatch, tiny_federations) as device:
        in_steps = waits_in_steps(device, monkeypatch)
        federation = build.run("away", f"method={method}", *SMALL)
    monkeypatch.undo()
    expected = build.run("cpu", f"method={method}", *SMALL)
    assert_equal(on_cpu(results(federation)), results(expected))
    assert scores(federation.folder.records()) == scores(expected.folder.records())
    assert not {place: count for place, count in in_steps.items() if place not in IN_STEPS.get(method, set())}
    seen = {place: count for place, count in sorted(device.reads.items()) if not place.startswith(EVALUATES)}
    listed = WAITS.keys() | ALSO.get(method, {}).keys()
    assert not {place: count for place, count in seen.items() if place not in listed}
    if method == "fedit":
        assert seen == {place: waits.of_run(SIZES) for place, waits in sorted(WAITS.items())}
