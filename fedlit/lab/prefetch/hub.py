"""What the hub and the disk say of what runs need, and the downloads.

Everything can be looked up before anything is downloaded, so that a licence that waits for a click, or a full disk,
shows before the first of many gigabytes.
"""

import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedlit.config.adapter_base import CONFIG, stored_base
from fedlit.data.paths import DATA_PATHS
from fedlit.data.table_paths import places
from fedlit.errors import UserError
from fedlit.lab.prefetch.needs import HubData, HubModel, LocalPath, Need, model_need
from fedlit.units import readable_bytes

_BESIDE_WEIGHTS = re.compile(r"[^/]+\.(json|jinja|txt|model|tiktoken)")
"""Files at the top of a model's repository that say what it is, and those of its tokenizer or image processor."""
_WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|pytorch_model\.bin\.index\.json"),
)
"""The names that transformers reads, the better form first."""
_ADAPTER = (re.compile(r"adapter_model\.safetensors"),)
"""The name of an adapter's factors, where the repository has adapter_config.json."""


class HubUnreachableError(UserError):
    """There is no way to the hub from this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One need as it stands.

    state: `present`, `missing`, `downloaded`, or `unknown` without a network. num_bytes: of all its files; None if
    nothing tells. path: where it is, or None before it is there.
    """

    need: Need
    state: str
    num_bytes: int | None = None
    path: Path | None = None


def look_up(need: Need) -> Item:
    """Return how a need stands; nothing is downloaded but descriptions.

    Raises:
        HubUnreachableError: there is no network.
        UserError: no such file, model or data set, or the hub refuses it.
    """
    if isinstance(need, LocalPath):
        return _look_up_path(need)
    with _told(need):
        return _look_up_model(need) if isinstance(need, HubModel) else _look_up_data(need)


def fetch(item: Item) -> Item:
    """Fetch what an item lacks into the cache, and return it with its place.

    Raises:
        UserError: as look_up; a disk that is full; a split that the data set does not have.
    """
    need = item.need
    if isinstance(need, LocalPath):
        return item
    with _told(need):
        if isinstance(need, HubData):
            folder = _fetch_data(need)
        elif item.state == "present":
            with _no_progress():
                folder = _fetch_model(need)  # its name leads to this commit only when it has been asked for by its name
        else:
            folder = _fetch_model(need)
    return replace(item, state="downloaded" if item.state == "missing" else item.state, path=folder)


def require_space(items: Iterable[Item]) -> None:
    """Refuse downloads that do not fit on the disk of the cache."""
    num_bytes = sum(item.num_bytes or 0 for item in items if item.state == "missing")
    folder = cache_home()
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise UserError(
            f"{readable_bytes(num_bytes)} are to be downloaded and {folder} has {readable_bytes(free)} free; "
            "make room, or set HF_HOME to a folder on a larger disk"
        )


def cache_home() -> Path:
    """Return the folder of the Hugging Face caches, HF_HOME."""
    from huggingface_hub import constants  # noqa: PLC0415  a third of a second

    return Path(constants.HF_HOME)


def compute_node_variables() -> dict[str, str]:
    """Return the environment under which a run finds on a compute node what was fetched here, and asks for no more."""
    moved = {name: os.environ[name] for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE") if name in os.environ}
    return {"HF_HOME": str(cache_home()), **moved, "HF_HUB_OFFLINE": "1"}


def _look_up_path(need: LocalPath) -> Item:
    path = Path(need.path).expanduser()
    is_model = need.key.startswith("model.")
    found = places(need.path) if need.key in DATA_PATHS else [path] * path.exists()
    if not found or (is_model and not path.is_dir()):
        what = "folder" if is_model else "file or folder"
        raise UserError(f"{need.key}={need.path}: no such {what} (seen from {Path.cwd()}); check the path")
    files = [file for path in found for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    num_bytes = sum(file.stat().st_size for file in files)
    return Item(need=need, state="present", num_bytes=num_bytes, path=path.absolute())


def model_files(names: Iterable[str], *, weights: bool) -> list[str]:
    """Return the files of a model's repository that are read: its weights once, safetensors if there are any, or an
    adapter's factors.
    """
    names = list(names)
    forms = [[name for name in names if form.fullmatch(name)] for form in _forms(names)]
    chosen = next((form for form in forms if form), []) if weights else []
    others = {name for form in forms for name in form}
    return [name for name in names if name in chosen or (_BESIDE_WEIGHTS.fullmatch(name) and name not in others)]


def _look_up_model(need: HubModel) -> Item:
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  as above

    with _no_progress():
        info = HfApi().model_info(need.repo_id)
        # Under the number of its commit: a dry run under `main` would turn an older copy's name to what is not there.
        files = snapshot_download(
            need.repo_id, revision=info.sha, allow_patterns=_patterns(need, info.siblings), dry_run=True
        )
    missing = any(file.will_download for file in files)
    return Item(
        need=need,
        state="missing" if missing else "present",
        num_bytes=sum(file.file_size or 0 for file in files),
        path=None if missing else Path(files[0].local_path).parent,
    )


def _fetch_model(need: HubModel) -> Path:
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  as above

    siblings = HfApi().model_info(need.repo_id).siblings
    return Path(snapshot_download(need.repo_id, allow_patterns=_patterns(need, siblings)))


def _patterns(need: HubModel, siblings: Sequence[Any] | None) -> list[str]:
    """Return the names of a model's files as patterns."""
    chosen = model_files([file.rfilename for file in siblings or ()], weights=need.weights)
    forms = _forms([file.rfilename for file in siblings or ()])
    if need.weights and not any(form.fullmatch(name) for form in forms for name in chosen):
        if forms is _ADAPTER:
            raise UserError(
                f"model {need.repo_id} is an adapter without adapter_model.safetensors; choose one that was saved as "
                "safetensors: a pickle may run code when it is read"
            )
        raise UserError(
            f"model {need.repo_id} has neither model.safetensors nor pytorch_model.bin; choose a model with weights"
        )
    return [glob.escape(name) for name in chosen]


def _forms(names: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    return _ADAPTER if CONFIG in names else _WEIGHTS


def base_need(need: Need) -> Need | None:
    """Return what an adapter of the hub stands on; None of a model, and of a base inside the package.

    Raises:
        HubUnreachableError, UserError: as look_up, and a base that is not named or not there.
    """
    if not isinstance(need, HubModel) or not need.weights:
        return None
    with _told(need):
        from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415  as above

        info = HfApi().model_info(need.repo_id)
        if CONFIG not in {file.rfilename for file in info.siblings or ()}:
            return None
        with _no_progress():
            described = Path(hf_hub_download(need.repo_id, CONFIG, revision=info.sha))
        base = stored_base(str(described.parent), need.repo_id)
    return None if base is None else model_need(base)


def _look_up_data(need: HubData) -> Item:
    import datasets  # noqa: PLC0415  a second, and only data of the hub needs it
    from huggingface_hub import HfApi, HfFileSystem  # noqa: PLC0415  as above

    HfApi().dataset_info(need.repo_id)  # fails at once where datasets would knock for half a minute
    builder = datasets.load_dataset_builder(need.repo_id, need.config)
    there = Path(builder.cache_dir)
    present = (there / "dataset_info.json").is_file()
    num_bytes = builder.info.download_size
    if num_bytes is None and not present:
        urls = [url for urls in (builder.config.data_files or {}).values() for url in urls]
        num_bytes = sum(HfFileSystem().info(url)["size"] or 0 for url in urls)
    return Item(
        need=need,
        state="present" if present else "missing",
        num_bytes=num_bytes,
        path=there if present else None,
    )


def _fetch_data(need: HubData) -> Path:
    import datasets  # noqa: PLC0415  as above

    rows = [datasets.load_dataset(need.repo_id, need.config, split=split) for split in need.splits]
    return Path(rows[0].cache_files[0]["filename"]).parent


@contextmanager
def _no_progress() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (  # noqa: PLC0415  as above
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    quiet_already = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not quiet_already:
            enable_progress_bars()


@contextmanager
def _told(need: HubModel | HubData) -> Iterator[None]:
    """Tell in one line what the hub, the network or the disk says."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # among them those of httpx, whose package differs between versions of huggingface_hub
        raise _explained(need, error) from error


def _explained(need: HubModel | HubData, error: Exception) -> UserError:
    what, page = ("model", "") if isinstance(need, HubModel) else ("data set", "datasets/")
    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    status = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    fact = " ".join(str(error).split())[:200]
    if "OfflineModeIsEnabled" in kinds or "OfflineModeIsEnabled" in fact:
        return HubUnreachableError(
            f"HF_HUB_OFFLINE forbids the look-up of {what} {need.repo_id}; unset it on the login node"
        )
    if "GatedRepoError" in kinds or 403 in status or "is a gated dataset" in fact:
        return UserError(
            f"{what} {need.repo_id} is gated; accept its licence at https://huggingface.co/{page}{need.repo_id} "
            "and run `hf auth login`"
        )
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"} or 401 in status:
        return UserError(
            f"the hub shows no {what} {need.repo_id} to you; check the name, or run `hf auth login` if it is private"
        )
    if any(isinstance(cause, OSError) and cause.errno == 28 for cause in causes):
        return UserError(f"no space is left for {what} {need.repo_id}; make room, or set HF_HOME to a larger disk")
    if kinds & {"TransportError", "ConnectionError", "LocalEntryNotFoundError"}:
        return HubUnreachableError(
            f"the hub cannot be reached for {what} {need.repo_id} ({fact}); run this where there is a network, such as "
            "the login node"
        )
    return UserError(
        f"{what} {need.repo_id} cannot be fetched ({type(error).__name__}: {fact}); check its name and keys"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those behind it."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
