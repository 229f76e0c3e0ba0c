"""Collections of runs that nobody trained: scores by a formula, every state, any number of runs."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedlit.config import RunConfig, load_config, to_yaml
from fedlit.lab.analysis.collection import Collection, Entry
from fedlit.store.status import RunStatus

SCORES = ("loss", "rouge_l", "bleu_4")
NUM_LABELS = 24


def records(settings: Mapping[str, Any], num_rounds: int, scores: Sequence[str] = SCORES) -> list[dict[str, Any]]:
    """Return what a run with these settings would have recorded: the same for the same settings."""
    stream = random.Random(repr(sorted(settings.items(), key=str)))
    height, pace = stream.uniform(0.25, 0.45), stream.uniform(3, 9)
    sent = 1e6 * stream.choice((1, 2, 4))
    found: list[dict[str, Any]] = []
    for round_idx in range(num_rounds + 1):
        value = 0.05 + height * (1 - math.exp(-round_idx / pace)) + stream.gauss(0, 0.005)
        record: dict[str, Any] = {"round": round_idx, "eval/protocol": "generate", "time/round_s": 12.5}
        record |= {f"global/{score}": 4 - 5 * value if score == "loss" else value for score in scores}
        if round_idx:
            record |= {"communication/uplink_bytes": sent, "communication/downlink_bytes": 1.5 * sent}
            record |= {"time/clients_s": 40.0, "time/devices_s": 25.0, "aggregation/num_clients": 3}
        found.append(record)
    return found


def partition(data: str, num_clients: int, seed: int) -> dict[str, Any]:
    """Return the partition.json of a skewed split: the same for the same arguments."""
    stream = random.Random(f"{data} {num_clients} {seed}")
    clients = []
    for client_id in range(num_clients):
        labels = {f"label {i}": int(200 * stream.random() ** 6) for i in range(NUM_LABELS)}
        held = {label: count for label, count in labels.items() if count}
        clients.append({"client_id": client_id, "num_train": sum(held.values()), "num_test": 0, "train_labels": held})
    checksum = f"{data} {num_clients} {seed}"
    skew = {"jensen_shannon": 0.3123456789, "size_variation": 0.1}
    return {"data": data, "label": "kind", "shards_sha256": checksum, "heterogeneity": skew, "clients": clients}


def entry(
    folder: Path,
    settings: Mapping[str, Any],
    base: RunConfig,
    *,
    num_rounds: int = 10,
    state: str = "done",
    reason: str = "",
) -> Entry:
    """Return one run; of a pending one there is nothing, any other unfinished one has half of its rounds."""
    name = "-".join(str(value).replace("/", "-") for value in settings.values())
    if state == "pending":
        nothing = RunStatus()
        return Entry(
            name=name, folder=folder / name, settings=settings, status=nothing, config=None, records=(), partition=None
        )
    config = deepcopy(base)
    config.data.name = str(settings.get("data", base.data.name))
    config.method.name = str(settings.get("method", base.method.name))
    config.num_clients = int(settings.get("num_clients", base.num_clients))
    config.seed, config.num_rounds = int(settings["seed"]), num_rounds
    finished = num_rounds if state == "done" else num_rounds // 2
    return Entry(
        name=name,
        folder=folder / name,
        settings=settings,
        status=RunStatus(state=state, num_finished_rounds=finished, num_rounds=num_rounds, reason=reason),
        config=config,
        records=tuple(records(settings, finished)),
        partition=partition(config.data.name, config.num_clients, config.seed),
    )


def collection(
    folder: Path,
    *,
    methods: Sequence[str] = ("fedit", "ffa_lora", "fedex_lora"),
    datas: Sequence[str] = ("medquad",),
    num_clients: Sequence[int] = (4,),
    num_seeds: int = 2,
    num_rounds: int = 10,
    states: Mapping[int, str] | None = None,
) -> Collection:
    """Return every combination; `states` are those that are not `done`, by place."""
    base = load_config([])
    grid = [
        {"data": data, "num_clients": num, "method": method, "seed": seed}
        for data in datas
        for num in num_clients
        for method in methods
        for seed in range(num_seeds)
    ]
    entries = [
        entry(folder, settings, base, num_rounds=num_rounds, state=(states or {}).get(i, "done"))
        for i, settings in enumerate(grid)
    ]
    lengths = {"data": len(datas), "num_clients": len(num_clients), "method": len(methods)}
    varied = tuple(key for key, length in lengths.items() if length > 1)
    return Collection(name=folder.name, folder=folder, entries=tuple(entries), varied=varied)


def write_folders(found: Collection) -> None:
    """Write the run folders of a collection, but for those that have nothing."""
    for run in found.entries:
        if run.config is None:
            continue
        run.folder.mkdir(parents=True)
        (run.folder / "config.yaml").write_text(to_yaml(run.config))
        (run.folder / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in run.records))
        (run.folder / "partition.json").write_text(json.dumps(run.partition))
        (run.folder / "status.json").write_text(json.dumps(asdict(run.status)))
