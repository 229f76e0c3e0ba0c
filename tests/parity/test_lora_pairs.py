"""FedDPA and FedALT against their papers' equations, in float64: forward, gradients, what a client receives."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factor_rounds import make_plan
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from fedlit.adapters.lora_dual import LoraDual, mixer_of
from fedlit.adapters.lora_pair import PRIVATE, SHARED, LoraPair, factors, pair_layers, twin
from fedlit.adapters.lora_rest import LoraRest
from fedlit.adapters.pair_files import load_pair, write_pair
from fedlit.algebra.tensors import TensorDict, snapshot
from fedlit.data.collation import Example, collate
from fedlit.errors import UserError
from fedlit.models import PROJECTIONS
from fedlit.round.cohort import Cohort
from fedlit.round.payload import MODEL
from fedlit.round.rules.fedalt import FedAlt
from fedlit.round.server import ServerState
from fedlit.tasks.greedy import Rules, decode
from fedlit.tasks.likelihood import label_logits

RANK, ALPHA = 3, 7.0
TOKENS = torch.arange(3, 33).view(3, 10)
OPTIONS: dict[str, Any] = {"lora_rank": RANK, "lora_alpha": ALPHA, "target_modules": "qkv"}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
SCALES = {False: ALPHA / RANK, True: ALPHA / math.sqrt(RANK)}


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=24, n_head=4, vocab_size=2048, initializer_range=0.3, eos_token_id=2, **NO_DROPOUT
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


@pytest.fixture(params=["llama", "gpt2"])
def backbone(request: pytest.FixtureRequest, small_llama: Callable[..., Any]) -> Any:
    """A float64 backbone; GPT-2's layers are Conv1D, whose weights lie the other way round."""
    model = gpt2() if request.param == "gpt2" else small_llama()
    return model.double().eval()


def adapt(model: Any, pair: LoraPair, seed: int = 1) -> None:
    """Attach, and fill all that is zero at first."""
    pair.attach(model, PROJECTIONS[model.config.model_type])
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in {**pair.shared(model), **pair.private(model)}.items():
            spread = 1.0 if "references" in name else 0.2
            tensor.copy_(torch.randn(tensor.shape, generator=draws, dtype=torch.float64) * spread)


def dense(layer: Any, which: str) -> np.ndarray[Any, Any]:
    """Return B @ A (out, in) of one of a layer's LoRAs."""
    product = layer.lora_B[which].weight.double() @ layer.lora_A[which].weight.double()
    return np.asarray(product.detach().numpy())


def base_of(layer: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    weight = layer.base_layer.weight.numpy()
    bias = getattr(layer.base_layer, "bias", None)
    made = x @ (weight if layer.transposed else weight.T)
    return np.asarray(made if bias is None else made + bias.numpy())


# FedALT


@pytest.mark.parametrize("use_rslora", [False, True])
def test_fedalt_s_layer_is_the_equation(backbone: Any, use_rslora: bool) -> None:
    adapt(backbone, LoraRest(**OPTIONS, use_rslora=use_rslora))
    for _, layer in pair_layers(backbone):
        x = torch.randn(2, 5, layer.lora_A[SHARED].in_features, dtype=torch.float64)
        given = x.numpy()
        logits = given @ layer.gate.weight.detach().numpy().T  # type: ignore[operator, union-attr]
        powers = np.exp(logits)
        own, rest = np.split(powers / powers.sum(-1, keepdims=True), 2, axis=-1)
        change = own * (given @ dense(layer, PRIVATE).T) + rest * (given @ dense(layer, SHARED).T)
        expected = base_of(layer, given) + SCALES[use_rslora] * change
        assert np.abs(own - 0.5).max() > 0.01, "the gate takes part"
        np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_fedalt_begins_as_the_pretrained_model_with_equal_weights(backbone: Any) -> None:
    before = backbone(input_ids=TOKENS).logits
    LoraRest(**OPTIONS).attach(backbone, PROJECTIONS[backbone.config.model_type])
    assert torch.equal(backbone(input_ids=TOKENS).logits, before)
    _, layer = next(pair_layers(backbone))
    weights = layer.gate(torch.randn(4, layer.gate.in_features, dtype=torch.float64)).softmax(-1)  # type: ignore[operator, union-attr]
    assert torch.equal(weights, torch.full((4, 2), 0.5, dtype=torch.float64))


def test_fedalt_trains_its_own_and_the_gate_by_the_dense_gradients(backbone: Any) -> None:
    """The rest of the world gets none; the others are those of the equation, written with dense matrices."""
    adapt(backbone, LoraRest(**OPTIONS))
    _, layer = next(pair_layers(backbone))
    x = torch.randn(6, layer.lora_A[SHARED].in_features, dtype=torch.float64)
    g = torch.randn_like(layer(x))
    (layer(x) * g).sum().backward()
    s, gate = ALPHA / RANK, layer.gate.weight.detach()  # type: ignore[union-attr]
    p = (x @ gate.T).softmax(-1)  # (6, 2)
    a, b = (layer.get_submodule(f"lora_{factor}.{PRIVATE}").weight.detach() for factor in "AB")
    own, rest = (torch.from_numpy(dense(layer, which)) for which in (PRIVATE, SHARED))
    of_own = (p[:, :1] * g).T @ x * s  # the gradient of the dense change (out, in)
    torch.testing.assert_close(layer.lora_B[PRIVATE].weight.grad, of_own @ a.T, rtol=0, atol=1e-11)  # type: ignore[operator]
    torch.testing.assert_close(layer.lora_A[PRIVATE].weight.grad, b.T @ of_own, rtol=0, atol=1e-11)  # type: ignore[operator]
    said = torch.stack([((x @ each.T) * g).sum(1) for each in (own, rest)], 1) * s  # dL/dp (6, 2)
    of_logits = p * (said - (p * said).sum(1, keepdim=True))
    torch.testing.assert_close(layer.gate.weight.grad, of_logits.T @ x, rtol=0, atol=1e-11)  # type: ignore[union-attr]
    for modules in (layer.lora_A, layer.lora_B):
        assert modules[SHARED].weight.grad is None
    assert all(each.grad is None for each in layer.base_layer.parameters())


NAMES = ("m.lora_A.shared.weight", "m.lora_B.shared.weight")
SHAPES = ((RANK, 5), (7, RANK))


def sent(seed: int) -> TensorDict:
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=draws, dtype=torch.float64)
        for name, shape in zip(NAMES, SHAPES, strict=True)
    }


def after_round(server: ServerState, each: dict[int, TensorDict], planned: dict[int, float]) -> ServerState:
    """Return the server after a round in which those of `each` return of all who were planned."""
    rule = FedAlt()
    plan = make_plan(list(planned), list(planned.values()), server.round_idx)
    cohort = Cohort(plan, {MODEL: server.shared})
    for client, tensors in each.items():
        cohort.add(client, {MODEL: tensors})
    cohort.close(sorted(each))
    return rule(cohort, server)


def received(server: ServerState, client: int, own: TensorDict) -> TensorDict:
    start = FedAlt().start(server, client)
    kept = {twin(name): tensor for name, tensor in own.items()}
    return LoraRest(**OPTIONS).taken_up(start.groups[MODEL], kept, start.own_share)[0]


ROUNDS: Sequence[tuple[dict[int, float], tuple[int, ...]]] = (
    ({0: 0.5, 1: 0.2, 2: 0.3}, (0, 1, 2)),
    ({1: 0.9, 3: 0.1}, (1, 3)),
    ({0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}, (0, 2, 3)),  # one is lost
    ({2: 1.0}, (2,)),
)


def test_fedalt_sends_everybody_the_mean_of_the_others() -> None:
    """Over rounds of other cohorts, with unequal weights, absent clients and one who is lost, against a plain loop."""
    own = {client: sent(client) for client in range(4)}
    server = FedAlt().begin(ServerState(shared=sent(99)), 4)
    first = server.shared
    for client in range(4):  # nobody has sent anything: all have the first
        assert all(torch.equal(received(server, client, own[client])[name], first[name]) for name in NAMES)
    for number, (planned, returned) in enumerate(ROUNDS):
        for client in returned:
            own[client] = sent(10 * (number + 1) + client)
        server = after_round(server, {client: own[client] for client in returned}, planned)
        for client in range(4):
            others = [other for other in returned if other != client]
            total = sum(planned[other] for other in others)
            for name in NAMES:
                found = received(server, client, own[client])[name]
                expected = torch.zeros_like(found)
                for other in others:
                    expected += planned[other] / total * own[other][name]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
                assert found.dtype == torch.float64


def test_fedalt_s_mean_keeps_its_type_and_is_exact_in_float32() -> None:
    own = {client: {name: tensor.float() for name, tensor in sent(client).items()} for client in range(3)}
    server = FedAlt().begin(ServerState(shared={name: tensor.float() for name, tensor in sent(9).items()}), 3)
    server = after_round(server, own, {0: 0.5, 1: 0.2, 2: 0.3})
    for name in NAMES:
        found = received(server, 0, own[0])[name]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, 0.4 * own[1][name] + 0.6 * own[2][name], rtol=0, atol=1e-6)


# FedDPA


def test_feddpa_s_layer_is_the_equation(backbone: Any) -> None:
    adapt(backbone, LoraDual(**OPTIONS))
    mixer = mixer_of(backbone)
    for _, layer in pair_layers(backbone):
        x = torch.randn(2, 5, layer.lora_A[SHARED].in_features, dtype=torch.float64)
        given, changes = x.numpy(), {which: dense(layer, which) for which in (SHARED, PRIVATE)}
        for weight in (0.0, 0.25, 1.0, torch.tensor([0.1, 0.7], dtype=torch.float64)):
            mixer.weight = weight
            share = weight.numpy().reshape(2, 1, 1) if isinstance(weight, Tensor) else weight
            change = (1 - share) * (given @ changes[SHARED].T) + share * (given @ changes[PRIVATE].T)
            expected = base_of(layer, given) + ALPHA / RANK * change
            np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)
        mixer.weight = None
        np.testing.assert_allclose(layer(x).detach().numpy(), base_of(layer, given), rtol=0, atol=1e-12)


@torch.no_grad()
def test_feddpa_weighs_an_instance_by_the_cosines_of_the_pretrained_backbone(backbone: Any) -> None:
    pretrained = backbone.base_model(input_ids=TOKENS).last_hidden_state[:, -1].numpy()
    adapt(backbone, LoraDual(**OPTIONS, similarity_scale=0.75, num_references=4))
    mixer = mixer_of(backbone)
    # References of no client are none; the others are near the second row.
    mixer.references.data[1:] = torch.from_numpy(pretrained[1]) + 0.3 * mixer.references[1:]
    mixer.references.data[0] = 0.0
    backbone(input_ids=TOKENS)
    references = mixer.references.numpy()[1:]
    norms = np.linalg.norm(pretrained, axis=1)[:, None] * np.linalg.norm(references, axis=1)[None]
    expected = 0.75 * (pretrained @ references.T / norms).mean(1)
    assert expected[1] == expected.max()
    assert isinstance(mixer.weight, Tensor)
    np.testing.assert_allclose(mixer.weight.numpy(), expected.clip(0, 1), rtol=0, atol=1e-9)


@torch.no_grad()
def test_feddpa_without_references_is_the_server_s_model(backbone: Any) -> None:
    pair = LoraDual(**OPTIONS)
    adapt(backbone, pair)
    mixer_of(backbone).references.zero_()
    merged = pair.merged(backbone)
    found = backbone(input_ids=TOKENS).logits
    other = gpt2().double() if backbone.config.model_type == "gpt2" else type(backbone)(backbone.config).double()
    other.load_state_dict(
        {
            **{
                name.replace(".base_layer", ""): tensor
                for name, tensor in backbone.state_dict().items()
                if "lora_" not in name
            },
            **merged,
        }
    )
    torch.testing.assert_close(other.eval()(input_ids=TOKENS).logits, found, rtol=0, atol=1e-9)


def test_feddpa_s_step_has_the_gradients_of_both_losses(backbone: Any) -> None:
    """The global LoRA that of the model without the local one, the local one that of the mix in which it is frozen."""
    pair = LoraDual(**OPTIONS, local_weight=0.3)
    adapt(backbone, pair)
    backbone.train()
    live = {name: each for name, each in backbone.named_parameters() if each.requires_grad}

    def loss() -> Tensor:
        return backbone(input_ids=TOKENS, labels=TOKENS).loss  # type: ignore[no-any-return]

    total: Tensor | None = None
    values = []
    for entered in pair.passes(backbone):
        with entered:
            each = loss()
        values.append(float(each.detach()))
        total = each if total is None else each + (total - total.detach())
    assert total is not None
    total.backward()
    found = {name: each.grad.clone() for name, each in live.items() if each.grad is not None}
    backbone.zero_grad()
    assert len(values) == 2
    assert float(total.detach()) == values[1] != values[0]

    mixer = mixer_of(backbone)
    expected = {}
    for weight, which in ((0.0, SHARED), (0.3, PRIVATE)):
        mixer.weight, mixer.detached = weight, False
        loss().backward()
        expected |= {name: each.grad.clone() for name, each in live.items() if name.endswith(f".{which}.weight")}
        backbone.zero_grad()
    assert found.keys() == expected.keys() == live.keys()
    for name, gradient in found.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12, msg=name)


def test_feddpa_keeps_the_first_inputs_of_a_round_at_their_last_prompt_token(
    small_llama: Callable[..., Any],
) -> None:
    model = small_llama().double()
    rows = [
        Example(token_ids=tuple(range(3, 12 + n)), num_prompt_tokens=4 + n, prompt="", response="", truncated=False)
        for n in range(4)
    ]
    whole = [model.base_model(input_ids=torch.tensor([row.prompt_ids])).last_hidden_state[0, -1] for row in rows]
    pair = LoraDual(**OPTIONS, num_references=3)
    adapt(model, pair)
    model.train()
    pair.begin(model)
    for start in (0, 2):
        for entered in pair.passes(model):
            with entered:
                label_logits(model, collate(rows[start : start + 2], 0, loss_on="response"))
    torch.testing.assert_close(mixer_of(model).references.data, torch.stack(whole[:3]), rtol=0, atol=1e-10)


@torch.no_grad()
def test_feddpa_does_not_look_at_the_answer(small_llama: Callable[..., Any]) -> None:
    """Two answers to one prompt have one weight, and it is the one that generation has."""
    model = small_llama().double()
    adapt(model, LoraDual(**OPTIONS))
    model.eval()
    mixer = mixer_of(model)
    prompt = (5, 6, 7, 8)
    rows = [
        Example(token_ids=(*prompt, *answer), num_prompt_tokens=4, prompt="", response="", truncated=False)
        for answer in ((9, 10, 11), (900, 3))
    ]
    for loss_on in ("response", "all"):
        label_logits(model, collate(rows, 0, loss_on=loss_on))
        forced = mixer.weight
        assert isinstance(forced, Tensor)
        model(input_ids=torch.tensor([prompt]))
        assert isinstance(mixer.weight, Tensor)
        torch.testing.assert_close(forced, mixer.weight.expand(2), rtol=0, atol=1e-12)


@torch.no_grad()
def test_feddpa_goes_on_with_the_weight_of_the_prompt_when_others_have_ended(small_llama: Callable[..., Any]) -> None:
    """Rows that leave a batch, and prompts of several lengths in one: each says what it says alone."""
    model = small_llama().double()
    adapt(model, LoraDual(**OPTIONS, similarity_scale=1.0), seed=4)
    model.eval()
    mixer = mixer_of(model)
    prompts = [[5, 6, 7], [40, 41, 42, 43, 44], [900], [77, 3]]
    represented = torch.stack([mixer._represented(model, {"input_ids": torch.tensor([each])})[0] for each in prompts])
    mixer.references.data[:] = represented[1]
    weights = mixer.weights(represented)
    assert len({round(float(each), 6) for each in weights}) > 1
    device = torch.device("cpu")
    free = Rules(max_new_tokens=6, end_ids=())
    alone = [decode(model, [each], free, pad_id=0, device=device)[0] for each in prompts]
    ending = Rules(max_new_tokens=6, end_ids={alone[0][0], alone[2][1]})
    expected = [decode(model, [each], ending, pad_id=0, device=device)[0] for each in prompts]
    assert len({len(each) for each in expected}) > 1, "some end before the others"
    assert decode(model, prompts, ending, pad_id=0, device=device) == expected


def test_feddpa_f_trains_the_global_lora_and_then_the_local_one_from_it(small_llama: Callable[..., Any]) -> None:
    model = small_llama().double()
    pair = LoraDual(**OPTIONS, global_rounds=2)
    adapt(model, pair)
    trained = frozenset(name for name, each in model.named_parameters() if each.requires_grad)
    turns = [pair.turn(trained, number) for number in range(4)]
    assert turns[0] == turns[1] == frozenset(factors(model, SHARED))
    assert turns[2] == turns[3] == frozenset(factors(model, PRIVATE))
    shared, private = snapshot(pair.shared(model)), snapshot(pair.private(model))
    (references,) = pair.weighing(model)
    kept = pair.taken_up(shared, private, None)[1]
    assert all(torch.equal(kept[name], private[name]) for name in private)
    fresh = {**private, references: torch.zeros_like(private[references])}
    begun = pair.taken_up(shared, fresh, None)[1]
    for name, tensor in shared.items():
        assert torch.equal(begun[twin(name)], tensor)


@torch.no_grad()
@pytest.mark.parametrize("kind", [LoraRest, LoraDual])
def test_files_hold_both_loras_and_what_weighs_them(backbone: Any, kind: type[LoraPair], tmp_path: Path) -> None:
    pair = kind(**OPTIONS, use_rslora=True)
    plain = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    adapt(backbone, pair)
    expected = backbone(input_ids=TOKENS).logits
    write_pair(tmp_path, pair, backbone, {})
    again = gpt2() if backbone.config.model_type == "gpt2" else type(backbone)(backbone.config)
    again.double().load_state_dict(plain)
    assert torch.equal(load_pair(again, tmp_path)(input_ids=TOKENS).logits, expected)
    with pytest.raises(UserError, match="does not hold two LoRAs"):
        load_pair(again, tmp_path / "shared")
