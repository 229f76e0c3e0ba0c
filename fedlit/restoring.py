"""A run's model once more, from its checkpoints: what a finished run computes, without training."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlit.client.host import ModelHost
from fedlit.config import RunConfig, run_folder
from fedlit.errors import UserError
from fedlit.inputs import Inputs, gather_inputs
from fedlit.models import Backbone, OwnBackbone
from fedlit.outside.loading import load_plugins
from fedlit.planning import attach_adapter, make_plan, make_task
from fedlit.round.best_round import BestRound
from fedlit.round.jobs import ClientState
from fedlit.round.loop import Federation
from fedlit.round.server import ServerState
from fedlit.store.checkpoint import Checkpoints
from fedlit.store.folder import RunFolder, with_own_template
from fedlit.tasks.registry import task_spec


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run has made, in memory.

    host: holds the model with the adapter. reader: tokenizer or image processor. server: whose state the model has.
    clients: the states of those of this process that keep any, by client id.
    """

    host: ModelHost
    reader: Any
    server: ServerState
    clients: Mapping[int, ClientState]

    @classmethod
    def of(cls, federation: Federation) -> "Trained":
        """Return what a federation holds after its export: the state that was exported."""
        host, task = federation.host, federation.evaluator.task
        # A task reads texts with its tokenizer, or images with what prepares them.
        reader = getattr(task, "tokenizer", None) or getattr(
            getattr(task, "preparation", None), "image_processor", None
        )
        trained = cls(host=host, reader=reader, server=federation.server, clients=federation.clients or {})
        trained.load()
        return trained

    def load(self) -> None:
        """Make the model the server's or, where clients keep tensors to themselves, the first client's."""
        self.host.model.eval()
        if self.host.has_private and self.clients:
            self.load_client(min(self.clients))
        else:
            self.host.load_server(self.server)

    def load_client(self, client_id: int) -> None:
        """Make the model a client's own: the server's tensors, and those that the client keeps to itself.

        Raises:
            UserError: no such client, or clients keep nothing of the model to themselves.
        """
        if not self.host.has_private:
            raise UserError("this method's clients have no model of their own; take the server's, result.model")
        if client_id not in self.clients:
            known = f"0 to {max(self.clients)}" if self.clients else "none here"
            raise UserError(f"client {client_id} is none of this run; known are {known}")
        self.host.load_server(self.server)
        self.host.load_model_of(self.server, client_id, self.clients[client_id].private)
        self.host.method.adapter.set_rank(self.host.model, client_id=client_id)


def restore(config: RunConfig, backbone: OwnBackbone) -> Trained:
    """Return the state that a run's folder holds: that of its newest round, or of its best with run.result=best.

    Raises:
        UserError: there is no intact checkpoint, or the model is not there any more.
    """
    load_plugins(config.plugins)
    config = with_own_template(config, run_folder(config))
    folder = RunFolder(config)
    checkpoints = Checkpoints(folder=folder.checkpoints, keep=config.run.keep_checkpoints)
    path = _checkpoint(config, folder, checkpoints)
    plan = make_plan(Inputs(config=config, rows=[], shards=[], classes=_classes(config, folder.path)), backbone.load)
    loaded = plan.backbone()
    if loaded.start is not None:
        folder.begin_from(loaded.start.record())  # what of it is frozen is in no checkpoint
    make_task(plan, loaded)  # which may give the model its padding
    # What an adapter makes of data is in the checkpoint, and replaces what it makes of these.
    layers, _ = attach_adapter(plan, loaded, partial(_stand_ins, loaded.model, task_spec(config.data.task).reads_text))
    host = ModelHost(loaded.model, plan.method, layers)
    server, clients = checkpoints.load(path, torch.device("cpu"), set(range(config.num_clients)))
    trained = Trained(host=host, reader=_reader(loaded), server=replace(server, layers=layers), clients=clients)
    trained.load()
    return trained


def _checkpoint(config: RunConfig, folder: RunFolder, checkpoints: Checkpoints) -> Path:
    newest, _ = checkpoints.newest()
    if newest is None:
        raise UserError(f"{folder.path} has no intact checkpoint, and so no model; start the run once more")
    if config.run.result == "best":
        best = BestRound.of(config)
        # A round is in the record before its checkpoint is written: a run that was killed then has none of its last.
        last = int(newest.name.rpartition("-")[2])
        best.see([record for record in folder.records() if record["round"] <= last])
        if best.number is not None and (path := checkpoints.of_round(best.number)) is not None:
            return path
    return newest


def _classes(config: RunConfig, folder: Path) -> tuple[str, ...]:
    """Return the names of a classification's classes, as the exported model has them; else those of the rows."""
    if not task_spec(config.data.task).has_head or config.data.regression:
        return ()
    if config.data.classes:
        return tuple(config.data.classes)
    for described in sorted((folder / "adapter").rglob("config.json")):
        with suppress(OSError, ValueError, KeyError):
            names = json.loads(described.read_text(encoding="utf-8"))["id2label"]
            return tuple(names[str(number)] for number in range(len(names)))
    return gather_inputs(config).classes


def _stand_ins(model: Any, reads_text: bool) -> Iterator[Tensor]:
    """Yield numbers that depend on all weights of a model, in place of the losses of training rows."""
    if reads_text:
        num_rows = model.get_input_embeddings().num_embeddings
        yield model(input_ids=torch.arange(64).view(4, 16) % num_rows).logits.float().square().mean()
        return
    config = getattr(model.config, "vision_config", model.config)
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    shape = (2, config.num_channels, side, side)
    yield model(pixel_values=torch.linspace(-1, 1, math.prod(shape)).view(shape)).logits.float().square().mean()


def _reader(backbone: Backbone) -> Any:
    return backbone.image_processor if backbone.tokenizer is None else backbone.tokenizer
