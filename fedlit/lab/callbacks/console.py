"""What a person sees: the sizes at the start, a progress bar inside a round, a line a round, a table at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fedlit.client_names import are_named, labels, rows_of_each
from fedlit.config import DataConfig, RunConfig
from fedlit.lab.analysis.slots import colours
from fedlit.lab.callbacks import Callback, RunSummary
from fedlit.lines import printable
from fedlit.scores import CHOSEN_LEGEND, CHOSEN_ON_TEST, SCORES, choice_key, chosen_on, chosen_scores, headings
from fedlit.store.records import NAME, best_record
from fedlit.tasks import Sample
from fedlit.tasks.registry import task_spec
from fedlit.units import readable_bytes, told_apart

MAX_TABLED = 25
"""Clients with a row each in the table at the end."""


class ConsoleReport(Callback):
    """Writes to the terminal, or plain lines where there is none."""

    def __init__(self, console: Console, *, progress: bool) -> None:
        self._console = console
        self._with_progress = progress and console.is_terminal
        self._progress: Progress | None = None
        self._bar = TaskID(0)
        self._summary: RunSummary | None = None

    def on_start(self, summary: RunSummary, records: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        """Print the sizes of the run."""
        self._summary = summary
        first, *others = describe(summary)
        title = Text(printable(first))
        title.stylize(colours([summary.config.method.name])[summary.config.method.name], 0, first.index(" of "))
        self._console.print(title, soft_wrap=True)
        for line in others:
            self._print(line)
        for notice in notices:
            self._print(f"  note       {notice}")

    def on_round_start(self, round_number: int, num_steps: int) -> None:
        """Show the bar of the round's local steps."""
        if not self._with_progress:
            return
        self._progress = Progress(
            TextColumn("round {task.fields[number]} local steps"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._bar = self._progress.add_task("", total=num_steps, number=round_number)
        self._progress.start()

    def on_step(self) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.advance(self._bar)

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        """Print the round's line; before the first, what the adapter's initialisation did to the model."""
        self.close()
        facts = {key.removeprefix("init/"): value for key, value in record.items() if key.startswith("init/")}
        if facts:
            told = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in facts.items())
            self._print(f"  adapter    at the start: {told}")
        assert self._summary is not None
        self._print(round_line(record, shown_scores(self._summary.config.data)))

    def on_end(self, records: Sequence[dict[str, Any]]) -> None:
        """Print the table of the run and where everything lies."""
        assert self._summary is not None
        evaluated = [record for record in records if headings(record)]
        for part in score_table(evaluated, self._summary.config):
            self._console.print(part)
        if (of_clients := client_table(evaluated[-1], self._summary)) is not None:
            self._console.print(of_clients)
        if evaluated[-1]["round"] < self._summary.config.num_rounds:
            self._print(
                f"stopped  after round {evaluated[-1]['round']}: {_why_stopped(evaluated[-1], self._summary.config)}"
            )
        folder = self._summary.folder
        self._print(f"records  {folder / NAME}")
        self._print(f"plots    {folder / 'plots'}")
        self._print(f"result   {folder / 'adapter'}")

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _print(self, line: str) -> None:
        self._console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def _why_stopped(record: Mapping[str, Any], config: RunConfig) -> str:
    """Return why a run has ended before its last round."""
    limit, spent = config.privacy.epsilon, record.get("privacy/epsilon")
    if config.privacy.noise_multiplier is not None and limit is not None and spent is not None:
        return f"epsilon is {spent:.4g}, and one more round would spend more than privacy.epsilon={limit:g}"
    return f"no better score for eval.patience={config.eval.patience}"


def score_table(evaluated: Sequence[dict[str, Any]], config: RunConfig) -> list[Table | Text]:
    """Return the table of a run's scores, of its evaluated records, and the legend of its mark.

    With a validation set all scores of the round that it chose are shown, else each score's own best round.
    """
    keys = headings(key for record in evaluated for key in record)
    chooser = choice_key(config.data, config.eval, keys)
    by_validation = chooser is not None and chosen_on(chooser) == "validation"
    chosen = best_record(evaluated, chooser) if chooser is not None and by_validation else None
    mark = "" if by_validation else f" {CHOSEN_ON_TEST}"
    protocol = f" ({evaluated[0]['eval/protocol']})" if "eval/protocol" in evaluated[0] else ""
    table = Table(title=f"scores{protocol}", title_justify="left")
    for heading in ("", "untrained", "last round", "chosen" if by_validation else f"best{mark}", "in round"):
        table.add_column(heading, justify="right" if heading else "left")
    for key, heading in keys.items():
        having = [record for record in evaluated if key in record]
        best = (chosen if chosen is not None and key in chosen else None) if by_validation else best_record(having, key)
        best_cells = ("", "") if best is None else (f"{best[key]:.4f}", str(best["round"]))
        untrained = f"{evaluated[0][key]:.4f}" if key in evaluated[0] else ""
        table.add_row(Text(printable(heading)), untrained, f"{having[-1][key]:.4f}", *best_cells)
    if by_validation:
        return [table, Text(f"chosen   by {printable(str(chooser))}")]
    return [table, Text(CHOSEN_LEGEND)]


def describe(summary: RunSummary) -> list[str]:
    """Return the lines that tell the sizes of a run."""
    config = summary.config
    amount = f"{config.local.epochs} epochs" if config.local.epochs else f"{config.local.steps} steps"
    num_clients = len(summary.num_train_examples)
    smallest, largest = min(summary.num_train_examples), max(summary.num_train_examples)
    how = [config.eval.protocol] if task_spec(config.data.task).protocols else []
    how += {"global": [], "clients": ["each client's own"], "both": ["global and each client's own"]}[config.eval.on]
    if summary.num_private > 0 and num_clients > 1:
        models = min(num_clients, config.eval.max_clients or num_clients)
        how.append(f"{models:,} clients' models")
    described = f" ({', '.join(how)})" if how else ""
    cut = f", {summary.num_truncated:,} of them truncated" if summary.num_truncated else ""
    rows = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    if summary.num_validation_examples:
        chosen_on = f", {summary.num_validation_examples:,} for validation, {summary.num_validated:,} evaluated"
    else:
        chosen_on = ""
    return [
        f"{config.method.name} of {config.model.name} on {config.data.name}",
        f"  clients    {num_clients}, {summary.cohort_size} in a round; {config.num_rounds} rounds of {amount}; "
        f"{summary.num_processes} process{'es' if summary.num_processes > 1 else ''} on {summary.device}",
        f"  rows       {rows} a client for training, {summary.num_test_examples:,} for testing, "
        f"{summary.num_evaluated:,} evaluated{described}{cut}{chosen_on}",
        *rows_of_each(summary.client_names, summary.num_train_examples),
        f"  parameters {summary.num_trainable:,} trainable ({summary.num_shared:,} shared, "
        f"{summary.num_private:,} private), "
        f"{summary.num_frozen:,} frozen",
        f"  traffic    {readable_bytes(summary.uplink_bytes)} up, {readable_bytes(summary.downlink_bytes)} down, "
        "a client in the first round",
        *told_apart("privacy", summary.privacy),
        f"  folder     {summary.folder}",
    ]


def client_table(record: Mapping[str, Any], summary: RunSummary) -> Table | None:
    """Return the scores of each client in a round; None where clients have no names, are many, or were not scored."""
    names = labels(summary.client_names)
    if not are_named(summary.client_names) or len(names) > MAX_TABLED:
        return None
    found: dict[str, dict[int, float]] = {}
    for score in shown_scores(summary.config.data):
        for place, where in (("", ""), ("own/", "own ")):
            keys = {client_id: f"client/{client_id}/{place}{score}" for client_id in range(len(names))}
            values = {client_id: record[key] for client_id, key in keys.items() if isinstance(record.get(key), float)}
            if values:
                found[f"{where}{SCORES[score].heading if score in SCORES else score}"] = values
    if not found:
        return None
    table = Table(title=f"scores of each client after round {record['round']}", title_justify="left")
    for heading in ("", "training rows", *found):
        table.add_column(heading, justify="right" if heading else "left")
    for client_id, (name, num_rows) in enumerate(zip(names, summary.num_train_examples, strict=True)):
        cells = [f"{values[client_id]:.4f}" if client_id in values else "" for values in found.values()]
        table.add_row(Text(name), f"{num_rows:,}", *cells)
    return table


def shown_scores(data: DataConfig) -> tuple[str, ...]:
    """Return the scores that a round's line has room for: the loss and those the data set names."""
    return ("loss", *chosen_scores(data))


def round_line(record: dict[str, Any], names: Sequence[str]) -> str:
    """Return one line that sums up a round, with the scores of these names."""
    parts = [f"round {record['round']:>3}"]
    wanted = [f"{place}/{name}" for place in ("global", "own", "validation") for name in names if name in SCORES]
    parts.extend(f"{heading} {record[key]:.4f}" for key, heading in headings(record).items() if key in wanted)
    losses = [value for key, value in record.items() if key.startswith("client/") and key.endswith("/train_loss")]
    if losses or "clients/train_loss" in record:
        mean = sum(losses) / len(losses) if losses else record["clients/train_loss"]
        parts.append(f"train loss {mean:.4f}")
    updates = [value for key, value in record.items() if key.startswith("client/") and key.endswith("/update_norm")]
    updates += [record[key] for key in ("clients/update_norm",) if key in record]  # the mean, where clients are many
    if updates and not any(updates):
        parts.append("NO UPDATE: every client sent what it received")
    if lost := len(record.get("clients/lost", ())):
        returned = bool(losses) or "clients/train_loss" in record
        parts.append(f"{lost} LOST" if returned else f"NO UPDATE: all {lost} clients were lost")
    if late := len(record.get("clients/late", ())):
        parts.append(f"{late} late")
    if not record.get("clients/arrived", True) and not lost:
        parts.append("NO UPDATE: nobody came")
    if "clock/round_s" in record:
        parts.append(f"clock {record['clock/round_s']:.3g} s")
    if "lora/deviation" in record:
        parts.append(f"deviation {record['lora/deviation']:.1e}")
    if "privacy/epsilon" in record and record["round"] > 0:
        parts.append(f"epsilon {record['privacy/epsilon']:.2f}")
    if "secure/void" in record:
        parts.append("VOID: the masks could not be taken off")
    if "time/train_s" in record:
        parts.append(f"train {record['time/train_s']:.1f} s")
    parts.append(f"evaluate {record['time/evaluate_s']:.1f} s")
    return "   ".join(parts)
