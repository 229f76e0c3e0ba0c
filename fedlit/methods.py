"""The table of recipes: a method is an adapter x a local optimizer x an aggregation rule.

A new method is one line here, one YAML in configs/method and, where it brings a new part, one file. Parts are frozen
dataclasses; the options in the method's YAML are the fields of its parts.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from fedlit.adapters import Adapter, trainable
from fedlit.adapters.lora import Lora
from fedlit.aggregation import AggregationRule
from fedlit.aggregation.fedavg import FedAvg, NoAggregation
from fedlit.cohort import uniform_weights, weights_by_examples
from fedlit.config import LocalConfig, MethodConfig
from fedlit.errors import UserError
from fedlit.optimizers import LocalOptimizer
from fedlit.optimizers.torch_optimizers import SGD, AdamW
from fedlit.tensors import TensorDict


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Names of a method's parts. pooled: one client trains on everybody's rows, taking as many steps as all would."""

    adapter: str
    optimizer: str = "adamw"
    rule: str = "fedavg"
    pooled: bool = False


RECIPES = {
    "fedit": Recipe(adapter="lora"),
    "ffa_lora": Recipe(adapter="lora_train_b"),
    "fedsa_lora": Recipe(adapter="lora_share_a"),
    "centralized": Recipe(adapter="lora", pooled=True),
    "local_only": Recipe(adapter="lora", rule="none"),
}

ADAPTERS: dict[str, Callable[..., Adapter]] = {
    "lora": Lora,
    "lora_train_b": partial(Lora, trains="B", shares="B"),
    "lora_share_a": partial(Lora, trains="AB", shares="A"),
}

OPTIMIZERS: dict[str, Callable[..., LocalOptimizer]] = {"adamw": AdamW, "sgd": SGD}

RULES: dict[str, Callable[..., AggregationRule]] = {"fedavg": FedAvg, "none": NoAggregation}

WEIGHTINGS: dict[str, Callable[[Sequence[int]], tuple[float, ...]]] = {
    "num_examples": weights_by_examples,
    "uniform": uniform_weights,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A recipe with its parts built."""

    name: str
    adapter: Adapter
    optimizer: LocalOptimizer
    rule: AggregationRule
    weights: Callable[[Sequence[int]], tuple[float, ...]]
    pooled: bool

    @property
    def communicates(self) -> bool:
        """Whether anything travels at all."""
        return not isinstance(self.rule, NoAggregation)

    def shared(self, model: nn.Module) -> TensorDict:
        """Return the live tensors that travel: the adapter's choice, nothing without a rule."""
        return self.adapter.shared(model) if self.communicates else {}

    def private(self, model: nn.Module) -> TensorDict:
        """Return the live trained tensors that stay with their client."""
        if self.communicates:
            return self.adapter.private(model)
        return {name: parameter.data for name, parameter in trainable(model).items()}


def build_method(config: MethodConfig, local: LocalConfig) -> Method:
    """Return the method of a configuration.

    Raises:
        UserError: an unknown recipe, part or option.
    """
    recipe = RECIPES[_known(config.name, RECIPES, "method")]
    parts: dict[str, tuple[str, Mapping[str, Callable[..., Any]]]] = {
        "adapter": (config.adapter or recipe.adapter, ADAPTERS),
        "optimizer": (config.optimizer or recipe.optimizer, OPTIMIZERS),
        "rule": (config.rule or recipe.rule, RULES),
    }
    factories = {kind: table[_known(name, table, f"method.{kind}")] for kind, (name, table) in parts.items()}
    # A learning rate is the local configuration's; every other option is the method's own.
    given = {"lr": local.lr, "weight_decay": local.weight_decay}
    built = {kind: _build(factory, {**config.options, **given}) for kind, factory in factories.items()}
    used = {"weighting"}.union(*(_fields(factory) for factory in factories.values())) - given.keys()
    unused = sorted(set(config.options) - used)
    if unused:
        raise UserError(
            f"method.{unused[0]} is an option of none of this recipe's parts "
            f"({', '.join(name for name, _ in parts.values())}); take it out of the method's YAML"
        )
    weighting = config.options.get("weighting", "num_examples")
    return Method(
        name=config.name,
        weights=WEIGHTINGS[_known(weighting, WEIGHTINGS, "method.weighting")],
        pooled=recipe.pooled,
        **built,
    )


def _fields(factory: Callable[..., Any]) -> set[str]:
    """Return the options a factory takes: the fields of its dataclass that the table has not bound."""
    bound: set[str] = set(factory.keywords) if isinstance(factory, partial) else set()
    part = factory.func if isinstance(factory, partial) else factory
    return {field.name for field in dataclasses.fields(part)} - bound  # type: ignore[arg-type]


def _build(factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    return factory(**{name: options[name] for name in _fields(factory) & set(options)})


def _known(name: str, table: Mapping[str, Any], key: str) -> str:
    if name in table:
        return name
    near = difflib.get_close_matches(str(name), table, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{key}={name} is not known; {hint}valid are {', '.join(sorted(table))}")
