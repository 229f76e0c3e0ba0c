"""The base that a LoRA adapter stands on, as its adapter_config.json names it; known without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedlit.data.json_files import read_json_file
from fedlit.errors import UserError

CONFIG = "adapter_config.json"


def base_of(key: str, folder: Path, config: Mapping[str, Any]) -> str:
    """Return where an adapter's base lies: a path, as it is seen from here or from the adapter, a name or an id.

    Args:
        key: how messages name the adapter.
        folder: of the adapter.
        config: the content of its adapter_config.json.

    Raises:
        UserError: no base is named, it is not there, or it is an adapter too.
    """
    base, remedy = config.get("base_model_name_or_path"), f"in base_model_name_or_path of its {CONFIG}"
    if not isinstance(base, str) or not base:
        raise UserError(
            f"{key} is an adapter whose {CONFIG} names no base; write the model that it belongs to {remedy}"
        )
    here = Path(base).expanduser()
    places = {place.resolve(): place for place in (folder / here, here) if place.is_dir()}
    if len(places) > 1:
        raise UserError(
            f"{key} is an adapter over the base {base}, which is one folder seen from here and another seen from the "
            f"adapter; write its whole path {remedy}"
        )
    there = next(iter(places.values()), None)
    if there is None:
        if base.startswith((".", "/", "~")):
            raise UserError(
                f"{key} is an adapter over the base {base}, which is no folder here; put it there, or write where "
                f"it is {remedy}"
            )
        return base
    if (there / CONFIG).is_file():
        raise UserError(
            f"{key} is an adapter over {base}, which is an adapter too; merge that one into its own base first, and "
            f"write the merged folder {remedy}"
        )
    return base if there is here and base == str(here) else str(there.absolute())


def stored_base(path: str, name: str | None = None) -> str | None:
    """Return the base of an adapter in a local folder, as `base_of`; None if there is no adapter.

    name: what messages call it, where it is not the path.
    """
    folder = Path(path).expanduser()
    if not (folder / CONFIG).is_file():
        if not (folder / "config.json").is_file() and (own := next(iter(folder.glob(f"client-*/{CONFIG}")), None)):
            raise UserError(
                f"model.path={name or path} holds an adapter of each client; give one, model.path={own.parent}"
            )
        return None
    config = read_json_file(folder / CONFIG, "adapter", "peft's configuration of an adapter is expected")
    return base_of(f"model.path={name or path}", folder, config if isinstance(config, dict) else {})
