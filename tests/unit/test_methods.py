"""A recipe's parts are what its name, its YAML and the command line say; a misspelt name never passes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fedlit.adapters import trainable
from fedlit.adapters.lora import Lora
from fedlit.client.optimizers.torch_optimizers import SGD, AdamW
from fedlit.config import CONFIG_DIR, LocalConfig, MethodConfig, RunConfig, load_config
from fedlit.errors import UserError
from fedlit.methods import WEIGHTINGS, Method, build_method
from fedlit.models import PROJECTIONS
from fedlit.options import plain
from fedlit.recipes import ADAPTERS, OPTIMIZERS, RECIPES, RULES, TRANSFORMS
from fedlit.round.plan import uniform_weights, weights_by_examples
from fedlit.round.rules.fedavg import FedAvg, NoAggregation
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.transforms import Transform
from fedlit.round.transforms.rank_scaling import RankScaling
from fedlit.round.transforms.rotation import Rotation

YAMLS = sorted(Path(CONFIG_DIR).glob("method/*.yaml"))
LOCAL = LocalConfig(lr=0.25, weight_decay=0.5)
# Texts of the command line, none of them a default.
OTHER_VALUES = {
    "lora_rank": "3",
    "lora_alpha": "5",
    "lora_dropout": "0.5",
    "target_modules": "mlp",
    "use_rslora": "true",
    "compression_dim": "5",
    "galore.rank": "3",
    "residual_rank": "2",
    "svd_every": "2",
    "energy_threshold": "0.5",
    "regularization": "0.5",
    "low_pass": "false",
    "aggregate_by": "sums",
    "sketch_width": "5",
    "local_weight": "0.25",
    "similarity_scale": "0.75",
    "num_references": "3",
    "global_rounds": "1",
    "weighting": "uniform",
    "num_heads": "2",
    "oversampling": "5",
}
OTHER_OF_RECIPE = {
    "scl": {"init": "svd"},
    "fed_sb": {"init": "random", "init_lr": "0.5"},
    "ravan": {"init": "normal"},
    # method.assignment is at odds with a residual_rank; that it arrives is shown where they are refused, below.
    "fedex_lora": {"weighting": "num_examples"},
    "fedalt": {"weighting": "num_examples"},
}


def build(name: str = "fedit", **given: object) -> Method:
    return build_method(RunConfig(method=MethodConfig(name=name, **given), local=LOCAL))  # type: ignore[arg-type]


def test_every_recipe_has_a_yaml_and_every_yaml_a_recipe() -> None:
    assert {path.stem for path in YAMLS} == set(RECIPES)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_builds(path: Path) -> None:
    config = load_config([f"method={path.stem}", "local.lr=0.125", "local.weight_decay=0.5"])
    method = build_method(config)
    recipe = RECIPES[path.stem]
    assert method.name == path.stem
    assert method.pooled == recipe.pooled
    assert (method.optimizer.lr, method.optimizer.weight_decay) == (0.125, 0.5)  # type: ignore[attr-defined]
    for part, table, name in (
        (method.adapter, ADAPTERS, recipe.adapter),
        (method.optimizer, OPTIMIZERS, recipe.optimizer),
        (method.rule, RULES, recipe.rule),
    ):
        factory = table[name].load()
        assert type(part) is getattr(factory, "func", factory)
    assert list(method.transforms.parts) == [TRANSFORMS[name].load()() for name in recipe.transforms]
    assert arrived(method, config) == config.method.options


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_option_of_a_yaml_arrives(path: Path) -> None:
    """Options of the command line replace those of the YAML."""
    options = load_config([f"method={path.stem}"]).method.options
    given = {**OTHER_VALUES, **OTHER_OF_RECIPE.get(path.stem, {})}
    config = load_config(
        [
            f"method={path.stem}",
            *(f"method.{key}={text}" for key, text in given.items() if key.split(".")[0] in options),
        ]
    )
    method = build_method(config)
    assert arrived(method, config) == config.method.options
    changed = {name for name, value in options.items() if config.method.options[name] != value}
    assert changed | {"assignment"} & set(options) == set(options), "give another value in the table for a new option"


def arrived(method: Method, config: RunConfig) -> dict[str, object]:
    """Return the values of a configuration's options as the method's parts have them."""
    parts = (method.adapter, method.optimizer, method.rule)
    found = {
        name: plain(getattr(part, name)) for name in config.method.options for part in parts if hasattr(part, name)
    }
    weighting = next(name for name, weights in WEIGHTINGS.items() if weights is method.weights)
    return found | ({"weighting": weighting} if "weighting" in config.method.options else {})


@pytest.mark.parametrize(
    ("name", "parts", "trains", "shares"),
    [
        ("fedit", (FedAvg, AdamW), "AB", "AB"),
        ("ffa_lora", (FedAvg, AdamW), "B", "B"),
        ("fedsa_lora", (FedAvg, AdamW), "AB", "A"),
        ("centralized", (FedAvg, AdamW), "AB", "AB"),
        ("local_only", (NoAggregation, AdamW), "AB", "AB"),
    ],
)
def test_the_recipes(name: str, parts: tuple[type, type], trains: str, shares: str) -> None:
    method = build(name)
    assert (type(method.rule), type(method.optimizer)) == parts
    assert isinstance(method.adapter, Lora)
    assert (method.adapter.trains, method.adapter.shares) == (trains, shares)
    assert method.pooled == (name == "centralized")
    assert method.communicates == (name != "local_only")


@pytest.mark.parametrize(
    ("name", "shared", "private"),
    [("fedit", "AB", ""), ("ffa_lora", "B", ""), ("fedsa_lora", "A", "B"), ("local_only", "", "AB")],
)
def test_what_travels_and_what_stays(
    name: str, shared: str, private: str, small_llama: Callable[..., nn.Module]
) -> None:
    method, model = build(name), small_llama()
    method.adapter.attach(model, PROJECTIONS["llama"])
    travels, stays = method.shared(model), method.private(model)
    assert travels.keys() | stays.keys() == trainable(model).keys()
    assert not travels.keys() & stays.keys()
    for tensors, factors in ((travels, shared), (stays, private)):
        assert {name.split(".lora_")[1][0] for name in tensors} == set(factors)
        assert len(tensors) == 2 * 3 * len(factors)  # layers, q k v
        parameters = dict(model.named_parameters())
        assert all(tensor.data_ptr() == parameters[name].data_ptr() for name, tensor in tensors.items()), "live"


def test_a_part_may_be_replaced() -> None:
    method = build(optimizer="sgd", rule="none", adapter="lora_train_b")
    assert method.optimizer == SGD(lr=0.25, weight_decay=0.5)
    assert isinstance(method.rule, NoAggregation)
    assert method.adapter == Lora(trains="B", shares="B")


@pytest.mark.parametrize(
    ("name", "rule", "transforms"),
    [
        ("fedit", FedAvg, []),
        ("hetlora", FedAvg, [RankScaling(share_of_a=0.5)]),
        ("flexlora", FlexLora, [RankScaling(share_of_a=0.0)]),
        ("fedrot_lora", FedAvg, [Rotation()]),
    ],
)
def test_the_transforms(name: str, rule: type, transforms: list[Transform]) -> None:
    method = build(name)
    assert type(method.rule) is rule
    assert list(method.transforms.parts) == transforms
    assert build(name, transforms=[]).transforms.parts == ()
    replaced = build(name, transforms=["rotation", "rank_padding"])
    assert replaced.transforms.parts == (Rotation(), RankScaling(share_of_a=0.5)), "in the order given"
    assert build(name, rule="none").transforms.parts == (), "nothing travels that could be transformed"


def test_the_optimizers_are_torch_s_with_the_local_settings() -> None:
    parameter = nn.Parameter(torch.zeros(2, 3))
    for optimizer, kind in (
        (build().optimizer, torch.optim.AdamW),
        (build(optimizer="sgd").optimizer, torch.optim.SGD),
    ):
        built = optimizer.build({"weight": parameter})
        assert type(built) is kind
        assert built.param_groups[0]["lr"] == 0.25
        assert built.param_groups[0]["weight_decay"] == 0.5
        assert built.param_groups[0]["params"] == [parameter]


def test_weights_by_examples_unless_uniform() -> None:
    assert build().weights is weights_by_examples
    assert build(options={"weighting": "uniform"}).weights is uniform_weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "fedet"}, "method=fedet is not known; did you mean fedit? valid are centralized, "),
        ({"name": "ffa-lora"}, "did you mean ffa_lora?"),
        ({"name": "zzz"}, "method=zzz is not known; valid are "),
        ({"adapter": "lroa"}, "method.adapter=lroa is not known; did you mean lora?"),
        ({"optimizer": "adam"}, "method.optimizer=adam is not known; did you mean adamw?"),
        ({"rule": "fedavgg"}, "method.rule=fedavgg is not known; did you mean fedavg?"),
        ({"rule": "hetlora"}, "method.rule=hetlora is not known; "),  # is a recipe
        ({"rule": "fedrot_lora"}, "method.rule=fedrot_lora is not known; "),
        ({"transforms": ["rotatoin"]}, "method.transforms=rotatoin is not known; did you mean rotation?"),
        ({"transforms": ["rotation", "?"]}, "method.transforms=? is not known; valid are rank_padding, rank_scaling, "),
        ({"options": {"weighting": "unifrom"}}, "method.weighting=unifrom is not known; did you mean uniform?"),
    ],
)
def test_an_unknown_name_gives_the_nearest(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(**given)  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_valid_ones() -> None:
    tables = (("adapter", ADAPTERS), ("optimizer", OPTIMIZERS), ("rule", RULES), ("transforms", TRANSFORMS))
    for key, table in tables:
        with pytest.raises(UserError) as caught:
            build(**{key: ["?"] if key == "transforms" else "?"})  # type: ignore[arg-type]
        assert f"valid are {', '.join(sorted(table))}" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"options": {"lora_rnak": 4}}, "lora_rnak"),
        ({"options": {"momentum": 0.9}}, "momentum"),  # is local.momentum
        ({"name": "ffa_lora", "options": {"trains": "A"}}, "trains"),  # is what the recipe stands for
        ({"name": "hetlora", "options": {"share_of_a": 0.1}}, "share_of_a"),
        ({"options": {"lr": 0.1}}, "lr"),  # local.lr is the learning rate
        ({"options": {"weight_decay": 0.1}}, "weight_decay"),
    ],
)
def test_an_option_that_no_part_takes_is_an_error(given: dict[str, object], option: str) -> None:
    with pytest.raises(UserError, match=rf"method\.{option} "):
        build(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"lora_rank": 0}, {"lora_alpha": 0.0}, {"lora_alpha": float("nan")}, {"lora_dropout": 1.0}]
)
def test_a_value_out_of_range_is_an_error(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(options))}="):
        build(options=options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("method=scl method.rule=flexlora", "method.rule=flexlora needs LoRA factors A and B that travel"),
        ("method=full method.rule=fedex_lora", "method.adapter=dense does not send A and B"),
        ("method=fedsa_lora method.rule=fedsvd", "method.adapter=lora_share_a does not send B"),
        ("method=ffa_lora method.rule=fedsvd", "an adapter such as lora_train_b_receive_a"),
        ("method=fedit method.lora_rank=[2,4,3]", "which method.rule=fedavg cannot combine"),
        ("method=fedrot_lora method.lora_rank=[2,4,3]", "a recipe that can: flexlora, flora, florist, hetlora"),
        ("method=hetlora method.transforms=[] method.lora_rank=[2,4,3]", "method.rule=fedavg cannot combine"),
        ("method=hetlora method.transforms=[rotation] method.lora_rank=[2,4,3]", "method.rule=fedavg cannot combine"),
        ("method=hetlora method.rule=none method.lora_rank=[2,4,3]", "method.rule=none cannot combine"),
        ("method=hetlora method.rule=fedex_lora method.lora_rank=[2,4,3]", "method.rule=fedex_lora cannot combine"),
        ("method=scl method.transforms=[rotation]", "the transform Rotation needs LoRA factors A and B that travel"),
        ("method=rolora method.transforms=[rotation]", "method.adapter=lora_alternate sends one in each round"),
        ("method=ffa_lora method.transforms=[rank_padding]", "method.adapter=lora_train_b does not send"),
        ("method=fed_sb method.lora_rank=[2,4,3]", "method.lora_rank=[2, 4, 3]"),
        ("method=flora method.lora_rank=[2,4,3] method.pooled=true", "pooled data have one client"),
        ("method=flora server.optimizer=fedavgm", "method.rule=flora does not return the mean"),
        ("method=local_only server.optimizer=fedavgm", "method.rule=none does not return the mean"),
        ("method=fedit local.scaffold=true", "give method.optimizer=sgd"),
        ("method=fedftg local.scaffold=true", "give method.optimizer=sgd"),
        ("method=local_only local.scaffold=true method.optimizer=sgd", "a rule that communicates"),
        ("method=centralized local.scaffold=true method.optimizer=sgd", "local.scaffold=true"),
        ("method=flexlora local.scaffold=true method.optimizer=sgd", "method.rule=flexlora changes them"),
        ("method=hetlora local.scaffold=true method.optimizer=sgd", "the transform RankScaling changes them"),
        ("method=fedit local.scaffold=true local.prox_mu=0.1 method.optimizer=sgd", "local.prox_mu=0.1 adds to each"),
        ("method=fedrot_lora local.scaffold=true method.optimizer=sgd", "the transform Rotation changes them"),
        ("method=fedex_lora method.assignment=keep method.residual_rank=2", "leave one of them out"),
        ("method=fedex_lora method.assignment=keep method.aggregate_by=sums", "holds every client's own factors"),
        ("method=flora method.sketch_width=5", "leave one of them out"),
    ],
)
def test_parts_that_do_not_fit_say_who_needs_what(arguments: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_method(load_config(arguments.split()))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (["method=scl"], {"peft", "galore_torch", "fedlit.adapters.lora", "fedlit.client.optimizers.galore"}),
        (["method=fedit"], {"galore_torch", "fedlit.adapters.scl", "fedlit.round.rules.fedex_lora"}),
    ],
)
def test_what_a_run_does_not_use_is_not_imported(words: list[str], unused: set[str]) -> None:
    code = (
        "import sys\nfrom fedlit.config import load_config\nfrom fedlit.methods import build_method\n"
        f"build_method(load_config({words}))\nprint(sorted({unused} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
