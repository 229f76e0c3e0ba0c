"""Keep freed memory in the process: glibc hands large temporaries back to the kernel and faults them in again."""

import ctypes
import sys

# <malloc.h>; values are C ints
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep up to 1 GiB blocks and give nothing back; return whether it agreed (False elsewhere).

    A training step allocates and frees the same activations again and again; without this every one of them costs page
    faults, up to a third of the time of a step with a large vocabulary.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = {_M_MMAP_THRESHOLD: 2**30, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28}
    answers = [mallopt(ctypes.c_int(option), ctypes.c_int(value)) for option, value in settings.items()]
    return all(answer == 1 for answer in answers)
