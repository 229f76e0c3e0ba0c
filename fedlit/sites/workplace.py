"""What a site and the centre have in common: the configuration's method on one loaded backbone.

Both build it from the same configuration and the same named streams, so that both hold the same first model without
sending it.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedlit.assembly import make_evaluator, make_validator, reader_of
from fedlit.client.host import ModelHost
from fedlit.client.steps import ClientModule
from fedlit.config import RunConfig
from fedlit.data.prompts import Row
from fedlit.data.sources import load_test_rows, load_validation_rows
from fedlit.errors import UserError
from fedlit.inputs import Inputs, gather_inputs
from fedlit.method import Method
from fedlit.models import Backbone, load_backbone
from fedlit.outside.loading import load_plugins
from fedlit.partition.shards import Shard
from fedlit.planning import Plan, attach_adapter, make_plan, make_task
from fedlit.process.communication import settle_bits
from fedlit.round.evaluation import Evaluator
from fedlit.round.jobs import ClientState
from fedlit.round.server import ServerState
from fedlit.sites.fitness import require_fit
from fedlit.store.export import Exporter
from fedlit.store.folder import RunFolder
from fedlit.tasks import Task
from fedlit.tasks.encoded import ExampleStore
from fedlit.tasks.registry import task_spec

WHOLE_SETS, OWN_SETS = ("global", "validation"), ("own", "own_validation")
"""Sets that are one for all, and those of single sites: for testing, and for choosing a round."""

NUM_SAMPLED = 4
"""Numbers of every parameter that a site shows of its model."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """A configuration's model and method in this process.

    server, state: the server's and every client's before the first round.
    """

    plan: Plan
    fabric: Fabric
    backbone: Backbone
    task: Task[Any, Any]
    host: ModelHost
    module: ClientModule
    server: ServerState
    state: ClientState

    @classmethod
    def of(cls, inputs: Inputs, load: Callable[..., Backbone] = load_backbone) -> "Workplace":
        """Load the backbone and put the method's adapter into it.

        load: as of `make_plan`.

        Raises:
            UserError: a method, a model or an option that real sites cannot have.
        """
        config = inputs.config
        settle_bits(config.compute)
        plan = make_plan(inputs, load)
        require_fit(config, plan.method)
        backbone = plan.backbone()
        task = make_task(plan, backbone)
        layers, _ = attach_adapter(plan, backbone)
        host = ModelHost(backbone.model, plan.method, layers)
        module = ClientModule(backbone.model, task, plan.method, host.trained)
        module.configure_optimizers()
        # One device and no process group: several sites may be on one machine.
        fabric = Fabric(
            accelerator=config.compute.accelerator,
            devices=1,
            precision=config.compute.precision,  # type: ignore[arg-type]
        )
        fabric.setup_module(module)  # moves it to the device
        server = host.first_server(plan.method.parts, config.num_clients)
        host.load_server(server)
        return cls(
            plan=plan,
            fabric=fabric,
            backbone=backbone,
            task=task,
            host=host,
            module=module,
            server=server,
            state=host.first_state(plan.method.parts),
        )

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return self.plan.inputs.config

    @property
    def method(self) -> Method:
        """The method."""
        return self.plan.method

    def exporter(self, folder: RunFolder) -> Exporter:
        """Return what writes results of this model, with what a run folder tells of them."""
        return Exporter(
            adapter=self.method.adapter,
            model=self.backbone.model,
            form=self.config.run.export,
            head=self.method.head(self.backbone.model),
            reload=self.plan.backbone,
            run=folder,
            reader=reader_of(folder, self.backbone, self.task),
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.fabric.device

    def settle(self) -> None:
        """Settle the last bits in this thread: a framework calls from which it likes."""
        if torch.get_num_threads() != self.config.compute.threads:
            settle_bits(self.config.compute)

    @cached_property
    def store(self) -> ExampleStore:
        """The examples of all training rows that this process sees."""
        return ExampleStore.shared(self.task)

    @cached_property
    def evaluators(self) -> dict[str, Evaluator | None]:
        """What scores the model on the sets that are one for all."""
        return self.evaluators_of(self.plan.inputs, on="global")

    def evaluators_of(self, inputs: Inputs, on: str) -> dict[str, Evaluator | None]:
        """Return what scores the model on each set, of all (`global`) or of each client's own (`clients`)."""
        config = replace(inputs.config, eval=replace(inputs.config.eval, on=on, max_clients=None))
        rest = (replace(inputs, config=config), self.fabric, self.host.model, self.task)
        test, validation = WHOLE_SETS if on == "global" else OWN_SETS
        return {test: make_evaluator(*rest), validation: make_validator(*rest)}

    @cached_property
    def sample(self) -> Tensor:
        """A few numbers of every parameter (parameters, NUM_SAMPLED), float32, as they were before the first round."""
        parameters = [each.detach() for _, each in sorted(self.backbone.model.named_parameters())]
        return torch.stack([_sampled(each) for each in parameters])


def _sampled(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    places = torch.linspace(0, max(len(flat) - 1, 0), NUM_SAMPLED, device=flat.device).long()
    return flat[places].float().cpu() if len(flat) else torch.zeros(NUM_SAMPLED)


def simulated_inputs(config: RunConfig) -> Inputs:
    """Return all rows and shards, as `fedlit run` deals them: for a simulation, in which every site reads all rows."""
    load_plugins(config.plugins)
    return replace(gather_inputs(nowhere(config)), config=config)


OWN_KEYS = ("data.path", "data.test_path", "data.validation_path", "model.path", "compute.accelerator")
"""What may differ from site to site."""


def inputs_of_site(config: RunConfig, client_id: int, own: Mapping[str, Any]) -> Inputs:
    """Return a site's own rows, all in its data.path, as the shard of client `client_id`; `own` as `open_site` has it.

    Where sites score, test and validation parts are drawn from them as the configuration's partition says; else they
    are for training, all of them.
    """
    if (unknown := sorted(own.keys() - set(OWN_KEYS))) or "data.path" not in own:
        wrong = (
            f"{unknown[0]} may not differ from site to site" if unknown else "data.path, the site's rows, is missing"
        )
        raise UserError(f"{wrong}; a site gives {', '.join(OWN_KEYS)}, the first of them always")
    # The centre's files of rows are not here.
    given = {"data.test_path": None, "data.validation_path": None, **own, "data.hub_test_split": None}
    for key, value in {**given, "data.hub_validation_split": None}.items():
        section, _, name = key.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    load_plugins(config.plugins)
    partition = replace(config.partition, name="iid", num_shards=None)
    if config.eval.on == "global":
        partition = replace(partition, test_fraction=0.0, min_test_rows=0, validation_fraction=0.0)
    inputs = gather_inputs(nowhere(replace(config, num_clients=1, partition=partition)))
    return replace(inputs, config=config, shards=[replace(inputs.shards[0], client_id=client_id)])


def inputs_without_rows(config: RunConfig, num_rows: Sequence[tuple[int, int, int]] = ()) -> Inputs:
    """Return what a centre knows: numbers of training, test and validation rows of every site, and its own test set."""
    load_plugins(config.plugins)
    classes = _classes(config)
    shards = [
        Shard(client_id=site, train=tuple(range(train)), test=tuple(range(test)), validation=tuple(range(validation)))
        for site, (train, test, validation) in enumerate(num_rows)
    ]
    rows: list[Row] = []
    return Inputs(
        config=config,
        rows=rows,
        shards=shards,
        own_test_rows=tuple(load_test_rows(config.data, classes)),
        own_validation_rows=tuple(load_validation_rows(config.data, classes)),
        classes=classes,
    )


def _classes(config: RunConfig) -> tuple[str, ...]:
    if not task_spec(config.data.task).has_head or config.data.regression:
        return ()
    if not config.data.classes:
        raise UserError(
            "data.classes=null: the names of the classes come from all rows, and no site has all; name them, in one "
            "order for all sites, such as data.classes=[negative,positive]"
        )
    return tuple(config.data.classes)


def nowhere(config: RunConfig) -> RunConfig:
    """Return the configuration without a run folder: a site writes none."""
    place = replace(config.run, dir=tempfile.gettempdir(), name=f"fedlit-no-run-{os.getpid()}")
    return replace(config, dry_run=True, run=place)
