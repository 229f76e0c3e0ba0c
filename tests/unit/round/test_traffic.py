"""Bytes that a real client would send and receive in a round, against counts by hand from the architectures' shapes.

TinyLlama has 22 layers of q (2048, 2048), k and v (256, 2048), o (2048, 2048), gate and up (5632, 2048), down
(2048, 5632); Gemma-2B 18 layers of the same attention and an MLP of 16384. Models are built on the meta device; one
scalar is 4 bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from factor_rounds import WEIGHTS, aggregated, make_cohort, make_layers, make_plan, make_server, random_factors, seeded
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

from fedlit.adapters import trainable
from fedlit.algebra.tensors import num_parameters
from fedlit.client.host import ModelHost
from fedlit.config import LocalConfig, MethodConfig, RunConfig
from fedlit.methods import build_method
from fedlit.models import PROJECTIONS
from fedlit.planning import first_traffic, make_traffic
from fedlit.process import communication
from fedlit.round.cohort import Cohort
from fedlit.round.observers import RoundView
from fedlit.round.observers.folded_ranks import FoldedRankObserver
from fedlit.round.observers.traffic import TrafficObserver
from fedlit.round.payload import MODEL
from fedlit.round.rules import AggregationRule, Traffic
from fedlit.round.rules.fedavg import FedAvg
from fedlit.round.rules.fedex_lora import FedExLora
from fedlit.round.rules.fedmomentum import FedMomentum
from fedlit.round.rules.fedsvd import FedSvd
from fedlit.round.rules.flexlora import FlexLora
from fedlit.round.rules.flora import Flora
from fedlit.round.rules.florist import Florist
from fedlit.round.rules.lora_fair import LoraFair
from fedlit.round.rules.ways import WayRule
from fedlit.round.server import ServerState
from fedlit.round.transforms import Transforms
from fedlit.round.transforms.rank_scaling import RankScaling

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


GALORE = {"galore": {"rank": 8, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std", "svd": "full"}}
MODELS: dict[str, Callable[[], Any]] = {"tinyllama": tinyllama, "gemma-2b": gemma_2b}


@dataclass(frozen=True)
class Federation:
    """A model on the meta device, and what counts its bytes."""

    host: ModelHost
    observer: TrafficObserver
    server: ServerState

    def record(
        self, client_ids: tuple[int, ...], round_idx: int = 0, *, returned: tuple[int, ...] | None = None
    ) -> dict[str, int]:
        """Return what is recorded of a round with these clients, of whom all return unless said."""
        server = replace(self.server, round_idx=round_idx)
        plan = make_plan(client_ids, [1 / len(client_ids)] * len(client_ids), round_idx)
        plan = replace(plan, trains=self.host.trains(round_idx))
        groups = {name: server.group(name) for name in self.host.method.groups}
        cohort = Cohort(plan, {MODEL: server.shared, **groups})
        cohort.close(client_ids if returned is None else returned)
        return self.observer.record(RoundView(plan=plan, before=server, after=server, cohort=cohort, notes={}))


def on_meta(
    architecture: str,
    name: str,
    options: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    num_clients: int = 3,
    optimizer: str | None = None,
    **local: Any,
) -> Federation:
    """Return a federation on the meta device; other names are local.*."""
    config = RunConfig(
        method=MethodConfig(name=name, options=options, optimizer=optimizer),
        local=LocalConfig(**local),
        num_clients=num_clients,
    )
    method = build_method(config)
    with torch.device("meta"):
        model = MODELS[architecture]().to(dtype).requires_grad_(False)
    method.adapter.attach(model, PROJECTIONS[model.config.model_type])
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    host = ModelHost(model, method, method.adapter.layers(model))
    return Federation(host, make_traffic(method), host.first_server(method.parts, num_clients))


def scalars(
    federation: Federation, round_idx: int = 0, client_ids: tuple[int, ...] = (0, 1, 2)
) -> dict[int, tuple[float, float]]:
    """Return what every client sends and receives, in units of 4 bytes; the round's record must be their sum."""
    server = replace(federation.server, round_idx=round_idx)
    parts = federation.host.method.rule.traffic(
        server, dict.fromkeys(client_ids, True), federation.host.trains(round_idx)
    )
    assert parts.keys() == set(client_ids)
    assert federation.record(client_ids, round_idx) == {
        "communication/uplink_bytes": sum(part.uplink_bytes for part in parts.values()),
        "communication/downlink_bytes": sum(part.downlink_bytes for part in parts.values()),
    }
    return {client_id: (part.uplink_bytes / 4, part.downlink_bytes / 4) for client_id, part in parts.items()}


SUMS = {"aggregate_by": "sums"}
# Scalars up and down of one layer, three clients of rank 8 on q, k and v unless said.
PER_LAYER: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "fedit": ("fedit", {}, A8 + B8, A8 + B8),
    "fedrot_lora": ("fedrot_lora", {}, A8 + B8, A8 + B8),
    "ffa_lora": ("ffa_lora", {}, B8, B8),
    "fedsa_lora": ("fedsa_lora", {}, A8, A8),
    "fedsvd": ("fedsvd", {}, B8, A8 + B8),
    # The global LoRA alone; one's own up, and down one mean of all.
    "feddpa": ("feddpa", {}, A8 + B8, A8 + B8),
    "fedalt": ("fedalt", {}, A8 + B8, A8 + B8),
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
    # By sums: Y (out, w) and P (in, w) up in float64, 2 units of 4 bytes a number, and Q (out, w) down the same way.
    # Of FLoRA and FlexLoRA w = 3 * 8 + 2 = 26, and factors stay at home: 26 * 4096 + 2 * 26 * 2304 = 226,304 numbers.
    # FLoRA's result is Q, which is there already, and P in single precision: 26 * 3 * 2048 = 159,744.
    "flora, sums": ("flora", SUMS, 2 * 226_304, 2 * 26 * 2560 + 159_744),
    "fedex_lora, reinitialize, sums": (
        *("fedex_lora", {"assignment": "reinitialize", **SUMS}),
        *(2 * 226_304, 2 * 26 * 2560 + 159_744),
    ),
    "flexlora, sums": ("flexlora", SUMS, 2 * 226_304, 2 * 26 * 2560 + A8 + B8),
    # Of FedEx-LoRA the means besides, and w = 2 * 8 + 2 = 18: 18 * 4096 + 2 * 18 * 2304 = 156,672.
    "fedex_lora, sums": ("fedex_lora", SUMS, A8 + B8 + 2 * 156_672, A8 + B8 + 2 * 18 * 2560 + 18 * 3 * 2048),
    "fedex_lora, sums, rank 4": (
        *("fedex_lora", {"residual_rank": 4, **SUMS}),
        *(A8 + B8 + 2 * 156_672, A8 + B8 + 2 * 18 * 2560 + 4 * 4096 + 2 * 4 * 2304),
    ),
    "fedex_lora, sums, rank 0": ("fedex_lora", {"residual_rank": 0, **SUMS}, A8 + B8, A8 + B8),
    # 300 columns on q, (2048, 2048), and no more than 256 on k and v, (256, 2048).
    "flora, sums, wide": (
        *("flora", {"sketch_width": 300, **SUMS}),
        *(2 * (300 * 4096 + 2 * 256 * 2304), 2 * (300 * 2048 + 2 * 256 * 256) + 300 * 2048 + 2 * 256 * 2048),
    ),
    # Before a round the most that can be folded: all of rank 24, or what is beyond the 8 of the factors.
    "florist": ("florist", {}, A8 + B8, 3 * (A8 + B8)),
    "florist, sums": ("florist", SUMS, 2 * 226_304, 2 * 26 * 2560 + 3 * (A8 + B8)),
    "fedmomentum": ("fedmomentum", {}, A8 + B8, 3 * (A8 + B8)),
    "fedmomentum, sums": ("fedmomentum", SUMS, 2 * 226_304, 2 * 26 * 2560 + 3 * (A8 + B8)),
    "lora_fair": ("lora_fair", {}, A8 + B8, A8 + B8),
    # R (out, 8) up in float64, and B again when it is corrected.
    "lora_fair, sums": ("lora_fair", SUMS, A8 + B8 + 2 * B8, A8 + B8 + B8),
    # FedASK at any number of clients w = 8 + 4 = 12: 12 * 4096 + 2 * 12 * 2304 = 104,448 numbers.
    "fedask": ("fedask", {}, 2 * 104_448, 2 * 12 * 2560 + A8 + B8),
    "fedask, narrow": ("fedask", {"oversampling": 0}, 2 * 8 * 8704, 2 * 8 * 2560 + A8 + B8),
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
    federation = on_meta("tinyllama", name, {"lora_rank": 8, **options})
    assert set(scalars(federation).values()) == {(22 * up, 22 * down)}


def test_ravan_sends_its_cores_and_no_scales() -> None:
    """Four heads of 8 * 8 on q, k and v: as many numbers as one core of rank 16."""
    federation = on_meta("tinyllama", "ravan", {"num_heads": 4, "lora_rank": 8})
    one = on_meta("tinyllama", "fed_sb", {"lora_rank": 16})
    assert federation.record((0, 2), returned=(2,)) == one.record((0, 2), returned=(2,))
    assert federation.record((1,)) == {
        "communication/uplink_bytes": 4 * 22 * 3 * 256,
        "communication/downlink_bytes": 4 * 22 * 3 * 256,
    }
    assert num_parameters(trainable(federation.host.model)) == 22 * 3 * (256 + 4)


def test_the_published_number_of_parameters() -> None:
    """22 * 8 * (4096 + 2 * 2304) = 1,531,904: 6.1 MB up and down with FedIT."""
    federation = on_meta("tinyllama", "fedit", {"lora_rank": 8})
    assert num_parameters(trainable(federation.host.model)) == 1_531_904
    assert federation.record((0,)) == {
        "communication/uplink_bytes": 6_127_616,
        "communication/downlink_bytes": 6_127_616,
    }


def test_each_client_pays_for_its_own_rank() -> None:
    """One rank of q, k and v costs 3 * 2048 + 2560 = 8,704 scalars a layer."""
    for name in ("flexlora", "hetlora", "flora"):
        federation = on_meta("tinyllama", name, {"lora_rank": [4, 16, 8, 2]}, num_clients=4)
        parts = scalars(federation, client_ids=(0, 1, 3))
        own = {0: 22 * 4 * 8704, 1: 22 * 16 * 8704, 3: 22 * 2 * 8704}
        stack = 22 * (4 + 16 + 2) * 8704
        assert parts == {client_id: (up, stack if name == "flora" else up) for client_id, up in own.items()}


def test_by_sums_ranks_add_up_and_a_lost_client_has_no_basis() -> None:
    """Ranks 4, 16 and 2 came, 8 was lost: w = 22 + 2. A rank of q, k and v costs 8,704 numbers a layer."""
    for name in ("flexlora", "flora"):
        federation = on_meta("tinyllama", name, {"lora_rank": [4, 16, 8, 2], **SUMS}, num_clients=4)
        parts = federation.host.method.rule.traffic(
            federation.server, {0: True, 1: True, 2: False, 3: True}, federation.host.trains(0)
        )
        assert {client: part.uplink_bytes for client, part in parts.items()} == {
            **dict.fromkeys((0, 1, 3), 22 * 8 * 24 * 8704),
            2: 0,
        }
        basis, p, own = 22 * 8 * 24 * 2560, 22 * 4 * 24 * 6144, 22 * 4 * 8704
        if name == "flexlora":
            down = {0: basis + 4 * own, 1: basis + 16 * own, 2: 8 * own, 3: basis + 2 * own}
        else:
            down = {0: basis + p, 1: basis + p, 2: 24 * own, 3: basis + p}
        assert {client: part.downlink_bytes for client, part in parts.items()} == down


def test_by_sums_one_client_leaves_no_residual_and_nobody_no_sums() -> None:
    federation = on_meta("tinyllama", "fedex_lora", {"lora_rank": 8, **SUMS})
    assert scalars(federation, client_ids=(1,)) == {1: (22 * (A8 + B8), 22 * (A8 + B8))}
    federation = on_meta("tinyllama", "flora", {"lora_rank": 8, **SUMS})
    assert set(federation.record((0, 1, 2), returned=()).values()) == {0}


def test_what_a_rule_chose_to_fold_is_what_it_sent() -> None:
    """Ranks 5 of q, 0 of k and 2 of v in each of 22 layers: 5 * 4096 + 2 * 2304 = 25,088 scalars."""
    for name, options, beside in [
        ("florist", {}, 0),
        ("fedmomentum", {}, A8 + B8),
        ("florist", SUMS, 2 * 26 * 2560),
        ("fedmomentum", SUMS, A8 + B8 + 2 * 26 * 2560),
    ]:
        federation = on_meta("tinyllama", name, {"lora_rank": 8, **options})
        chosen = {"q_proj": 5, "k_proj": 0, "v_proj": 2}
        ranks = {layer.name: chosen[layer.name.rsplit(".", 1)[1]] for layer in federation.server.layers}
        after = replace(federation.server, folded_ranks=ranks)
        plan = make_plan((0, 1, 2), [1 / 3] * 3)
        cohort = Cohort(plan, {MODEL: federation.server.shared})
        cohort.close((0, 1, 2))
        view = RoundView(plan=plan, before=federation.server, after=after, cohort=cohort, notes={})
        assert federation.observer.record(view)["communication/downlink_bytes"] == 3 * 4 * 22 * (25_088 + beside)
        assert FoldedRankObserver().record(view)["lora/folded_rank"] == pytest.approx(7 / 3)
        assert FoldedRankObserver().record(view)["lora/folded_rank/model.layers.3.self_attn.q_proj"] == 5
        assert not FoldedRankObserver().record(replace(view, after=federation.server))


def test_florist_in_a_round_that_lost_a_client() -> None:
    """Ranks 4 and 2 came, so no more than 6 can be kept, of which everybody gets what was."""
    federation = on_meta("tinyllama", "florist", {"lora_rank": [4, 16, 2]}, num_clients=3)
    parts = federation.host.method.rule.traffic(
        federation.server, {0: True, 1: False, 2: True}, federation.host.trains(0)
    )
    assert {client: part.downlink_bytes for client, part in parts.items()} == dict.fromkeys((0, 1, 2), 22 * 24 * 8704)
    assert [parts[client].uplink_bytes for client in (0, 1, 2)] == [22 * 4 * 4 * 8704, 0, 22 * 4 * 2 * 8704]
    assert set(federation.record((0, 1, 2), returned=()).values()) == {0}


def test_rolora_sends_the_factor_of_the_round() -> None:
    federation = on_meta("tinyllama", "rolora", {"lora_rank": 8})
    for round_idx, size in [(0, B8), (1, A8), (2, B8)]:
        assert set(scalars(federation, round_idx).values()) == {(22 * size, 22 * size)}


def test_a_matrix_is_sent_dense_where_its_factors_are_larger() -> None:
    """30 clients of rank 8: 232 * (256 + 2048) = 534,528 scalars of a residual of k, whose matrix has 524,288."""
    federation = on_meta("tinyllama", "fedex_lora", {"lora_rank": 8}, num_clients=30)
    parts = scalars(federation, client_ids=tuple(range(30)))
    assert set(parts.values()) == {(22 * (A8 + B8), 22 * (A8 + B8 + 232 * 4096 + 2 * 524_288))}
    alone = scalars(federation, client_ids=(7,))
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
    federation = on_meta(architecture, name, options)
    assert set(scalars(federation).values()) == {(expected, expected)}
    assert num_parameters(trainable(federation.host.model)) == (expected if name != "fedsa_lora" else 18 * (A8 + B8))


@pytest.mark.parametrize(("name", "options"), [("fedit", {"lora_rank": 8}), ("fedftg", GALORE)])
def test_what_is_trained_travels_in_single_precision(name: str, options: dict[str, Any]) -> None:
    coarse, fine = (scalars(on_meta("tinyllama", name, options, dtype)) for dtype in (torch.bfloat16, torch.float32))
    assert coarse == fine


def test_a_pooled_client_sends_nothing() -> None:
    federation = on_meta("tinyllama", "centralized", {"lora_rank": 8}, num_clients=1)
    assert set(federation.record((0,)).values()) == {0}


def test_control_variates_double_the_traffic() -> None:
    options = {"lora_rank": 8}
    plain, scaffold = (
        on_meta("tinyllama", "fedit", options, optimizer="sgd", scaffold=scaffold).record((0, 2))
        for scaffold in (False, True)
    )
    assert scaffold == {key: 2 * value for key, value in plain.items()}


def test_second_moments_and_their_bases_travel_both_ways() -> None:
    """Of TinyLlama's up projections (5632, 2048) at rank 8 V (5632, 8) and Q (8, 2048), and one number N of 8 bytes."""
    plain, shared = (on_meta("tinyllama", name, GALORE).record((0, 2)) for name in ("fedftg", "fedgalore"))
    beside = 22 * (4 * 8 * (5632 + 2048) + 8)
    assert shared == {key: value + 2 * beside for key, value in plain.items()}
    assert shared["communication/uplink_bytes"] == 2 * (4 * 253_755_392 + beside)


def test_both_factors_travel_though_they_are_stepped_in_turn() -> None:
    federation = on_meta("tinyllama", "la_lora", {"lora_rank": 8})
    for round_idx in range(2):
        assert set(scalars(federation, round_idx).values()) == {(22 * (A8 + B8), 22 * (A8 + B8))}


@pytest.mark.parametrize("scaffold", [False, True])
def test_a_lost_client_was_sent_to_and_sends_nothing(scaffold: bool) -> None:
    federation = on_meta("tinyllama", "fedit", {"lora_rank": 8}, optimizer="sgd", scaffold=scaffold)
    size = 4 * 22 * (A8 + B8) * (1 + scaffold)
    for returned in ((0, 2), (1,), ()):
        assert federation.record((0, 1, 2), returned=returned) == {
            "communication/uplink_bytes": len(returned) * size,
            "communication/downlink_bytes": 3 * size,
        }


def test_the_first_round_is_told_before_it_happens() -> None:
    """The mean over the first clients of the cohort, at their ranks."""
    federation = on_meta("tinyllama", "hetlora", {"lora_rank": [4, 16, 8, 2]}, num_clients=4)
    told = first_traffic(federation.observer, federation.server, 2, federation.host)
    assert told == (4 * 22 * 10 * 8704, 4 * 22 * 10 * 8704)
    federation = on_meta("tinyllama", "rolora", {"lora_rank": 8})
    told = first_traffic(federation.observer, federation.server, 3, federation.host)
    assert told == (4 * 22 * B8, 4 * 22 * B8)


# Against what the rules really make, by counting scalars that are not zero.


def num_nonzero(tensors: Any) -> int:
    return sum(int(tensor.count_nonzero()) for tensor in tensors)


@pytest.mark.parametrize(
    ("rule", "transform"),
    [(FlexLora(), RankScaling()), (FedAvg(), RankScaling(share_of_a=0.5))],
    ids=["FlexLoRA", "HetLoRA"],
)
def test_the_counts_are_the_scalars_that_are_not_zero(rule: AggregationRule, transform: RankScaling) -> None:
    server, clients = mixed_round()
    after = aggregated(rule, server, clients, WEIGHTS[3], transform)
    transforms, plan = Transforms([transform]), make_plan(list(clients), WEIGHTS[3])
    parts = rule.traffic(server, dict.fromkeys(clients, True), server.shared)
    for client_id, trained in clients.items():
        up = num_nonzero(transforms.on_client({MODEL: trained}, server, plan, client_id)[MODEL].values())
        start = transforms.start(rule.start(after, client_id), after, client_id)
        down = num_nonzero(start.groups[MODEL].values())
        assert parts[client_id] == Traffic(uplink_bytes=8 * up, downlink_bytes=8 * down)


@pytest.mark.parametrize(
    "rule",
    [
        *(Flora(), FedExLora(assignment="reinitialize"), FedExLora(), FedExLora(residual_rank=2)),
        *(Florist(), Florist(energy_threshold=1.0), FedMomentum(), FedMomentum(energy_threshold=0.8)),
    ],
    ids=str,
)
def test_what_is_folded_is_what_is_received(rule: AggregationRule) -> None:
    server, clients = mixed_round((2, 4, 3, 1, 4) if rule.mixes_ranks else (3, 3, 3, 3, 3))
    after = aggregated(rule, server, clients, WEIGHTS[3], *([RankScaling()] if rule.mixes_ranks else []))
    sends_factors = "average" in str(rule) or isinstance(rule, FedMomentum)
    means = num_nonzero(after.shared.values()) if sends_factors else 0
    before = replace(server, folded_ranks=after.folded_ranks)
    for part in rule.traffic(before, dict.fromkeys(clients, True), server.shared).values():
        received = sum(num_nonzero([change.left, change.right]) for change in after.folded.values())
        assert part.downlink_bytes == 8 * (received + means)


@pytest.mark.parametrize(
    "rule",
    [
        *(FedAvg(), FedSvd(), FedSvd(svd_every=2), FlexLora(), FedExLora(), FedExLora(residual_rank=2)),
        *(FedMomentum(), LoraFair()),
    ],
    ids=str,
)
def test_a_round_s_downlink_is_what_its_own_step_changed(rule: AggregationRule) -> None:
    """Round after round: the shared tensors that are new, and what was folded; never those of the round before."""
    server, clients = mixed_round((3, 3, 3, 3, 3))
    trains = {layer.b for layer in server.layers} if isinstance(rule, FedSvd) else set(server.shared)
    for round_idx in range(4):
        trained = {
            client_id: {name: tensors[name] if name in trains else held for name, held in server.shared.items()}
            for client_id, tensors in clients.items()
        }
        after = aggregated(rule, server, trained, WEIGHTS[3])
        changed = {name for name, held in server.shared.items() if not torch.equal(held, after.shared[name])}
        folded = sum(num_nonzero([change.left, change.right]) for change in after.folded.values())
        expected = 8 * (sum(server.shared[name].numel() for name in changed) + folded)
        told = rule.traffic(replace(server, folded_ranks=after.folded_ranks), dict.fromkeys(clients, True), trains)
        assert {part.downlink_bytes for part in told.values()} == {expected}, round_idx
        clients = {
            client: {name: value * 1.5 for name, value in tensors.items()} for client, tensors in clients.items()
        }
        server = replace(after, frozen={})


@pytest.mark.parametrize(
    "rule",
    [
        FlexLora(aggregate_by="sums"),
        FedExLora(aggregate_by="sums"),
        FedExLora(aggregate_by="sums", residual_rank=2),
        FedExLora(aggregate_by="sums", assignment="reinitialize", sketch_width=5),
        Flora(aggregate_by="sums"),
        Florist(aggregate_by="sums"),
        FedMomentum(aggregate_by="sums"),
        LoraFair(aggregate_by="sums"),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_head", [False, True])
def test_by_sums_the_counts_are_the_numbers_that_are_summed(
    rule: WayRule, with_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up: the integers of every sum that is reduced, 8 bytes each, and less for what is a mean of its own."""
    server, clients = mixed_round((3, 3, 3, 3, 3))
    head = {"classifier.weight": torch.ones(5, 7, dtype=torch.float64)} if with_head else {}
    server = replace(server, shared={**server.shared, **head})
    clients = {client_id: {**tensors, **head} for client_id, tensors in clients.items()}
    sizes: list[int] = []
    monkeypatch.setattr(communication, "sum_in_place", lambda buffer: sizes.append(buffer.numel()))
    rule(make_cohort(server, clients, WEIGHTS[3]), server)
    if isinstance(rule, LoraFair):
        assert len(sizes) == 2
    elif not isinstance(rule, FedExLora) or rule.assignment != "average":
        assert len(sizes) == 2 + with_head
        sizes = [*([35] if with_head else []), *sizes[-2:]]  # a mean has the factors too, which do not travel
    for part in rule.traffic(server, dict.fromkeys(clients, True), server.shared).values():
        assert part.uplink_bytes == 8 * sum(sizes)


@pytest.mark.parametrize("name", ["fedex_lora", "flora"])
def test_a_lost_client_is_sent_what_the_others_are(name: str) -> None:
    """The residual, or the stack, of those who returned: two of three."""
    federation = on_meta("tinyllama", name, {"lora_rank": 8})
    two = federation.record((0, 2))
    assert federation.record((0, 1, 2), returned=(0, 2)) == {
        "communication/uplink_bytes": two["communication/uplink_bytes"],
        "communication/downlink_bytes": two["communication/downlink_bytes"] * 3 // 2,
    }
    none = federation.record((0, 1, 2), returned=())
    assert none["communication/uplink_bytes"] == 0
    assert none["communication/downlink_bytes"] == (12 * 22 * (A8 + B8) if name == "fedex_lora" else 0)


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
        FedAvg(),
        FedExLora(aggregate_by="sums"),
        FlexLora(aggregate_by="sums"),
        Flora(aggregate_by="sums"),
        *(Florist(), FedMomentum(), LoraFair()),
        *(Florist(aggregate_by="sums"), FedMomentum(aggregate_by="sums"), LoraFair(aggregate_by="sums")),
    ],
    ids=repr,
)
def test_a_classification_head_is_paid_for_both_ways(rule: AggregationRule) -> None:
    server = make_server(make_layers(), seeded(0))
    head = torch.zeros(5, 7, dtype=torch.float32)
    with_head = replace(server, shared={**server.shared, "classifier.weight": head})
    names = [*with_head.shared]
    before, after = (rule.traffic(state, {0: True, 1: True}, names) for state in (server, with_head))
    for client_id in (0, 1):
        assert after[client_id].uplink_bytes - before[client_id].uplink_bytes == 4 * 35
        assert after[client_id].downlink_bytes - before[client_id].downlink_bytes == 4 * 35
