"""From a configuration and its rows to a federation: recipe, backbone, task, and the clients of this process."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor, nn

from fedlit.adapters import Calibration
from fedlit.algebra.tensors import num_parameters
from fedlit.analysing import analysis_facts, analysis_observers, with_general
from fedlit.cards.folder import Reader
from fedlit.client.host import ModelHost
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.client.together.groups import groups_of
from fedlit.client.trainers.base import LocalTrainer
from fedlit.client.trainers.example import ExampleTrainer
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.client.trainers.together import TogetherTrainer
from fedlit.config import RunConfig
from fedlit.config.analysis import measures_gradients
from fedlit.data.chat_template import given_template
from fedlit.data.prompts import Row
from fedlit.inputs import Inputs
from fedlit.models import Backbone
from fedlit.partition.shards import draw_seed
from fedlit.planning import Plan, attach_adapter, first_traffic, make_task, make_traffic, rehearse
from fedlit.private_run import claim_lines, make_privacy, privacy_facts, privacy_observers, with_canaries
from fedlit.process import communication
from fedlit.round.best_round import BestRound
from fedlit.round.callback import RunSummary
from fedlit.round.evaluation import OWN_VALIDATION, VALIDATION, Evaluator
from fedlit.round.examples import KeptExamples, kept_examples
from fedlit.round.jobs import ClientState
from fedlit.round.loop import Federation
from fedlit.round.observers.folded_ranks import FoldedRankObserver
from fedlit.round.observers.traffic import TrafficObserver
from fedlit.round.private_rounds import PrivateRounds
from fedlit.round.step import ServerStep
from fedlit.round.subsets import VALIDATION_STREAM, fixed_subset, sampled_clients
from fedlit.scheduling import make_schedule
from fedlit.seeding import numpy_generator
from fedlit.store.checkpoint import Checkpoints
from fedlit.store.export import Exporter
from fedlit.store.folder import RunFolder, with_own_template
from fedlit.tasks import Task
from fedlit.tasks.encoded import ClientRows, ExampleStore, share_rows
from fedlit.workload import LocalWorkload

NUM_CALIBRATION_BATCHES = 4
"""Training batches that an adapter may look at when it is initialised."""


def calibration_batches(plan: Plan, model: nn.Module, task: Task[Any, Any]) -> Calibration:
    """Return the losses of the model as it stands on a few batches, drawn over all clients' training rows.

    A real federation would have its clients compute what an adapter makes of them, second moments or gradients, and
    send the sums.
    """
    config, rows = plan.inputs.config, [row for shard in plan.clients for row in shard.train]
    size = min(NUM_CALIBRATION_BATCHES * config.local.batch_size, len(rows))
    chosen = sorted(numpy_generator(config.seed, "calibration").choice(len(rows), size=size, replace=False))
    examples = task.encode([plan.inputs.rows[rows[index]] for index in chosen])

    def losses() -> Iterator[Tensor]:
        device = next(model.parameters()).device
        for start in range(0, len(examples), config.local.batch_size):
            yield task.loss(model, task.collate(examples[start : start + config.local.batch_size]).to(device))

    return losses


def make_evaluator(
    inputs: Inputs, fabric: Fabric, model: nn.Module, task: Task[Any, Any], kept: KeptExamples | None = None
) -> Evaluator:
    """Return what scores the model on the sets that `eval.on` names, each cut down to `eval.max_examples`; of clients,
    those that `eval.max_clients` leaves. Where the clients' own rows are asked for, all of these have test rows.
    """
    config = inputs.config
    own: dict[int, list[list[Any]]] = {}
    evaluated = evaluated_clients(inputs)
    if config.eval.on != "global":
        own = {
            shard.client_id: _batches(
                config, task, [inputs.rows[row] for row in shard.test], shard.client_id, kept=kept
            )
            for shard in inputs.shards
            if shard.client_id in evaluated
        }
    return Evaluator(
        fabric=fabric,
        model=model,
        task=task,
        batches=_batches(config, task, inputs.test_rows, kept=kept) if config.eval.on != "clients" else [],
        own_batches=own,
        kept=kept,
        evaluated=None if config.eval.max_clients is None else evaluated,
    )


def make_validator(
    inputs: Inputs, fabric: Fabric, model: nn.Module, task: Task[Any, Any], kept: KeptExamples | None = None
) -> Evaluator | None:
    """Return the like of `make_evaluator` for the validation set, None without one: the clients' own parts where they
    have some and eval.on=clients, else one set.
    """
    config, rows, purpose = inputs.config, inputs.validation_rows, VALIDATION_STREAM
    if not rows:
        return None
    own: dict[int, list[list[Any]]] = {}
    evaluated = evaluated_clients(inputs)
    if config.eval.on == "clients" and not inputs.own_validation_rows:
        own = {
            shard.client_id: _batches(
                config, task, [inputs.rows[row] for row in shard.validation], shard.client_id, purpose, kept
            )
            for shard in inputs.shards
            if shard.client_id in evaluated and shard.validation
        }
    return Evaluator(
        fabric=fabric,
        model=model,
        task=task,
        batches=[] if own else _batches(config, task, rows, purpose=purpose, kept=kept),
        own_batches=own,
        kept=kept,
        whole=VALIDATION,
        part=OWN_VALIDATION,
        evaluated=None if config.eval.max_clients is None else evaluated,
    )


def evaluated_clients(inputs: Inputs) -> tuple[int, ...]:
    """Return the clients that are evaluated apart: of those with test rows, where their own are asked for."""
    config, clients = inputs.config, inputs.shards
    if config.eval.on != "global":
        clients = [shard for shard in clients if shard.test]
    return sampled_clients([shard.client_id for shard in clients], config.eval.max_clients, draw_seed(config))


def _batches(
    config: RunConfig,
    task: Task[Any, Any],
    rows: Sequence[Row],
    client_id: int = -1,
    purpose: str = "evaluation",
    kept: KeptExamples | None = None,
) -> list[list[Any]]:
    """Return the batches of a set that is scored, of at most `eval.max_examples` of its examples."""
    examples = task.evaluation_examples(rows)
    chosen = fixed_subset(examples, config.eval.max_examples, draw_seed(config), client_id, purpose=purpose)
    if kept is not None:
        kept.know(examples, chosen, task.identity)
    return task.evaluation_batches(chosen, config.eval.batch_size)


def assemble(plan: Plan, fabric: Fabric) -> tuple[Federation, RunSummary]:
    """Load the backbone and return the federation of this process, ready to resume and run, and what to tell of it."""
    inputs, config, method = plan.inputs, plan.inputs.config, plan.method
    rehearse(plan)
    privacy = make_privacy(plan)  # its refusals come before the weights
    backbone, folder = plan.backbone(), RunFolder(config)
    if backbone.start is not None:
        folder.begin_from(backbone.start.record())
    task = make_task(plan, backbone)
    # Adapters that need clients' rows are refused where these are private; the others would only measure themselves.
    calibration = calibration_batches(plan, backbone.model, task) if config.privacy.unit == "none" else None
    layers, facts = attach_adapter(plan, backbone, calibration)
    host = ModelHost(backbone.model, method, layers)
    module = ClientModule(backbone.model, task, method, host.trained)
    module.configure_optimizers()  # its mistakes are told before the first evaluation
    fabric.setup_module(module)  # moves it to the device; the strategy leaves it unwrapped
    share_rows(inputs.rows)
    store = ExampleStore.shared(task)
    rows: list[Sequence[Row]] = [ClientRows(inputs.rows, shard.train, store) for shard in plan.clients]
    work = LocalWorkload(rows=rows, task=task)
    schedule = make_schedule(plan, host.trains, work)
    rows += [()] * (schedule.num_clients - len(rows))  # canaries have none
    server = privacy.opened(host.first_server(method.parts, len(rows)), len(rows))
    facts |= analysis_facts(config, server)
    host.load_server(server)
    clients = _clients(config, host, len(rows), keeps_late=schedule.availability.keeps_late)
    trainer = _trainer(
        config,
        privacy,
        at_home=clients is not None,
        host=host,
        module=module,
        steps=LocalSteps(fabric=fabric, module=module, local=config.local),
        local=config.local,
        seed=config.seed,
        num_rounds=config.num_rounds,
        parts=method.parts,
        num_step_multiples=plan.num_step_multiples,
    )
    traffic, kept = make_traffic(method), kept_examples(config)
    work.begin(trainer, lambda round_idx: first_traffic(traffic, server, plan.cohort_size, host, round_idx))
    federation = Federation(
        config=config,
        schedule=schedule,
        host=host,
        trainer=with_canaries(trainer, privacy),
        step=ServerStep(
            rule=method.rule, options=config.server, parts=method.parts, population_share=schedule.population_share
        ),
        observers=[
            traffic,
            FoldedRankObserver(),
            *analysis_observers(config, host, folder, server, keeps_late=schedule.availability.keeps_late),
            *privacy_observers(privacy, traffic, folder.path),
        ],
        privacy=privacy,
        evaluator=with_general(make_evaluator(inputs, fabric, backbone.model, task, kept), inputs, backbone),
        validator=make_validator(inputs, fabric, backbone.model, task, kept),
        exporter=Exporter(
            adapter=method.adapter,
            model=backbone.model,
            form=config.run.export,
            head=method.head(backbone.model),
            reload=plan.backbone,
            run=folder,
            reader=reader_of(folder, backbone, task),
        ),
        rows=rows,
        server=server,
        clients=clients,
        initial_facts={**facts, **task.notes(), **_how_trained(config), **privacy_facts(privacy)},
        folder=folder,
        checkpoints=Checkpoints(folder=folder.checkpoints, keep=config.run.keep_checkpoints),
        best=BestRound.of(config),
    )
    trainer.on_step = federation.on_step
    return federation, replace(_summary(plan, federation, traffic), notices=backbone.notices)


def reader_of(folder: RunFolder, backbone: Backbone, task: Task[Any, Any]) -> Reader:
    """Return what reads the run's texts or images, as its results keep it."""
    is_tokenizer = backbone.tokenizer is not None
    return Reader(
        reader=backbone.tokenizer if is_tokenizer else backbone.image_processor,
        is_tokenizer=is_tokenizer,
        end_ids=tuple(getattr(getattr(task, "encoder", None), "end_ids", ())),
        chat_template=given_template(with_own_template(folder.config, folder.path).data),
    )


def _clients(
    config: RunConfig, host: ModelHost, num_clients: int, *, keeps_late: bool
) -> dict[int, ClientState] | None:
    """Return what this process's clients keep before the first round; None where clients keep nothing.

    keeps_late: a result may come in a later round, and waits with its client.
    """
    initial = host.first_state(host.method.parts)
    if not (initial.private or initial.parts or config.local.optimizer_state == "keep" or keeps_late):
        return None
    blocks = groups_of(range(num_clients), config.local.clients_per_batch, at_home=True)
    return {client_id: initial for block in communication.share(blocks) for client_id in block}


def _how_trained(config: RunConfig) -> dict[str, float]:
    """Return what the last bits of the clients' numbers depend on."""
    size = config.local.clients_per_batch
    return {} if size == 1 else {"local/clients_per_batch": size}


def _trainer(config: RunConfig, privacy: PrivateRounds, *, at_home: bool, **common: Any) -> LocalTrainer:
    """Return what trains one client after the other, or several at once, or each by DP-SGD."""
    size, claim = config.local.clients_per_batch, privacy.claim
    common["measures_gradients"] = measures_gradients(config)
    if claim is not None and claim.unit == "example":
        assert config.privacy.clip_norm is not None, "checked before"
        return ExampleTrainer(**common, clip_norm=config.privacy.clip_norm, noise_multiplier=claim.noise_multiplier)
    return SerialTrainer(**common) if size == 1 else TogetherTrainer(size=size, at_home=at_home, **common)


def _summary(plan: Plan, federation: Federation, traffic: TrafficObserver) -> RunSummary:
    """Return what is known when the federation starts."""
    inputs, config, method, host = plan.inputs, plan.inputs.config, plan.method, federation.host
    uplink_bytes, downlink_bytes = first_traffic(traffic, federation.server, plan.cohort_size, host)
    num_trainable = num_parameters({name: parameter.data for name, parameter in host.trained.items()})
    return RunSummary(
        config=config,
        folder=federation.folder.path,
        device=str(federation.evaluator.fabric.device),
        num_processes=communication.num_processes(),
        cohort_size=plan.cohort_size,
        num_trainable=num_trainable,
        num_shared=num_parameters(method.shared(host.model)),
        num_private=num_parameters(method.private(host.model)),
        uplink_bytes=uplink_bytes,
        downlink_bytes=downlink_bytes,
        num_frozen=host.model.num_parameters() - num_trainable,  # type: ignore[operator]  # 4-bit weights are packed
        num_train_examples=tuple(len(shard.train) for shard in plan.clients),
        num_test_examples=len(inputs.test_rows),
        num_evaluated=federation.evaluator.num_examples,
        num_validation_examples=len(inputs.validation_rows),
        num_validated=0 if federation.validator is None else federation.validator.num_examples,
        num_truncated=federation.evaluator.num_truncated,
        classes=inputs.classes,
        privacy=claim_lines(federation.privacy, plan.cohort_size),
        client_names=inputs.client_names,
    )
