"""A LoRA adapter in place of a model: `model.path=<its folder, or its id on the hub>`, known by adapter_config.json.

Its base is what the run loads, and its factors A (r, in) and B (out, r) are where the run starts. Tensors are read from
safetensors alone: a pickle may run code when it is read.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transformers.utils import cached_file

from fedlit.config import ModelConfig
from fedlit.config.adapter_base import base_of
from fedlit.errors import UserError
from fedlit.models.places import MEMORY, PACKAGED, location
from fedlit.rules import AdapterFolder, read_adapter_folder
from fedlit.rules.configured import CONFIG
from fedlit.rules.folders import WEIGHTS

_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")


@dataclass(frozen=True, kw_only=True)
class AdapterStart:
    """The adapter that a run starts from.

    key: `model.path=...` as the configuration has it. base: the model that it stands on. adapter: its factors, by the
    names of the base's layers; read when they are asked for.
    """

    key: str
    base: str
    adapter: AdapterFolder

    @property
    def merge(self) -> str:
        """How the adapter becomes part of its base, for those who cannot start from factors."""
        folder = self.adapter.path
        if any((parent / "config.yaml").is_file() for parent in folder.absolute().parents[:2]):
            return "merge it into its base first (`fedlit merge` of its run) and give model.path=<the merged folder>"
        return "merge it into its base first (peft: merge_and_unload) and give model.path=<the merged folder>"

    def record(self) -> dict[str, str]:
        """Return what environment.json keeps, by which another adapter under the same path is told."""
        digest = hashlib.sha256()
        for name in (CONFIG, WEIGHTS):
            with (self.adapter.path / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return {"adapter": self.key.partition("=")[2], "base": self.base, "sha256": digest.hexdigest()}

    def notices(self) -> Iterator[str]:
        """Yield what a person should read about the start."""
        yield f"{self.key} is an adapter: the run starts from its factors, over its base {self.base}"
        yield from self.adapter.notices


def with_base(config: ModelConfig) -> tuple[ModelConfig, AdapterStart | None]:
    """Return a model's configuration with an adapter's base in the adapter's place, and the adapter.

    The tokenizer is the adapter's where it has one. A model that is no adapter comes back as it is, with None.

    Raises:
        UserError: no plain LoRA adapter in safetensors, a base that is not named or not there, or settings under which
            the base would not be the one that the adapter belongs to.
    """
    folder = adapter_folder(config.path)
    if folder is None:
        return config, None
    key = f"model.path={config.path}"
    if config.weights != "pretrained":
        raise UserError(
            f"model.weights={config.weights} draws the weights of the base, and {key} is an adapter of trained ones; "
            "leave out model.weights"
        )
    adapter = read_adapter_folder(folder)
    if adapter.others:
        raise UserError(
            f"{key} holds {adapter.others[0]} ({len(adapter.others)} tensors), trained whole beside its factors "
            "(modules_to_save or bias), for which a run has no place; merge it into its base first (peft: "
            "merge_and_unload) and give model.path=<the merged folder>"
        )
    base = base_of(key, folder, adapter.config)
    if adapter_folder(base) is not None:  # of the hub: transformers would add it without a word
        raise UserError(f"{key} is an adapter over {base}, which is an adapter too; give one over a whole model")
    own_tokenizer = config.tokenizer is None and any((folder / name).is_file() for name in _TOKENIZER)
    resolved = replace(config, path=base, tokenizer=str(folder) if own_tokenizer else config.tokenizer)
    return resolved, AdapterStart(key=key, base=base, adapter=adapter)


def adapter_folder(path: str) -> Path | None:
    """Return the folder of an adapter that a `model.path` names, of one of the hub that in its cache; None of a model.

    Raises:
        UserError: as location.
    """
    if path.startswith(f"{MEMORY}:") or path in PACKAGED:
        return None
    place = location(path)
    if Path(place).is_dir():
        return Path(place) if (Path(place) / CONFIG).is_file() else None
    # A network that is gone would be asked for half a minute: what is here already is looked at first.
    is_model = _cached(place, CONFIG) is None and _cached(place, "config.json") is not None
    if is_model or _cached(place, CONFIG, ask=True) is None:
        return None
    for name in (WEIGHTS, *_TOKENIZER):
        _cached(place, name, ask=_cached(place, name) is None)
    found = _cached(place, CONFIG)
    return None if found is None else found.parent


def _cached(repo_id: str, name: str, *, ask: bool = False) -> Path | None:
    """Return a file of the hub as it lies in the cache; with `ask` it is fetched, if there is one."""
    try:
        found = cached_file(
            repo_id,
            name,
            local_files_only=not ask,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # no such id: told by whoever loads it
        return None
    return None if found is None else Path(found)
