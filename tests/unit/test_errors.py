"""Errors carry fields; their one line is made of them, and all of it travels between processes."""

import pickle

import pytest

from fedlit.errors import (
    SMALLER_STEPS,
    DivergenceError,
    FedlitError,
    FieldsError,
    LostPeer,
    MixedRuns,
    OutOfMemory,
    UserError,
)

LOSS = DivergenceError(what="the loss", value=float("nan"), step=2)


@pytest.mark.parametrize("error", [UserError("no such key"), DivergenceError(what="the loss", value=float("nan"))])
def test_a_notebook_shows_the_line_alone(error: FedlitError) -> None:
    """IPython's own protocol: a list of lines in place of the frames."""
    assert error._render_traceback_() == [f"{type(error).__name__}: {error}"]


def test_a_divergence_is_told_by_its_fields() -> None:
    assert str(LOSS) == "the loss is nan at local step 2; lower local.lr or set local.max_grad_norm"
    here = LOSS.at(round_number=3, client_id=0)
    assert (LOSS.round_number, LOSS.client_id) == (None, None)
    assert str(here) == (
        "round 3, client 0: the loss is nan at local step 2; lower local.lr or set local.max_grad_norm"
    )
    kept = here.at(checkpoint_round=0, remedy=SMALLER_STEPS)
    assert str(kept) == (
        "round 3, client 0: the loss is nan at local step 2; lower server.lr or local.lr, or set "
        "local.max_grad_norm (the checkpoint after round 0 is intact)"
    )


def test_what_is_not_finite_is_told_as_far_as_it_is_known() -> None:
    of_server = DivergenceError(what="layer.B", round_number=3)
    assert str(of_server) == "round 3: layer.B is not finite; lower local.lr or set local.max_grad_norm"
    large = DivergenceError(what="layer.B", value=1e9, limit=1000.4, client_id=1, remedy="mend it")
    assert str(large) == "client 1: layer.B has magnitude 1000000000.0, finite values below 1000 are needed; mend it"
    assert str(DivergenceError(what="a set", fact="no such product", remedy="mend it")) == "no such product; mend it"


@pytest.mark.parametrize(
    "error",
    [
        LOSS.at(round_number=3, client_id=1, checkpoint_round=2),
        DivergenceError(what="x", value=2.0, limit=1.0, fact="words: of; all", remedy="none"),
        OutOfMemory(where="round 1, process 0", reason="CUDA; out of memory", checkpoint_round=4),
        LostPeer(process=1, num_processes=2, reason="closed", timeout_s=3.0, saved_round=2),
        LostPeer(process=None, num_processes=1, reason="timed out", timeout_s=300.0, starting=True),
        MixedRuns(process=1, num_processes=2, address="n1:15007", runs=("a", "b")),
    ],
)
def test_all_of_it_travels(error: FieldsError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert repr(again) == repr(error)
    assert str(again) == str(error)
    assert "\n" not in str(again)


def test_memory_that_does_not_suffice_knows_its_checkpoint() -> None:
    error = OutOfMemory(where="round 5, process 0", reason="no memory")
    assert str(error).startswith("round 5, process 0: no memory; lower local.batch_size")
    assert str(error.at(checkpoint_round=4)) == f"{error} (the checkpoint after round 4 is intact)"


@pytest.mark.parametrize(("saved_round", "where"), [(2, " after round 2"), (0, ""), (None, "")])
def test_a_lost_process_is_told(saved_round: int | None, where: str) -> None:
    lost = LostPeer(process=1, num_processes=2, reason="closed", saved_round=saved_round)
    assert str(lost) == (
        "process 1 of 2: another process of the run is gone; its console may say why (closed); "
        f"the same command goes on{where}"
    )
    assert lost.fact == "another process of the run is gone; its console may say why"
    silent = LostPeer(process=None, num_processes=1, reason="timed out", timeout_s=8.0)
    assert str(silent).startswith("another process of the run gave no answer in 8 s; ")
    late = LostPeer(process=None, num_processes=1, reason="timed out", timeout_s=8.0, starting=True)
    assert late.fact.startswith("not all processes of the run were there after 8 s (compute.start_timeout_s)")
