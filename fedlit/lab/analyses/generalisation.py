"""The generalisation bounds of theorem 3 from a run's own weights and shard sizes, beside the measured gap.

Mahla, Jadhav and Ramakrishnan, arXiv 2410.23111, expressions (7) and (8), with N clients of n_i rows and a risk that is
sigma-sub-Gaussian:

    (7)  1/N sum_i sqrt(2 sigma^2 ln 2 / n_i * r q sum(d))            FFA-LoRA; r q sum(d): bits of all trained B
    (8)  1/N sum_i sqrt(2 sigma^2 / n_i * H(W_i))                     averaged weights
         H(W) = - sum_j sum_l f_jl log f_jl,  f_jl = exp W_jl / sum_l exp W_jl

(7) is Xu and Raginsky's bound with the mutual information below the bits of what trains (Zhu et al., arXiv 2402.16842),
so it stands for any method with its own trained numbers in place of r sum(d). (8) puts the entropy of a softmax over
each row of W in its place, which no argument of the paper connects with the information in W. The paper gives
(8) in the limit of equal entries as sqrt(2 sigma^2 d / (n k) log k); the sum as it is printed tends to d log k, which
is k times as much under the root. Both are shown.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedlit.errors import UserError
from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, by_label
from fedlit.lab.analysis.column import Dots, Panel, Picture
from fedlit.models import OwnBackbone
from fedlit.recipes import picked_names
from fedlit.restoring import restore
from fedlit.scores import number
from fedlit.store.example_scores import read


def row_entropy(weight: Tensor) -> float:
    """Return H(W) in nats: the sum over rows of the entropy of a softmax over the row's entries, in float64.

    weight: (d, k).
    """
    logs = torch.log_softmax(weight.double(), 1)
    return float(-(logs.exp() * logs).sum())


def bound(sigma: float, num_rows: Sequence[int], information: float) -> float:
    """Return 1/N sum_i sqrt(2 sigma^2 / n_i * information), the information in nats the same for every client."""
    return sum(math.sqrt(2 * sigma**2 / rows * information) for rows in num_rows) / len(num_rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a run gives the expressions.

    bits: of the numbers that one client trains. entropy: sum of H over the trained weights, None unless whole weights
    train. at_uniform: what that sum is of weights with equal entries, sum of d log k. as_printed: the paper's limit,
    sum of d log(k) / k. num_rows: training rows of each client. sigma: half the range of the test examples' losses in
    the last evaluation. std: their standard deviation. gap: test less training loss of the last round, None without.
    """

    bits: int
    entropy: float | None
    at_uniform: float | None
    as_printed: float | None
    num_rows: Sequence[int]
    sigma: float
    std: float
    gap: float | None


class Generalisation(Analysis):
    """Expressions (7) and (8) beside the gap of test and training loss."""

    name = "generalisation"
    title = "Generalisation bounds"
    source = "arXiv 2410.23111 (FedFTG), theorem 3, expressions (7) and (8)"
    needs = ("global/loss",)
    remedy = "score the global test set (eval.on=global or both)"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return the expressions of one run of each setting, from its newest checkpoint."""
        found, notes = {}, list(_NOTES)
        for label, repeats in by_label(runs).items():
            try:
                found[label] = measured(repeats[0])
            except (UserError, OSError) as error:
                notes.append(f"Not of {label}: {error}.")
        rows = [_row(label, each) for label, each in found.items()]
        pictures = []
        if rows:
            named = {
                "measured gap": [row["measured gap"] for row in rows],
                "expression (7)": [row["expression (7)"] for row in rows],
                "expression (8)": [row["expression (8)"] for row in rows],
            }
            dots = Dots(rows=list(found), points={name: [number(v) for v in values] for name, values in named.items()})
            panel = Panel(x="nats per token or example", y="", dots=dots)
            caption = (
                "Test less training loss after the last round, and the bounds with sigma half the range of losses."
            )
            height = 0.55 + 0.16 * len(rows)
            pictures = [Picture(name="generalisation", caption=caption, panels=[panel], height=height)]
        table = Table(name="generalisation", caption=_CAPTION, columns=tuple(rows[0]) if rows else (), rows=rows)
        return Findings(tables=[table], pictures=pictures, notes=notes)


_NOTES = (
    "Estimated: sigma. A loss within a range is sub-Gaussian with half of it (Hoeffding); the range is that of test "
    "examples' losses in the last evaluation, so the true one may be larger. The standard deviation is beside it.",
    "Known: n_i from partition.json, q from the type of the trained numbers, d, k, r and W from the newest checkpoint. "
    "After an aggregation all clients have the server's W, so that W_i = W.",
    "(7) is of every method, with the bits of all numbers that one client trains; for FFA-LoRA that is r q sum(d). "
    "(8) is shown where whole weights train, summed over them; it is no bound for a reason that the paper gives, since "
    "the entropy of a softmax of weights is not the information in them.",
)
_CAPTION = (
    "Nats per token or example. (8) uniform: with equal entries, d log k; (8) limit: as the paper prints it, "
    "d log(k) / k. The measured gap is test less training loss of the last round."
)


def measured(run: Run) -> Measured:
    """Return what the expressions need of a run.

    Raises:
        UserError: no checkpoint, no model, no scores of single examples, or no partition.
    """
    num_rows = run.shard_sizes()
    if not num_rows:
        raise UserError("its partition.json is missing; keep it beside the run")
    losses = _test_losses(run)
    config = copy.deepcopy(run.config)
    config.run.dir, config.run.name = str(run.folder.absolute().parent), run.folder.absolute().name
    weights = restore(config, OwnBackbone()).host.trained
    tensors = [parameter.detach() for parameter in weights.values()]
    matrices = (
        [tensor for tensor in tensors if tensor.ndim == 2]
        if ("adapter", "dense") in picked_names(config.method)
        else []
    )
    sizes = [matrix.shape for matrix in matrices]
    train, test = run.train_loss(), run.points("global/loss")
    both = sorted(set(train) & set(test))
    return Measured(
        bits=sum(8 * tensor.itemsize * tensor.numel() for tensor in tensors),
        entropy=sum(map(row_entropy, matrices)) if matrices else None,
        at_uniform=sum(d * math.log(k) for d, k in sizes) if matrices else None,
        as_printed=sum(d * math.log(k) / k for d, k in sizes) if matrices else None,
        num_rows=num_rows,
        sigma=(max(losses) - min(losses)) / 2,
        std=float(torch.tensor(losses, dtype=torch.float64).std(correction=0)),
        gap=test[both[-1]] - train[both[-1]] if both else None,
    )


def _test_losses(run: Run) -> list[float]:
    """Return the loss of every global test example in the last evaluation."""
    frame = read(run.folder)
    frame = frame[frame["set"] == "global"]
    values = frame["loss_sum"] / frame["loss_count"] if "loss_sum" in frame else frame.get("loss", [])
    losses = [float(value) for value in values if math.isfinite(value)]
    if len(losses) < 2:
        raise UserError("it has no losses of single test examples; run with run.example_scores=true")
    return losses


def _row(label: str, found: Measured) -> dict[str, object]:
    def at(information: float | None) -> float | None:
        return None if information is None else bound(found.sigma, found.num_rows, information)

    return {
        "setting": label,
        "trained bits": found.bits,
        "sigma (half range)": found.sigma,
        "sigma (std)": found.std,
        "expression (7)": at(math.log(2) * found.bits),
        "expression (8)": at(found.entropy),
        "(8) uniform": at(found.at_uniform),
        "(8) limit": at(found.as_printed),
        "measured gap": found.gap,
    }
