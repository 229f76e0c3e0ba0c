"""What `fedlit.run` returns, and `fedlit.load_result` finds in a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.client_names import MAX_LISTED, labels, names_in
from fedlit.config import RunConfig
from fedlit.data.values import shown
from fedlit.errors import UserError
from fedlit.scores import choice_key, chosen_on
from fedlit.store.example_scores import read as read_examples
from fedlit.store.partition import read_partition
from fedlit.store.records import best_record, read_records, trained
from fedlit.store.samples import read_samples
from fedlit.store.status import read_status

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

    from fedlit.restoring import Trained
    from fedlit.round.server import ServerState


class Result:
    """A run's records, files and model. Records and files are read without torch; the model, where the run was not
    trained by this very call, is built from its checkpoint when it is asked for.

    Attributes:
        folder: the run's, an absolute path.
        config: as config.yaml has it.
        notices: lines about configuration, rows and model that a person should read.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        trained: Callable[[], Trained],
        notices: Sequence[str] = (),
        status: str | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.config = config
        self.notices = tuple(notices)
        self._make_trained = trained
        self._status = status
        self._shown: int | None = None  # whose tensors `client_model` has put into the model

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """One mapping a round, as in metrics.jsonl; the first, of round 0, is of the untrained model."""
        return read_records(self.folder)

    @property
    def frame(self) -> DataFrame:
        """The records as a pandas frame, one row a round, one column a key, some of them texts; NaN where a round has
        none.
        """
        import pandas  # noqa: PLC0415  half a second that records do not need

        return pandas.DataFrame(self.records)

    @property
    def chosen_on(self) -> str | None:
        """The set that chose `best`, `validation` or `test`, which flatters; None before there is a round to choose."""
        key = self._choice_key
        return None if key is None else chosen_on(key)

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best round by the score that counts, on the validation set where the run has one, with the
        test scores of that round; None before there is one. Round 0 does not count.
        """
        key = self._choice_key
        return None if key is None else best_record(self.records, key)

    @property
    def _choice_key(self) -> str | None:
        recorded = {key for record in trained(self.records) for key in record}
        return choice_key(self.config.data, self.config.eval, recorded)

    def examples(self, round_number: int | None = None) -> DataFrame:
        """Return the scores of every single test example after a round, by default the last that was evaluated: a
        pandas frame, one row an example of a set; `fedlit.store.example_scores` says what the columns are. Two runs are
        paired by `example`, with `set` and `client`.

        Raises:
            UserError: the round was not evaluated, or the run does not keep them (run.example_scores=false).
        """
        return read_examples(self.folder, round_number)

    def samples(self, round_number: int | None = None) -> list[dict[str, Any]]:
        """Return the answers to a few examples, the same in every round, as in samples.jsonl: of all rounds, or of one.

        A mapping has `round`, `set`, `client`, `example`, `position`, `prompt`, `references`, `prediction`.
        """
        return read_samples(self.folder, round_number)

    @property
    def status(self) -> str:
        """How the run stands, as status.json has it (`done`, `stopped`, `running`, ...)."""
        return self._status or read_status(self.folder).state

    @property
    def adapter(self) -> Path:
        """The folder of the exported result, which is a PEFT adapter, a whole model, or a folder for each client."""
        return self.folder / "adapter"

    @property
    def model(self) -> Any:
        """The transformers model with the adapter in it, in evaluation mode. It computes what was scored and exported:
        the server's last state, or its best round's with run.result=best.

        Where clients keep tensors of their own there is no such model, and it is the first client's (`client_model`).
        """
        if self._shown is not None:
            self._trained.load()
            self._shown = None
        return self._trained.host.model

    @cached_property
    def client_names(self) -> tuple[str, ...]:
        """What each client is called, by its file, its values of the natural column, or as it was given from Python;
        '' where it has no name, none where nobody has.
        """
        return names_in(read_partition(self.folder))

    def client_model(self, client_id: int | str) -> Any:
        """Return the model of one client, by its number or its name, where clients keep tensors of their own.

        It is the same object as `model`, with that client's tensors in it until either is asked for again.

        Raises:
            UserError: no such client, or none has tensors of its own.
        """
        number = self._number(client_id) if isinstance(client_id, str) else client_id
        self._shown = number
        self._trained.load_client(number)
        return self._trained.host.model

    def _number(self, name: str) -> int:
        """Return the number of the client of this name."""
        found = [client_id for client_id, own in enumerate(self.client_names) if own == name]
        if len(found) == 1:
            return found[0]
        names = labels(self.client_names)
        known = f"0 to {self.config.num_clients - 1}"
        if names:
            known = ", ".join([*names[:MAX_LISTED], *(["..."] if len(names) > MAX_LISTED else [])])
        what = f"client {shown(name)} is none of this run" if not found else f"{len(found)} clients are {shown(name)}"
        raise UserError(f"{what}; known are {known}; give a number")

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model or, of one that reads images, its image processor."""
        return self._trained.reader

    @property
    def server(self) -> ServerState:
        """The server's state, with `shared` tensors that travelled, by parameter name, what was folded, and
        `round_idx`.
        """
        return self._trained.server

    @cached_property
    def _trained(self) -> Trained:
        return self._make_trained()

    def __repr__(self) -> str:
        last = self.records[-1]["round"] if self.records else "none"
        return f"Result({self.folder.name}: {self.status}, last round {last}, folder={str(self.folder)!r})"
