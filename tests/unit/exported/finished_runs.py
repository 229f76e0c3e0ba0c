"""Runs of one process that train for a second or two and are then done, with what their last evaluation generated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning.fabric import Fabric

from fedlit.assembly import assemble
from fedlit.config import load_config, to_yaml
from fedlit.inputs import Inputs, gather_inputs
from fedlit.planning import make_plan
from fedlit.process.storage import write_atomically
from fedlit.round.callback import Callback
from fedlit.round.loop import Federation
from fedlit.store.status import PATH, ended, first_status, to_json
from fedlit.tasks import Sample

SMALL = [
    "num_clients=2",
    "num_rounds=2",
    "local.steps=4",
    "local.batch_size=4",
    "local.lr=0.03",
    "eval.max_examples=6",
    "eval.batch_size=3",
    "eval.max_new_tokens=12",
    "eval.every=2",
    "logging.wandb=disabled",
    "partition=iid",
]


class Kept(Callback):
    """Keeps the samples of the last evaluation."""

    samples: Sequence[Sample] = ()

    def on_round_end(self, record: dict[str, Any], samples: Sequence[Sample]) -> None:
        self.samples = samples or self.samples


@dataclass(frozen=True)
class Finished:
    """A run that is done."""

    folder: Path
    inputs: Inputs
    federation: Federation
    samples: Sequence[Sample]


def finish(folder: Path, *words: str) -> Finished:
    """Train, export and say so in the run's folder."""
    given = {word.partition("=")[0] for word in words}
    defaults = [word.replace("partition=", "partition.name=") for word in SMALL if word.partition("=")[0] not in given]
    config = load_config([*defaults, *words, f"run.dir={folder}", "run.name=run"])
    inputs = gather_inputs(config)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.compute.precision)
    federation, _ = assemble(make_plan(inputs), fabric)
    kept = Kept()
    federation.callbacks = [kept]
    federation.folder.prepare({}, "cpu")
    federation.run()
    federation.export()
    run = folder / "run"
    status = replace(first_status(config.num_rounds), log=None)
    write_atomically(run / PATH, to_json(ended(status, "done")))
    assert (run / "config.yaml").read_text() == to_yaml(config)
    return Finished(run, inputs, federation, kept.samples)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write a JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
