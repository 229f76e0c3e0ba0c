"""One client's round through a trainer, as the round loop would ask for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.algebra.tensors import TensorDict
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.round.jobs import ClientJob, ClientResult, ClientState, Start
from fedlit.round.payload import MODEL
from fedlit.round.plan import RoundPlan


def make_job(
    trainer: SerialTrainer,
    client_id: int,
    rows: Sequence[Any],
    shared: TensorDict,
    state: ClientState,
    round_idx: int = 0,
    groups: Mapping[str, TensorDict] | None = None,
) -> ClientJob:
    """Return a job of a round in which this client is alone; `groups` travel beside the model."""
    plan = RoundPlan(
        round_idx=round_idx,
        invited=(client_id,),
        arriving=(client_id,),
        weights={client_id: 1.0},
        trains=trainer.host.trains(round_idx),
    )
    return ClientJob(
        client_id=client_id, rows=rows, start=Start(groups={MODEL: shared, **(groups or {})}), state=state, plan=plan
    )


def train_client(trainer: SerialTrainer, job: ClientJob) -> ClientResult:
    """Return a job's result, or raise its failure."""
    (result,) = trainer.train([job])
    if result.failure is not None:
        raise result.failure
    return result
