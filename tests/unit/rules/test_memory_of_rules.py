"""One layer of all adapters is in memory, of the inputs and of the result, however many layers there are."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

OUT, IN, RANK = 2048, 1024, 32
MEASURES = """
import sys
from pathlib import Path
from fedlit.rules import Rule, aggregate_folders

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

*folders, out, rule = sys.argv[1:]
before = peak()
aggregate_folders([Path(folder) for folder in folders], [1, 2], Path(out), Rule(name=rule))
print(peak() - before)
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")


def adapter(folder: Path, num_layers: int, seed: int) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": 8}}')
    torch.manual_seed(seed)
    tensors = {}
    for layer in range(num_layers):
        tensors[f"base_model.model.layers.{layer}.q.lora_A.weight"] = torch.randn(RANK, IN)
        tensors[f"base_model.model.layers.{layer}.q.lora_B.weight"] = torch.randn(OUT, RANK)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def grown(root: Path, rule: str, num_layers: int) -> int:
    """Return by how many bytes the peak of a process grows."""
    folders = [adapter(root / f"{num_layers}-{seed}", num_layers, seed) for seed in range(2)]
    words = [*map(str, folders), str(root / f"{num_layers}-out"), rule]
    done = subprocess.run([sys.executable, "-c", MEASURES, *words], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_the_peak_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    """100 more layers are 79 MB of inputs, and as much of flora's result; a tenth would be noise of the allocator."""
    few, many = (grown(tmp_path, "flora", num_layers) for num_layers in (10, 110))
    more = 2 * 100 * RANK * (IN + OUT) * 4
    assert many - few < more / 10
