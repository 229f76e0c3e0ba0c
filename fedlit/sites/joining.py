"""Who comes: what a site says of itself, and whether it belongs to this federation."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from fedlit import __version__
from fedlit.config import fingerprint
from fedlit.errors import UserError
from fedlit.sites.messages import Message
from fedlit.sites.workplace import Workplace

TOLERANCE = 1e-2
"""Relative, of the sampled weights: other hardware draws the same first weights but for rounding."""


def versions() -> dict[str, str]:
    """Return the versions here of what the bits depend on."""
    return {"fedlit": __version__, **{name: version(name) for name in ("torch", "transformers")}}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A site as it has declared itself.

    num_rows: for training, testing and validation. config: fingerprint of the configuration. versions: of the libraries
    that the bits depend on. held: round_idx of what it has of the folds. sample: see `Workplace.sample`.
    """

    client_id: int
    num_rows: tuple[int, int, int]
    config: dict[str, Any]
    versions: dict[str, str]
    held: int
    sample: Tensor

    @classmethod
    def of(cls, message: Message) -> "Joined":
        """Return what a message declares.

        Raises:
            UserError: it is no declaration.
        """
        facts = message.facts
        try:
            train, test, validation = (int(each) for each in facts["num_rows"])
            found = cls(
                client_id=int(facts["client_id"]),
                num_rows=(train, test, validation),
                config=dict(facts["config"]),
                versions={str(name): str(value) for name, value in facts["versions"].items()},
                held=int(facts["held"]),
                sample=message.tensors["sample"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError("a site joins without saying who it is; use one version of fedlit everywhere") from error
        if train < 1 or test < 0 or validation < 0:
            raise UserError(f"client {found.client_id} says that it has {train} training rows; it needs one at least")
        return found

    def notices(self) -> list[str]:
        """Return a line for each library of another version than here."""
        return [
            f"client {self.client_id} has {name} {self.versions.get(name, '?')}, the centre {ours}: "
            "results may differ in their last bits"
            for name, ours in versions().items()
            if self.versions.get(name) != ours
        ]


def require_same(joined: Joined, place: Workplace, before: Joined | None) -> None:
    """Raise a UserError for a site of another federation, or of another model."""
    config, client = place.config, joined.client_id
    if not 0 <= client < config.num_clients:
        raise UserError(f"client {client} joins a federation of num_clients={config.num_clients}; number sites from 0")
    ours = fingerprint(config)
    different = sorted(key for key in {*ours, *joined.config} if ours.get(key) != joined.config.get(key))
    if different:
        key = different[0]
        raise UserError(
            f"client {client} has another configuration ({key}: {joined.config.get(key)!r} there, {ours.get(key)!r} "
            "here); give all sites the app of one export"
        )
    if before is not None and before.num_rows != joined.num_rows:
        raise UserError(
            f"client {client} joined with {before.num_rows[0]} training rows and comes again with "
            f"{joined.num_rows[0]}; let one site alone run as this client, on the same rows"
        )
    sample, mine = joined.sample, place.sample
    if sample.shape != mine.shape or not torch.allclose(sample, mine, rtol=TOLERANCE, atol=TOLERANCE * _scale(mine)):
        raise UserError(
            f"client {client} has another model than the centre: its weights differ; give both the same files as "
            f"model.path={config.model.path}, and the same versions of torch and transformers"
        )


def _scale(sample: Tensor) -> float:
    return float(sample.abs().mean()) if sample.numel() else 0.0
