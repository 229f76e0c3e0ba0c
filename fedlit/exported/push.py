"""What of a result goes to the Hugging Face hub, looked through before anything is sent; no torch is needed for it."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, and not in its __all__

from fedlit.cards.files import ADAPTER, CARD, FACTS, PAIR, Facts, adapter_ranks, as_json, read_facts
from fedlit.cards.text import card_text
from fedlit.errors import UserError
from fedlit.exported.found import Result

LOGIN = "`hf auth login`, or give a token in HF_TOKEN"
_TEXTS = {".json", ".md", ".txt", ".jinja", ".model", ".yaml"}
_VOCABULARY = {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt"}
_TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{30,})\b")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A commit to the hub: its repository, and what its files are made of, a file of this machine or a text."""

    repo_id: str
    folder: Path
    files: Mapping[str, Path | bytes]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    @property
    def card_head(self) -> str:
        """The front matter of the card."""
        return self._card.split("\n---\n", maxsplit=1)[0] + "\n---"

    @property
    def _card(self) -> str:
        card = self.files[CARD]
        assert isinstance(card, bytes)
        return card.decode()


def require_repo_id(repo_id: str, what: str = "the name of a repository") -> None:
    """Refuse what is no `owner/name` of the hub.

    Raises:
        UserError: says why.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{repo_id!r} is not {what} on the hub ({reason}); write it as owner/name") from None
    if "/" not in repo_id:
        raise UserError(f"{repo_id!r} is not {what} on the hub: nobody owns it; write it as owner/name")


def folder_to_push(result: Result, *, merged: bool) -> Path:
    """Return the folder of a result that is pushed: the exported one, or what `fedlit merge` wrote.

    Raises:
        UserError: it is not there, or an older version wrote it.
    """
    folder = result.folder
    if merged and result.is_adapter:
        folder = result.run / "merged"
        client = "" if result.client_id is None else f" --client {result.client_id}"
        if result.client_id is not None:
            folder /= f"client-{result.client_id:05d}"
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is not there; run `fedlit merge {result.run}{client}` first")
    if read_facts(folder) is None:
        raise UserError(
            f"{folder} has no {FACTS}, of which its card is made: an older version of fedlit wrote it; write it anew "
            "with `fedlit merge RUN` and give --merged"
        )
    return folder


def prepare(folder: Path, repo_id: str, run: Path, *, base_model: str | None = None) -> Upload:
    """Return what would be sent; nothing on this machine changes, and no network is asked.

    Args:
        folder: of a result.
        repo_id: `owner/name`.
        run: its run's folder, whose place nobody else needs to know.
        base_model: the hub's name of the model that the result builds on, where this machine has it by another.

    Raises:
        UserError: a file leads out of the folder, or holds a path of this machine or a token.
    """
    facts = read_facts(folder)
    assert facts is not None
    files: dict[str, Path | bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is no file of its own, but a link or a device; take it out of the result")
        files[path.relative_to(folder).as_posix()] = path
    described = _with_base(folder, facts, base_model)
    files |= {name: as_json(content).encode() for name, content in described.items()}
    told: Facts = described.get(FACTS, facts)
    files[CARD] = card_text(told, ranks=adapter_ranks(folder), name=repo_id, is_pair=(folder / PAIR).is_file()).encode()
    upload = Upload(repo_id=repo_id, folder=folder, files=dict(sorted(files.items())))
    _require_no_secrets(upload, run)
    return upload


def _with_base(folder: Path, facts: Facts, base_model: str | None) -> dict[str, Any]:
    """Return the files that name the base, under the name that others know it by."""
    changed: dict[str, Any] = {}
    if base_model is not None:
        changed[FACTS] = {**facts, "base": {**facts["base"], "hub_id": base_model, "kind": "hub"}}
    path = folder / ADAPTER
    if not path.is_file():
        return changed
    adapter = json.loads(path.read_bytes())
    base = str(adapter.get("base_model_name_or_path") or "")
    if base_model is not None:
        changed[ADAPTER] = {**adapter, "base_model_name_or_path": base_model}
    elif facts["base"]["hub_id"] is None or base.startswith((".", "/", "~")):
        raise UserError(
            f"the base model of {folder} is {base or 'not named'}, a place that others do not have; give its name on "
            "the hub with --base-model owner/name, or push the whole model with --merged"
        )
    return changed


def _require_no_secrets(upload: Upload, run: Path) -> None:
    """Refuse a text in which a place of this machine or a token stands."""
    places = {str(path) for path in (Path.home(), Path.cwd(), run.absolute(), upload.folder.absolute())}
    secrets = {text for text in (get_token(), os.environ.get("WANDB_API_KEY")) if text}
    for name, content in upload.files.items():
        if isinstance(content, Path) and Path(name).suffix not in _TEXTS:
            continue
        text = (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8", errors="replace")
        # A vocabulary may well have the word /root, and no token that is a longer path.
        shortest = 3 if Path(name).name in _VOCABULARY else 2
        for place in places:
            if len(Path(place).parts) >= shortest and re.search(re.escape(place) + r"(?![\w.-])", text):
                raise UserError(f"{upload.folder / name} names a place of this machine ({place}); take it out first")
        if _TOKEN.search(text) or any(secret in text for secret in secrets):
            raise UserError(f"{upload.folder / name} holds what looks like a token; take it out first")


def is_logged_in() -> bool:
    """Tell whether there is a token; whether the hub takes it is not asked."""
    return get_token() is not None


def send(upload: Upload, *, private: bool) -> str:
    """Make the repository unless it is there, commit the files, and return the address of the commit.

    Raises:
        UserError: no login, or what the hub said.
    """
    if not is_logged_in():
        raise UserError(f"no login to the Hugging Face hub, without which nothing can be sent; {LOGIN}")
    hub = HfApi()
    try:
        hub.create_repo(upload.repo_id, repo_type="model", private=private or None, exist_ok=True)
        commit = hub.create_commit(
            upload.repo_id, [*_operations(upload)], commit_message="Result of a run of fedlit", repo_type="model"
        )
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE forbids to send anything; unset it") from None
    except (HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{upload.repo_id} was not pushed ({type(error).__name__}: {reason}); mend it and push again"
        ) from error
    return str(commit.commit_url)


def _operations(upload: Upload) -> Iterator[CommitOperationAdd]:
    for name, content in upload.files.items():
        yield CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
