"""A device that is not the CPU, on a machine that has none: tensors that call themselves `meta` and compute on the CPU.

CUDA refuses an operation whose tensors lie on two devices, and the CPU waits whenever a value is read. Here both are
seen: the mode refuses what CUDA refuses, and notes where every value was read. Values are real, so a whole round runs,
generation too, and must end with the CPU's bits.
"""

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

AWAY = torch.device("meta")
CPU = torch.device("cpu")
aten = torch.ops.aten
_READS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten._linalg_svd.default,
    aten._linalg_eigh.default,
}
"""What makes the CPU wait for the device: its value, or the shape of its result, depends on values. CUDA's SVD and
eigh read whether they converged.
"""
_TAKES_CPU_INDICES = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
_MAKERS = {torch.tensor, torch.as_tensor, torch.asarray}
_MEMORY = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__}
_IN_LOWER_TYPE = {functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm}
"""What autocast computes in bfloat16, of what the packaged models call with eager attention."""
PACKAGE = str(Path(__file__).resolve().parents[2] / "fedlit")


class Away(Tensor):
    """A tensor of the second device; `held` is the CPU tensor with its values."""

    held: Tensor

    @staticmethod
    def __new__(cls: type, inner: Tensor) -> "Away":
        made: Away = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=AWAY,
        )
        made.held = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Away({self.held!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        raise AssertionError(f"{func} on the second device outside of its mode")


class OnTwoDevices(RuntimeError):
    """As CUDA's `Expected all tensors to be on the same device`."""


class SecondDevice(TorchDispatchMode):
    """The device while a block runs.

    reads: how often each place of the package, `file.py:function`, waited for a value.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self._calls = _Calls(self.reads)
        self._draws = torch.Generator().manual_seed(0).get_state()

    def __enter__(self) -> "SecondDevice":
        self._calls.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._calls.__exit__(*raised)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
        away = [tensor for tensor in tensors if isinstance(tensor, Away)]
        asked = kwargs.get("device")
        goes_away = asked is not None and torch.device(asked) == AWAY
        if goes_away:
            kwargs["device"] = CPU
        if not away and not goes_away:
            return func(*args, **kwargs)
        if func is aten.copy_.default:
            return self._copied(*args)
        if func in (aten._to_copy.default, aten._pin_memory.default):
            return self._moved(func, args, kwargs, asked, goes_away)
        makes = asked is not None and (func.__name__.split(".")[0].endswith("_like") or "new_" in func.__name__)
        if not makes:
            self._refuse_two(func, args, tensors, away)
        if func in _READS:
            self.reads[place()] += 1
        inner_args, inner_kwargs = tree_map_only(Away, lambda tensor: tensor.held, (args, kwargs))
        if torch.Tag.nondeterministic_seeded in func.tags:
            with self._own_draws():
                result = func(*inner_args, **inner_kwargs)
        else:
            result = func(*inner_args, **inner_kwargs)
        if makes and not goes_away:
            return result
        known = {id(tensor.held): tensor for tensor in away}
        return tree_map_only(Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else Away(tensor), result)

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        """A device has a generator of its own: what it draws leaves the CPU's alone."""
        before = torch.get_rng_state()
        torch.set_rng_state(self._draws)
        yield
        self._draws = torch.get_rng_state()
        torch.set_rng_state(before)

    def _copied(self, target: Tensor, source: Tensor, *others: Any) -> Tensor:
        if not isinstance(target, Away):
            self.reads[place()] += 1
        elif not isinstance(source, Away) and source.dim():
            self.uploads[place()] += 1
        aten.copy_.default(_inner(target), _inner(source), *others)
        return target

    def _moved(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], asked: Any, goes_away: bool) -> Tensor:
        source: Tensor = args[0]
        moved: Tensor = func(_inner(source), *args[1:], **kwargs)
        stays_away = isinstance(source, Away) and asked is None
        if goes_away or stays_away:
            if not isinstance(source, Away):
                self.uploads[place()] += 1
            return Away(moved)
        if isinstance(source, Away):
            self.reads[place()] += 1
        return moved

    def _refuse_two(self, func: Any, args: tuple[Any, ...], tensors: list[Tensor], away: list[Away]) -> None:
        strangers = [tensor for tensor in tensors if not isinstance(tensor, Away)]
        if func in _TAKES_CPU_INDICES and isinstance(args[0], Away):
            indices = {id(tensor) for tensor in args[1] if isinstance(tensor, Tensor)}
            for tensor in strangers:
                if id(tensor) in indices:
                    self.uploads[place()] += 1
            strangers = [tensor for tensor in strangers if id(tensor) not in indices]
        # A number on the CPU goes with the launch of a kernel.
        bad = [tensor for tensor in strangers if tensor.dim() or torch.Tag.pointwise not in func.tags]
        if away and bad:
            raise OnTwoDevices(f"{func}: a tensor of shape {tuple(bad[0].shape)} lies on the CPU, others do not")
        if not away and bad:
            raise OnTwoDevices(f"{func}: made on the device from a tensor on the CPU")


class _Calls(TorchFunctionMode):
    """What has to be seen before it becomes operations: torch.tensor(..., device="meta") would forget the values, and
    a wrapper has no memory of its own to read.
    """

    def __init__(self, reads: Counter[str]) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MAKERS and kwargs.get("device") is not None and torch.device(kwargs["device"]) == AWAY:
            needs = bool(kwargs.pop("requires_grad", False))
            return func(*args, **{**kwargs, "device": CPU}).to(AWAY).requires_grad_(needs)
        if func in _MEMORY and isinstance(args[0], Away):
            self._reads[place()] += 1
            return func(args[0].detach().held, *args[1:], **kwargs)
        if func in _IN_LOWER_TYPE and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Away, _lower, (args, kwargs))
        return func(*args, **kwargs)


def _lower(tensor: Away) -> Tensor:
    """Return what autocast makes of an argument: tensors that call themselves `meta` have no autocast of their own."""
    return tensor.to(torch.bfloat16) if tensor.dtype == torch.float32 else tensor


def _inner(tensor: Tensor) -> Tensor:
    return tensor.held if isinstance(tensor, Away) else tensor


def place() -> str:
    """Return the innermost function of the package on the stack, `file.py:function`."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(PACKAGE) and not frame.name.startswith("<"):  # no comprehension of a function
            return f"{frame.filename.removeprefix(PACKAGE).lstrip('/')}:{frame.name}"
    return "outside"
