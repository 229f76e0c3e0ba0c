"""A small folder of configurations, so that these tests do not depend on the values in configs/."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedlit.options import option
from fedlit.ranges import POSITIVE_COUNT
from fedlit.recipes import ADAPTERS, RECIPES, Part, Recipe


@dataclass(frozen=True)
class Inner:
    rank: int | None = option(16, "rank of the projection")
    scale: float = 0.25


@dataclass(frozen=True)
class EveryKind:
    """Every kind of option."""

    lora_rank: int = option(4, "rank of the factors", range=POSITIVE_COUNT)
    flag: bool = False
    ranks: list[int] = option((8, 4), "one rank per client")
    anything: Any = None
    galore: Inner = field(default_factory=Inner)


FILES = {
    "data/pydoc.yaml": "# docstrings\nname: pydoc\n",
    "data/questions.yaml": "# questions\nname: questions\nlabel: topic\nsample: 300\n",
    "model/tiny.yaml": "# the tiny model\nname: tiny\n",
    "model/hf.yaml": "# any model\nname: ???\npath: ???\n",
    "method/fedit.yaml": (
        "# FedAvg of LoRA\nname: fedit\nlora_rank: 8  # rank # r\nlora_alpha: 16.0\ntarget_modules: qkv\n"
        "weighting: num_examples\n"
    ),
    "method/nested.yaml": (
        "# every kind of option\nname: nested\nlora_rank: 4  # rank of the factors\nflag: false\n"
        "# one rank per client\nranks: [8, 4]\nanything: null\ngalore:\n  rank: 16  # rank of the projection\n"
        "  scale: 0.25\n"
    ),
    "experiment/both.yaml": (
        "# picks and sets\ndata: questions\nmethod: nested\ndata.sample: 200\nmethod.galore.rank: 2\nnum_rounds: 7\n"
        "local:\n  lr: 0.5\n"
    ),
    "experiment/passes.yaml": "# counts passes\nlocal.epochs: 3\n",
}


@pytest.fixture
def config_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(ADAPTERS, "every_kind", Part(EveryKind))
    monkeypatch.setitem(RECIPES, "nested", Recipe(adapter="every_kind", rule="none"))
    folder = tmp_path / "configs"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
