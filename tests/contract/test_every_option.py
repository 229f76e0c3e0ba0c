"""Every option of every part, and every key of training, changes something: two values, two results.

An optimizer that matches no parameter, a rate that a schedule multiplies by 0 and an option that nobody reads all look
like this: whatever is given, the tensors are the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from tiny_federations import Builder, differ
from torch import nn
from torch.optim import Optimizer

from fedlit.client import steps
from fedlit.client.optimizers.base import LocalOptimizer
from fedlit.config import load_config
from fedlit.config.keys import as_argument
from fedlit.config.schema import RunConfig
from fedlit.errors import UserError
from fedlit.options import Option, options_of
from fedlit.recipes import OPTIMIZERS, RECIPES, TABLES
from fedlit.registry import register, snapshot
from fedlit.round.loop import Federation
from fedlit.tasks.encoded import close_examples

UNEQUAL = "partition.name=quantity"
"""Clients of different sizes: with equal ones all weights are alike."""

OTHER_VALUES: Mapping[str, Any] = {
    "lora_dropout": 0.5,
    "galore.update_proj_gap": 1,
    "galore.proj_type": "reverse_std",
    "galore.rank": 2,
    "residual_rank": 1,
    "sketch_width": 2,
    "init_lr": 0.5,
    "svd_every": 2,
    "energy_threshold": 0.5,
    "regularization": 0.5,
    "target_modules": "attention",
    "assignment": "keep",
    "global_rounds": 1,
}
"""Second values that a rule cannot guess."""

NEEDS: Mapping[str, Sequence[str]] = {
    "init_lr": ["method.init=update"],
    "assignment": ["method.rule=fedex_lora"],
    "sketch_width": ["method.aggregate_by=sums"],
    "galore.svd": ["method.galore.rank=2"],  # below a third of the sides, less the oversampling
}
"""What else an option needs to be looked at."""

WITHOUT_EFFECT: Mapping[tuple[str, str], str] = {
    ("lora_dual", "similarity_scale"): "weighs the answers, not the training: tests/parity/test_lora_pairs.py",
}
"""Part and option, and why two values give one result."""

CLAIM = ["method.weighting=uniform", "privacy.unit=client", "privacy.clip_norm=0.1"]
NOISE = [*CLAIM, "privacy.noise_multiplier=1"]
ADAPTIVE = [*NOISE, "privacy.clip_quantile=0.5"]

KEYS: Mapping[str, tuple[str, str, Sequence[str]]] = {
    "local.steps": ("1", "2", []),
    "local.epochs": ("1", "2", ["local.steps=null", "num_rounds=1"]),
    "local.batch_size": ("2", "3", []),
    "local.accumulate": ("1", "2", []),
    "local.lr": ("0.01", "0.02", []),
    "local.schedule": ("constant", "linear", []),
    "local.schedule_over": ("round", "run", ["local.schedule=linear"]),
    "local.warmup": ("0", "0.5", []),
    "local.weight_decay": ("0", "0.5", []),
    "local.momentum": ("0", "0.5", ["method.optimizer=sgd"]),
    "local.max_grad_norm": ("null", "0.01", ["method.optimizer=sgd"]),
    "local.optimizer_state": ("reset", "keep", []),
    "local.prox_mu": ("0", "1", []),
    "local.scaffold": ("false", "true", ["method.optimizer=sgd"]),
    "local.loss_on": ("response", "all", []),
    "local.label_smoothing": ("0", "0.5", []),
    "server.optimizer": ("none", "fedavgm", []),
    "server.lr": ("0.5", "1", ["server.optimizer=fedavgm"]),
    "server.beta1": ("0.5", "0.9", ["server.optimizer=fedavgm"]),
    "server.beta2": ("0.5", "0.9", ["server.optimizer=fedadam", "server.lr=0.01"]),
    "server.tau": ("0.1", "0.001", ["server.optimizer=fedadam", "server.lr=0.01"]),
    "cohort.sampling": ("fixed", "poisson", ["cohort_size=1", "num_rounds=3"]),
    "cohort.availability": ("always", "deadline", ["cohort.over_selection=2", "cohort_size=1", "num_rounds=3"]),
    "cohort.over_selection": ("1", "2", ["cohort_size=1", "num_rounds=3"]),
    "partition.name": ("dirichlet", "iid", []),
    "partition.alpha": ("0.1", "10", []),
    "partition.column": ("label", "prompt", ["partition.name=natural"]),
    "partition.classes_per_client": ("2", "3", ["partition.name=pathological"]),
    "partition.num_shards": ("3", "6", []),
    "partition.num_topics": ("2", "5", ["partition.name=topics"]),
    "partition.test_fraction": ("0.1", "0.5", []),
    "partition.min_test_rows": ("2", "9", []),
    "partition.validation_fraction": ("0", "0.3", []),
    "partition.seed": ("1", "2", []),
    "privacy.unit": ("none", "client", [option for option in NOISE if "unit" not in option]),
    "privacy.epsilon": ("1", "100", CLAIM),
    "privacy.noise_multiplier": ("1", "2", CLAIM),
    "privacy.clip_norm": ("0.1", "0.2", [option for option in NOISE if "clip" not in option]),
    "privacy.clip_quantile": ("0.1", "0.9", [*NOISE, "privacy.clip_count_noise=9"]),
    "privacy.clip_lr": (
        "0.1",
        "0.9",
        [*NOISE, "num_rounds=2", "privacy.clip_quantile=0.5", "privacy.clip_count_noise=9"],
    ),
    "privacy.clip_count_noise": ("9", "20", ADAPTIVE),
    "privacy.noise_cohort_size": ("3", "30", [*NOISE, "privacy.population=30"]),
}
"""Two values of every key of training and what it needs to be looked at."""

KEYS_WITHOUT_A_PAIR: Mapping[str, str] = {
    "cohort.options": "options of parts: tests/unit/round/test_availability.py",
    "cohort.failures": "matters once a client fails: tests/contract/test_failures.py",
    "local.clients_per_batch": "changes nothing but last bits: tests/contract/test_clients_per_batch.py",
    "privacy.delta": "a claim about the same run: tests/contract/test_client_privacy.py",
    "privacy.accountant": "the same",
    "privacy.population": "the same",
    "privacy.canaries": "tests/contract/test_audit.py",
    "privacy.secure_aggregation": "changes no bit: tests/contract/test_secure_aggregation.py",
    "privacy.neighbours": "the same",
    "privacy.threshold": "the same",
    "privacy.unmask_dropout": "the same",
    "partition.path": "rows as a file deals them: tests/unit/partition",
    "partition.key": "the same",
    "partition.options": "options of a plugin's partition",
}


@dataclass(frozen=True)
class Runs:
    """Federations, each of them run once however often it is asked for."""

    builder: Builder

    @cache  # noqa: B019  one for the module
    def __call__(self, *words: str) -> Federation:
        """Return a federation after its last round."""
        name = "-".join(word.replace("/", "_").replace("=", "_") for word in words)
        federation = self.builder.run(f"{abs(hash(words))}-{name}"[:120], *words)
        close_examples(federation.rows)  # hundreds of them keep four files open each
        return federation


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    torch.set_num_threads(1)
    return Runs(Builder(tmp_path_factory.mktemp("runs"), num_layers=1))


def changes_something(runs: Runs, key: str, values: tuple[str, str], *others: str) -> bool:
    """Tell whether two values of a key end in different tensors."""
    return differ(runs(*others, f"{key}={values[0]}"), runs(*others, f"{key}={values[1]}"))


def recipe_with(kind: str, name: str) -> str:
    """Return a recipe that has a part, of those that federate where there is one."""
    having = [recipe for recipe in RECIPES if (kind, name) in RECIPES[recipe].parts()]
    return next((recipe for recipe in having if not RECIPES[recipe].pooled), having[0] if having else "")


def other_value(option: Option) -> Any:
    """Return a second value of an option."""
    if option.name in OTHER_VALUES:
        return OTHER_VALUES[option.name]
    if option.valid:
        return next(value for value in option.valid if value != option.default)
    if isinstance(option.default, bool):
        return not option.default
    if isinstance(option.default, int):
        return option.default // 2
    assert isinstance(option.default, float), f"{option.name}: give it a second value in OTHER_VALUES"
    return option.default * 2


OPTIONS = [
    pytest.param(kind, name, option, id=f"{name}.{option.name}")
    for kind, table in TABLES.items()
    for name, part in table.items()
    for option in part.own_options().values()
]


@pytest.mark.parametrize(("kind", "name", "option"), OPTIONS)
def test_two_values_of_an_option_give_two_results(runs: Runs, kind: str, name: str, option: Option) -> None:
    if (name, option.name) in WITHOUT_EFFECT:
        pytest.skip(WITHOUT_EFFECT[name, option.name])
    recipe = recipe_with(kind, name)
    words = [f"method={recipe}"] if recipe else ["method=fedit", f"method.{kind}={name}"]
    values = (as_argument(option.default), as_argument(other_value(option)))
    assert changes_something(runs, f"method.{option.name}", values, *words, *NEEDS.get(option.name, []))


def test_weights_of_clients_change_the_result(runs: Runs) -> None:
    assert changes_something(runs, "method.weighting", ("num_examples", "uniform"), "method=fedit", UNEQUAL)


@pytest.mark.parametrize("adapter", sorted({recipe.adapter for recipe in RECIPES.values()}))
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_learning_rate_reaches_every_optimizer_of_every_adapter(runs: Runs, optimizer: str, adapter: str) -> None:
    words = [f"method={recipe_with('adapter', adapter)}", f"method.optimizer={optimizer}", "num_rounds=1"]
    words += ["method.galore.rank=2"] if optimizer.startswith("galore") else []  # below the ranks of the factors
    assert changes_something(runs, "local.lr", ("0.01", "0.02"), *words)


SECTIONS = ("local", "server", "cohort", "partition", "privacy")


def test_no_key_of_training_is_left_out() -> None:
    keys = {key for key in options_of(RunConfig) if key.split(".")[0] in SECTIONS}
    assert keys == KEYS.keys() | KEYS_WITHOUT_A_PAIR.keys()


@pytest.mark.parametrize("key", KEYS)
def test_two_values_of_a_key_give_two_results(runs: Runs, key: str) -> None:
    first, second, others = KEYS[key]
    assert changes_something(runs, key, (first, second), "method=fedit", *others)


# --- what the test is there to catch


@dataclass(frozen=True, kw_only=True)
class OfNobody(LocalOptimizer):
    """AdamW over the parameters whose name holds a text that none has."""

    lr: float
    strength: float = 1.0

    def build(self, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
        chosen = [parameter for name, parameter in parameters.items() if ".lora_magnitude." in name]
        rest = [parameter for name, parameter in parameters.items() if ".lora_magnitude." not in name]
        groups = [{"params": chosen, "lr": self.lr * self.strength}, {"params": rest, "lr": 1e-3}]
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self.lr)

    def num_state_scalars(self, shapes: Sequence[torch.Size]) -> int:
        return 2 * sum(shape.numel() for shape in shapes)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What is registered in a test is taken back after it."""
    restore = snapshot()
    yield
    restore()


@pytest.mark.usefixtures("forgotten")
def test_an_optimizer_that_matches_no_parameter_is_seen(runs: Runs) -> None:
    register("optimizer", "of_nobody", OfNobody)
    words = ["method=fedit", "method.optimizer=of_nobody"]
    assert not changes_something(runs, "method.strength", ("1.0", "2.0"), *words)
    assert not changes_something(runs, "local.lr", ("0.01", "0.02"), *words)


def test_a_rate_that_a_schedule_flattens_is_seen(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "lr_factor", lambda *_: 0.0)
    words = ["method=fedit", "local.schedule=cosine"]
    assert not changes_something(runs, "local.lr", ("0.01", "0.02"), *words)


@pytest.mark.parametrize("words", [["local.steps=1"], ["local.steps=1", "num_rounds=1", "local.schedule_over=run"]])
def test_a_warmup_that_leaves_no_step_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"local.warmup=0.5 .* nothing would be trained"):
        load_config([*words, "local.warmup=0.5"])
