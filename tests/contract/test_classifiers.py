"""Every recipe trains an image classifier too: its head learns, travels or stays, and is part of the result."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from tiny_federations import assert_equal, leaves, results
from torch import Tensor
from transformers import AutoModelForImageClassification

from fedlit import assembly, planning
from fedlit.adapters.pair_files import MIXING, load_pair
from fedlit.algebra.tensors import snapshot
from fedlit.config import load_config
from fedlit.inputs import gather_inputs
from fedlit.recipes import RECIPES
from fedlit.round.cohort import Cohort
from fedlit.round.loop import Federation
from fedlit.round.payload import MODEL, Payload

ARGUMENTS = [
    "data=digits",
    "model=vit-small",
    "num_clients=2",
    "num_rounds=2",
    "local.steps=2",
    "local.batch_size=4",
    "local.lr=0.01",
    "partition.alpha=1",
    "eval.max_examples=4",
    "eval.every=2",
    "logging.wandb=disabled",
]
HEAD = ("classifier.bias", "classifier.weight")


def federation(folder: Path, name: str, *arguments: str) -> Federation:
    """Return a federation in the run folder `name`, resumed if it has a checkpoint."""
    given = {argument.split("=")[0] for argument in arguments}
    defaults = [argument for argument in ARGUMENTS if argument.split("=")[0] not in given]
    config = load_config([*defaults, *arguments, f"run.dir={folder}", f"run.name={name}"])
    plan = planning.make_plan(gather_inputs(config))
    built, _ = assembly.assemble(plan, Fabric(accelerator="cpu", devices=1))
    built.folder.prepare({}, "cpu")
    built.resume()
    return built


def head(built: Federation) -> dict[str, Tensor]:
    return snapshot(built.host.method.head(built.host.model))


def logits(model: Any) -> Tensor:
    """Return the outputs for fixed pixels; the model's own type may be lower than the pixels'."""
    pixels = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64).sin()
    with torch.no_grad():
        return model.eval()(pixel_values=pixels).logits  # type: ignore[no-any-return]


RULES_WITH_CHOICES = ["fedex_lora method.assignment=keep", "fedex_lora method.assignment=reinitialize"]


@pytest.fixture(scope="module", params=[*sorted(RECIPES), *RULES_WITH_CHOICES])
def recipe(request: pytest.FixtureRequest) -> list[str]:
    """Return the arguments that choose a method."""
    return f"method={request.param}".split()


@pytest.fixture(scope="module")
def trained(
    recipe: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Federation, dict[str, Tensor]]]:
    """Run the recipe; also return the head it began with."""
    built = federation(tmp_path_factory.mktemp("runs"), "whole", *recipe)
    before = head(built)
    built.run()
    yield built, before


def test_the_head_learns_and_travels(trained: tuple[Federation, dict[str, Tensor]]) -> None:
    built, before = trained
    assert sorted(before) == sorted(HEAD)
    if built.host.method.communicates:
        assert set(HEAD) <= built.server.shared.keys()
        after = {name: built.server.shared[name] for name in HEAD}
        assert not set(HEAD) & built.host.method.private(built.host.model).keys()
    else:
        assert built.clients is not None
        assert set(HEAD) <= built.clients[0].private.keys()
        after = {name: built.clients[0].private[name] for name in HEAD}
    assert all(not torch.equal(after[name], before[name]) for name in HEAD)


def test_the_head_is_the_clients_mean(recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighted as the method says, whatever the rule makes of the factors."""
    sent: dict[int, Payload] = {}
    add = Cohort.add

    def watched(cohort: Cohort, client_id: int, payload: Payload, *rest: Any) -> None:
        sent[client_id] = payload
        add(cohort, client_id, payload, *rest)

    monkeypatch.setattr(Cohort, "add", watched)
    built = federation(tmp_path, "mean", *recipe, "num_rounds=1", "partition.name=quantity")
    if not built.host.method.communicates:
        pytest.skip("nothing travels")
    built.run()
    assert list(sent) == list(range(len(built.rows)))
    weights = built.host.method.weights([len(rows) for rows in built.rows])
    for name in HEAD:
        mean = sum(sent[client][MODEL][name].double() * weight for client, weight in enumerate(weights))
        assert isinstance(mean, Tensor)
        torch.testing.assert_close(built.server.shared[name].double(), mean, rtol=0, atol=1e-6)


def test_the_result_loads_without_fedlit(trained: tuple[Federation, dict[str, Tensor]]) -> None:
    """Every client's own model, or the server's: the same logits, and the names of the classes."""
    built, _ = trained
    built.export()
    folders = [built.folder.adapter]
    if built.host.method.private(built.host.model):
        folders = [built.folder.adapter / f"client-{client:05d}" for client in built.clients or {}]
        assert len(folders) > 1
    for client, folder in enumerate(folders):
        if len(folders) > 1:
            built.load_client(client)
        if (folder / MIXING).is_file():  # two LoRAs and a gate stand beside a base model
            model = load_pair(built.exporter.reload().model, folder)
        else:
            model = AutoModelForImageClassification.from_pretrained(folder)
        torch.testing.assert_close(logits(model), logits(built.host.model), rtol=1e-4, atol=1e-5)
        assert model.config.id2label[9] == "9"
        assert (folder / "preprocessor_config.json").is_file()


def test_it_resumes_to_the_same_bits(
    recipe: list[str], trained: tuple[Federation, dict[str, Tensor]], tmp_path: Path
) -> None:
    first = federation(tmp_path, "halves", *recipe)
    first.config.num_rounds = 1
    first.run()
    second = federation(tmp_path, "halves", *recipe)
    assert second.server.round_idx == 1
    second.run()
    assert_equal(results(second), results(trained[0]))


def test_a_private_head_stays(tmp_path: Path) -> None:
    built = federation(tmp_path, "private", "method=fedit", "method.private_head=true", "partition.alpha=0.1")
    built.run()
    assert not set(HEAD) & built.server.shared.keys()
    assert built.clients is not None
    assert not torch.equal(built.clients[0].private[HEAD[1]], built.clients[1].private[HEAD[1]])


def test_a_resumed_run_stops_where_the_whole_one_does(tmp_path: Path) -> None:
    """What patience has used up before is in the records; the exported model is that of the best round."""
    arguments = ["method=fedit", "num_rounds=8", "eval.every=1", "eval.patience=2", "eval.score=loss", "local.lr=1"]
    arguments.append("eval.choose_on=test")
    whole = federation(tmp_path, "whole", *arguments, "run.result=best")
    whole.run()
    stopped = whole.server.round_idx
    assert whole.best.number is not None
    assert stopped == whole.best.number + 2 < 8
    first = federation(tmp_path, "halves", *arguments, "run.result=best")
    first.config.num_rounds = stopped - 1
    first.run()
    second = federation(tmp_path, "halves", *arguments, "run.result=best")
    second.run()
    assert second.server.round_idx == stopped
    assert (second.best.number, second.best.value) == (whole.best.number, whole.best.value)
    for built in (whole, second):
        built.export()
        assert built.server.round_idx == whole.best.number
    one, other = ((built.folder.adapter / "model.safetensors").read_bytes() for built in (whole, second))
    assert one == other


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=fedit"],
        ["method=fedsa_lora", "method.private_head=true"],
        ["method=scl"],
        ["method=local_only", "local.steps=null", "local.epochs=1", "local.batch_size=7"],
    ],
    ids=" ".join,
)
def test_several_clients_go_through_one_pass(arguments: list[str], tmp_path: Path) -> None:
    """With heads of their own. Plain gradient descent, whose steps are as exact as its gradients in float32: at a rate
    at which it goes down, for at a larger one every rounding grows from step to step.
    """
    given = [*arguments, "method.optimizer=sgd", "num_clients=3", "local.lr=0.01", "num_rounds=1"]
    alone = federation(tmp_path, "alone", *given)
    alone.run()
    together = federation(tmp_path, "together", *given, "local.clients_per_batch=2")
    together.run()
    for one, other in zip(results(alone), results(together), strict=True):
        for (place, left), (_, right) in zip(leaves(one), leaves(other), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6, msg=place)
