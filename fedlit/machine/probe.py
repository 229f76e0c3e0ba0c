"""A process of its own that imports what a run imports and tells each step in a line of JSON: a library that ends the
process, with a signal say, has told by then how far it came.
"""

import importlib
import json
import sys
import sysconfig
from collections.abc import Callable
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any

NEEDED = ("torch", "transformers", "fedlit.adapters.lora", "lightning.fabric", "torchmetrics", "fedlit.launch")
"""What every run imports, in this order; fedlit.adapters.lora imports peft."""
SOMETIMES = (
    "transformers.models.llama.modeling_llama",
    "datasets",
    "sklearn.cluster",
    "scipy.stats",
    "nltk.stem.porter",
    "sacrebleu",
    "rapidfuzz",
    "PIL.Image",
    "matplotlib.figure",
    "plotly",
    "jinja2",
    "wandb",
)
"""What some runs and commands import."""


def main() -> None:
    """Write the lines."""
    for name in (*NEEDED, *SOMETIMES):
        tell("begins", name)
        tell("import", [name, _error(lambda name=name: importlib.import_module(name))])  # type: ignore[misc]
    if "torch" in sys.modules:
        tell("torch", _torch())
        tell("bitsandbytes", _bitsandbytes())
    tell("bytecode", missing_bytecode())


def tell(what: str, value: Any) -> None:
    """Write one line; a library that prints something writes lines of another form."""
    sys.stdout.write(f"{json.dumps({what: value})}\n")
    sys.stdout.flush()


def _error(action: Callable[[], object]) -> str | None:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _torch() -> dict[str, Any]:
    """Return what torch sees of the machine; memory in bytes."""
    import torch  # noqa: PLC0415

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        gpus.append({"name": found.name, "memory": found.total_memory, "capability": [found.major, found.minor]})
    backends = []
    if _error(lambda: importlib.import_module("fedlit.process.communication")) is None:
        backends = list(sys.modules["fedlit.process.communication"].backends())
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "bf16": bool(gpus) and torch.cuda.is_bf16_supported(),
        "mps": torch.backends.mps.is_available(),
        "backends": backends,
        "flash": find_spec("flash_attn") is not None,
    }


def _bitsandbytes() -> str | None:
    """Return why bitsandbytes, which 4-bit backbones need, cannot be used; None if it can."""
    if find_spec("bitsandbytes") is None:
        return "is not installed"
    return _error(lambda: importlib.import_module("bitsandbytes"))


def missing_bytecode() -> int:
    """Return how many of the imported installed modules have no bytecode, so that every start compiles them anew."""
    installed = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    sources = {file for file in files if file and file.endswith(".py") and file.startswith(installed)}
    return sum(not Path(cache_from_source(source)).is_file() for source in sources)


if __name__ == "__main__":
    main()
