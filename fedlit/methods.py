"""The table of recipes: a method is an adapter x a local optimizer x an aggregation rule, and transforms between client
and rule.

A new method is one line here, one YAML in configs/method and, where it brings a new part, one file. Parts are frozen
dataclasses; the options in the method's YAML are the fields of its parts. Parts from outside the package are registered
(`fedlit.registry`).
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fedlit.adapters import Adapter
from fedlit.adapters.dense import Dense
from fedlit.adapters.lora import Lora
from fedlit.adapters.lora_core import LoraCore
from fedlit.adapters.scl import Scl
from fedlit.client.corrections import FedProx, Scaffold
from fedlit.client.optimizers import LocalOptimizer
from fedlit.client.optimizers.galore import GaLore
from fedlit.client.optimizers.torch_optimizers import SGD, AdamW
from fedlit.config import RunConfig
from fedlit.errors import UserError
from fedlit.method import Method
from fedlit.models.quantization import require_quantization_fits
from fedlit.registry import GIVEN, Recipe, registered
from fedlit.round.jobs import LocalPart
from fedlit.round.payload import MODEL
from fedlit.round.plan import Weigh, uniform_weights, weights_by_examples
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedavg import FedAvg, NoAggregation
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.fedsvd import FedSvd
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.rules.flora import Flora
from fedlit.round.transforms import Transform, Transforms
from fedlit.round.transforms.rank_scaling import RankScaling
from fedlit.round.transforms.rotation import Rotation

RECIPES = {
    "fedit": Recipe(adapter="lora"),
    "ffa_lora": Recipe(adapter="lora_train_b"),
    "fedsa_lora": Recipe(adapter="lora_share_a"),
    "flexlora": Recipe(adapter="lora", rule="flexlora", transforms=("rank_scaling",)),
    "fedex_lora": Recipe(adapter="lora", rule="fedex_lora"),
    "scl": Recipe(adapter="scl"),
    "fedftg": Recipe(adapter="dense", optimizer="galore"),
    "full": Recipe(adapter="dense"),
    "flora": Recipe(adapter="lora", rule="flora", transforms=("rank_scaling",)),
    "fedsvd": Recipe(adapter="lora_train_b_receive_a", rule="fedsvd"),
    "rolora": Recipe(adapter="lora_alternate"),
    "fedrot_lora": Recipe(adapter="lora", transforms=("rotation",)),
    "hetlora": Recipe(adapter="lora", transforms=("rank_padding",)),
    "fed_sb": Recipe(adapter="lora_core"),
    "centralized": Recipe(adapter="lora", pooled=True),
    "local_only": Recipe(adapter="lora", rule="none"),
}

ADAPTERS: dict[str, Callable[..., Adapter]] = {
    "lora": Lora,
    "lora_train_b": partial(Lora, trains="B", shares="B"),
    "lora_share_a": partial(Lora, trains="AB", shares="A"),
    "lora_train_b_receive_a": partial(Lora, trains="B", shares="AB"),
    "lora_alternate": partial(Lora, alternates=True),
    "lora_core": LoraCore,
    "scl": Scl,
    "dense": Dense,
}

OPTIMIZERS: dict[str, Callable[..., LocalOptimizer]] = {"adamw": AdamW, "sgd": SGD, "galore": GaLore}

RULES: dict[str, Callable[..., AggregationRule]] = {
    "fedavg": FedAvg,
    "flexlora": FlexLora,
    "fedex_lora": FedExLora,
    "flora": Flora,
    "fedsvd": FedSvd,
    "none": NoAggregation,
}

TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "rank_scaling": partial(RankScaling, share_of_a=0.0),
    "rank_padding": partial(RankScaling, share_of_a=0.5),
    "rotation": Rotation,
}

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "adapter": ADAPTERS,
    "optimizer": OPTIMIZERS,
    "rule": RULES,
    "transform": TRANSFORMS,
}

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
    recipes = {**RECIPES, **registered("recipe")}
    recipe = recipes[_known(config.name, recipes, "method")]
    own = {"adapter": recipe.adapter, "optimizer": recipe.optimizer, "rule": recipe.rule}
    chosen = {kind: getattr(config, kind) or name for kind, name in own.items()}
    factories = {kind: part_factory(kind, name) for kind, name in chosen.items()}
    names = recipe.transforms if config.transforms is None else config.transforms
    transforms = [part_factory("transform", name) for name in names]
    # A learning rate is the local configuration's, the seed the run's; every other option is the method's own.
    given = {"lr": local.lr, "weight_decay": local.weight_decay, "momentum": local.momentum, "seed": run.seed}
    assert given.keys() == GIVEN
    options = {**config.options, **given}
    built = {kind: _build(factory, options) for kind, factory in factories.items()}
    # An option in the YAML of a part that was replaced is not the user's mistake.
    replaced = [part_factory(kind, name) for kind, name in own.items() if name != chosen[kind]]
    replaced += [part_factory("transform", name) for name in recipe.transforms if name not in names]
    used = {"weighting"}.union(*(_fields(part) for part in [*factories.values(), *transforms, *replaced])) - GIVEN
    unused = sorted(set(config.options) - used)
    if unused:
        raise UserError(
            f"method.{unused[0]} is an option of none of this recipe's parts "
            f"({', '.join([*chosen.values(), *names])}); leave it out"
        )
    weighting = config.options.get("weighting", "num_examples")
    # Without a rule nothing travels that could be transformed.
    travels = not isinstance(built["rule"], NoAggregation)
    built_transforms = tuple(_build(factory, options) for factory in transforms) if travels else ()
    method = Method(
        name=config.name,
        weights=WEIGHTINGS[_known(weighting, WEIGHTINGS, "method.weighting")],
        pooled=recipe.pooled if config.pooled is None else config.pooled,
        transforms=Transforms(built_transforms),
        parts=_local_parts(run, built["rule"]),
        private_head=config.private_head,
        **built,
    )
    _require_parts_fit(run, method, chosen)
    _require_options_fit(run, method, chosen)
    return method


def part_factory(kind: str, name: str) -> Callable[..., Any]:
    """Return what builds a part of this name: one of the package's, or one that was registered.

    Raises:
        UserError: there is none.
    """
    table: Mapping[str, Callable[..., Any]] = {**TABLES[kind], **registered(kind)}
    return table[_known(name, table, "method.transforms" if kind == "transform" else f"method.{kind}")]


def _local_parts(run: RunConfig, rule: AggregationRule) -> tuple[LocalPart, ...]:
    """Return what takes part in local training: FedProx, SCAFFOLD, and what the rule needs there."""
    parts: list[LocalPart] = [FedProx(run.local.prox_mu)] if run.local.prox_mu else []
    parts += [Scaffold()] if run.local.scaffold else []
    parts += rule.local_parts()
    groups = [part.group for part in parts if part.group]
    assert len(groups) == len(set(groups)), f"two parts send one group: {groups}"
    assert not {MODEL, "m", "v"} & set(groups), "names of the model and of the server optimizer's moments"
    pulls = [part for part in parts if not isinstance(part, Scaffold) and type(part).begin is not LocalPart.begin]
    if run.local.scaffold and pulls:
        name = f"local.prox_mu={run.local.prox_mu}" if run.local.prox_mu else type(pulls[0]).__name__
        raise UserError(
            f"local.scaffold=true estimates the gradient of a client's own loss from its steps, and {name} adds to "
            "each of them, which the estimate would take for a part of the loss; leave out one of the two"
        )
    return tuple(parts)


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
                "adapter such as lora"
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
    require_quantization_fits(run, keeps_weights=isinstance(adapter, Lora))
    if adapter.needs_autocast and run.model.dtype == "bfloat16" and run.compute.precision != "bf16-mixed":
        raise UserError(
            f"method.adapter={names['adapter']} trains float32 weights inside a bfloat16 backbone, which runs under "
            "compute.precision=bf16-mixed only; give that, or model.dtype=float32"
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


def _mixes_ranks(recipe: Recipe) -> bool:
    transforms = [_part(TRANSFORMS[name]) for name in recipe.transforms]
    return _part(RULES[recipe.rule]).mixes_ranks and any(transform.mixes_ranks for transform in transforms)


def _part(factory: Callable[..., Any]) -> Any:
    return factory.func if isinstance(factory, partial) else factory


def _fields(factory: Callable[..., Any]) -> set[str]:
    """Return the options a factory takes: the fields of its dataclass that the table has not bound."""
    bound: set[str] = set(factory.keywords) if isinstance(factory, partial) else set()
    return {field.name for field in dataclasses.fields(_part(factory))} - bound


def _build(factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    return factory(**{name: options[name] for name in _fields(factory) & set(options)})


def _known(name: str, table: Mapping[str, Any], key: str) -> str:
    if name in table:
        return name
    near = difflib.get_close_matches(str(name), table, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{key}={name} is not known; {hint}valid are {', '.join(sorted(table))}")
