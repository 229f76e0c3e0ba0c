"""What of a run W&B shows beside its numbers: tables, pictures, and the best and last of every score."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.client_names import are_named, names_in
from fedlit.client_names import labels as labels_of_clients
from fedlit.config import RunConfig
from fedlit.process.storage import write_atomically
from fedlit.scores import choice_key, chosen_on, headings
from fedlit.store.clients import MANY
from fedlit.store.records import best_record
from fedlit.tasks import Sample

NUM_SAMPLES = 16
MAX_LABELS = 50
"""Labels with a column of their own in the partition table."""


def summary_scores(records: Sequence[Mapping[str, Any]], config: RunConfig) -> dict[str, float | str]:
    """Return `last/<key>`, `best/<key>` and `best_round/<key>` of every score of all clients together, and `chosen_on`.

    With a validation set, which `chosen_on` tells, the best are all scores of the round that it chose. Else each is
    that score's own best, on the test set, by the rule of `fedlit.scores.best_round`. Nothing before the first round of
    training.
    """
    summary: dict[str, float | str] = {}
    keys = headings(key for record in records for key in record)
    chooser = choice_key(config.data, config.eval, keys)
    chosen = None if chooser is None else best_record(records, chooser)
    by_validation = chooser is not None and chosen_on(chooser) == "validation"
    for key in keys:
        summary[f"last/{key}"] = [record[key] for record in records if key in record][-1]
        best = chosen if by_validation else best_record(records, key)
        if best is not None and key in best:
            summary |= {f"best/{key}": best[key], f"best_round/{key}": best["round"]}
    if chosen is not None and chooser is not None:
        summary["chosen_on"] = chosen_on(chooser)
    return summary


def environment(folder: Path) -> dict[str, Any]:
    """Return versions, commit and device of the run, as part of its configuration, for W&B to compare runs by."""
    path = folder / "environment.json"
    return {"environment": json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}


def client_names(names: Sequence[str]) -> dict[str, Any]:
    """Return the clients' names by number, as part of the run's configuration; nothing where they have none or are
    many. The keys of the record stay those of the numbers, so that runs share their charts.
    """
    if not are_named(names) or len(names) > MANY:
        return {}
    return {"client_names": {str(client_id): label for client_id, label in enumerate(labels_of_clients(names))}}


def partition_rows(partition: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of who holds what, from partition.json: a row a client, a column a label.

    A client's name, where any has one, stands behind its number. Labels stand in the order of their totals; those
    after the fiftieth share a column.
    """
    clients = partition["clients"]
    columns = ["num_train", "num_test"]
    columns += ["num_validation"] if any("num_validation" in client for client in clients) else []
    names = labels_of_clients(names_in(partition))
    sizes: list[list[Any]] = [
        [client["client_id"], *names[i : i + 1], *(client.get(column, 0) for column in columns)]
        for i, client in enumerate(clients)
    ]
    columns = ["client", *(["name"] if names else []), *columns]
    if partition["label"] is None:
        return columns, sizes
    labels = ("train_labels", "test_labels", "validation_labels")
    counts = [sum((Counter(client.get(key, {})) for key in labels), Counter()) for client in clients]
    totals = sum(counts, Counter())
    ordered = sorted(totals, key=lambda label: (-totals[label], label))
    shown, rest = ordered[:MAX_LABELS], ordered[MAX_LABELS:]
    rows = [[*size, *(count[label] for label in shown)] for size, count in zip(sizes, counts, strict=True)]
    columns += [f"{partition['label']}: {label}" for label in shown]
    if rest:
        columns.append(f"{len(rest)} other labels")
        rows = [[*row, sum(count[label] for label in rest)] for row, count in zip(rows, counts, strict=True)]
    return columns, rows


def partition_media(folder: Path) -> dict[str, Any]:
    """Return who holds what as a table and, where it was drawn, as a picture."""
    import wandb  # noqa: PLC0415  as in wandb_run.py

    columns, rows = partition_rows(json.loads((folder / "partition.json").read_text(encoding="utf-8")))
    return {"partition": wandb.Table(columns=columns, data=rows), **_picture(folder, "label_distribution")}


def final_media(folder: Path) -> dict[str, Any]:
    """Return the picture that only a whole run gives: every layer's deviation over the rounds."""
    return _picture(folder, "deviation")


def _picture(folder: Path, name: str) -> dict[str, Any]:
    import wandb  # noqa: PLC0415  as above

    path = folder / "plots" / f"{name}.png"
    return {f"plots/{name}": wandb.Image(str(path))} if path.is_file() else {}


def chosen_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Return at most 16 samples, spread evenly, since a process evaluates short prompts first: the same every round."""
    num_samples = min(NUM_SAMPLES, len(samples))
    return [samples[i * len(samples) // num_samples] for i in range(num_samples)]


def sample_rows(number: int, samples: Sequence[Sample]) -> list[list[Any]]:
    """Return what the model wrote after a round as the rows of a table."""
    return [[number, sample.prompt, sample.reference, sample.prediction] for sample in chosen_samples(samples)]


def samples_table(rows: Sequence[Sequence[Any]]) -> Any:
    """Return the table of such rows."""
    import wandb  # noqa: PLC0415  as above

    return wandb.Table(columns=["round", "prompt", "reference", "output"], data=[list(row) for row in rows])


def keep_samples(folder: Path, number: int, samples: Sequence[Sample]) -> None:
    """Put a round's rows into the run folder, since the record from which a lost entry is caught up has no texts."""
    path = _kept_path(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(sample_rows(number, samples)) + "\n")


def kept_samples(folder: Path, number: int) -> list[list[Any]] | None:
    """Return the rows that were kept of a round; None if there is no table of it."""
    path = _kept_path(folder, number)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _kept_path(folder: Path, number: int) -> Path:
    return folder / "wandb" / "samples" / f"round-{number:04d}.json"
