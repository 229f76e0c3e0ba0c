"""Several clients in one forward pass end where each ends alone: exactly in float64, whatever takes part."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny_federations
import torch
from lightning.fabric import Fabric
from test_recipes import on_push
from tiny_federations import Builder, assert_equal, effective_weights, leaves, results
from torch import Tensor, nn

from fedlit.client.optimizers.torch_optimizers import SGD
from fedlit.client.together.groups import groups_of
from fedlit.client.together.members import joined_state
from fedlit.errors import DivergenceError, UserError
from fedlit.process import communication
from fedlit.recipes import RECIPES
from fedlit.round.loop import Federation
from fedlit.tasks.causal_lm.task import CausalLM

TOLERANCE = 1e-8
BASE = ("num_clients=5", "partition.alpha=0.5")
UNEQUAL = ("partition.name=quantity", "partition.alpha=1", "partition.min_test_rows=1", "local.steps=null")
"""Clients of 1 to 14 steps."""
DENSE = ("full", "fedftg", "fedgalore")
"""They train the backbone's own weights."""
OWN_STEPS = ("feddpa",)
"""They take two passes a step."""
REFACTORED = ("flexlora", "fedask", "fedmomentum", "florist")
"""Their factors are singular vectors, whose signs the last bit decides: the product is compared."""


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """Return a builder of federations in float64."""

    def in_float64(**_options: Any) -> Fabric:
        return Fabric(accelerator="cpu", devices=1, precision="64-true")

    monkeypatch.setattr(tiny_federations, "Fabric", in_float64)
    torch.set_num_threads(1)
    return Builder(tmp_path, num_layers=2)


def assert_close(one: Any, other: Any) -> None:
    left, right = dict(leaves(one)), dict(leaves(other))
    assert left.keys() == right.keys()
    for place, tensor in left.items():
        assert tensor.shape == right[place].shape, place
        torch.testing.assert_close(tensor.double(), right[place].double(), rtol=TOLERANCE, atol=TOLERANCE, msg=place)


def assert_same_run(one: Federation, other: Federation) -> None:
    """Compare servers, private tensors, what clients keep, and records."""
    assert_close(results(one), results(other))
    for client_id, state in (one.clients or {}).items():
        assert other.clients is not None
        assert_close(
            (state.parts, state.optimizer), (other.clients[client_id].parts, other.clients[client_id].optimizer)
        )
    for left, right in zip(one.folder.records(), other.folder.records(), strict=True):
        if left["round"] == 0:
            assert right.pop("local/clients_per_batch") == 3
        assert left.keys() == right.keys()
        for key, value in left.items():
            if isinstance(value, float) and not key.startswith("time/"):
                assert right[key] == pytest.approx(value, rel=1e-5, abs=1e-7), key  # losses are recorded in float32


@pytest.mark.parametrize("recipe", on_push())
def test_every_recipe_ends_where_it_ends_one_after_the_other(builder: Builder, recipe: str) -> None:
    """Five clients in groups of three: the last group has two."""
    if recipe in (*DENSE, *OWN_STEPS):
        pytest.skip("refused: see test_what_cannot_share_a_pass_is_refused")
    options = [f"method={recipe}", *BASE]
    one, three = builder.run("one", *options), builder.run("three", *options, "local.clients_per_batch=3")
    if recipe in REFACTORED:
        left, right = (effective_weights(each, each.server.shared) for each in (one, three))
        for name, weight in left.items():
            torch.testing.assert_close(weight, right[name], rtol=1e-7, atol=1e-7, msg=name)
    else:
        assert_same_run(one, three)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["method=fedsa_lora", "method.lora_dropout=0.3", "local.max_grad_norm=0.01"], id="dropout"),
        pytest.param(["local.prox_mu=0.1", "local.max_grad_norm=0.01"], id="a pull, clipping"),
        pytest.param(["local.scaffold=true", "method.optimizer=sgd"], id="control variates"),
        pytest.param(["method.optimizer=sgd", "local.momentum=0.9", "local.optimizer_state=keep"], id="momentum"),
        pytest.param(
            ["local.optimizer_state=keep", "local.accumulate=2", "cohort_size=3", "num_rounds=3"],
            id="kept optimizers at different steps",
        ),
        pytest.param(
            ["local.optimizer_state=keep", "local.schedule=cosine", "local.warmup=0.3", "local.schedule_over=run"],
            id="a schedule over all rounds",
        ),
        pytest.param(
            [*UNEQUAL, "local.epochs=1", "local.batch_size=3", "method.lora_dropout=0.1"],
            id="epochs of unequal clients",
        ),
        pytest.param(
            [*UNEQUAL, "local.epochs=1", "local.batch_size=3", "local.optimizer_state=keep", "num_rounds=3"],
            id="epochs of unequal clients with kept moments",
        ),
        pytest.param(
            [*UNEQUAL, "local.epochs=1", "local.batch_size=3", "local.accumulate=2", "local.schedule=linear"],
            id="epochs, short batches, a schedule of each client",
        ),
        pytest.param(["method=fedsvd", "method.rule=none"], id="a private tensor that nobody trains"),
        pytest.param(["method=hetlora", "method.lora_rank=[2,4,1,3,2]"], id="a rank for each client"),
        pytest.param(["method=flora", "method.lora_rank=[2,4,1,3,2]", "method.lora_dropout=0.2"], id="stacked ranks"),
        pytest.param(["method.target_modules=[q_proj,lm_head]", "method.lora_dropout=0.2"], id="the output projection"),
        pytest.param(
            [
                "method.optimizer=galore",
                "method.galore.rank=2",
                "method.lora_rank=4",
                "method.galore.scale=1",
            ],
            id="an optimizer of whole matrices",
        ),
        pytest.param(["model.gradient_checkpointing=true"], id="blocks computed twice"),
        pytest.param(["local.loss_on=all", "local.label_smoothing=0.1"], id="smoothed labels"),
        pytest.param(["method=fedsa_lora", "eval.every=1", "eval.max_new_tokens=8"], id="generation"),
        pytest.param(
            ["method=fedsa_lora", "eval.stop=[e]", "eval.max_new_tokens=12"], id="rows end at different times"
        ),
        pytest.param(["method=local_only", "eval.protocol=teacher_forced", "eval.batch_size=2"], id="teacher forcing"),
        pytest.param(["method=rolora", "local.optimizer_state=keep", "num_rounds=3"], id="turns with kept moments"),
        pytest.param(
            [*UNEQUAL, "method=ravan", "local.epochs=1", "local.batch_size=3", "local.max_grad_norm=0.01"],
            id="heads of unequal clients",
        ),
        pytest.param(["method=ravan", "method.rule=none", "eval.batch_size=2"], id="heads of one's own"),
        pytest.param(
            ["method=la_lora", "local.steps=3", "local.weight_decay=0.3", "local.optimizer_state=keep"],
            id="turns by step",
        ),
        pytest.param(
            [
                *("method=la_lora", "method.low_pass=false", *UNEQUAL, "local.epochs=1", "local.batch_size=3"),
                *("local.optimizer_state=keep", "local.weight_decay=0.3"),
            ],
            id="turns by step of unequal clients, stepped as one",
        ),
    ],
)
def test_whatever_takes_part_is_each_clients_own(builder: Builder, options: list[str]) -> None:
    named = {option.split("=")[0] for option in options}
    given = [*(option for option in BASE if option.split("=")[0] not in named), *options]
    assert_same_run(builder.run("one", *given), builder.run("three", *given, "local.clients_per_batch=3"))


class Drawing(torch.optim.SGD):
    """Draws in each step and gives its parameters new memory, as some optimizers from outside do."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad += 0.1 * torch.randn_like(parameter)
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.clone()


class Ending(torch.optim.SGD):
    """Ends the second client's training at its second step, its gradients left behind."""

    num_built: ClassVar[int] = 0

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        Ending.num_built += 1
        self.ends = Ending.num_built == 2

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self.ends and self.state.get("steps", 0):
            raise DivergenceError(what="a gradient", fact="it cannot be stepped")
        self.state["steps"] = 1
        super().step()


@pytest.mark.parametrize("kind", [Drawing, Ending])
def test_optimizers_from_outside(builder: Builder, kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SGD, "element_wise", False)
    options = [*BASE, "method.optimizer=sgd", "cohort.failures=drop", "num_rounds=1", "local.steps=3"]
    runs = []
    for name, more in (("one", ()), ("three", ("local.clients_per_batch=3",))):
        built = builder(name, *options, *more)
        Ending.num_built = 0
        with monkeypatch.context() as patched:
            patched.setattr(SGD, "build", lambda self, given: kind(given.values(), lr=self.lr))
            built.run()
        runs.append(built)
    assert runs[0].folder.records()[1].get("clients/lost") == ([1] if kind is Ending else None)
    assert_same_run(*runs)


def test_the_guard_sees_another_clients_rows(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: the weights of a pass in the wrong order."""
    from fedlit.client.together import weights  # noqa: PLC0415

    right = weights._grouped_linear
    monkeypatch.setattr(weights, "_grouped_linear", lambda x, w, bias, owners: right(x, w.flip(0), bias, owners))
    options = ["method=fedsa_lora", *BASE]
    one = builder.run("one", *options)
    with pytest.raises(AssertionError):
        assert_same_run(one, builder.run("three", *options, "local.clients_per_batch=3"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["method=full"], "method.name=full trains weights of the backbone itself"),
        (["method=fedftg"], "method.name=fedftg trains weights of the backbone itself"),
        (["method=feddpa"], "method.name=feddpa has local steps of its own, which one client at a time can take"),
        (["method=fedgalore"], "method.name=fedgalore trains weights of the backbone itself"),
        (["method=fedex_lora", "method.assignment=keep"], "each client has frozen weights of its own"),
        (["model.gradient_checkpointing=true", "method.lora_dropout=0.1"], "would draw other numbers"),
    ],
)
def test_what_cannot_share_a_pass_is_refused(builder: Builder, options: list[str], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        builder("refused", *options, "local.clients_per_batch=2")
    assert str(caught.value).startswith("local.clients_per_batch=2: ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("give local.clients_per_batch=1")


def test_every_recipe_is_tried_or_refused() -> None:
    assert {*DENSE, *OWN_STEPS} < set(RECIPES)


class SpoiledLosses(CausalLM):
    """Makes the loss of the second client of every pass NaN."""

    def losses(self, model: nn.Module, joined: Any) -> Tensor:
        losses = super().losses(model, joined)
        return losses * torch.tensor([1.0, float("nan"), 1.0][: len(losses)])


def test_a_client_that_diverges_does_so_alone(builder: Builder) -> None:
    options = ["method=fedit", "num_clients=3", "eval.every=9", "num_rounds=1", "cohort.failures=drop"]
    fine = builder.run("fine", *options, "local.clients_per_batch=3")
    spoiled = builder("spoiled", *options, "local.clients_per_batch=3")
    task: Any = spoiled.trainer.module.task  # type: ignore[attr-defined]
    object.__setattr__(task, "__class__", SpoiledLosses)  # the task is frozen
    spoiled.run()
    record, expected = spoiled.folder.records()[1], fine.folder.records()[1]
    assert record["clients/lost"] == [1]
    for client_id in (0, 2):
        assert record[f"client/{client_id}/update_norm"] == expected[f"client/{client_id}/update_norm"]
        assert record[f"client/{client_id}/train_loss"] == expected[f"client/{client_id}/train_loss"]


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("at_home", [True, False])
def test_groups_do_not_depend_on_the_number_of_processes(
    num_processes: int, at_home: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [0, 1, 2, 5, 6, 7, 8, 11, 12, 13]
    whole = groups_of(clients, 3, at_home=at_home)
    monkeypatch.setattr(communication, "num_processes", lambda: num_processes)
    seen: list[tuple[int, ...]] = []
    for index in range(num_processes):
        monkeypatch.setattr(communication, "process_index", lambda index=index: index)
        if at_home:
            homes = {c for block in communication.share(groups_of(range(15), 3, at_home=True)) for c in block}
            mine = groups_of([client for client in clients if client in homes], 3, at_home=True)
        else:
            mine = list(communication.share(whole))
        seen += mine
    assert sorted(seen) == sorted(whole)


def test_states_at_different_steps_are_not_joined() -> None:
    shapes = [torch.Size([2, 3])]

    def state(step: float) -> dict[str, Any]:
        return {"state": {0: {"step": torch.tensor(step), "exp_avg": torch.full((2, 3), step)}}, "param_groups": []}

    joined = joined_state([state(2.0), state(2.0)], shapes)
    assert joined is not None
    assert joined["state"][0]["exp_avg"].shape == (2, 2, 3)
    assert joined_state([None, None], shapes) is None
    for states in ([state(1.0), state(2.0)], [state(1.0), None]):
        with pytest.raises(ValueError, match=r"step|others"):
            joined_state(states, shapes)


def test_it_is_killed_and_resumed_to_the_same_bits(builder: Builder) -> None:
    options = ["method=fedsa_lora", *BASE, "local.clients_per_batch=2", "local.optimizer_state=keep", "num_rounds=3"]
    whole = builder.run("whole", *options)
    parts = builder("parts", *options)
    parts.config.num_rounds = 2  # as if it were killed
    parts.run()
    resumed = builder.run("parts", *options)
    assert_equal(results(whole), results(resumed))
