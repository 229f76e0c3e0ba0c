"""A method built from a configuration: the parts that `fedlit.recipes` names, imported now, and what of them fits
together.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, get_type_hints

from fedlit.adapters import Adapter
from fedlit.client.corrections import FedProx, LowPass, Scaffold
from fedlit.client.optimizers import LocalOptimizer
from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.method import Method
from fedlit.models.quantization import require_quantization_fits
from fedlit.options import FILLED, flat
from fedlit.private_methods import require_private
from fedlit.recipes import RECIPES, WEIGHTING, Part, known, options_taken, part_of, picked_names, recipe_of
from fedlit.registry import Recipe
from fedlit.round.jobs import LocalPart
from fedlit.round.payload import MODEL
from fedlit.round.plan import Weigh, uniform_weights, weights_by_examples
from fedlit.round.rules.base import AggregationRule
from fedlit.round.rules.fedavg import NoAggregation
from fedlit.round.transforms.base import Transform, Transforms

WEIGHTINGS: dict[str, Weigh] = {
    "num_examples": weights_by_examples,
    "uniform": uniform_weights,
}


def build_method(run: RunConfig) -> Method:
    """Return the method of a configuration.

    Raises:
        UserError: an unknown recipe, part or option, or parts that do not fit together.
    """
    config, local = run.method, run.local
    picked = picked_names(config)
    chosen = {kind: name for kind, name in picked if kind != "transform"}
    transforms = [name for kind, name in picked if kind == "transform"]
    factories = {(kind, name): part_of(kind, name) for kind, name in picked}
    # A learning rate is the local configuration's, the seed the run's; every other option is the method's own.
    given = {"lr": local.lr, "weight_decay": local.weight_decay, "momentum": local.momentum, "seed": run.seed}
    assert given.keys() == FILLED
    unused = sorted(flat(config.options).keys() - options_taken(config).keys())
    if unused:
        raise UserError(
            f"method.{unused[0]} is an option of none of this recipe's parts "
            f"({', '.join([*chosen.values(), *transforms])}); leave it out"
        )
    options = {**config.options, **given}
    built = {kind: _build(factories[kind, name], options) for kind, name in chosen.items()}
    weighting = config.options.get("weighting", WEIGHTING.default)
    # Without a rule nothing travels that could be transformed.
    travels = not isinstance(built["rule"], NoAggregation)
    built_transforms = [_build(factories["transform", name], options) for name in transforms] if travels else ()
    method = Method(
        name=config.name,
        weights=WEIGHTINGS[known(weighting, WEIGHTINGS, "method.weighting")],
        pooled=recipe_of(config).pooled if config.pooled is None else config.pooled,
        transforms=Transforms(tuple(built_transforms)),
        parts=_local_parts(run, built, chosen["adapter"], travels=travels),
        private_head=config.private_head,
        **built,
    )
    _require_parts_fit(run, method, chosen)
    _require_pair_fits(run, method, chosen)
    _require_options_fit(run, method, chosen)
    require_private(run, method, chosen)
    return method


def _local_parts(
    run: RunConfig, built: Mapping[str, Any], adapter_name: str, *, travels: bool
) -> tuple[LocalPart, ...]:
    """Return what takes part in local training: a filter of gradients, FedProx, SCAFFOLD, what the optimizer shares and
    the rule needs.
    """
    adapter: Adapter = built["adapter"]
    rule: AggregationRule = built["rule"]
    optimizer: LocalOptimizer = built["optimizer"]
    if run.local.scaffold and adapter.takes_turns_by_step:
        raise UserError(
            "local.scaffold=true estimates the gradient of a tensor from all local steps, and "
            f"method.adapter={adapter_name} steps A and B in turn; choose method.adapter=lora"
        )
    # Before FedProx: its pull is exact and is not filtered.
    parts: list[LocalPart] = [LowPass(adapter.smoothed_along)] if adapter.smooths else []
    parts += [FedProx(run.local.prox_mu)] if run.local.prox_mu else []
    parts += [Scaffold()] if run.local.scaffold else []
    parts += rule.local_parts()
    shared = optimizer.local_parts() if travels else ()
    groups = [part.group for part in (*parts, *shared) if part.group]
    assert len(groups) == len(set(groups)), f"two parts send one group: {groups}"
    assert not {MODEL, "m", "v"} & set(groups), "names of the model and of the server optimizer's moments"
    pulls = [part for part in parts if not isinstance(part, Scaffold) and type(part).begin is not LocalPart.begin]
    if run.local.scaffold and pulls:
        name = f"local.prox_mu={run.local.prox_mu}" if run.local.prox_mu else type(pulls[0]).__name__
        raise UserError(
            f"local.scaffold=true estimates the gradient of a client's own loss from its steps, and {name} adds to "
            "each of them, which the estimate would take for a part of the loss; leave out one of the two"
        )
    return (*parts, *shared)


def _require_parts_fit(run: RunConfig, method: Method, names: Mapping[str, str]) -> None:
    """Refuse parts that make no sense together; `names` are those of the parts.

    Raises:
        UserError: says which part needs what.
    """
    adapter, rule = method.adapter, method.rule
    missing = sorted((rule.needs - adapter.sends) | (rule.sets - adapter.receives))
    if missing:
        raise UserError(
            f"method.rule={names['rule']} needs LoRA factors {' and '.join(sorted(rule.needs | rule.sets))} that "
            f"travel, but method.adapter={names['adapter']} does not send {' and '.join(missing)}; "
            f"choose method.rule=fedavg or an adapter such as {_default_adapter(names['rule'])}"
        )
    for transform in method.transforms.parts:
        if transform.needs - adapter.sends and method.communicates:
            raise UserError(
                f"the transform {type(transform).__name__} needs LoRA factors {' and '.join(sorted(transform.needs))} "
                f"that travel, which method.adapter={names['adapter']} does not send; give method.transforms=[], or an "
                f"adapter such as {_adapter_of(transform)}"
            )
        if transform.needs == frozenset("AB") and adapter.takes_turns and method.communicates:
            raise UserError(
                f"the transform {type(transform).__name__} changes both LoRA factors, and "
                f"method.adapter={names['adapter']} sends one in each round; give method.transforms=[], or an adapter "
                "such as lora"
            )
    mixed = len(set(adapter.client_ranks)) > 1
    if mixed and not (rule.mixes_ranks and any(transform.mixes_ranks for transform in method.transforms.parts)):
        able = ", ".join(sorted(name for name, recipe in RECIPES.items() if _mixes_ranks(recipe)))
        raise UserError(
            f"method.lora_rank={list(adapter.client_ranks)} has several ranks, which method.rule={names['rule']} "
            f"cannot combine; give one number, or a recipe that can: {able}"
        )
    if mixed and method.pooled:
        raise UserError("method.lora_rank has a rank for each client, but pooled data have one client; give one number")
    require_quantization_fits(run, keeps_weights=adapter.stands_beside)
    if adapter.needs_autocast and run.model.dtype == "bfloat16" and run.compute.precision != "bf16-mixed":
        raise UserError(
            f"method.adapter={names['adapter']} trains float32 weights inside a bfloat16 backbone, which runs under "
            "compute.precision=bf16-mixed only; give that, or model.dtype=float32"
        )


def _require_pair_fits(run: RunConfig, method: Method, names: Mapping[str, str]) -> None:
    """Refuse what does not go with two LoRAs that are mixed by what they see.

    Raises:
        UserError: says which option, and why.
    """
    adapter, rule = method.adapter, method.rule
    if method.communicates and adapter.sends_own != rule.leaves_own_out:
        raise UserError(
            f"method.rule={names['rule']} and method.adapter={names['adapter']} do not fit: the mean of the others is "
            "made of what clients train by themselves; give method.rule=fedalt with method.adapter=lora_rest, or "
            "neither"
        )
    if adapter.mixes_by_input and run.run.export == "merged":
        raise UserError(
            f"run.export=merged makes one weight of what was trained, and method.adapter={names['adapter']} weighs two "
            "LoRAs by what they see; give run.export=adapter, whose files hold both"
        )
    if adapter.num_passes > 1 and run.model.gradient_checkpointing:
        raise UserError(
            f"model.gradient_checkpointing=true computes a pass once more after it, and "
            f"method.adapter={names['adapter']} takes two different ones in a step; leave it out"
        )
    if run.local.prox_mu and adapter.sends_own and method.communicates and not method.pooled:
        raise UserError(
            f"local.prox_mu={run.local.prox_mu} pulls clients to the server's weights, and under "
            f"method.rule={names['rule']} no client starts from them; leave it out"
        )


def _require_options_fit(run: RunConfig, method: Method, names: Mapping[str, str]) -> None:
    """Refuse options of the server's and the clients' steps that make no sense with these parts.

    Raises:
        UserError: says which option needs what.
    """
    federated = method.communicates and not method.pooled
    if run.server.optimizer != "none" and not method.rule.averages:
        raise UserError(
            f"server.optimizer={run.server.optimizer} follows the change of a mean, but method.rule={names['rule']} "
            "does not return the mean of what clients sent; leave it out, or choose method.rule=fedavg"
        )
    if run.local.momentum and names["optimizer"] != "sgd":
        raise UserError(
            f"local.momentum={run.local.momentum} is that of plain SGD, but method.optimizer={names['optimizer']}; "
            "give method.optimizer=sgd, or leave it out"
        )
    if run.local.prox_mu and not federated:
        raise UserError(
            f"local.prox_mu={run.local.prox_mu} pulls clients to the server's weights, and nothing travels here; "
            "leave it out, or choose a rule that communicates"
        )
    if run.local.scaffold and not (names["optimizer"] == "sgd" and federated):
        raise UserError(
            "local.scaffold=true estimates gradients from the steps of plain SGD in a federation; "
            "give method.optimizer=sgd and a rule that communicates, or leave it out"
        )
    if run.local.scaffold and names["rule"] != "fedavg":
        raise UserError(
            f"local.scaffold=true needs tensors that the server averages as they are, but method.rule={names['rule']} "
            "changes them; choose method.rule=fedavg"
        )
    for transform in method.transforms.parts:
        if run.local.scaffold and transform.needs:
            raise UserError(
                "local.scaffold=true needs tensors that the server averages as they are, but the transform "
                f"{type(transform).__name__} changes them; give method.transforms=[]"
            )


def _default_adapter(rule_name: str) -> str:
    return next((recipe.adapter for recipe in RECIPES.values() if recipe.rule == rule_name), "lora")


def _adapter_of(transform: Transform) -> str:
    having = (recipe for recipe in RECIPES.values() for name in recipe.transforms if _makes(name, transform))
    return next((recipe.adapter for recipe in having), "lora")


def _makes(name: str, transform: Transform) -> bool:
    return isinstance(transform, _class_of(part_of("transform", name)))


def _mixes_ranks(recipe: Recipe) -> bool:
    transforms = [_class_of(part_of("transform", name)) for name in recipe.transforms]
    return _class_of(part_of("rule", recipe.rule)).mixes_ranks and any(part.mixes_ranks for part in transforms)


def _class_of(part: Part) -> Any:
    factory = part.load()
    return factory.func if isinstance(factory, partial) else factory


def _has_section(options: Mapping[str, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in options.values())


def _build(part: Part, options: Mapping[str, Any]) -> Any:
    """Return a part with those options that are its own; a section becomes the dataclass of its field."""
    factory, built_class = part.load(), _class_of(part)
    hints: Mapping[str, Any] = get_type_hints(built_class) if _has_section(options) else {}
    own: dict[str, Any] = {}
    for entry in dataclasses.fields(built_class):
        if entry.init and entry.name in options and entry.name not in part.bound:
            value, hint = options[entry.name], hints.get(entry.name, Any)
            is_section = dataclasses.is_dataclass(hint) and isinstance(value, Mapping)
            own[entry.name] = hint(**value) if is_section else value
    return factory(**own)
