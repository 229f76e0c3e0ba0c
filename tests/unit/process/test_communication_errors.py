"""What torch says when another process is gone or silent, as gloo and the store word it, against other errors."""

import pytest
import torch.distributed as dist

from fedlit.process.communication import lost_peer

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp"
CLOSED = f"{GLOO}/pair.cc:553] Connection closed by peer [127.0.0.1]:31. This is typically caused by a crash."


@pytest.mark.parametrize(
    ("error", "reason", "silent"),
    [
        (RuntimeError(CLOSED), "Connection closed by peer [127.0.0.1]:31", False),
        (RuntimeError(f"{GLOO}/pair.cc:1] writev: Broken pipe"), "writev: Broken pipe", False),
        (RuntimeError(f"{GLOO}/buffer.cc:1] Timed out waiting 8ms for recv"), "Timed out waiting 8ms for recv", True),
        (dist.DistStoreError("Timed out after 9 seconds waiting for clients."), "Timed out after 9 seconds", True),
        (dist.DistBackendError("NCCL error: remote process exited"), "NCCL error: remote process exited", False),
    ],
)
def test_a_process_is_lost(error: Exception, reason: str, silent: bool) -> None:
    lost = lost_peer(error, 8.0, 3)
    assert lost is not None
    assert lost.reason.startswith(reason)
    assert "typically" not in lost.reason
    assert (lost.timeout_s, lost.saved_round, lost.process) == (8.0 if silent else None, 3, None)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("the tokenizer timed out"),
        ConnectionResetError("Connection reset by peer"),
        dist.DistNetworkError("The server socket has failed to listen on any local network address: EADDRINUSE"),
    ],
)
def test_no_process_is_lost(error: Exception) -> None:
    assert lost_peer(error, 8.0) is None
