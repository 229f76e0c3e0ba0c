"""Federations of one process on the packaged model that train for seconds, and what they and their files compute."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedlit import assembly, planning
from fedlit.adapters.pair_files import MIXING, load_pair
from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.config import CONFIG_DIR, ModelConfig, load_config
from fedlit.general import general_set
from fedlit.inputs import Inputs
from fedlit.models import PACKAGED, Backbone, OwnBackbone, Purpose
from fedlit.partition.shards import draw_seed, make_shards
from fedlit.partition.validation import split_off_validation
from fedlit.round.loop import Federation

WORDS = ("close", "read", "write", "merge", "sort", "open", "compare", "send", "parse", "split", "join", "copy")
ROWS = [
    {"prompt": f"def {word}_{number}(file)", "response": f"{word} file {number}.", "label": word[0]}
    for number in range(8)
    for word in WORDS
]
DEFAULTS = [
    "num_clients=3",
    "num_rounds=2",
    "local.steps=2",
    "local.batch_size=2",
    "local.lr=0.01",
    "partition.alpha=1",
    "partition.min_test_rows=2",
    "eval.max_examples=2",
    "eval.max_new_tokens=2",
    "eval.every=2",
    "logging.wandb=disabled",
]
TOKENS = torch.arange(5, 53).view(3, 16) * 7


@dataclass(frozen=True)
class Builder:
    """Assembles federations whose run folders lie in one folder."""

    folder: Path
    config_dir: Path = CONFIG_DIR
    num_layers: int | None = None
    """Of the backbone, the first ones; None for all. What is exported belongs to all."""

    def __call__(self, name: str, *options: str) -> Federation:
        """Return a federation in the run folder `name`, resumed if it has a checkpoint."""
        inputs = self.inputs(name, *options)
        plan = planning.make_plan(inputs, self.load)
        fabric = Fabric(accelerator="cpu", devices=1, precision=inputs.config.compute.precision)
        federation, _ = assembly.assemble(plan, fabric)
        for folder in (federation.folder.checkpoints, federation.folder.plots):
            folder.mkdir(parents=True, exist_ok=True)
        federation.resume()
        return federation

    @property
    def load(self) -> Callable[..., Backbone]:
        """What gives the packaged model."""
        return packaged(self.num_layers).load

    def inputs(self, name: str, *options: str) -> Inputs:
        """Return the configuration of a federation, and who holds which of ROWS."""
        given = {option.split("=")[0] for option in options}
        defaults = [option for option in DEFAULTS if option.split("=")[0] not in given]
        config = load_config([*defaults, *options, f"run.dir={self.folder}", f"run.name={name}"], self.config_dir)
        seed = draw_seed(config)
        shards = make_shards(ROWS, config.data, config.partition, config.num_clients, seed)
        if config.partition.validation_fraction:
            shards = split_off_validation(shards, ROWS, config.data, config.partition, seed)
        return Inputs(config=config, rows=ROWS, shards=shards, general=general_set(config))

    def run(self, name: str, *options: str) -> Federation:
        """Return a federation after its last round."""
        federation = self(name, *options)
        federation.run()
        return federation


@cache
def packaged(num_layers: int | None = None) -> OwnBackbone:
    """Return the packaged model and its tokenizer as objects, as a caller of `fedlit.run` gives them: read once."""
    folder = PACKAGED["tiny"]
    given = {} if num_layers is None else {"num_hidden_layers": num_layers}
    model = AutoModelForCausalLM.from_pretrained(folder, **given)
    return OwnBackbone(model=model, reader=AutoTokenizer.from_pretrained(folder))


def packaged_backbone(config: ModelConfig) -> Backbone:
    """Return what load_backbone returns for the packaged model, without reading it again."""
    return packaged().load(config, Purpose())


def results(federation: Federation) -> tuple[TensorDict, TensorDict, TensorDict, dict[int, TensorDict]]:
    """Return the server's tensors and every client's private ones."""
    server = federation.server
    private = {client: state.private for client, state in (federation.clients or {}).items()}
    return server.shared, server.frozen, server.clients, private


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested values with their places."""
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from leaves(each, f"{place}/{number}")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{place}/{key}")


def assert_equal(left: object, right: object) -> None:
    """Compare nested dicts and tuples of tensors bit for bit."""
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor)
        assert torch.equal(left, right)
    elif isinstance(left, tuple):
        assert isinstance(right, tuple)
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])


def differ(left: Federation, right: Federation) -> bool:
    """Return whether two federations ended with different tensors."""
    try:
        assert_equal(results(left), results(right))
    except AssertionError:
        return True
    return False


def effective_weights(federation: Federation, tensors: TensorDict, client_id: int | None = None) -> TensorDict:
    """Return W + scaling * B @ A of every LoRA layer in float64 and W's layout, `tensors` in place of the model's.

    What was folded into W counts if it is among the tensors.
    """
    everything = {**snapshot(dict(federation.host.model.named_parameters())), **tensors}
    folded = replace(federation.server, frozen=tensors).changes()
    weights = {}
    for layer in federation.host.layers:
        change = layer.change(everything, client_id)
        change = change + folded[layer.name].to(torch.float64) if layer.name in folded else change
        weights[layer.name] = everything[layer.weight].double() + layer.oriented(change).dense()
    return weights


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Return a causal language model's logits for a few fixed tokens."""
    model.eval()
    result: Tensor = model(input_ids=TOKENS).logits
    return result


def load_result(folder: Path) -> Any:
    """Load an exported result with peft or transformers alone; two LoRAs and their gate as their card says."""
    if (folder / MIXING).is_file():
        return load_pair(packaged_backbone(ModelConfig()).model, folder)
    if (folder / "adapter_config.json").is_file():
        return PeftModel.from_pretrained(packaged_backbone(ModelConfig()).model, folder)
    return AutoModelForCausalLM.from_pretrained(folder)


def assert_export_computes_the_same(federation: Federation) -> None:
    """Compare the logits of every exported model with those of the federation's, which are not the pretrained ones."""
    federation.export()
    pretrained = logits(packaged_backbone(ModelConfig()).model)
    folders = {None: federation.folder.adapter}
    if federation.host.has_private:
        folders = {client: federation.folder.adapter / f"client-{client:05d}" for client in federation.clients or {}}
    for client_id, folder in folders.items():
        if client_id is not None:
            federation.load_client(client_id)
        expected = logits(federation.host.model)
        size = float(expected.abs().max())
        assert float((expected - pretrained).abs().max()) > 1e-3 * size, "training changed nothing"
        assert float((logits(load_result(folder)) - expected).abs().max()) <= 1e-4 * size
