"""FedAvg of factors against numpy and against the central step that it must equal, and where the two part."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from client_rounds import make_job, train_client
from factor_rounds import make_cohort, make_plan
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.client.host import ModelHost
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.config import LocalConfig, MethodConfig, RunConfig
from fedlit.data.collation import Batch, Example, collate
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.plan import weights_by_examples
from fedlit.round.rules.fedavg import FedAvg, NoAggregation
from fedlit.round.server import ServerState
from fedlit.tasks.likelihood import project_only

pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False but the target module is `Conv1D`")

COUNTS = (3, 17, 2, 40)
SCALING = 5.0 / 2  # alpha / r
LR = 0.3
Trainers = Callable[..., SerialTrainer]


def random_factors(seed: int, out: int = 7, within: int = 5, rank: int = 2) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "layer.lora_A.weight": torch.randn(rank, within, generator=generator, dtype=torch.float64),
        "layer.lora_B.weight": torch.randn(out, rank, generator=generator, dtype=torch.float64),
    }


def aggregate(clients: Sequence[TensorDict], weights: Sequence[float], server: ServerState) -> ServerState:
    assert not (FedAvg.stacks or FedAvg.asks_again)
    return FedAvg()(make_cohort(server, dict(enumerate(clients)), weights, keeps=False), server)


def change(factors: Mapping[str, Tensor]) -> np.ndarray:
    """Return delta W = scaling * B @ A, (out, in)."""
    return SCALING * (factors["layer.lora_B.weight"] @ factors["layer.lora_A.weight"]).numpy()


def test_the_mean_is_by_number_of_examples() -> None:
    clients = [random_factors(seed) for seed in range(4)]
    server = ServerState(shared=random_factors(9), frozen={"w": torch.ones(2)}, optimizer={"m": torch.ones(3)})
    after = aggregate(clients, weights_by_examples(COUNTS), server)
    for name, tensor in after.shared.items():
        expected = np.average(np.stack([client[name].numpy() for client in clients]), axis=0, weights=COUNTS)
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-12)
        uniform = np.mean(np.stack([client[name].numpy() for client in clients]), axis=0)
        assert np.abs(tensor.numpy() - uniform).max() > 0.1
    assert after.frozen is server.frozen
    assert after.optimizer is server.optimizer
    assert after.round_idx == server.round_idx


def test_the_mean_of_b_alone_is_the_mean_of_the_changes() -> None:
    """FFA-LoRA: with one A for all, averaging B is exact; averaging both factors, as FedIT does, is not."""
    weights = weights_by_examples(COUNTS)
    clients = [random_factors(seed) for seed in range(4)]
    same_a = [{**client, "layer.lora_A.weight": clients[0]["layer.lora_A.weight"]} for client in clients]
    errors = []
    for cohort in (same_a, clients):
        mean = aggregate(cohort, weights, ServerState(shared=cohort[0])).shared
        expected = sum(weight * change(client) for weight, client in zip(weights, cohort, strict=True))
        errors.append(np.abs(change(mean) - expected).max())
    assert errors[0] < 1e-12
    assert errors[1] > 0.1


def test_what_fedit_misses_is_the_covariance_of_the_factors() -> None:
    """sum p B A - B_mean A_mean = sum p (B - B_mean)(A - A_mean), of rank (n - 1) r at most."""
    weights = weights_by_examples(COUNTS[:3])
    clients = [random_factors(seed, out=11, within=9) for seed in range(3)]
    mean = aggregate(clients, weights, ServerState(shared=clients[0])).shared
    missed = sum(weight * change(client) for weight, client in zip(weights, clients, strict=True)) - change(mean)
    centred = [{name: client[name] - mean[name] for name in client} for client in clients]
    covariance = sum(weight * change(client) for weight, client in zip(weights, centred, strict=True))
    np.testing.assert_allclose(missed, covariance, rtol=0, atol=1e-12)
    assert np.linalg.matrix_rank(missed, tol=1e-9) == 2 * 2


def test_without_aggregation_the_server_stays() -> None:
    server = ServerState(round_idx=4, shared={})
    cohort = Cohort(make_plan([0], [1.0], round_idx=4), {MODEL: {}})
    cohort.add(0, {MODEL: {}})
    assert NoAggregation()(cohort, server) is server


# One plain-SGD step a round, everybody taking part: the federation is the central step on the pooled batch.


class DoubleLoss:
    """A task of rows that are examples, with the loss in float64 throughout; the package's own ends in float32."""

    def encode(self, rows: Sequence[Example]) -> list[Example]:
        return list(rows)

    def collate(self, examples: Sequence[Example]) -> Batch:
        return collate(examples, 0, loss_on="response")

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        with project_only(model, batch.label_positions):
            output = model(input_ids=batch.token_ids)
        return functional.cross_entropy(output.logits.squeeze(0), batch.label_ids)


def gpt2() -> GPT2LMHeadModel:
    """Return a random model that is float64 throughout; Llama's norms pass through float32."""
    config = GPT2Config(
        n_layer=2,
        n_embd=24,
        n_head=4,
        vocab_size=2048,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).double().requires_grad_(False)


@pytest.fixture
def trainers(fabric: Fabric) -> Trainers:
    """Return a function that builds a float64 trainer whose batch is a client's whole shard."""

    def build(method: str, num_steps: int, optimizer: str = "sgd") -> SerialTrainer:
        local = LocalConfig(steps=num_steps, batch_size=64, lr=LR)
        options = {"lora_rank": 2, "lora_alpha": 5.0, "target_modules": "all"}
        parts = build_method(
            RunConfig(method=MethodConfig(name=method, optimizer=optimizer, options=options), local=local)
        )
        model = gpt2()
        parts.adapter.attach(model, PROJECTIONS["gpt2"])
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_" in name:  # B too, or A's gradient is zero
                    value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
                    parameter.data = value
        task: Any = DoubleLoss()
        host = ModelHost(model, parts, parts.adapter.layers(model))
        module = ClientModule(model, task, parts, host.trained)
        steps = LocalSteps(fabric=fabric, module=module, local=local)
        return SerialTrainer(
            host=host, module=module, steps=steps, local=local, seed=0, num_rounds=1, parts=parts.parts
        )

    return build


def deal(examples: Sequence[Example], sizes: Sequence[int]) -> list[list[Example]]:
    ends = np.cumsum(sizes)
    return [list(examples[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


def num_labels(examples: Sequence[Example]) -> int:
    return sum(len(example.token_ids) - example.num_prompt_tokens for example in examples)


def largest_difference(trainer: SerialTrainer, shards: Sequence[Sequence[Example]], weights: Sequence[float]) -> float:
    """Return how far the federation's factors after one round are from those of one client with all rows."""
    start, state = snapshot(trainer.host.method.shared(trainer.host.model)), trainer.host.first_state(trainer.parts)

    def trained(rows: Sequence[Example]) -> TensorDict:
        result = train_client(trainer, make_job(trainer, 0, rows, start, state))
        assert result.payload is not None
        return result.payload[MODEL]

    federated = aggregate([trained(shard) for shard in shards], weights, ServerState(shared=start)).shared
    central = trained([example for shard in shards for example in shard])
    moved = max(float((central[name] - start[name]).abs().max()) for name in central)
    assert moved > 1e-2, "nothing was learnt"
    return max(float((federated[name] - central[name]).abs().max()) for name in central)


@pytest.mark.parametrize("method", ["fedit", "ffa_lora"])
def test_one_sgd_step_is_the_central_step(method: str, trainers: Trainers, examples: list[Example]) -> None:
    """With weights by labelled tokens, which is what the mean loss of the pooled batch weighs by."""
    shards = deal(examples, (2, 3, 6))
    weights = weights_by_examples([num_labels(shard) for shard in shards])
    assert len(set(weights)) == 3
    assert largest_difference(trainers(method, 1), shards, weights) < 1e-12


def test_equal_batches_weigh_alike(trainers: Trainers, examples: list[Example]) -> None:
    """Shards of as many rows and as many labelled tokens, under the weights by rows of a real run."""
    shortest = min(num_labels([example]) for example in examples)
    cut = [
        Example(
            token_ids=example.token_ids[: example.num_prompt_tokens + shortest],
            num_prompt_tokens=example.num_prompt_tokens,
            prompt=example.prompt,
            response="",
            truncated=True,
        )
        for example in examples
    ]
    shards = deal(cut, (3, 3, 3, 3))
    assert largest_difference(trainers("fedit", 1), shards, weights_by_examples([3] * 4)) < 1e-12
    uneven = deal(cut, (2, 10))
    assert largest_difference(trainers("fedit", 1), uneven, weights_by_examples([2, 10])) < 1e-12
    assert largest_difference(trainers("fedit", 1), uneven, (0.5, 0.5)) > 1e-4


@pytest.mark.parametrize(("num_steps", "optimizer"), [(2, "sgd"), (1, "adamw")])
def test_two_steps_or_another_optimizer_are_not(
    num_steps: int, optimizer: str, trainers: Trainers, examples: list[Example]
) -> None:
    """The equality above is one of linear steps, which these are not."""
    shards = deal(examples, (2, 3, 6))
    weights = weights_by_examples([num_labels(shard) for shard in shards])
    assert largest_difference(trainers("fedit", num_steps, optimizer), shards, weights) > 1e-6
