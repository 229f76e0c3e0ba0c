"""That this machine has the devices and the threads that a run asks for: what misses them fails late, or crashes."""

import os
import threading
from collections.abc import Mapping

import torch

from fedlit.config import ComputeConfig
from fedlit.errors import ProcessError
from fedlit.process.communication import group_shape

_MOST_THREADS = 4096
"""Nothing beyond is tried out: the attempt alone would take threads from everybody else on the machine."""


def require_devices(compute: ComputeConfig, environ: Mapping[str, str] = os.environ) -> None:
    """Raise a ProcessError for a device, a backend or a number of threads that this machine does not have."""
    asked = environ.get("LT_ACCELERATOR", compute.accelerator)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    on_gpu = asked in ("cuda", "gpu") or (asked == "auto" and num_gpus > 0)
    if on_gpu and not num_gpus:
        why = f"torch {torch.__version__} is built without CUDA" if torch.version.cuda is None else "torch sees no GPU"
        raise ProcessError(f"compute.accelerator={asked}, but {why}; give compute.accelerator=cpu, or auto")
    devices, _ = group_shape(compute, environ)
    if on_gpu and devices > num_gpus:
        raise ProcessError(
            f"{devices} processes on this machine need as many GPUs, and each process sees {num_gpus}; "
            "start one process a GPU, or let each see all of them"
        )
    if compute.backend == "nccl" and not on_gpu:
        raise ProcessError(
            "compute.backend=nccl is between GPUs, and this run computes on the CPU; leave it out, or give gloo"
        )
    _require_threads(compute.threads)


def _require_threads(number: int) -> None:
    """A pool that OpenMP cannot fill ends the process at once, without an exception."""
    cpus = os.cpu_count() or 1
    if number <= cpus:
        return
    if number > max(_MOST_THREADS, cpus):
        raise ProcessError(
            f"compute.threads={number}, and this machine has {cpus} CPUs; give at most {max(_MOST_THREADS, cpus)}, "
            f"best {cpus} or fewer"
        )
    started = num_startable(number - 1) + 1
    if started < number:
        raise ProcessError(
            f"compute.threads={number}, and the system gives this process {started} (ulimit -u, or the job's limit of "
            f"processes); give {cpus} or fewer"
        )


def num_startable(number: int) -> int:
    """Return how many threads this process can start at once, `number` at most; all have ended again."""
    ends = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(number):
            thread = threading.Thread(target=ends.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        pass
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    return len(threads)
