"""Each kind of layer gives the gradients of single rows that a loop over rows gives, alone and beside others."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from single_rows import assert_the_same, at_once, in_a_loop
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from fedlit.adapters.lora_core import CoreLayer
from fedlit.adapters.lora_heads import HeadsLayer
from fedlit.client.per_example.layers import layers_of, scales_elements
from fedlit.client.per_example.recording import Rows
from fedlit.errors import UserError

TIGHT = 1e-10


class Chain(nn.Module):
    """Layers one after the other, of which one may be given twice."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Shifted(nn.Module):
    """x + a table's entries at all places: what GPT-2 does with wpe."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(9, width)

    def forward(self, x: Tensor) -> Tensor:
        places: Tensor = self.table(torch.arange(x.shape[1]).unsqueeze(0))
        return x + places


class Tied(nn.Module):
    """A table that is also the output projection, with something between."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.middle = nn.Linear(6, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        result: Tensor = self.out(self.middle(self.table(ids)).tanh())
        return result


class Scaled(nn.Module):
    """A scale of elements around 1, as Gemma's norms have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() * (1.0 + self.weight) + x


def core_layer() -> CoreLayer:
    layer = CoreLayer(nn.Linear(6, 5), 3, 0.7, transposed=False)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer.requires_grad_(False)
    layer.sb_C.requires_grad_()
    return layer


def heads_layer(num_outputs: int = 5) -> HeadsLayer:
    layer = HeadsLayer(nn.Linear(6, num_outputs), 2, 3, 0.7, transposed=False)
    layer.base_layer.requires_grad_(False)
    return layer


def again(layer: nn.Module) -> Sequence[nn.Module]:
    return layer, nn.Tanh(), layer


def tensors(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape, dtype=torch.float64)


def tokens() -> Tensor:
    return torch.randint(0, 11, (4, 7))


CASES: dict[str, tuple[Callable[[], Sequence[nn.Module]], Callable[[], Tensor]]] = {
    "a small linear layer": (lambda: [nn.Linear(6, 5)], tensors(4, 7, 6)),
    "a wide linear layer": (lambda: [nn.Linear(40, 30)], tensors(4, 3, 40)),
    "without a bias": (lambda: [nn.Linear(6, 5, bias=False)], tensors(4, 7, 6)),
    "of single vectors": (lambda: [nn.Linear(6, 5)], tensors(4, 6)),
    "of places in two dimensions": (lambda: [nn.Linear(6, 5)], tensors(4, 3, 2, 6)),
    "one row": (lambda: [nn.Linear(6, 5), nn.LayerNorm(5)], tensors(1, 7, 6)),
    "Conv1D": (lambda: [Conv1D(5, 6)], tensors(4, 7, 6)),
    "a wide Conv1D": (lambda: [Conv1D(30, 40)], tensors(4, 3, 40)),
    "a table": (lambda: [nn.Embedding(11, 6)], tokens),
    "a table with padding": (lambda: [nn.Embedding(11, 6, padding_idx=3), nn.Linear(6, 5)], tokens),
    "positions": (lambda: [nn.Linear(6, 5), Shifted(5), nn.Linear(5, 4)], tensors(4, 7, 6)),
    "positions and a table": (lambda: [nn.Embedding(11, 6), Shifted(6), nn.LayerNorm(6)], tokens),
    "tied weights": (lambda: [Tied()], tokens),
    "LayerNorm": (lambda: [nn.LayerNorm(6)], tensors(4, 7, 6)),
    "LayerNorm of two axes": (lambda: [nn.LayerNorm((7, 6))], tensors(4, 7, 6)),
    "LayerNorm of vectors": (lambda: [nn.LayerNorm(6)], tensors(4, 6)),
    "RMSNorm": (lambda: [nn.RMSNorm(6)], tensors(4, 7, 6)),
    "RMSNorm of heads": (lambda: [nn.RMSNorm(6)], tensors(4, 7, 2, 6)),
    "a scale around 1": (lambda: [Scaled()], tensors(4, 7, 6)),
    "a convolution": (lambda: [nn.Conv2d(3, 4, 3, stride=2, padding=1)], tensors(4, 3, 8, 6)),
    "patches": (lambda: [nn.Conv2d(3, 20, 4, stride=4)], tensors(4, 3, 8, 8)),
    "a convolution in groups": (lambda: [nn.Conv2d(4, 6, 3, groups=2, dilation=2)], tensors(4, 4, 8, 9)),
    "padded by reflection": (lambda: [nn.Conv2d(3, 4, 3, padding="same", padding_mode="reflect")], tensors(4, 3, 5, 6)),
    "Fed-SB's core": (lambda: [core_layer()], tensors(4, 7, 6)),
    "Ravan's heads": (lambda: [heads_layer()], tensors(4, 7, 6)),
    "heads used twice": (lambda: again(heads_layer(6)), tensors(4, 6)),
    "used twice": (lambda: again(nn.Linear(6, 6)), tensors(4, 7, 6)),
    "wide and used twice": (lambda: again(nn.Linear(40, 40)), tensors(4, 3, 40)),
    "a scale used twice": (lambda: again(nn.RMSNorm(6)), tensors(4, 7, 6)),
    "several kinds": (
        lambda: [nn.Embedding(11, 30), nn.LayerNorm(30), nn.Linear(30, 40), nn.GELU(), Conv1D(5, 40), nn.RMSNorm(5)],
        tokens,
    ),
}


@pytest.mark.parametrize("clip_norm", [1e6, 1.0, 0.01])
@pytest.mark.parametrize("case", CASES)
def test_a_kind_is_a_loop_over_rows(case: str, clip_norm: float) -> None:
    make, draw = CASES[case]
    torch.manual_seed(5)
    model = Chain(*make()).double()
    for parameter in model.parameters():
        parameter.data.normal_()
    x = draw()
    if not x.requires_grad and x.is_floating_point():
        x = x * torch.linspace(0.1, 3.0, len(x), dtype=x.dtype).view(-1, *[1] * (x.ndim - 1))  # rows of unlike norms
    target = torch.randn(model(x).shape[1:], dtype=torch.float64)

    def losses(rows: Tensor) -> Tensor:
        return (model(rows) - target).square().flatten(1).mean(1)

    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    expected, norms = in_a_loop(lambda row: losses(x[row : row + 1])[0], len(x), trained, clip_norm)
    found = at_once(model, lambda: losses(x), Rows(num_rows=len(x)), trained, clip_norm)
    assert_the_same(found, expected, norms, TIGHT)
    assert all(parameter.grad is None for parameter in trained.values())
    assert all(parameter.requires_grad for parameter in trained.values())


def test_norms_are_over_all_parameters() -> None:
    """A sum of gradients of norm C at most: clipped by parameter it would be larger."""
    model = Chain(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.LayerNorm(4)).double()
    x = torch.randn(1, 7, 6, dtype=torch.float64)
    trained = dict(model.named_parameters())
    found = at_once(model, lambda: 1e3 * model(x).square().mean((1, 2)) + x.sum(), Rows(num_rows=1), trained, 0.25)
    whole = torch.sqrt(sum((each.square().sum() for each in found.sums.values()), torch.zeros(())))
    assert float(whole) == pytest.approx(min(0.25, float(found.norms[0])), rel=1e-12)


def test_positions_are_no_single_row() -> None:
    """wpe's input has one row for all: the gradients are of all rows, not of one."""
    model = Chain(nn.Embedding(11, 6), Shifted(6)).double()
    ids = torch.randint(0, 11, (4, 7))
    trained = {"layers.1.table.weight": model.get_parameter("layers.1.table.weight")}
    model.layers[0].requires_grad_(False)
    found = at_once(model, lambda: model(ids).square().sum((1, 2)), Rows(num_rows=4), trained, 1e6)
    assert found.norms.shape == (4,)
    assert len(set(found.norms.tolist())) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_are_finer_than_bfloat16(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = Chain(nn.Embedding(11, 32), nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 7))
    model = model.to(dtype)
    ids = torch.randint(0, 11, (4, 7))
    trained = dict(model.named_parameters())

    def losses(rows: Tensor) -> Tensor:
        return model(rows).float().square().mean((1, 2))

    expected, norms = in_a_loop(lambda row: losses(ids[row : row + 1])[0], 4, trained, 0.5)
    found = at_once(model, lambda: losses(ids), Rows(num_rows=4), trained, 0.5)
    assert all(each.dtype == torch.float32 for each in found.sums.values())
    assert found.norms.dtype == torch.float32
    assert_the_same(found, expected, norms, 0.02 if dtype is torch.bfloat16 else 1e-5)


def test_all_tokens_in_one_line() -> None:
    """Some models put all tokens of all rows in one line, (n T, width)."""
    model = Chain(nn.Linear(6, 5)).double()
    x = torch.randn(4, 7, 6, dtype=torch.float64)
    trained = dict(model.named_parameters())

    def losses(rows: Tensor) -> Tensor:
        return model(rows.flatten(0, 1)).view(len(rows), 7, 5).square().mean((1, 2))

    expected, norms = in_a_loop(lambda row: losses(x[row : row + 1])[0], 4, trained, 0.1)
    found = at_once(model, lambda: losses(x), Rows(num_rows=4, width=7), trained, 0.1)
    assert_the_same(found, expected, norms, TIGHT)


def test_a_row_that_nothing_is_learned_from_adds_nothing() -> None:
    model = Chain(nn.Linear(6, 5)).double()
    x = torch.randn(3, 7, 6, dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0, 1.0]).double()
    trained = dict(model.named_parameters())
    found = at_once(model, lambda: model(x).square().mean((1, 2)) * mask, Rows(num_rows=3), trained, 0.1)
    expected, norms = in_a_loop(lambda row: (model(x[row]).square().mean()) * mask[row], 3, trained, 0.1)
    assert norms[1] == 0
    assert_the_same(found, expected, norms, TIGHT)


class Read(nn.Module):
    """Reads the weight of a layer past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x) + nn.functional.linear(x, self.layer.weight)
        return result


def test_a_weight_that_is_read_past_its_layer_is_found_out() -> None:
    model = Chain(Read())
    x, trained = torch.randn(3, 7, 6), dict(model.named_parameters())
    with pytest.raises(UserError, match=r"layers\.0\.layer\.weight is used outside of its layer.*target_modules"):
        at_once(model, lambda: model(x).square().mean((1, 2)), Rows(num_rows=3), trained, 1.0)


def test_rows_that_nobody_can_tell_are_found_out() -> None:
    model = Chain(nn.Linear(6, 5))
    x, trained = torch.randn(5, 6), dict(model.named_parameters())
    with pytest.raises(UserError, match=r"sees \(5, 5\), of which nobody can tell the 3 rows|sees \(5, 6\)"):
        at_once(model, lambda: model(x).square().mean(1), Rows(num_rows=3, width=7), trained, 1.0)


def test_ids_without_rows_are_found_out() -> None:
    """(T,) with T = n would be taken for rows."""
    model = Chain(nn.Embedding(11, 6))
    trained = dict(model.named_parameters())
    with pytest.raises(UserError, match=r"sees \(3,\)"):
        at_once(model, lambda: model(torch.arange(3)).square().mean(1), Rows(num_rows=3), trained, 1.0)


class Own(nn.Module):
    """A parameter in a module of nobody's kind."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


class Sub(nn.Linear):
    """Of a subclass it is not known what else it does."""


class Mixing(nn.Module):
    """One vector, but the mean over rows is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x - x.mean(0))


class Bent(nn.Module):
    """One vector, which does not scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).tanh()


class Expert(nn.Module):
    """A layer among experts."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(6, 6)])


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (Own(), r"layers\.0 \(Own\) is of no kind"),
        (Sub(6, 6), r"layers\.0 \(Sub\)"),
        (Mixing(), r"layers\.0 \(Mixing\)"),
        (Bent(), r"layers\.0 \(Bent\)"),
        (nn.GroupNorm(2, 6), r"\(GroupNorm\)"),
        (nn.MultiheadAttention(6, 2), r"\(MultiheadAttention\)"),
        (nn.Embedding(5, 6, max_norm=1.0), "depends on all rows"),
        (nn.Embedding(5, 6, scale_grad_by_freq=True), "depends on all rows"),
        (Expert(), r"layers\.0\.experts\.0 is an expert"),
    ],
)
@pytest.mark.parametrize("meta", [False, True])
def test_what_is_not_known_is_refused(module: nn.Module, told: str, meta: bool) -> None:
    model: Any = Chain(module)
    model = model.to("meta") if meta else model
    with pytest.raises(LookupError, match=told):
        layers_of(model, dict(model.named_parameters()))


def test_scales_are_told_without_their_numbers() -> None:
    assert scales_elements(LlamaRMSNorm(8).to("meta"))
    assert scales_elements(nn.RMSNorm(8).to("meta"))
    assert scales_elements(Scaled().to("meta"))
    assert not scales_elements(Mixing().to("meta"))
    assert not scales_elements(Bent().to("meta"))
