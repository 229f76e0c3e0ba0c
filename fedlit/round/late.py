"""Results that come in a later round than the one that their client began in.

What such a client brings is the change that it made, x_i - x with the server's x of the round in which it began, in
float64. In the round in which it comes it is summed as if it were a difference from the server's tensors of that round:
server + sum_i p_i (x_i - x_began), which is FedBuff's step (arXiv 2106.06639) and, with nobody late, the plain mean to
the last bit. It waits beside what its client keeps, so that a checkpoint holds it and it moves with its client; what
the client keeps from that training is its own from then on, too.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fedlit.algebra.tensors import TensorDict, on_cpu
from fedlit.round.jobs import ClientResult, ClientState

CHANGE, METRICS, BEGAN, KEPT = "change", "metrics", "began", "kept"


def under_way(
    before: ClientState, result: ClientResult, sent: Mapping[str, Tensor], server: Mapping[str, Tensor], round_idx: int
) -> ClientState:
    """Return what a client keeps while its result is under way.

    Args:
        before: what it kept until now, which stays until the result is there.
        result: of its training.
        sent: what it sends, flat. server: the server's tensors of the same names in the round in which it began.
        round_idx: that round.
    """
    change = on_cpu({name: sent[name].double() - tensor.double() for name, tensor in server.items()})
    after = result.state or before
    kept = {"private": after.private, "parts": after.parts, "optimizer": after.optimizer}
    return replace(before, under_way={CHANGE: change, METRICS: dict(result.metrics), BEGAN: round_idx, KEPT: kept})


def arrived(state: ClientState, round_idx: int) -> tuple[TensorDict, dict[str, float], ClientState] | None:
    """Return the change of a client that began in a round, the metrics of its training and what it keeps from now on;
    None if nothing is under way from then: it was lost.
    """
    found: dict[str, Any] | None = state.under_way
    if found is None or found[BEGAN] != round_idx:
        return None
    return found[CHANGE], found[METRICS], ClientState(**found[KEPT])
