"""What a pass takes, against counts by hand: a product of (n, i) and (i, o) is 2 n i o operations."""

import torch
from torch import nn

from fedlit.budget.passes import META, Cost, scoring_pass, training_pass

ROWS, IN, HIDDEN, OUT = 3, 5, 7, 2


def model() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(IN, HIDDEN, bias=False), nn.Linear(HIDDEN, OUT, bias=False))


def names(*numbers: int) -> frozenset[str]:
    return frozenset(f"{number}.weight" for number in numbers)


def test_a_forward_pass_is_its_products() -> None:
    net = model()
    rows = torch.zeros(ROWS, IN, device=META)
    assert scoring_pass(net, lambda: net(rows)).flops == 2 * ROWS * (IN * HIDDEN + HIDDEN * OUT)


def test_what_trains_decides_on_the_backward_pass() -> None:
    """A weight's gradient and that of what it reads are a product each; nothing reads the first layer's input."""
    net, rows = model(), torch.zeros(ROWS, IN, device=META)
    first, second = 2 * ROWS * IN * HIDDEN, 2 * ROWS * HIDDEN * OUT

    def flops(*trained: int) -> float:
        return training_pass(net, lambda: net(rows).sum(), names(*trained)).flops

    assert flops(0, 1) == first + second + second + second + first
    assert flops(1) == first + second + second
    assert flops(0) == first + second + second + first


def test_the_model_is_left_as_it_was() -> None:
    net, rows = model(), torch.zeros(ROWS, IN, device=META)
    net.eval()
    net[0].weight.requires_grad_(False)
    training_pass(net, lambda: net(rows).sum(), names(0))
    assert [each.requires_grad for each in net.parameters()] == [False, True]
    assert [each.grad for each in net.parameters()] == [None, None]
    assert not net.training


def test_wider_batches_are_more_arithmetic_in_as_many_operations() -> None:
    assert Cost(flops=3, operations=5).times(4, wider=2.5) == Cost(flops=30, operations=20)
    assert Cost(flops=1, operations=2) + Cost(flops=3, operations=5) == Cost(flops=4, operations=7)
