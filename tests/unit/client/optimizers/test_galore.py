"""GaLore's state is low-rank, holds tensors only and resumes as if it had not stopped; its options are checked."""

import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer

from fedlit.client.optimizers.galore import PROJ_TYPES, GaLore, Projection
from fedlit.config import load_config
from fedlit.errors import DivergenceError, UserError

OPTIONS = {"rank": 4, "update_proj_gap": 3, "scale": 0.5, "proj_type": "std"}


def build(parameters: Sequence[nn.Parameter], **given: Any) -> Optimizer:
    named = {f"parameter{index}": parameter for index, parameter in enumerate(parameters)}
    return GaLore(lr=0.05, weight_decay=0.1, galore=Projection(**{**OPTIONS, **given})).build(named)


def new_parameters() -> list[nn.Parameter]:
    """Two matrices and a vector."""
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((12, 7), (6, 11), (9,))]


def step(optimizer: Optimizer, parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Save and load as a checkpoint does."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(value) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize(
    ("proj_type", "moments", "projector"),
    [
        ("std", (384, 4), (4, 128)),  # m >= n: the columns
        ("reverse_std", (4, 128), (384, 4)),
        ("right", (384, 4), (4, 128)),
        ("left", (4, 128), (384, 4)),
    ],
)
def test_the_state_is_low_rank(proj_type: str, moments: tuple[int, int], projector: tuple[int, int]) -> None:
    """An up projection (384, 128) at rank 4: AdamW keeps 2 * 384 * 128 = 98304 numbers."""
    up = nn.Parameter(torch.randn(384, 128))
    optimizer = build([up], proj_type=proj_type)
    step(optimizer, [up], 0)
    (state,) = optimizer.state_dict()["state"].values()
    assert {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)} == {
        "exp_avg": moments,
        "exp_avg_sq": moments,
        "projector": projector,
    }
    num_scalars = sum(tensor.numel() for tensor in tensors(state))
    assert num_scalars == {"std": 3584, "right": 3584, "reverse_std": 2560, "left": 2560}[proj_type]
    assert num_scalars == 2 * moments[0] * moments[1] + projector[0] * projector[1]
    plain = build([up], rank=None)
    step(plain, [up], 0)
    assert sum(tensor.numel() for tensor in tensors(plain.state_dict())) == 98304


def test_with_both_sides_projected_the_moments_are_r_by_r() -> None:
    up = nn.Parameter(torch.randn(384, 128))
    optimizer = build([up], proj_type="full")
    step(optimizer, [up], 0)
    assert sorted(tuple(tensor.shape) for tensor in tensors(optimizer.state_dict())) == [
        (4, 4),
        (4, 4),
        (4, 128),
        (384, 4),
    ]


@pytest.mark.parametrize("proj_type", PROJ_TYPES)
@pytest.mark.parametrize("num_before", [2, 3, 4])
def test_resuming_equals_not_stopping(proj_type: str, num_before: int) -> None:
    """New projections come in steps 1, 4, 7, ...: stopped between two, right before one, right after one."""
    straight, stopped = new_parameters(), new_parameters()
    whole, first = build(straight, proj_type=proj_type), build(stopped, proj_type=proj_type)
    for seed in range(8):
        step(whole, straight, seed)
    for seed in range(num_before):
        step(first, stopped, seed)
    # as a client's state is kept: on the CPU, then in a file
    saved = through_a_file(apply_to_collection(first.state_dict(), Tensor, Tensor.cpu))
    resumed = [nn.Parameter(parameter.detach().clone()) for parameter in stopped]
    second = build(resumed, proj_type=proj_type)
    second.load_state_dict(saved)
    for seed in range(num_before, 8):
        step(second, resumed, seed)
    assert all(torch.equal(left, right) for left, right in zip(straight, resumed, strict=True))
    ends = tensors(whole.state_dict()), tensors(second.state_dict())
    assert all(torch.equal(left, right) for left, right in zip(*ends, strict=True))


def test_the_state_holds_tensors_and_plain_values_only() -> None:
    parameters = new_parameters()
    for proj_type in PROJ_TYPES:
        optimizer = build(parameters, proj_type=proj_type)
        step(optimizer, parameters, 0)
        kinds = {type(leaf) for leaf in leaves(optimizer.state_dict())}
        assert kinds <= {Tensor, int, float, bool, str}
        step(optimizer, parameters, 1)  # saving leaves the optimizer as it was


def test_clients_loaded_from_one_dict_share_nothing() -> None:
    parameters = new_parameters()
    optimizer = build(parameters, proj_type="full")
    step(optimizer, parameters, 0)
    saved = optimizer.state_dict()
    kept = through_a_file(saved)
    clients = [new_parameters(), new_parameters()]
    optimizers = [build(client, proj_type="full") for client in clients]
    for loaded in optimizers:
        loaded.load_state_dict(saved)
    places = [{tensor.data_ptr() for tensor in tensors(one.state_dict())} for one in (optimizer, *optimizers)]
    assert len(set.union(*places)) == sum(map(len, places))
    for seed in range(1, 5):  # past a new projection
        step(optimizers[0], clients[0], seed)
    assert all(torch.equal(*pair) for pair in zip(tensors(optimizers[1].state_dict()), tensors(kept), strict=True))
    assert all(torch.equal(*pair) for pair in zip(tensors(saved), tensors(kept), strict=True))


def test_only_matrices_above_the_rank_are_projected() -> None:
    """The others step as without a rank: (12, 4) is no larger than the rank on one side, the vector has no sides."""
    shapes = ((12, 5), (5, 12), (12, 4), (4, 12), (12,))
    parameters = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    plain = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = build(parameters, proj_type="reverse_std")
    for seed in range(2):
        step(optimizer, parameters, seed)
    projected = {tuple(p.shape) for p in parameters if "projector" in optimizer.state[p]}
    assert projected == {(12, 5), (5, 12)}
    without = build(plain, rank=None)
    for seed in range(2):
        step(without, plain, seed)
    same = [torch.equal(left, right) for left, right in zip(parameters, plain, strict=True)]
    assert same == [False, False, True, True, True]


def test_a_parameter_without_a_gradient_is_left_out() -> None:
    moved, idle = nn.Parameter(torch.ones(9, 8)), nn.Parameter(torch.ones(8, 9))
    optimizer = build([moved, idle])
    step(optimizer, [moved], 0)
    assert torch.equal(idle, torch.ones(8, 9))
    saved = through_a_file(optimizer.state_dict())
    assert len(saved["state"]) == 1
    build([moved, idle]).load_state_dict(saved)


def test_a_gradient_that_is_not_finite_is_told_in_one_line() -> None:
    parameter = nn.Parameter(torch.ones(9, 8))
    optimizer = build([parameter])
    parameter.grad = torch.full((9, 8), float("nan"))
    with pytest.raises(DivergenceError, match=r"^GaLore cannot project a gradient \(.*\); lower local.lr") as raised:
        optimizer.step()
    assert "\n" not in str(raised.value)
    placed = str(raised.value.at(round_number=3, client_id=1))
    assert placed.startswith("round 3, client 1: GaLore cannot project a gradient ("), "as its trainer tells it"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": 0}, "method.galore.rank=0 must be an integer of 1 or more, or null"),
        ({"rank": 2.5}, "method.galore.rank=2.5 must be"),
        ({"rank": True}, "method.galore.rank=True must be"),
        ({"rank": "four"}, "method.galore.rank=four must be"),
        ({"update_proj_gap": 0}, "method.galore.update_proj_gap=0 must be an integer of 1 or more"),
        ({"update_proj_gap": None}, "method.galore.update_proj_gap=None must be"),
        ({"scale": 0}, "method.galore.scale=0 must be a finite number above 0"),
        ({"scale": float("inf")}, "method.galore.scale=inf must be"),
        ({"scale": float("nan")}, "method.galore.scale=nan must be"),
        ({"scale": "1"}, "method.galore.scale=1 must be"),
        ({"proj_type": "random"}, "method.galore.proj_type=random is not valid; give std, reverse_std, right"),
    ],
)
def test_a_wrong_option_is_refused_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        Projection(**{**OPTIONS, **given})
    assert "\n" not in str(raised.value)


def test_an_unknown_option_is_refused_before_anything_is_built() -> None:
    with pytest.raises(
        UserError, match=r"unknown key 'method\.galore\.gap'.*names in method\.galore: rank, update_proj"
    ):
        load_config(["method=fedftg", "method.galore.gap=3"])


def test_a_recipe_that_borrows_the_optimizer_has_its_yaml_s_options() -> None:
    assert load_config(["method=fedftg"]).method.options["galore"] == asdict(GaLore(lr=0.1).galore)


def test_a_rank_that_projects_nothing_is_refused() -> None:
    """It would train without GaLore and not say so."""
    parameters = [nn.Parameter(torch.ones(shape)) for shape in ((12, 5), (6, 12), (50,))]
    with pytest.raises(UserError, match=r"method.galore.rank=6 projects none .* is 6 at most; give a rank below that"):
        build(parameters, rank=6)
    assert build(parameters, rank=5)
    with pytest.raises(UserError, match="is 0 at most"):
        build(parameters[2:], rank=1)


def test_importing_it_takes_neither_galore_torch_nor_bitsandbytes() -> None:
    heavy = "('galore_torch', 'bitsandbytes')"
    code = f"import sys, fedlit.client.optimizers.galore; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_building_it_writes_nothing_to_the_console() -> None:
    """bitsandbytes warns, and logs what it misses, when it is imported for the first time."""
    code = (
        "import torch, fedlit.client.optimizers.galore as galore\n"
        "p = torch.nn.Parameter(torch.ones(9, 8))\n"
        f"optimizer = galore.GaLore(lr=0.1, galore=galore.Projection(**{OPTIONS})).build({{'p': p}})\n"
        "p.grad = torch.randn(9, 8)\noptimizer.step()\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, [line for line in done.stderr.splitlines() if "jit" in line or "bits" in line]) == ("", [])
    assert logging.getLogger("bitsandbytes").level in (logging.NOTSET, logging.ERROR), (
        "ERROR once fedlit.adapters is there"
    )
