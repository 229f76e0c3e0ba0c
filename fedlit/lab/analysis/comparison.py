"""One table of several runs side by side, read from their run folders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from fedlit.lab.analysis.versions import Judged, departures, other_rows, told_versions, warning_of, words_of
from fedlit.lines import printable
from fedlit.scores import CHOSEN_LEGEND, goodness, headings
from fedlit.store.records import Record, trained
from fedlit.store.task_version import TaskVersion

PLACES = ("global/", "own/", "validation/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One line of the table.

    scores: by key of the record, after the last round or the chosen one; `<key>_std` over clients where each has a
    model of its own. chosen_round: its number, where a validation set chose it. mark: beside a rate that was chosen on
    the test set. protocol: `eval/protocol`; None for classes. version: None where it is not known.
    uplink_bytes, downlink_bytes: of one client in one round, means over the run; None where nothing was trained.
    deviation: see fedlit.round.observers.deviation, mean over the rounds; None without LoRA layers.
    """

    name: str
    lr: float | None
    scores: Mapping[str, float]
    uplink_bytes: float | None
    downlink_bytes: float | None
    deviation: float | None
    chosen_round: int | None = None
    mark: str = ""
    protocol: str | None = None
    version: TaskVersion | None = None


def summarize(name: str, records: Sequence[Record], lr: float | None, *, shown: Record | None = None) -> Result:
    """Return the line of a run that is done; of its first record alone, that of the model before training. `shown` is
    the record whose scores it has, where that is not the last.
    """
    rounds = trained(records)
    clients = sum(record["aggregation/num_clients"] for record in rounds)

    def per_client(key: str) -> float | None:
        return sum(record[key] for record in rounds) / clients if clients else None

    deviations = [record["lora/deviation"] for record in rounds if "lora/deviation" in record]
    return Result(
        name=name,
        lr=lr,
        scores={key: value for key, value in (shown or records[-1]).items() if key.startswith(PLACES)},
        uplink_bytes=per_client("communication/uplink_bytes"),
        downlink_bytes=per_client("communication/downlink_bytes"),
        deviation=sum(deviations) / len(deviations) if deviations else None,
        protocol=next((str(record["eval/protocol"]) for record in records if "eval/protocol" in record), None),
    )


def markdown(results: Sequence[Result], names: Sequence[str]) -> str:
    """Return the table of these scores in Markdown; the best value of each among all lines of one task version is bold,
    and those of others are marked.
    """
    wanted = {f"{place}{name}" for place in PLACES for name in names}
    columns = headings(key for result in results for key in result.scores if key in wanted)
    rounds = ["round"] if any(result.chosen_round is not None for result in results) else []
    heads = ["method", "lr", *rounds, *columns.values(), "kB up", "kB down", "deviation"]
    marks = _Marks.of(results, list(columns))
    best = {key: _best(key, marks.compared(results, key)) for key in columns}
    lines = [line for warning in marks.warnings(columns) for line in (warning, "")]
    lines += [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    for result in results:
        scores = [
            _cell(result.scores, key, None if marks.letter(result, key) else best[key]) + marks.letter(result, key)
            for key in columns
        ]
        lr = "" if result.lr is None else f"{result.lr:g}{' ' * bool(result.mark)}{result.mark}"
        chosen = ["" if result.chosen_round is None else str(result.chosen_round)] if rounds else []
        deviation = "" if result.deviation is None else f"{result.deviation:.1e}"
        traffic = [_kilobytes(result.uplink_bytes), _kilobytes(result.downlink_bytes)]
        lines.append(_line([f"`{result.name}`", lr, *chosen, *scores, *traffic, deviation]))
    runs = [result.version for result in results if result.uplink_bytes is not None]
    lines += [line for note in (*marks.notes(), *told_versions(runs)) for line in ("", note)]
    if any(result.mark for result in results):
        lines += ["", CHOSEN_LEGEND]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Marks:
    """Which scores are of other task versions than most of their column.

    departing: by key and line, the parts in which one departs. letters: by the words of its footnote.
    """

    departing: Mapping[tuple[str, str], tuple[str, ...]]
    letters: Mapping[str, str]

    @classmethod
    def of(cls, results: Sequence[Result], keys: Sequence[str]) -> "_Marks":
        departing: dict[tuple[str, str], tuple[str, ...]] = {}
        for key in keys:
            found = [result for result in results if key in result.scores]
            judged = [Judged(key=key, protocol=result.protocol, version=result.version) for result in found]
            parts = zip(departures(judged, across_models=False), other_rows(judged), strict=True)
            departing |= {
                (key, result.name): (*of_protocol, *of_rows)
                for result, (of_protocol, of_rows) in zip(found, parts, strict=True)
                if of_protocol or of_rows
            }
        notes = dict.fromkeys(words_of(parts) for parts in departing.values())
        return cls(departing, {note: ascii_lowercase[number % 26] for number, note in enumerate(notes)})

    def letter(self, result: Result, key: str) -> str:
        """Return the mark of a score, '' for none."""
        parts = self.departing.get((key, result.name))
        return "" if parts is None else f" [{self.letters[words_of(parts)]}]"

    def compared(self, results: Sequence[Result], key: str) -> list[float]:
        """Return the scores of one version, among which the best is looked for."""
        found = [result for result in results if key in result.scores]
        return [result.scores[key] for result in found if (key, result.name) not in self.departing]

    def warnings(self, columns: Mapping[str, str]) -> list[str]:
        """Return the lines above the table."""
        parts = dict.fromkeys(part for found in self.departing.values() for part in found)
        headings = dict.fromkeys(columns[key] for key, _ in self.departing)
        return [warning_of(list(headings), parts)] if parts else []

    def notes(self) -> list[str]:
        """Return the footnotes."""
        return [f"{letter}: {note}" for note, letter in self.letters.items()]


def _cell(scores: Mapping[str, float], key: str, best: str | None) -> str:
    """Return one score as it is printed, bold if it looks like the best; blank where it was not measured."""
    if key not in scores:
        return ""
    value, std = scores[key], scores.get(f"{key}_std")
    text = f"{value:.3f}" if std is None else f"{value:.3f} ± {std:.3f}"
    return f"**{text}**" if f"{value:.3f}" == best else text


def _best(key: str, values: Sequence[float]) -> str | None:
    """Return the best value as it is printed, None where all look the same."""
    texts = {f"{value:.3f}" for value in values}
    return f"{max(values, key=lambda value: goodness(key, value)):.3f}" if len(texts) > 1 else None


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(printable, cells))} |"


def _kilobytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1000:.1f}"
