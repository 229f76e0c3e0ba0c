"""Named random streams: a draw depends on (seed, purpose, round, client), never on the process that makes it.

Two runs that differ in the number of processes, in the order of clients or in where they were interrupted draw the same
numbers, because no stream is shared and none has a history.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


def stream_seed(seed: int, purpose: str, *, round_idx: int = 0, client_id: int = -1) -> int:
    """Return the 63-bit seed of one named stream; client_id -1 stands for the server."""
    name = f"{seed}/{purpose}/{round_idx}/{client_id}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, *, round_idx: int = 0, client_id: int = -1) -> np.random.Generator:
    """Return NumPy's PCG64 generator of one named stream."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, purpose, round_idx=round_idx, client_id=client_id)))


@contextmanager
def torch_stream(seed: int, purpose: str, *, round_idx: int = 0, client_id: int = -1) -> Iterator[None]:
    """Run the block on torch's global generators, all devices, seeded from one named stream; they are put back
    afterwards.
    """
    import torch  # noqa: PLC0415  rows are dealt, and mistakes in them reported, before torch is imported

    number = stream_seed(seed, purpose, round_idx=round_idx, client_id=client_id)
    devices = list(range(torch.cuda.device_count()))
    if not devices:
        # torch.manual_seed would note for each kind of device that is not there where it was called, with the lines of
        # source of the whole stack: a hundred times the cost of seeding.
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(number)
        try:
            yield
        finally:
            torch.set_rng_state(before)
        return
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(number)
        yield
