"""What a federation sends: the runs' own bytes, and the published ratios of FedEx-LoRA with the rules that give them.

Singhal, Ponkshe and Vepakomma, FedEx-LoRA, arXiv 2410.09432, table 6: what full fine-tuning, FedIT and FFA-LoRA send as
a multiple of what FedEx-LoRA sends, for three models, rank 4, five rounds and three clients. The paper does not say
how it counts. Here every plain rule is counted from shapes, and held against the printed numbers.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, lines_of
from fedlit.lab.analyses.paper_models import GPT2, ROBERTA_BASE, ROBERTA_LARGE, PaperModel
from fedlit.lab.analysis.column import Panel, Picture

RANK, NUM_ROUNDS, NUM_CLIENTS = 4, 5, 3
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "RoBERTa-base": {"full": 7.032, "fedit": 0.979, "ffa_lora": 0.972},
    "RoBERTa-large": {"full": 10.396, "fedit": 0.984, "ffa_lora": 0.979},
    "GPT-2": {"full": 9.475, "fedit": 0.917, "ffa_lora": 0.886},
}
"""Table 6: multiples of FedEx-LoRA, printed with three decimals."""
MODELS: Sequence[PaperModel] = (ROBERTA_BASE, ROBERTA_LARGE, GPT2)
ROUNDING = 0.0005
NEAR = 0.002
"""Relative difference up to which a rule is said to come near."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """How what one client sends and receives is counted.

    targets: layers with factors. model_once: the backbone is sent once at the start, under every method. head: the
    classifier goes up and down in each round, beside the factors. residual: FedEx-LoRA's residual comes down as factors
    of rank `residual` r: 3 is the k r of the paper's text. adapter_bytes: of a number of factors and head, where one of
    the backbone has `model_bytes`.
    """

    targets: str
    model_once: bool
    head: bool
    residual: int
    model_bytes: int
    adapter_bytes: int

    def words(self) -> str:
        """Return the rule as a text."""
        parts = [f"LoRA on {self.targets}", "the backbone once" if self.model_once else "no backbone"]
        parts.append(f"{NUM_ROUNDS} rounds of factors{' and head' if self.head else ''} up and down")
        parts.append(f"a residual of rank {self.residual} r down")
        sizes = f"{self.model_bytes} bytes a number of the backbone, {self.adapter_bytes} of the adapter"
        parts.append(sizes if self.model_bytes != self.adapter_bytes else f"{self.model_bytes} bytes a number")
        return "; ".join(parts)


def sent_bytes(model: PaperModel, rule: Rule, method: str) -> int:
    """Return the bytes that one client sends and receives in five rounds under full, fedex_lora, fedit or ffa_lora."""
    backbone = model.total + model.head
    start = rule.model_bytes * backbone if rule.model_once else 0
    if method == "full":
        return start + 2 * NUM_ROUNDS * rule.model_bytes * backbone
    factors = model.lora_b(rule.targets, RANK) if method == "ffa_lora" else model.lora(rule.targets, RANK)
    each_way = factors + (model.head if rule.head else 0)
    residual = rule.residual * factors if method == "fedex_lora" else 0
    return start + NUM_ROUNDS * rule.adapter_bytes * (2 * each_way + residual)


def ratios(model: PaperModel, rule: Rule) -> dict[str, float]:
    """Return what every method sends as a multiple of FedEx-LoRA."""
    fedex = sent_bytes(model, rule, "fedex_lora")
    return {method: sent_bytes(model, rule, method) / fedex for method in PUBLISHED[model.name]}


def rules_for(model: PaperModel) -> Iterator[Rule]:
    """Yield every plain rule: each choice of targets, with and without the first download and the head, residuals of
    rank (k-1) r, k r and (k+1) r, one type for all numbers or a backbone of half the adapter's bytes.
    """
    heads = (True, False) if model.head else (False,)
    for targets, once, head, residual, model_bytes in itertools.product(
        model.targets, (True, False), heads, range(NUM_CLIENTS - 1, NUM_CLIENTS + 2), (4, 2)
    ):
        yield Rule(
            targets=targets,
            model_once=once,
            head=head,
            residual=residual,
            model_bytes=model_bytes,
            adapter_bytes=4,
        )


def distance(model: PaperModel, rule: Rule) -> float:
    """Return the largest relative difference of a rule's ratios from the published ones."""
    published = PUBLISHED[model.name]
    return max(abs(ratio / published[method] - 1) for method, ratio in ratios(model, rule).items())


def nearest_rule(model: PaperModel) -> Rule:
    """Return the plain rule whose ratios are nearest to the published ones."""
    return min(rules_for(model), key=lambda rule: distance(model, rule))


class Communication(Analysis):
    """Bytes of the runs, and table 6 of FedEx-LoRA from shapes."""

    name = "communication"
    title = "Communication"
    source = "arXiv 2410.09432 (FedEx-LoRA), section 6, table 6"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return the published ratios beside counted ones, and the runs' own bytes."""
        tables = [_published_table()]
        own = [run for run in runs if run.has("communication/")]
        pictures = []
        if own:
            tables.append(_own_table(own))
            panel = Panel(
                x="aggregation round", y="sent and received (MB)", lines=list(lines_of(own, _megabytes)), log_y=True
            )
            pictures = [Picture(name="communication", caption="All clients' bytes up to each round.", panels=[panel])]
        return Findings(tables=tables, pictures=pictures, notes=[_verdict(model) for model in MODELS])


def _published_table() -> Table:
    rows = []
    for model in MODELS:
        rule = nearest_rule(model)
        counted = {"fedex_lora": 1.0, **ratios(model, rule)}
        for method in ("full", "fedex_lora", "fedit", "ffa_lora"):
            printed = PUBLISHED[model.name].get(method, 1.0)
            rows.append(
                {
                    **{"model": model.name, "method": method, "published": printed, "counted": counted[method]},
                    "difference": counted[method] - printed,
                    "within rounding": abs(counted[method] - printed) <= ROUNDING,
                    "MB a client": sent_bytes(model, rule, method) / 1e6,
                    "rule": rule.words(),
                }
            )
    caption = (
        "Table 6 of the paper, multiples of FedEx-LoRA at rank 4 over 5 rounds of 3 clients, beside the nearest of the "
        "plain counting rules."
    )
    return Table(
        name="communication_table6", caption=caption, columns=tuple(rows[0]), rows=rows, only_in_file=("rule",)
    )


def _verdict(model: PaperModel) -> str:
    """Return one sentence on how a model's row of table 6 comes out."""
    rule = nearest_rule(model)
    far = distance(model, rule)
    within = all(abs(ratio - PUBLISHED[model.name][name]) <= ROUNDING for name, ratio in ratios(model, rule).items())
    number = sum(1 for _ in rules_for(model))
    if within:
        return f"{model.name}: comes out to the last printed digit with {rule.words()}."
    if far <= NEAR:
        return f"{model.name}: comes within {100 * far:.2g} % with {rule.words()}."
    return f"{model.name}: none of {number} plain rules gives the published row; the nearest is {100 * far:.2g} % away."


def _bytes(run: Run) -> dict[int, float]:
    up, down = run.points("communication/uplink_bytes"), run.points("communication/downlink_bytes")
    return {place: up[place] + down.get(place, 0.0) for place in sorted(up)}


def _megabytes(run: Run) -> dict[int, float]:
    """Return what all clients have sent and received up to each round."""
    rounds = _bytes(run)
    return dict(zip(rounds, (total / 1e6 for total in itertools.accumulate(rounds.values())), strict=True))


def _own_table(runs: Sequence[Run]) -> Table:
    totals = {id(run): sum(_bytes(run).values()) for run in runs}
    fedex = next((totals[id(run)] for run in runs if run.method == "fedex_lora"), None)
    rows = [
        {
            "setting": run.label,
            "run": run.name,
            "up (MB)": sum(run.points("communication/uplink_bytes").values()) / 1e6,
            "down (MB)": sum(run.points("communication/downlink_bytes").values()) / 1e6,
            "ratio to fedex_lora": totals[id(run)] / fedex if fedex else None,
        }
        for run in runs
    ]
    caption = "What all clients of these runs sent and received over all rounds, without the backbone's first download."
    return Table(name="communication", caption=caption, columns=tuple(rows[0]), rows=rows)
