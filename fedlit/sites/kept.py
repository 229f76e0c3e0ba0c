"""What a site keeps between its rounds, as bytes that a framework stores for it.

The bytes are those of `torch.save`, read with `weights_only=True`: tensors, numbers, texts and mappings of them, and no
code.
"""

import io
from dataclasses import dataclass, field

import torch

from fedlit.algebra.tensors import TensorDict
from fedlit.errors import UserError
from fedlit.round.jobs import ClientState

NOTHING_YET = -1


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A site's own state.

    client: private tensors, what parts of local training keep, moments of the optimizer.
    frozen: what rules have folded beside the site's frozen weights so far, by the names of `ServerState.frozen`.
    round_idx: of the server whose `frozen` that is; NOTHING_YET before anything came.
    """

    client: ClientState
    frozen: TensorDict = field(default_factory=dict)
    round_idx: int = NOTHING_YET

    def to_bytes(self) -> bytes:
        """Return the state as bytes."""
        buffer = io.BytesIO()
        client = {"private": self.client.private, "parts": self.client.parts, "optimizer": self.client.optimizer}
        torch.save({"client": client, "frozen": self.frozen, "round_idx": self.round_idx}, buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Kept":
        """Return the state of these bytes.

        Raises:
            UserError: they are no state of a site.
        """
        try:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return cls(
                client=ClientState(**content["client"]), frozen=content["frozen"], round_idx=content["round_idx"]
            )
        except Exception as error:  # whatever torch makes of damaged bytes
            raise UserError(
                "the state that this site kept cannot be read; remove it, and the site begins anew in the next round"
            ) from error
