"""What fedlit uses of peft, without bitsandbytes unless the process quantizes.

peft imports bitsandbytes wherever it is installed: once when it is imported itself, once when it puts layers into a
model. That takes more than a second of every start, and on a machine without a GPU writes a line about kernels that
nobody asked for. It is there because galore-torch needs it.

While peft looks, `sys.modules["bitsandbytes"]` is None: the language's own way to say that a module cannot be imported.
Where bitsandbytes is loaded already, by a model in 4 bits or by galore-torch, it stays seen, and it can be imported at
any time later: peft's answers are forgotten.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARY = "bitsandbytes"


@contextmanager
def without_bitsandbytes() -> Iterator[None]:
    """Keep whoever looks from finding bitsandbytes, unless it is loaded already."""
    if _LIBRARY in sys.modules:  # loaded, or hidden by somebody else
        yield
        return
    sys.modules[_LIBRARY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_LIBRARY]
        _forget()


def _forget() -> None:
    """Let peft look again: it keeps its first answer for the life of the process."""
    answers = sys.modules.get("peft.import_utils")
    for name in ("is_bnb_available", "is_bnb_4bit_available"):
        clear = getattr(getattr(answers, name, None), "cache_clear", None)
        if clear is not None:
            clear()


with without_bitsandbytes():
    from peft import LoraConfig, PeftModel, get_peft_model
    from peft.tuners.lora import LoraLayer as PeftLayer

__all__ = ["LoraConfig", "PeftLayer", "PeftModel", "get_peft_model", "without_bitsandbytes"]
