"""Aggregate LoRA adapters of peft once, wherever they were trained: folders in, one folder out that peft loads.

Ranks, alphas, rsLoRA and patterns are read from each folder. The table tells how far the result is from the mean of the
effective changes (relative Frobenius norm over all layers), and what every other rule would give. No model is loaded.

rules:
  fedit      mean of A and mean of B; equal ranks and scalings only
  hetlora    the same over factors padded with zeros to the largest rank
  flexlora   best approximation of the mean change: at the largest rank, at --rank, or by --energy
  fedex      fedit with its error beside it: exact, of rank n x r, or in two adapters with --residual
  flora      all factors side by side: exact for any ranks, of the sum of the ranks
  lora_fair  fedit with B corrected towards the mean change; equal ranks and scalings only
  fedrot     fedit of factors rotated towards each other; equal ranks and scalings only

one shot is less than the method over rounds: no client starts from the result. hetlora prunes no ranks, flora and fedex
fold nothing into the backbone, clients of lora_fair do not begin with the corrected B, and fedrot has no server to turn
towards: it takes the leading directions of all factors, and one factor where rounds take A and B in turn.
"""

import argparse
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedlit.arguments import CommandParser, positive, writing
from fedlit.commands.endings import tell, without_traceback
from fedlit.config.keys import nearest, show
from fedlit.errors import UserError
from fedlit.process.storage import user_path
from fedlit.process.whole_folder import require_new

if TYPE_CHECKING:
    from fedlit.rules import Outcome

RULES = ("fedit", "hetlora", "flexlora", "fedex", "flora", "lora_fair", "fedrot")
FACTORS = ("a", "b")
DTYPES = ("float32", "bfloat16", "float16", "float64")
TAKES = {
    "rank": "flexlora",
    "energy": "flexlora",
    "residual_rank": "fedex",
    "residual": "fedex",
    "regularization": "lora_fair",
    "align": "fedrot",
}

EXAMPLES = """\
examples:
  fedlit aggregate hospital-a/ hospital-b/ hospital-c/ --rule flexlora --weights 3,2,1 --out merged/
  fedlit aggregate a/ b/ --rule flexlora --energy 0.99 --out merged/
  fedlit aggregate a/ b/ --rule flora --out exact/
  fedlit aggregate a/ b/ --rule fedex --out mean/ --residual rest/
"""


def main(words: Sequence[str]) -> int:
    """Write the aggregate, print what it and the other rules give, and return the exit code."""
    parser = CommandParser("aggregate", __doc__, EXAMPLES)
    parser.add_argument("folders", nargs="+", type=user_path, metavar="ADAPTER", help="folders of adapters (peft)")
    parser.add_argument("--rule", required=True, metavar="NAME", help=", ".join(RULES))
    parser.add_argument("--out", required=True, type=user_path, metavar="FOLDER", help="the new adapter")
    parser.add_argument("--weights", metavar="W,W,...", help="one for each folder, of any sum (default: equal)")
    parser.add_argument("--rank", type=positive, metavar="R", help="flexlora: rank (default: the largest of a layer)")
    parser.add_argument("--energy", metavar="SHARE", help="flexlora: smallest rank with this share, such as 0.99")
    parser.add_argument("--residual-rank", metavar="R", help="fedex: rank that is kept of the residual (default: all)")
    parser.add_argument(
        "--residual", type=user_path, metavar="FOLDER", help="fedex: an adapter of its own for the residual"
    )
    parser.add_argument(
        "--regularization", metavar="LAMBDA", help="lora_fair: penalty of the correction (default: 0.01)"
    )
    parser.add_argument("--align", metavar="FACTOR", help="fedrot: rotate by a or by b (default: a)")
    parser.add_argument("--dtype", metavar="TYPE", help=f"{', '.join(DTYPES)} (default: that of the adapters)")
    parser.add_argument("--base-model", metavar="NAME", help="the model of all, where their notes of it differ")
    return without_traceback(lambda: _aggregate(parser.parse(words)))


def _aggregate(options: argparse.Namespace) -> int:
    _require_one_of("--rule", options.rule, RULES, "rule")
    for name, rule in TAKES.items():
        if getattr(options, name) is not None and options.rule != rule:
            raise UserError(f"--{name.replace('_', '-')} belongs to --rule={rule}; leave it out, or choose that rule")
    _require_one_of("--dtype", options.dtype, DTYPES, "type")
    _require_one_of("--align", options.align, FACTORS, "factor")
    sizes = _sizes(options)
    weights = _weights(options.weights, len(options.folders))
    _require_new_folders(options)
    for folder in options.folders:
        if not folder.is_dir():
            raise UserError(f"{show(str(folder))} is no folder; give folders of adapters")
    import torch  # noqa: PLC0415  after all mistakes of the command line

    from fedlit.rules import Rule, aggregate_folders  # noqa: PLC0415

    with writing(options.out, "--out"):
        outcomes = aggregate_folders(
            options.folders,
            weights,
            options.out,
            Rule(name=options.rule, **sizes),
            residual=options.residual,
            dtype=None if options.dtype is None else getattr(torch, options.dtype),
            backbone=options.base_model,
            notice=lambda line: tell(f"warning: {line}"),
        )
    for line in _table(outcomes):
        print(line)
    print(options.out)
    if options.residual is not None:
        print(options.residual)
    return 0


def _require_one_of(option: str, value: str | None, valid: Sequence[str], what: str) -> None:
    if value is not None and value not in valid:
        raise UserError(f"{option}={show(value)} is no {what}{nearest(value, valid)} Valid: {', '.join(valid)}")


def _require_new_folders(options: argparse.Namespace) -> None:
    """Refuse places where something is already, or one place for two adapters."""
    require_new(options.out, "--out")
    if options.residual is None:
        return
    require_new(options.residual, "--residual")
    if options.residual.absolute() == options.out.absolute():
        raise UserError(f"--out and --residual are both {show(str(options.out))}; give two folders")


def _sizes(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the rule that were given, each checked."""
    sizes: dict[str, Any] = {name: getattr(options, name) for name in ("rank", "align")}
    if options.rank is not None and options.energy is not None:
        raise UserError("--rank and --energy both say how much is kept; leave one of them out")
    if options.energy is not None:
        sizes["energy"] = _number(options.energy, "--energy", "a share such as 0.99")
        if not 0 < sizes["energy"] <= 1:
            raise UserError(f"--energy={options.energy} must be above 0 and at most 1, such as 0.99")
    if options.residual_rank is not None:
        sizes["residual_rank"] = _rank(options.residual_rank)
        if options.residual is not None and not sizes["residual_rank"]:
            raise UserError("--residual-rank=0 leaves nothing for --residual; give 1 or more, or leave --residual out")
    if options.regularization is not None:
        sizes["regularization"] = _number(options.regularization, "--regularization", "a number such as 0.01")
        if sizes["regularization"] < 0:
            raise UserError(f"--regularization={options.regularization} must be 0 or more, such as 0.01")
    return {name: value for name, value in sizes.items() if value is not None}


def _table(outcomes: Sequence["Outcome"]) -> list[str]:
    """Return the rules with their ranks, sizes and distances, the one that was written first."""
    lines = ["distance from the mean of the effective changes, and the least that adapters of this rank can have"]
    lines.append("rule       rank     numbers         distance    least")
    for number, each in enumerate(outcomes):
        told = each.reason
        if each.distance is not None:
            low, high = each.ranks
            rank = str(low) if low == high else f"{low}-{high}"
            told = f"{rank:<8} {each.num_numbers:<15,} {each.distance:<11.3g} {each.least:.3g}"
        lines.append(f"{each.rule:<10} {told}{'' if number else '  (written)'}")
    return lines


def _weights(text: str | None, num_folders: int) -> list[float]:
    if text is None:
        return [1.0] * num_folders
    weights = [
        _number(word, "--weights", "numbers with commas between them, such as 3,2,1") for word in text.split(",")
    ]
    if len(weights) != num_folders:
        raise UserError(f"--weights={show(text)} are {len(weights)} for {num_folders} folders; give one for each")
    if min(weights) < 0 or not sum(weights) > 0:
        raise UserError(f"--weights={show(text)}: all must be 0 or more and one above 0; mend them")
    return weights


def _number(text: str, option: str, form: str) -> float:
    """Return a finite decimal number."""
    value = float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", text, re.ASCII) else math.nan
    if not math.isfinite(value):
        raise UserError(f"{option}={show(text)} is no number; give {form}")
    return value


def _rank(text: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text, re.ASCII):
        raise UserError(f"--residual-rank={show(text)} is no rank; give an integer of 0 or more")
    return int(text)
