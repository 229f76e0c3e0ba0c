"""What every recipe in the table must keep, with no list kept by hand: a new line in RECIPES is tested here."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor

from fedlit import federation as federation_module
from fedlit.assembly import assemble, make_plan
from fedlit.cohort import ClientUpdate, Cohort, sample_cohort
from fedlit.config import CONFIG_DIR, load_config
from fedlit.data.shards import make_shards
from fedlit.federation import Federation
from fedlit.inputs import Inputs
from fedlit.methods import ADAPTERS, RECIPES, RULES, Method, build_method
from fedlit.server import ServerState
from fedlit.tensors import TensorDict, snapshot

WORDS = ("close", "read", "write", "merge", "sort", "open", "compare", "send", "parse", "split", "join", "copy")
ROWS = [
    {"prompt": f"def {word}_{number}(file)", "response": f"{word} file {number}.", "label": word[0]}
    for number in range(8)
    for word in WORDS
]
OPTIONS = [
    "num_clients=3",
    "num_rounds=2",
    "local.steps=2",
    "local.batch_size=2",
    "local.optimizer_state=keep",
    "local.lr=0.01",
    "partition.alpha=1",
    "partition.min_test_rows=2",
    "eval.max_examples=4",
    "eval.max_new_tokens=4",
    "logging.wandb=disabled",
]


@pytest.fixture(params=sorted(RECIPES))
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(recipe: str, tmp_path: Path) -> Callable[..., Federation]:
    """Return a function that assembles a federation of the recipe in a run folder of the given name."""

    def assembled(name: str = "run", *extra: str) -> Federation:
        given = {option.split("=")[0] for option in extra}
        options = [*(option for option in OPTIONS if option.split("=")[0] not in given), *extra]
        config = load_config([f"method={recipe}", *options, f"run.dir={tmp_path}", f"run.name={name}"])
        shards = make_shards(ROWS, config.data, config.partition, config.num_clients, config.seed)
        plan = make_plan(Inputs(config=config, rows=ROWS, shards=shards))
        federation, _ = assemble(plan, Fabric(accelerator="cpu", devices=1))
        federation.folder.prepare({}, "cpu")
        federation.resume()
        return federation

    return assembled


def parameters(federation: Federation) -> TensorDict:
    """Return copies of all parameters of the process's model."""
    return snapshot(dict(federation.model.named_parameters()))


def results(federation: Federation) -> tuple[TensorDict, dict[int, TensorDict]]:
    """Return the server's tensors and every client's private ones."""
    return federation.server.shared, {client: state.private for client, state in federation.clients.items()}


def assert_equal(left: object, right: object) -> None:
    """Compare nested dicts of tensors bit for bit."""
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor)
        assert torch.equal(left, right)
    else:
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        assert left.keys() == right.keys()
        for key in left:
            assert_equal(left[key], right[key])


def test_it_has_a_yaml_whose_options_its_parts_take(recipe: str) -> None:
    assert (CONFIG_DIR / "method" / f"{recipe}.yaml").is_file()
    config = load_config([f"method={recipe}"])
    assert isinstance(build_method(config.method, config.local), Method)


def test_training_moves_what_it_should_and_nothing_else(build: Callable[..., Federation]) -> None:
    federation = build()
    before = parameters(federation)
    shared, private = set(federation.method.shared(federation.model)), set(federation.method.private(federation.model))
    assert not shared & private
    trainable = {name for name, parameter in federation.model.named_parameters() if parameter.requires_grad}
    assert trainable == shared | private
    federation.run()
    after = parameters(federation)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved <= trainable | set(federation.server.frozen)
    assert moved & trainable


def test_identical_clients_are_a_fixed_point(build: Callable[..., Federation]) -> None:
    federation = build()
    generator = torch.Generator().manual_seed(3)
    trained = {
        name: torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in federation.server.shared.items()
    }
    weights = federation.method.weights([5, 2, 9])
    cohort = Cohort((0, 1, 2), weights, trained, round_idx=0, stacks=federation.method.rule.stacks)
    for client_id in range(3):
        cohort.add(ClientUpdate(client_id=client_id, num_examples=1, shared=trained, metrics={}))
    assert_equal(federation.method.rule(cohort, ServerState(shared=trained)).shared, trained)


def test_the_order_of_clients_is_irrelevant(build: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch) -> None:
    straight = build("straight")
    straight.run()

    def backwards(*arguments: int) -> tuple[int, ...]:
        return sample_cohort(*arguments)[::-1]

    monkeypatch.setattr(federation_module, "sample_cohort", backwards)
    reversed_ = build("reversed")
    reversed_.run()
    assert_equal(results(straight)[0], results(reversed_)[0])
    assert_equal(results(straight)[1], results(reversed_)[1])


def test_state_survives_save_and_load(build: Callable[..., Federation]) -> None:
    """One round, then a new process's federation that resumes, equals two rounds at one go."""
    whole = build("whole")
    whole.run()
    first = build("halves")
    original = first.config.num_rounds
    first.config.num_rounds = 1
    first.run()
    second = build("halves")
    assert second.server.round_idx == 1
    second.config.num_rounds = original
    second.run()
    assert_equal(results(whole)[0], results(second)[0])
    assert_equal(results(whole)[1], results(second)[1])


def test_private_tensors_stay_with_their_client(build: Callable[..., Federation]) -> None:
    """A client's private tensors before round t + 1 are its own after round t, whoever trained in between."""
    federation = build("run", "cohort_size=2", "num_rounds=3")
    if not federation.method.private(federation.model):
        pytest.skip("nothing is private")
    seen: dict[int, TensorDict] = {}
    train = type(federation.trainer).train

    def checked(
        trainer: object, client_id: int, examples: object, shared: object, state: object, *rest: object
    ) -> object:
        if client_id in seen:
            assert_equal(state.private, seen[client_id])  # type: ignore[attr-defined]
        result = train(trainer, client_id, examples, shared, state, *rest)  # type: ignore[arg-type]
        assert result is not None
        seen[client_id] = result[1].private
        return result

    object.__setattr__(federation.trainer, "train", checked.__get__(federation.trainer))
    federation.run()
    assert len(seen) == 3
    first, second = (list(seen[client].values()) for client in (0, 1))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_export_leaves_a_loadable_adapter(build: Callable[..., Federation]) -> None:
    federation = build()
    federation.run()
    federation.export()
    files = list(federation.folder.adapter.rglob("adapter_model.safetensors"))
    clients = len(federation.clients) if federation.method.private(federation.model) else 1
    assert len(files) == clients
    assert all((file.parent / "adapter_config.json").is_file() for file in files)


def test_every_part_is_in_some_recipe() -> None:
    """A part that no recipe uses has no contract test."""
    assert {entry.adapter for entry in RECIPES.values()} == set(ADAPTERS)
    assert {entry.rule for entry in RECIPES.values()} == set(RULES)
