"""From `analysis=[...]` to what looks at the rounds of a run."""

from dataclasses import replace

from fedlit.client.host import ModelHost
from fedlit.config import RunConfig
from fedlit.config.analysis import measured
from fedlit.inputs import Inputs
from fedlit.models import Backbone
from fedlit.partition.shards import draw_seed
from fedlit.round.evaluation import GENERAL, Evaluator
from fedlit.round.observers import Observer
from fedlit.round.observers.dense import DenseObserver, looked_at
from fedlit.round.observers.deviation import Deviation
from fedlit.round.observers.factors import FactorObserver, LayerMeasure
from fedlit.round.observers.norms import NormObserver, shared_norm
from fedlit.round.observers.projectors import ProjectorObserver
from fedlit.round.observers.ranks import Ranks
from fedlit.round.observers.subspaces import Subspaces
from fedlit.round.server import ServerState
from fedlit.round.subsets import fixed_subset
from fedlit.store.folder import RunFolder

GENERAL_EXAMPLES = 500
"""Of a general set, where `eval.max_examples` gives no number: it is scored at every evaluation."""


def with_general(evaluator: Evaluator, inputs: Inputs, backbone: Backbone) -> Evaluator:
    """Return an evaluator that scores the model on the general set too, if there is one."""
    config, general = inputs.config, inputs.general
    if general is None:
        return evaluator
    from fedlit.tasks.causal_lm.loss_alone import LossAlone  # noqa: PLC0415  a run on images does without texts

    task = LossAlone.build(replace(config, data=general.data), backbone)
    chosen = fixed_subset(
        task.evaluation_examples(general.rows),
        config.eval.max_examples or GENERAL_EXAMPLES,
        draw_seed(config),
        purpose="evaluation_of_general",
    )
    scorer = Evaluator(
        fabric=evaluator.fabric,
        model=evaluator.model,
        task=task,
        batches=task.evaluation_batches(chosen, config.eval.batch_size),
        whole=GENERAL,
        evaluated=evaluator.evaluated,
    )
    return replace(evaluator, general=scorer)


def analysis_observers(
    config: RunConfig, host: ModelHost, folder: RunFolder, server: ServerState, *, keeps_late: bool
) -> list[Observer]:
    """Return what measures the rounds.

    Args:
        server: before the first round.
        keeps_late: results may come in a later round. Clients that began from different servers have no mean of
            effective weights, and are measured by their norms alone.
    """
    names = measured(config)
    observers: list[Observer] = [] if keeps_late else _of_clients(names, host, folder, server)
    if "subspaces" in names and config.local.optimizer_state == "keep":
        observers.append(ProjectorObserver())
    if "norms" in names:
        observers.append(NormObserver())
    return observers


def analysis_facts(config: RunConfig, server: ServerState) -> dict[str, float]:
    """Return what the record holds of the server before its first round."""
    return shared_norm(server.shared) if "norms" in measured(config) else {}


def _of_clients(names: frozenset[str], host: ModelHost, folder: RunFolder, server: ServerState) -> list[Observer]:
    """Return what looks at what the clients sent, if there is anything to look at."""
    method, model = host.method, host.model
    layers = method.adapter.products(model)
    of_layers: dict[str, LayerMeasure] = {
        "deviation": Deviation(prefix="lora" if host.layers else "scl"),
        "rank": Ranks(),
        "subspaces": Subspaces(),
    }
    measures = tuple(measure for name, measure in of_layers.items() if name in names)
    if not method.communicates:
        return []
    if layers:
        factors = {name for layer in layers for name in layer.factors}
        tensors = {**method.shared(model), **method.private(model)}
        observer = FactorObserver(
            measures=measures,
            layers=layers,
            factors={name: tensors[name] for name in sorted(factors & tensors.keys())},
            fixed=dict(model.named_parameters()),
            rule=method.rule,
            transforms=method.transforms,
            folder=folder.path,
        )
        return [observer] if measures else []
    if "dense" not in names:
        return []
    whole = {name: server.shared[name] for name in host.trained if name in server.shared}
    chosen = looked_at({name: tensor.shape for name, tensor in whole.items()})
    first = {name: whole[name].clone() for name in chosen}
    return [DenseObserver(first=first, folder=folder.path)] if first else []
