"""Bytes that a real client would send and receive in a round, against counts by hand from the architectures' shapes.

TinyLlama has 22 layers of q (2048, 2048), k and v (256, 2048), o (2048, 2048), gate and up (5632, 2048), down
(2048, 5632); Gemma-2B 18 layers of the same attention and an MLP of 16384. Models are built on the meta device; one
scalar is 4 bytes.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from factor_rounds import WEIGHTS, aggregated, make_layers, make_server, random_factors, seeded
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from fedlit.adapters import trainable
from fedlit.algebra.tensors import num_parameters
from fedlit.config import LocalConfig, MethodConfig, RunConfig
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.round.exchange import Exchange
from fedlit.round.rules import AggregationRule
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.rules.flora import Flora
from fedlit.round.rules.hetlora import HetLora
from fedlit.round.server import ServerState, Traffic

LAYERS = {"tinyllama": 22, "gemma-2b": 18}
A8 = 8 * 3 * 2048
B8 = 8 * (2048 + 256 + 256)
"""Scalars of A and B of rank 8 on q, k and v of one layer of either model."""


def tinyllama() -> Any:
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def gemma_2b() -> Any:
    config = GemmaConfig(
        vocab_size=256000,
        hidden_size=2048,
        intermediate_size=16384,
        num_hidden_layers=18,
        num_attention_heads=8,
        num_key_value_heads=1,
        head_dim=256,
    )
    return GemmaForCausalLM(config)


GALORE = {"galore": {"rank": 8, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}}
MODELS: dict[str, Callable[[], Any]] = {"tinyllama": tinyllama, "gemma-2b": gemma_2b}


def on_meta(
    architecture: str, name: str, options: dict[str, Any], dtype: torch.dtype = torch.float32, num_clients: int = 3
) -> Exchange:
    """Return the exchange of a federation on the meta device."""
    config = RunConfig(method=MethodConfig(name=name, options=options), local=LocalConfig(), num_clients=num_clients)
    method = build_method(config)
    with torch.device("meta"):
        model = MODELS[architecture]().to(dtype).requires_grad_(False)
    method.adapter.attach(model, PROJECTIONS[model.config.model_type])
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    return Exchange(
        config=config,
        method=method,
        model=model,
        layers=method.adapter.layers(model),
        num_examples=[10] * num_clients,
    )


def scalars(
    exchange: Exchange, round_idx: int = 0, client_ids: tuple[int, ...] = (0, 1, 2)
) -> dict[int, tuple[float, float]]:
    """Return what every client sends and receives, in units of 4 bytes; the round's record must be their sum."""
    server = exchange.first_server({}).replace(round_idx=round_idx)
    exchange.cohort(client_ids, server)
    parts = exchange.method.rule.traffic(server, client_ids, trainable(exchange.model))
    record = exchange.traffic(client_ids, server)
    assert record == {
        "communication/uplink_bytes": sum(part.uplink_bytes for part in parts.values()),
        "communication/downlink_bytes": sum(part.downlink_bytes for part in parts.values()),
    }
    return {client_id: (part.uplink_bytes / 4, part.downlink_bytes / 4) for client_id, part in parts.items()}


# Scalars up and down of one layer, three clients of rank 8 on q, k and v unless said.
PER_LAYER: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "fedit": ("fedit", {}, A8 + B8, A8 + B8),
    "fedrot_lora": ("fedrot_lora", {}, A8 + B8, A8 + B8),
    "ffa_lora": ("ffa_lora", {}, B8, B8),
    "fedsa_lora": ("fedsa_lora", {}, A8, A8),
    "fedsvd": ("fedsvd", {}, B8, A8 + B8),
    "flexlora": ("flexlora", {}, A8 + B8, A8 + B8),
    "hetlora": ("hetlora", {}, A8 + B8, A8 + B8),
    # Two means of rank 8 and a residual of rank (3 - 1) * 8: 16 * (2048 + 2048) + 2 * 16 * (256 + 2048) scalars.
    "fedex_lora": ("fedex_lora", {}, A8 + B8, A8 + B8 + 65_536 + 2 * 36_864),
    "fedex_lora, rank 4": ("fedex_lora", {"residual_rank": 4}, A8 + B8, A8 + B8 + 4 * 4096 + 2 * 4 * 2304),
    "fedex_lora, rank 0": ("fedex_lora", {"residual_rank": 0}, A8 + B8, A8 + B8),
    "fedex_lora, rank 99": ("fedex_lora", {"residual_rank": 99}, A8 + B8, 3 * (A8 + B8)),
    # The mean product as factors of rank 3 * 8.
    "fedex_lora, reinitialize": ("fedex_lora", {"assignment": "reinitialize"}, A8 + B8, 24 * 4096 + 2 * 24 * 2304),
    "fedex_lora, keep": ("fedex_lora", {"assignment": "keep"}, A8 + B8, 24 * 4096 + 2 * 24 * 2304),
    "flora": ("flora", {}, A8 + B8, 3 * (A8 + B8)),
    "fed_sb": ("fed_sb", {"lora_rank": 25}, 3 * 625, 3 * 625),
    "fedit, attention": (
        "fedit",
        {"target_modules": "attention"},
        A8 + B8 + 8 * 4096,
        A8 + B8 + 8 * 4096,
    ),
    "local_only": ("local_only", {}, 0, 0),
}


@pytest.mark.parametrize("case", PER_LAYER)
def test_lora_recipes_on_tinyllama(case: str) -> None:
    name, options, up, down = PER_LAYER[case]
    exchange = on_meta("tinyllama", name, {"lora_rank": 8, **options})
    assert set(scalars(exchange).values()) == {(22 * up, 22 * down)}


def test_the_published_number_of_parameters() -> None:
    """22 * 8 * (4096 + 2 * 2304) = 1,531,904: 6.1 MB up and down with FedIT."""
    exchange = on_meta("tinyllama", "fedit", {"lora_rank": 8})
    assert num_parameters(trainable(exchange.model)) == 1_531_904
    assert exchange.traffic((0,), exchange.first_server({})) == {
        "communication/uplink_bytes": 6_127_616,
        "communication/downlink_bytes": 6_127_616,
    }


def test_each_client_pays_for_its_own_rank() -> None:
    """One rank of q, k and v costs 3 * 2048 + 2560 = 8,704 scalars a layer."""
    for name in ("flexlora", "hetlora", "flora"):
        exchange = on_meta("tinyllama", name, {"lora_rank": [4, 16, 8, 2]}, num_clients=4)
        parts = scalars(exchange, client_ids=(0, 1, 3))
        own = {0: 22 * 4 * 8704, 1: 22 * 16 * 8704, 3: 22 * 2 * 8704}
        stack = 22 * (4 + 16 + 2) * 8704
        assert parts == {client_id: (up, stack if name == "flora" else up) for client_id, up in own.items()}


def test_rolora_sends_the_factor_of_the_round() -> None:
    exchange = on_meta("tinyllama", "rolora", {"lora_rank": 8})
    for round_idx, size in [(0, B8), (1, A8), (2, B8)]:
        assert set(scalars(exchange, round_idx).values()) == {(22 * size, 22 * size)}


def test_a_matrix_is_sent_dense_where_its_factors_are_larger() -> None:
    """30 clients of rank 8: 232 * (256 + 2048) = 534,528 scalars of a residual of k, whose matrix has 524,288."""
    exchange = on_meta("tinyllama", "fedex_lora", {"lora_rank": 8}, num_clients=30)
    parts = scalars(exchange, client_ids=tuple(range(30)))
    assert set(parts.values()) == {(22 * (A8 + B8), 22 * (A8 + B8 + 232 * 4096 + 2 * 524_288))}
    alone = scalars(exchange, client_ids=(7,))
    assert alone == {7: (22 * (A8 + B8), 22 * (A8 + B8))}, "one client leaves no residual"


@pytest.mark.parametrize(
    ("architecture", "name", "options", "expected"),
    [
        ("gemma-2b", "fedit", {"lora_rank": 8}, 18 * (A8 + B8)),
        ("gemma-2b", "fedsa_lora", {"lora_rank": 8}, 18 * A8),
        ("tinyllama", "scl", {"compression_dim": 9}, 22 * 9 * (5632 + 2048)),
        ("gemma-2b", "scl", {"compression_dim": 4}, 18 * 4 * (16384 + 2048)),
        ("tinyllama", "fedftg", GALORE, 253_755_392),
        ("gemma-2b", "fedftg", GALORE, 603_979_776),
        ("tinyllama", "full", {"target_modules": "model"}, 1_100_048_384),
        ("gemma-2b", "full", {"target_modules": "model"}, 2_506_172_416),
    ],
)
def test_other_recipes_and_gemma(architecture: str, name: str, options: dict[str, Any], expected: int) -> None:
    """Of FedFTG the up projections, 22 * 5632 * 2048 and 18 * 16384 * 2048; of `full` tied embeddings once."""
    exchange = on_meta(architecture, name, options)
    assert set(scalars(exchange).values()) == {(expected, expected)}
    assert num_parameters(trainable(exchange.model)) == (expected if name != "fedsa_lora" else 18 * (A8 + B8))


@pytest.mark.parametrize(("name", "options"), [("fedit", {"lora_rank": 8}), ("fedftg", GALORE)])
def test_what_is_trained_travels_in_single_precision(name: str, options: dict[str, Any]) -> None:
    coarse, fine = (scalars(on_meta("tinyllama", name, options, dtype)) for dtype in (torch.bfloat16, torch.float32))
    assert coarse == fine


def test_a_pooled_client_sends_nothing() -> None:
    exchange = on_meta("tinyllama", "centralized", {"lora_rank": 8}, num_clients=1)
    assert set(exchange.traffic((0,), exchange.first_server({})).values()) == {0}


def test_control_variates_double_the_traffic() -> None:
    exchange = on_meta("tinyllama", "fedit", {"lora_rank": 8})
    control = exchange.method.shared(exchange.model)
    with_control = exchange.traffic((0, 2), exchange.first_server(control))
    plain = exchange.traffic((0, 2), exchange.first_server({}))
    assert with_control == {key: 2 * value for key, value in plain.items()}


# Against what the rules really make, by counting scalars that are not zero.


def num_nonzero(tensors: Any) -> int:
    return sum(int(tensor.count_nonzero()) for tensor in tensors)


@pytest.mark.parametrize("rule", [FlexLora(), HetLora()], ids=lambda rule: type(rule).__name__)
def test_the_counts_are_the_scalars_that_are_not_zero(rule: AggregationRule) -> None:
    server, clients = mixed_round()
    after = aggregated(rule, server, clients, WEIGHTS[3])
    parts = rule.traffic(server, list(clients), server.shared)
    for client_id, trained in clients.items():
        up = num_nonzero(rule.upload(trained, server, client_id).values())
        down = num_nonzero(rule.download(after, client_id).shared.values())
        assert parts[client_id] == Traffic(uplink_bytes=8 * up, downlink_bytes=8 * down)


@pytest.mark.parametrize(
    "rule", [Flora(), FedExLora(assignment="reinitialize"), FedExLora(), FedExLora(residual_rank=2)], ids=str
)
def test_what_is_folded_is_what_is_received(rule: AggregationRule) -> None:
    server, clients = mixed_round((3, 3, 3, 3, 3) if isinstance(rule, FedExLora) else (2, 4, 3, 1, 4))
    after = aggregated(rule, server, clients, WEIGHTS[3])
    means = num_nonzero(after.shared.values()) if "average" in str(rule) else 0
    for part in rule.traffic(server, list(clients), server.shared).values():
        received = sum(num_nonzero([change.left, change.right]) for change in after.folded.values())
        assert part.downlink_bytes == 8 * (received + means)


def mixed_round(ranks: tuple[int, ...] = (2, 4, 3, 1, 4)) -> tuple[ServerState, dict[int, dict[str, torch.Tensor]]]:
    """Return a server, and what its clients 0, 2 and 4 trained; no matrix is smaller than its factors."""
    shapes = [(60, 44), (36, 70)]
    layers = make_layers(max(ranks), 7.0, shapes=shapes, client_ranks=ranks)
    generator = seeded(1)
    trained = {
        client_id: random_factors(layers, generator, shapes=shapes, client_id=client_id) for client_id in (0, 2, 4)
    }
    return make_server(layers, seeded(), shapes=shapes), trained


@pytest.mark.parametrize(
    "rule",
    [
        FedExLora(),
        FedExLora(assignment="keep"),
        FedExLora(assignment="reinitialize"),
        FlexLora(),
        Flora(),
        HetLora(),
    ],
    ids=repr,
)
def test_a_classification_head_is_paid_for_both_ways(rule: AggregationRule) -> None:
    server = make_server(make_layers(), seeded(0))
    head = torch.zeros(5, 7, dtype=torch.float32)
    with_head = server.replace(shared={**server.shared, "classifier.weight": head})
    names = [*with_head.shared]
    before, after = rule.traffic(server, [0, 1], names), rule.traffic(with_head, [0, 1], names)
    for client_id in (0, 1):
        assert after[client_id].uplink_bytes - before[client_id].uplink_bytes == 4 * 35
        assert after[client_id].downlink_bytes - before[client_id].downlink_bytes == 4 * 35
