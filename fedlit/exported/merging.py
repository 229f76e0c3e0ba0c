"""A run's result as one model folder that transformers loads alone."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedlit.adapters.targets import is_conv1d
from fedlit.algebra.merging import added
from fedlit.algebra.tensors import TensorDict, first_not_finite
from fedlit.cards.files import read_facts
from fedlit.errors import UserError
from fedlit.exported.beside import write_beside
from fedlit.exported.found import Result
from fedlit.exported.loading import load_base, load_whole
from fedlit.models import Backbone
from fedlit.process.whole_folder import new_folder
from fedlit.rules import AdapterFolder, read_adapter_folder
from fedlit.store.export import write_merged_model
from fedlit.tasks.registry import task_spec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was written: num_layers changed by an adapter (0 of a whole model), in `dtype`; how Python loads it."""

    num_layers: int
    dtype: str
    loads: tuple[str, ...]


def merge_result(result: Result, output: Path, dtype: str | None = None) -> Merged:
    """Write a result into a new folder as one model, with all that lies beside a result.

    Every merged weight is base + scaling * B @ A, computed in float64 and rounded once. The base is the backbone as the
    run had it: one that ran in bfloat16 is rounded to that first.

    Args:
        result: of a run.
        output: the new folder.
        dtype: `float32`, `bfloat16` or `float16`; None for float32, and for the type of its files of a whole model.

    Raises:
        UserError: `output` exists, the backbone cannot be loaded, or a weight does not fit into `dtype`.
    """
    if result.is_pair:
        raise UserError(
            f"{result.folder} holds two LoRAs that are weighed by what the model sees, which no weight can be; load it "
            "with fedlit.adapters.pair_files.load_pair"
        )
    if result.config.model.quantization is not None and result.is_adapter:
        raise UserError(
            f"{result.run} ran on a backbone in 4 bits, to which nothing can be added; load {result.folder} with peft"
        )
    if not result.is_adapter and dtype is None:
        with new_folder(output, "--output") as folder:
            shutil.copytree(result.folder, folder, dirs_exist_ok=True)
            if read_facts(folder) is None:
                write_beside(result, load_whole(result), folder)
        return Merged(num_layers=0, dtype="the type of its files", loads=_loads(result, output))
    wanted, merged = dtype or "float32", TensorDict()
    adapter = read_adapter_folder(result.folder) if result.is_adapter else None
    backbone = load_whole(result, dtype="float32") if adapter is None else load_base(result)
    with new_folder(output, "--output") as folder:
        if adapter is not None:
            merged = _merged_weights(adapter, backbone, DTYPES[wanted])
        write_merged_model(folder, lambda: backbone, merged, dtype=DTYPES[wanted])
        write_beside(result, backbone, folder)
    return Merged(num_layers=len(merged), dtype=wanted, loads=_loads(result, output))


@torch.no_grad()
def _merged_weights(adapter: AdapterFolder, backbone: Backbone, dtype: torch.dtype) -> TensorDict:
    """Return the weights that an adapter changes, by name."""
    modules = dict(backbone.model.named_modules())
    merged = TensorDict()
    for name in adapter:
        if name not in modules:
            raise UserError(f"{adapter.path} changes {name}, which the backbone has not; give the run's own backbone")
        module: Any = modules[name]
        change = adapter[name].change()
        change = change.T if is_conv1d(module) else change
        if change.shape != tuple(module.weight.shape):
            raise UserError(
                f"{adapter.path}: {name} is {change.shape}, and {tuple(module.weight.shape)} in the backbone; "
                "give the run's own backbone"
            )
        merged[f"{name}.weight"] = added(module.weight.double(), change).to(dtype)
    if (lost := first_not_finite(merged)) is not None:
        raise UserError(f"{lost} does not fit into {dtype}; give --dtype=float32")
    return merged


def _loads(result: Result, output: Path) -> tuple[str, ...]:
    """Return the lines of Python that load it."""
    spec = task_spec(result.config.data.task)
    reader = "AutoTokenizer" if spec.reads_text else "AutoImageProcessor"
    name = "tokenizer" if spec.reads_text else "processor"
    return (
        f"from transformers import {spec.auto_class}, {reader}",
        f"model = {spec.auto_class}.from_pretrained({str(output)!r})",
        f"{name} = {reader}.from_pretrained({str(output)!r})",
    )
