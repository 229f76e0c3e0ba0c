"""The study's tables and pictures: from run folders to two small files, from those to everything that is shown.

    python study.py runs/text runs/images
    python study.py

The first reads run folders and writes results/*.parquet; then, as the second alone does, all tables and pictures are
made anew from these two files, with the functions behind `fedlit report`.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from scipy.stats import kendalltau

from fedlit.errors import UserError
from fedlit.lab.analysis.collection import Entry, collect
from fedlit.lab.report.measures import is_done, value_of
from fedlit.lab.report.over_draws.claims import Claims
from fedlit.lab.report.over_draws.differences import compare_draws
from fedlit.lab.report.over_draws.examples import Error, by_example, error_of
from fedlit.lab.report.over_draws.figures import draw_statistics
from fedlit.lab.report.over_draws.files import differences_csv, examples_csv, shares_csv
from fedlit.lab.report.over_draws.scores import Run, Scores, in_order
from fedlit.lab.report.over_draws.sections import sections_of
from fedlit.lab.report.over_draws.shares import shares_of
from fedlit.lab.report.render import markdown
from fedlit.scores import SCORES
from fedlit.statistics.examples import over_examples, paired_over_examples
from fedlit.statistics.paired import t_interval

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
TASKS: Mapping[str, tuple[str, ...]] = {
    "dolly": ("loss", "rouge_l", "rouge_l_forced"),
    "brain_tumor": ("f1_macro", "loss"),
}
"""By data set, the scores that are shown; the first is that of single examples."""
EXAMPLE_SCORES = ("loss", "rouge_l")
REFERENCE = "fedit"
RULES = ("fedit", "ffa_lora", "flexlora", "fedex_lora", "flora", "fedsvd", "rolora", "fedrot_lora", "fed_sb")
"""Ways to combine one low-rank adapter into one model: those whose papers compare with one another."""
VIEWS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dolly": ("dolly", ()),
    "dolly_rules": ("dolly", RULES),
    "brain_tumor": ("brain_tumor", ()),
    "brain_tumor_rules": ("brain_tumor", RULES),
}
"""By folder of tables and pictures: the task, and the methods; none for all."""
TITLES = {"dolly": "Dolly", "brain_tumor": "brain MRI"}
ORDER = ["task", "method", "draw", "seed"]


def runs_of(entries: Sequence[Entry]) -> Iterator[tuple[dict[str, Any], Entry]]:
    """Yield what names each run, and the run.

    Raises:
        UserError: a run is not done.
    """
    for entry in entries:
        config = entry.config
        if config is None or not is_done(entry):
            raise UserError(f"{entry.folder}: the run is not done; let its sweep end, or leave the draw out")
        init = config.method.options.get("init") if config.method.name == "scl" else None
        method = config.method.name if init is None else f"{config.method.name} ({init})"
        draw = config.seed if config.partition.seed is None else config.partition.seed
        yield {"task": config.data.name, "method": method, "draw": draw, "seed": config.seed}, entry


def write_results(entries: Sequence[Entry]) -> None:
    """Write a line for each run, and one for each of its test examples."""
    lines: list[dict[str, Any]] = []
    examples: list[pd.DataFrame] = []
    for names, entry in runs_of(entries):
        config, last = entry.config, entry.records[-1]
        assert config is not None
        values = {score: value_of(entry, (score,), "last") for score in TASKS[config.data.name]}
        found = {score: value.value for score, value in values.items() if value is not None}
        untrained = {f"untrained_{score}": entry.records[0].get(f"global/{score}") for score in found}
        up = sum(record.get("communication/uplink_bytes", 0) for record in entry.records) / config.num_rounds
        sent = {"uplink_bytes": up, "invited": last.get("aggregation/num_clients", 0)}
        lines.append({**names, "lr": config.local.lr, **found, **untrained, **sent})
        table = {
            score: by_example(Run(score=value.value, entry=entry, value=value), 1.0, {})
            for score, value in values.items()
            if value is not None and score in EXAMPLE_SCORES
        }
        frame = pd.DataFrame(table).astype("float32").rename_axis("example").reset_index().assign(**names)
        examples.append(frame)
    RESULTS.mkdir(exist_ok=True)
    pd.DataFrame(lines).sort_values(ORDER).to_parquet(RESULTS / "runs.parquet", index=False, compression="zstd")
    whole = pd.concat(examples).sort_values([*ORDER, "example"])
    for name in ("task", "method", "example"):
        whole[name] = whole[name].astype("category")
    whole.astype({"draw": "int16", "seed": "int16"}).to_parquet(
        RESULTS / "examples.parquet", index=False, compression="zstd"
    )


def scores_of(runs: pd.DataFrame, task: str, methods: Sequence[str] = ()) -> list[Scores]:
    """Return the scores of a task, of the draws that every method has with every seed."""
    mine = runs[(runs["task"] == task) & (runs["method"].isin(methods) if methods else True)]
    counts = mine.groupby("draw").size()
    mine = mine[mine["draw"].isin(counts[counts == counts.max()].index)]
    nothing: Any = None  # the run folders are gone
    found = []
    for score in TASKS[task]:
        by_method: dict[str, dict[Any, dict[Any, Run]]] = {}
        for row in mine.to_dict("records"):
            run = Run(score=row[score], entry=nothing, value=nothing)
            by_method.setdefault(row["method"], {}).setdefault(int(row["draw"]), {})[int(row["seed"])] = run
        name = SCORES[score].heading
        found.append(Scores(score=name, key=score, condition="", scale=1.0, runs=by_method, own_seeds=False))
    return found


def errors_of(examples: pd.DataFrame, task: str, scores: Scores) -> list[Error]:
    """Return the errors over single examples of every method, and of its difference from the best."""
    if scores.key not in EXAMPLE_SCORES:
        return []
    of_task = (examples["task"] == task) & examples["draw"].isin(scores.draws)
    mine = examples[of_task & examples["method"].isin(scores.runs) & examples[scores.key].notna()]
    means = mine.groupby(["method", "draw", "example"], observed=True)[scores.key].mean()
    known: dict[str, dict[int, dict[str, float]]] = {}
    for (method, draw), part in means.groupby(level=["method", "draw"], observed=True):
        known.setdefault(str(method), {})[int(draw)] = part.droplevel(["method", "draw"]).to_dict()
    errors = [
        error_of(scores, name, "", [over_examples(list(d.values())) for d in of.values()]) for name, of in known.items()
    ]
    best = scores.best()
    for name, draws in known.items():
        if name != best:
            both = [draw for draw in in_order(draws) if draw in known[best]]
            pairs = [paired_over_examples(draws[draw], known[best][draw]) for draw in both]
            errors.append(error_of(scores, name, best, [pair for pair in pairs if pair is not None]))
    return errors


def claims_of(runs: pd.DataFrame, examples: pd.DataFrame, task: str, methods: Sequence[str] = ()) -> Claims:
    """Return all statistics of a task."""
    scores = scores_of(runs, task, methods)
    errors = [error for each in scores for error in errors_of(examples, task, each)]
    rows, shares = compare_draws(scores), shares_of(scores)
    return Claims(
        scores=tuple(scores), rows=tuple(rows), shares=tuple(shares), errors=tuple(errors), reference=REFERENCE
    )


def summary(runs: pd.DataFrame, claims: Mapping[str, Claims]) -> str:
    """Return the table of methods: means over draws with 95 % intervals, and kB that a client sends in a round."""
    columns = [scores for task, found in claims.items() for scores in found.scores if _is_shown(task, scores)]
    heads = ["method", *(_head(scores) for scores in columns), "kB sent, text / images"]
    lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    first = columns[0]
    for method in sorted(first.runs, key=first.mean):
        cells = [f"`{method.replace(' (', '`, ').rstrip(')')}" if " (" in method else f"`{method}`"]
        for scores in columns:
            means = list(scores.by_draw(method).values())
            low, high = t_interval(np.array(means))
            cells.append(f"{statistics.fmean(means):.3f} [{low:.3f}, {high:.3f}]")
        sent = [runs[(runs["method"] == method) & (runs["task"] == task)] for task in claims]
        each = [(mine["uplink_bytes"] / mine["invited"].clip(lower=1)).mean() / 1000 for mine in sent]
        cells.append(" / ".join(f"{kb:.0f}" for kb in each) if any(each) else "nothing")
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _head(scores: Scores) -> str:
    return f"{scores.score} {'↓' if scores.lower_is_better else '↑'}"


def _is_shown(task: str, scores: Scores) -> bool:
    return task != "brain_tumor" or scores.key == "f1_macro"


def protocols(runs: pd.DataFrame, claims: Claims) -> str:
    """Return what each score of text says of training and of the methods' order."""
    mine = runs[runs["task"] == "dolly"]
    means = {scores.key: {name: scores.mean(name) for name in claims.scores[0].runs} for scores in claims.scores}
    loss = list(means["loss"].values())
    lines = [
        _row(
            [
                "score",
                "untrained",
                "best mean",
                "worst mean",
                "method's share of the variance",
                "Kendall's tau with the loss",
            ]
        ),
        _row(["---", *["---:"] * 5]),
    ]
    for scores, shared in zip(claims.scores, claims.shares, strict=True):
        values = list(means[scores.key].values())
        sign = -1 if not scores.lower_is_better else 1
        best, worst = (min(values), max(values)) if scores.lower_is_better else (max(values), min(values))
        tau = kendalltau(loss, [sign * value for value in values]).statistic
        share = next((f"{100 * each.share:.1f} %" for each in shared.found.shares if each.source == "method"), "-")
        untrained = mine[f"untrained_{scores.key}"].mean()
        numbers = [f"{untrained:.4f}", f"{best:.4f}", f"{worst:.4f}", share, f"{tau:.2f}"]
        lines.append(_row([scores.score, *numbers]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_view(name: str, claims: Claims) -> None:
    """Write the tables and pictures of some methods on one task."""
    folder = RESULTS / name
    folder.mkdir(exist_ok=True)
    texts = [f"## {heading}\n\n{markdown(table)}" for heading, table in sections_of(claims)]
    (folder / "statistics.md").write_text("\n".join(texts), encoding="utf-8")
    for file, text in (
        ("differences.csv", differences_csv(claims)),
        ("shares.csv", shares_csv(claims)),
        ("examples.csv", examples_csv(claims)),
    ):
        (folder / file).write_text(text, encoding="utf-8")
    task, methods = VIEWS[name]
    draw_statistics(claims, TITLES[task] + (", nine rules over LoRA" if methods else ""), folder)


def main(words: Sequence[str]) -> int:
    """Write the results of the run folders that are named, and all tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="folders of runs, such as runs/text and runs/images")
    folders = parser.parse_args(words).runs
    if folders:
        write_results([entry for folder in folders for entry in collect([folder]).entries])
    runs, examples = (pd.read_parquet(RESULTS / f"{name}.parquet") for name in ("runs", "examples"))
    views = {
        name: claims_of(runs, examples, task, methods)
        for name, (task, methods) in VIEWS.items()
        if task in set(runs["task"])
    }
    for name, found in views.items():
        write_view(name, found)
    claims = {name: found for name, found in views.items() if name in TASKS}
    (RESULTS / "methods.md").write_text(summary(runs, claims), encoding="utf-8")
    (RESULTS / "protocols.md").write_text(protocols(runs, claims["dolly"]), encoding="utf-8")
    print((RESULTS / "methods.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
