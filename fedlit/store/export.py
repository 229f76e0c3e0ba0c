"""The result of a run as files that load without this package: a PEFT adapter, or a whole model of transformers.

A PEFT adapter is W + scaling * B @ A (out, in) over the pretrained W. What a rule folded into W stands beside it and
becomes part of the adapter, whose rank grows by that of the change.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedlit.adapters import Adapter
from fedlit.adapters.lora_pair import LoraPair
from fedlit.adapters.pair_files import write_pair
from fedlit.adapters.peft_files import write_peft_adapter
from fedlit.algebra.merging import merged_weights
from fedlit.algebra.tensors import copy_into
from fedlit.cards.facts import result_facts
from fedlit.cards.folder import Reader, complete
from fedlit.models import Backbone, untie
from fedlit.round.server import ServerState
from fedlit.store.environment import stored_environment
from fedlit.store.folder import RunFolder
from fedlit.store.partition import DamagedPartition, read_partition


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes `folder`, or takes its place, at the end and not after an error."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    _let_others_read(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_weights(
    *,
    adapter: Adapter,
    model: nn.Module,
    server: ServerState,
    folder: Path,
    form: str,
    reload: Callable[[], Backbone],
    head: Mapping[str, Tensor] | None = None,
    client_id: int | None = None,
) -> None:
    """Write the trained model into an empty folder.

    Args:
        adapter: of the method. Without LoRA layers, or with trained tensors beside them, the result is a whole model.
        model: the adapted model with the tensors of the server, or of a client, in it.
        server: the final state, with all that was folded into weights.
        folder: where to; see `replacing`.
        form: `adapter` for a PEFT adapter, `merged` for a whole model.
        reload: loads the pretrained backbone once more, without an adapter.
        head: a trained classification head by parameter name, which makes the result a whole model.
        client_id: whose model it is, where tensors are private; None for the server's.
    """
    assert form in ("adapter", "merged")
    layers = adapter.layers(model)
    server = replace(server, layers=layers)
    tensors = {name: parameter.data for name, parameter in model.named_parameters()}
    if adapter.mixes_by_input:
        assert form == "adapter" and isinstance(adapter, LoraPair)
        write_pair(folder, adapter, model, dict(head or {}))
    elif form == "adapter" and fits_peft(adapter, model, head):
        path = str(getattr(model, "name_or_path", ""))
        write_peft_adapter(folder, layers, tensors, server.changes(), backbone_path=path, client_id=client_id)
    else:
        merged = adapter.merged(model) | merged_weights(layers, tensors, server.changes(), client_id) | dict(head or {})
        write_merged_model(folder, reload, merged, pad_token_id=_pad_token_id(model) if head else None)


def _let_others_read(folder: Path) -> None:
    """Give every file the rights of new files here: safetensors lets nobody but its owner read what it writes."""
    rights = 0o666 & (folder.stat().st_mode | ~0o777)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)


def fits_peft(adapter: Adapter, model: nn.Module, head: Mapping[str, Tensor] | None = None) -> bool:
    """Return whether all that was trained are LoRA factors, so that a PEFT adapter holds it."""
    layers = adapter.layers(model)
    factors = {name for layer in layers for name in layer.factors}
    trained = adapter.shared(model).keys() | adapter.private(model).keys()
    return bool(layers) and not head and trained <= factors


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """Writes the results of one run.

    form: see write_weights. head: the live classification head. reload: loads the pretrained backbone anew. run: its
    folder. reader: its tokenizer or image processor.
    """

    adapter: Adapter
    model: nn.Module
    form: str
    head: Mapping[str, Tensor]
    reload: Callable[[], Backbone]
    run: RunFolder
    reader: Reader

    @cached_property
    def _partition(self) -> dict[str, Any] | None:
        """What partition.json holds, read once: it is as long as there are clients, each of which may be written."""
        try:
            return read_partition(self.run.path)
        except DamagedPartition:
            return None

    def write(
        self, server: ServerState, folder: Path, records: Sequence[Mapping[str, Any]], client_id: int | None = None
    ) -> None:
        """Write the model as it stands, and beside it what the run's records and its folder tell of it. `client_id`:
        whose it is, where every client has its own.
        """
        facts = result_facts(
            self.run.config,
            round_number=server.round_idx,
            records=records,
            partition=self._partition,
            environment=stored_environment(self.run.path),
            client_id=client_id,
        )
        with replacing(folder) as partial:
            write_weights(
                adapter=self.adapter,
                model=self.model,
                server=server,
                folder=partial,
                form=self.form,
                reload=self.reload,
                head=self.head,
            )
            complete(partial, facts, self.reader)
        self.reader.lies_in(folder)


def _pad_token_id(model: nn.Module) -> int | None:
    """Return the id by which a model tells padding, which its task may have set; None if it has no such id."""
    config: Any = getattr(model, "config", None)
    return None if config is None else getattr(config.get_text_config(), "pad_token_id", None)


def write_merged_model(
    folder: Path,
    reload: Callable[[], Backbone],
    merged: Mapping[str, Tensor],
    pad_token_id: int | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the pretrained model with the `merged` weights in it, and its tokenizer or image processor.

    A weight that was tied to another and is no longer equal to it is written beside it. A classifier's classes are in
    its config.json, as Purpose names them. The files are in `dtype` or, for None, in the finest type among the
    backbone's and the merged weights': what training adds to a bfloat16 weight is mostly below its last bit.
    pad_token_id: the padding of the run, by which a decoder's classifier finds the end of a text.
    """
    backbone = reload()
    model: Any = backbone.model
    model.to(dtype or reduce(torch.promote_types, {tensor.dtype for tensor in merged.values()}, model.dtype))
    if not merged.keys() <= dict(model.named_parameters()).keys():
        untie(model)
    parameters = dict(model.named_parameters())
    assert merged.keys() <= parameters.keys(), f"no such weights: {sorted(merged.keys() - parameters.keys())[:3]}"
    copy_into({name: parameters[name] for name in merged}, merged)
    if pad_token_id is not None:
        model.config.get_text_config().pad_token_id = pad_token_id
        if backbone.tokenizer is not None and backbone.tokenizer.pad_token_id is None:
            backbone.tokenizer.pad_token_id = pad_token_id
    if model.can_generate():
        # Backbones come without generation settings; without these, who loads the files generates past a text's end.
        for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(model.generation_config, token, getattr(backbone.tokenizer, token))
    # Every process writes the clients it holds; transformers would write those of process 0 alone.
    model.should_save_on_this_rank = lambda _is_main_process: True
    model.save_pretrained(folder)
    assert any(folder.glob("*.safetensors")), f"{folder} has no weights"
    for reader in (backbone.tokenizer, backbone.image_processor):
        if reader is not None:
            reader.save_pretrained(folder)
