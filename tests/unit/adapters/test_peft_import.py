"""peft finds bitsandbytes where a model is in 4 bits, or something else has loaded it, and nowhere else."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from fedlit.adapters.peft_import import without_bitsandbytes


def in_process(code: str) -> list[str]:
    """Run code in a process of its own and return the last line of what it prints, in words.

    bitsandbytes complains of missing kernels on some CPUs; nobody should see that.
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "kernels" not in done.stderr
    return done.stdout.splitlines()[-1].split()


ATTACH = """
import sys, warnings
from fedlit.adapters.lora import Lora
from fedlit.config import ModelConfig
from fedlit.models import load_backbone
def attach(config=ModelConfig()):
    backbone = load_backbone(config)
    Lora(lora_rank=2).attach(backbone.model, backbone.projections)
    kinds = {type(m).__name__ for m in backbone.model.modules() if hasattr(m, "lora_A")}
    return kinds.pop()
"""


def test_a_run_with_lora_leaves_it_out_and_galore_may_follow() -> None:
    told = in_process(
        ATTACH + "kind = attach()\nloaded = 'bitsandbytes' in sys.modules\n"
        "import torch\nfrom fedlit.client.optimizers.galore import GaLore, Projection\n"
        "weight = torch.nn.Parameter(torch.ones(8, 8))\n"
        "options = {'rank': 2, 'update_proj_gap': 2, 'scale': 1.0, 'proj_type': 'std'}\n"
        "GaLore(lr=0.1, galore=Projection(**options)).build({'weight': weight})\n"
        "print(kind, loaded, 'bitsandbytes' in sys.modules, attach())\n"
    )
    assert told == ["Linear", "False", "True", "Linear"]


def test_a_model_in_4_bits_after_a_plain_one_has_its_own_layers() -> None:
    """The first run has told peft that there is no bitsandbytes; the second has to be asked anew."""
    told = in_process(
        "import warnings; warnings.simplefilter('ignore')\n" + ATTACH + "import torch\n"
        "from fedlit.models import loading, quantization\n"
        "first = attach()\n"
        "torch.cuda.is_available, there = (lambda: True), torch.cuda.is_available\n"
        "torch.cuda.current_device = lambda: 'cpu'\n"
        "options = quantization.quantization_options()\n"
        "torch.cuda.is_available = there\n"
        "loading.quantization_options = lambda: options\n"
        "print(first, attach(ModelConfig(quantization='nf4', dtype='bfloat16')), attach())\n"
    )
    assert told == ["Linear", "Linear4bit", "Linear"]


def test_it_is_hidden_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with without_bitsandbytes():
        assert importlib.util.find_spec("bitsandbytes") is None
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("bitsandbytes")
        with without_bitsandbytes():
            pass
        assert importlib.util.find_spec("bitsandbytes") is None, "the inner one has not taken it away"
    assert importlib.util.find_spec("bitsandbytes") is not None


def test_what_is_loaded_stays_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", sys)
    with without_bitsandbytes():
        assert importlib.import_module("bitsandbytes") is sys
    assert sys.modules["bitsandbytes"] is sys
