"""Run folders with records that nobody trained: what an analysis reads of a run, by a formula."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedlit.config import load_config, to_yaml
from fedlit.lab.analyses.base import Run, runs_of
from fedlit.lab.analysis.collection import collect
from fedlit.store.status import RunStatus

METHODS = ("fedit", "ffa_lora", "fedex_lora", "flexlora", "fedsa_lora", "scl", "fedftg")
LAYERS = tuple(f"model.layers.{block}.self_attn.{name}_proj" for block in range(4) for name in "qv")
NUM_CLIENTS = 3
SMALL = {"model.max_length_tokens": 48, "local.batch_size": 2, "local.steps": 4}
EXACT = ("ffa_lora", "fedex_lora")


def record(method: str, round_number: int, place: int) -> dict[str, Any]:
    """Return the record of a round; `place` tells methods apart."""
    height = 3.0 + 0.1 * place + 1.5 * math.exp(-round_number / 3)
    found: dict[str, Any] = {"round": round_number, "global/loss": height, "own/loss": height + 0.1}
    found |= {"global/rouge_l": 0.3 - 0.05 * height + 0.02 * (round_number % 3 == 1), "global/bleu_4": 0.01 * place}
    for client in range(NUM_CLIENTS):
        found[f"client/{client}/own/loss"] = height + 0.05 * client * (place + 1)
        found[f"client/{client}/own/rouge_l"] = 0.2 - 0.02 * client
    found |= {"norms/shared": 5.0 + place + 0.3 * round_number, "general/loss": 2.0}
    if round_number == 0:
        return found
    for client in range(NUM_CLIENTS):
        found |= {f"client/{client}/train_loss": height - 0.2 + 0.1 * client, f"client/{client}/num_steps": 4}
    found |= {"communication/uplink_bytes": 1000 * (place + 1), "communication/downlink_bytes": 2000 * (place + 1)}
    found |= {"norms/gradient": 2.0 / round_number, "norms/steps": 4, "general/loss": 2.0 + 0.02 * round_number}
    if method == "fedftg":
        return found | {"subspaces/projector": 10.0 * round_number}
    return found | of_layers(method, round_number, place)


def of_layers(method: str, round_number: int, place: int) -> dict[str, Any]:
    """Return what a round's record has of single layers, and their means."""
    layers = LAYERS if method != "scl" else tuple(f"model.layers.{block}.mlp.down_proj" for block in range(4))
    size = 1e-10 if method in EXACT else 1e-3 / round_number
    kinds = {
        ("scl/deviation" if method == "scl" else "lora/deviation"): [size * (1 + i) for i in range(len(layers))],
        "rank/numerical": [8.0 * NUM_CLIENTS - i % 2 for i in range(len(layers))],
        "rank/effective": [9.0 + 0.1 * i + place / 5 for i in range(len(layers))],
        "rank/eta": [NUM_CLIENTS - (i % 2) / 8 for i in range(len(layers))],
        "subspaces/clients_out": [70.0 + place - round_number for _ in layers],
        "subspaces/clients_in": [30.0 + place + round_number for _ in layers],
        "subspaces/server_out": [20.0 - round_number for _ in layers],
        "subspaces/server_in": [5.0 + place for _ in layers],
    }
    if method == "fedsa_lora":
        kinds["lora/spread"] = [0.5 * size for _ in layers]
    found: dict[str, Any] = {
        "rank/eta_bound": float(NUM_CLIENTS),
        "rank/client_effective": 6.0,
        "rank/effective_eta": 1.5,
    }
    found["scl/update_norm" if method == "scl" else "lora/update_norm"] = 0.01
    for name, values in kinds.items():
        found |= {f"{name}/{layer}": value for layer, value in zip(layers, values, strict=True)}
        found[name] = sum(values) / len(values)
    return found


def write_runs(folder: Path, methods: Sequence[str] = METHODS, num_rounds: int = 6, **settings: Any) -> Path:
    """Write a run folder for each method below `folder`, and return it."""
    for place, method in enumerate(methods):
        words = [f"method={method}", f"num_rounds={num_rounds}", f"num_clients={NUM_CLIENTS}", "data=pydoc"]
        config = load_config([*words, *(f"{key}={value}" for key, value in {**SMALL, **settings}.items())])
        run = folder / method
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(to_yaml(config))
        lines = [json.dumps(record(method, number, place)) + "\n" for number in range(num_rounds + 1)]
        (run / "metrics.jsonl").write_text("".join(lines))
        status = RunStatus(state="done", num_finished_rounds=num_rounds, num_rounds=num_rounds, reason="")
        (run / "status.json").write_text(json.dumps(asdict(status)))
        clients = [{"client_id": i, "num_train": 40 * (i + 1), "num_test": 8} for i in range(NUM_CLIENTS)]
        (run / "partition.json").write_text(json.dumps({"data": "pydoc", "clients": clients}))
    return folder


def recorded(folder: Path, methods: Sequence[str] = METHODS, **settings: Any) -> list[Run]:
    """Write the folders and return what an analysis gets."""
    return runs_of(collect([str(write_runs(folder, methods, **settings))]))
