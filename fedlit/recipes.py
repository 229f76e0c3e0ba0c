"""The table of recipes: a method is an adapter x a local optimizer x an aggregation rule, and transforms between client
and rule.

A new method is one line here, one YAML in configs/method and, where it brings a new part, one file. Parts are frozen
dataclasses, whose fields are the options of the methods that they are parts of; what they compute with is imported when
a run builds them (`fedlit.methods`), so that a mistake is told at once. Parts from outside the package are registered
(`fedlit.registry`).
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedlit.adapters.options import (
    AlternatingOptions,
    DenseOptions,
    LoraCoreOptions,
    LoraDualOptions,
    LoraHeadsOptions,
    LoraOptions,
    LoraPairOptions,
    SclOptions,
)
from fedlit.client.optimizers.options import GaLoreOptions
from fedlit.errors import UserError
from fedlit.options import FILLED, NoOptions, Option, options_of
from fedlit.registry import Recipe, registered
from fedlit.round.rules.options import (
    FedAskOptions,
    FedExOptions,
    FedMomentumOptions,
    FedSvdOptions,
    FloristOptions,
    LoraFairOptions,
    ProductOptions,
)

if TYPE_CHECKING:
    from fedlit.config.schema import MethodConfig


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a table.

    options: a dataclass whose fields are the part's options. built_by: `module:class`, which takes them; '' for
    `options` itself. bound: fields of that class that the line settles.
    """

    options: Any
    built_by: str = ""
    bound: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """Return what builds the part; its module is imported now."""
        module, _, name = self.built_by.partition(":")
        factory = getattr(import_module(module), name) if module else self.options
        return partial(factory, **self.bound) if self.bound else factory

    def own_options(self) -> dict[str, Option]:
        """Return its options by their dotted names."""
        return options_of(self.options, without=FILLED | self.bound.keys())


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
    "florist": Recipe(adapter="lora", rule="florist", transforms=("rank_scaling",)),
    "fedmomentum": Recipe(adapter="lora", rule="fedmomentum"),
    "lora_fair": Recipe(adapter="lora", rule="lora_fair"),
    "ravan": Recipe(adapter="lora_heads", transforms=("scaled_heads",)),
    "fedask": Recipe(adapter="lora", rule="fedask"),
    "feddpa": Recipe(adapter="lora_dual"),
    "fedalt": Recipe(adapter="lora_rest", rule="fedalt"),
    "centralized": Recipe(adapter="lora", pooled=True),
    "local_only": Recipe(adapter="lora", rule="none"),
    "la_lora": Recipe(adapter="lora_alternate_steps"),
    "fedgalore": Recipe(adapter="dense", optimizer="galore_shared"),
}

_LORA = "fedlit.adapters.lora:Lora"
_RANK_SCALING = "fedlit.round.transforms.rank_scaling:RankScaling"

ADAPTERS = {
    "lora": Part(LoraOptions, _LORA),
    "lora_train_b": Part(LoraOptions, _LORA, {"trains": "B", "shares": "B"}),
    "lora_share_a": Part(LoraOptions, _LORA, {"trains": "AB", "shares": "A"}),
    "lora_train_b_receive_a": Part(LoraOptions, _LORA, {"trains": "B", "shares": "AB"}),
    "lora_alternate": Part(LoraOptions, _LORA, {"alternates": True}),
    "lora_alternate_steps": Part(AlternatingOptions, _LORA, {"alternates_steps": True}),
    "lora_core": Part(LoraCoreOptions, "fedlit.adapters.lora_core:LoraCore"),
    "lora_heads": Part(LoraHeadsOptions, "fedlit.adapters.lora_heads:LoraHeads"),
    "lora_dual": Part(LoraDualOptions, "fedlit.adapters.lora_dual:LoraDual"),
    "lora_rest": Part(LoraPairOptions, "fedlit.adapters.lora_rest:LoraRest"),
    "scl": Part(SclOptions, "fedlit.adapters.scl:Scl"),
    "dense": Part(DenseOptions, "fedlit.adapters.dense:Dense"),
}

_GALORE = "fedlit.client.optimizers.galore:GaLore"

OPTIMIZERS = {
    "adamw": Part(NoOptions, "fedlit.client.optimizers.torch_optimizers:AdamW"),
    "sgd": Part(NoOptions, "fedlit.client.optimizers.torch_optimizers:SGD"),
    "galore": Part(GaLoreOptions, _GALORE),
    "galore_shared": Part(GaLoreOptions, _GALORE, {"shares_moments": True}),
}

RULES = {
    "fedavg": Part(NoOptions, "fedlit.round.rules.fedavg:FedAvg"),
    "flexlora": Part(ProductOptions, "fedlit.round.rules.flexlora:FlexLora"),
    "fedex_lora": Part(FedExOptions, "fedlit.round.rules.fedex_lora:FedExLora"),
    "flora": Part(ProductOptions, "fedlit.round.rules.flora:Flora"),
    "fedsvd": Part(FedSvdOptions, "fedlit.round.rules.fedsvd:FedSvd"),
    "florist": Part(FloristOptions, "fedlit.round.rules.florist:Florist"),
    "fedmomentum": Part(FedMomentumOptions, "fedlit.round.rules.fedmomentum:FedMomentum"),
    "lora_fair": Part(LoraFairOptions, "fedlit.round.rules.lora_fair:LoraFair"),
    "fedask": Part(FedAskOptions, "fedlit.round.rules.fedask:FedAsk"),
    "fedalt": Part(NoOptions, "fedlit.round.rules.fedalt:FedAlt"),
    "none": Part(NoOptions, "fedlit.round.rules.fedavg:NoAggregation"),
}

TRANSFORMS = {
    "rank_scaling": Part(NoOptions, _RANK_SCALING, {"share_of_a": 0.0}),
    "rank_padding": Part(NoOptions, _RANK_SCALING, {"share_of_a": 0.5}),
    "rotation": Part(NoOptions, "fedlit.round.transforms.rotation:Rotation"),
    "scaled_heads": Part(NoOptions, "fedlit.round.transforms.scaled_heads:ScaledHeads"),
}

TABLES: Mapping[str, dict[str, Part]] = {
    "adapter": ADAPTERS,
    "optimizer": OPTIMIZERS,
    "rule": RULES,
    "transform": TRANSFORMS,
}

WEIGHTING = Option(
    "weighting",
    str,
    "num_examples",
    "weight of a client in the mean: num_examples or uniform",
    values=("num_examples", "uniform"),
)


def recipe_of(method: "MethodConfig") -> Recipe:
    """Return the recipe of a name; raises UserError if there is none."""
    recipes: dict[str, Recipe] = {**RECIPES, **registered("recipe")}
    return recipes[known(method.name, recipes, "method")]


def parts_of(kind: str) -> dict[str, Part]:
    """Return the parts of a kind by name, those from outside among them."""
    return {**TABLES[kind], **{name: Part(factory) for name, factory in registered(kind).items()}}


def part_of(kind: str, name: str) -> Part:
    """Return the part of this name; raises UserError if there is none."""
    parts = parts_of(kind)
    return parts[known(name, parts, "method.transforms" if kind == "transform" else f"method.{kind}")]


def picked_names(method: "MethodConfig") -> list[tuple[str, str]]:
    """Return kind and name of the parts that a run takes: the recipe's own, or what it is told in their place."""
    recipe = recipe_of(method)
    transforms = recipe.transforms if method.transforms is None else tuple(method.transforms)
    picked = dataclasses.replace(
        recipe,
        adapter=method.adapter or recipe.adapter,
        optimizer=method.optimizer or recipe.optimizer,
        rule=method.rule or recipe.rule,
        transforms=transforms,
    )
    return picked.parts()


def options_taken(method: "MethodConfig") -> dict[str, Option]:
    """Return the options of a run's parts by their dotted names, and `weighting`.

    Those of a recipe's own part that another replaces are taken too, and have no effect: they stand in the YAML of the
    recipe, which is no mistake of who replaces the part.

    Raises:
        UserError: an unknown recipe or part.
    """
    taken: dict[str, Option] = {}
    for kind, name in [*picked_names(method), *recipe_of(method).parts()]:
        taken |= {key: option for key, option in part_of(kind, name).own_options().items() if key not in taken}
    return {**taken, "weighting": WEIGHTING}


def own_options(method: "MethodConfig") -> dict[str, Option]:
    """Return the options of a recipe's own parts, which its record holds whatever replaces them."""
    recipe = recipe_of(method)
    own: dict[str, Option] = {}
    for kind, name in recipe.parts():
        own |= {option: found for option, found in part_of(kind, name).own_options().items() if option not in own}
    return {**own, **({"weighting": WEIGHTING} if recipe.weighs else {})}


def takers(option: str) -> list[tuple[str, str]]:
    """Return kind and name of all parts that have an option."""
    return [(kind, name) for kind in TABLES for name, part in parts_of(kind).items() if option in part.own_options()]


def all_options() -> dict[str, Option]:
    """Return the options of all parts: one name may be that of several, which the first stands for."""
    found: dict[str, Option] = {}
    for kind in TABLES:
        for part in parts_of(kind).values():
            found |= {name: option for name, option in part.own_options().items() if name not in found}
    return {**found, "weighting": WEIGHTING}


def known(name: str, table: Mapping[str, Any], key: str) -> str:
    """Return a name that is in a table; raises UserError with the nearest for one that is not."""
    if name in table:
        return name
    near = difflib.get_close_matches(str(name), table, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{key}={name} is not known; {hint}valid are {', '.join(sorted(table))}")
