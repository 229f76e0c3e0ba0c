"""The embedded backbone: small, loadable by transformers alone, exact on any text, better than chance on new rows."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import fedlit
from fedlit.data.pydoc import read_rows

FOLDER = Path(fedlit.__file__).parent / "tiny"
SCRIPT = Path(__file__).parents[2] / "experiments" / "pretrain_tiny.py"
NASTY = [
    "",
    " ",
    " lead",
    "trail  ",
    "\n\r\n\t",
    "a</s>b<s><pad>",
    "é漢字🙂",
    "\ufeff\x00\x7f",
    "a\u0301",
    "x ,y . n't",
    "\u2028",
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def test_folder_is_small(model: PreTrainedModel) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4_000_000
    assert 1_000_000 < sum(param.numel() for param in model.parameters()) < 2_000_000


def test_weights_are_half_on_disk_and_single_in_memory(model: PreTrainedModel) -> None:
    with safe_open(FOLDER / "model.safetensors", framework="pt") as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = model.state_dict()
    assert all(torch.equal(loaded[key], tensor.float()) for key, tensor in stored.items())
    assert model.dtype == torch.float32
    assert all(bool(tensor.isfinite().all()) for tensor in loaded.values())


def test_architecture_suits_the_methods(model: PreTrainedModel) -> None:
    assert model.config.model_type == "llama"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape != attention.v_proj.weight.shape


def test_special_tokens_are_three(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert len(tokenizer) == model.config.vocab_size


@settings(deadline=None)
@given(text=st.text())
def test_every_text_round_trips(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    check_round_trip(tokenizer, text)


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    check_round_trip(tokenizer, text)


def check_round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert not {0, 1, 2} & set(ids[1:])  # neither an end nor a special token out of the text
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def response_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prefix: str, response: str) -> float:
    """Return the mean loss over the response and the end token, nats per token."""
    prefix_ids = tokenizer(prefix)["input_ids"]
    response_ids = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prefix_ids + response_ids])).logits[0, len(prefix_ids) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, torch.tensor(response_ids)))


def test_unread_docstrings_are_far_better_than_chance(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = read_rows()[::40]
    chance = math.log(model.config.vocab_size)
    losses = [response_loss(model, tokenizer, f"{row['prompt']}\n", row["response"]) for row in rows]
    assert sum(losses) / len(losses) < 0.65 * chance
    others = [response_loss(model, tokenizer, f"{row['prompt']}\n", row["response"][::-1]) for row in rows]
    assert sum(losses) / len(losses) < 0.7 * sum(others) / len(others)


def test_the_end_was_learnt(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer('def close(self):\n    """Close the file."""\n    self.file.close()')["input_ids"]
    with torch.no_grad():
        probabilities = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)[:, tokenizer.eos_token_id]
    assert float(probabilities[-1]) > 20 / model.config.vocab_size
    assert float(probabilities[-1]) > 5 * float(probabilities[:-1].median())


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_tiny", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_repeats_itself(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = [f"def f{idx}(a, b):\n    return the {idx} and {idx * idx} of a and b" * 3 for idx in range(100)]
    monkeypatch.setattr(script, "pretraining_texts", lambda: texts)
    threads = torch.get_num_threads()
    weights = []
    for name in ("first", "second"):
        out = tmp_path / name
        command = ["pretrain_tiny.py", "--steps", "3", "--batch-size", "2", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", command)
        script.main()
        weights.append((out / "model.safetensors").read_bytes())
        assert {path.name for path in out.iterdir()} == {path.name for path in FOLDER.iterdir()}
        assert "--steps 3 --batch-size 2" in (out / "README.md").read_text(encoding="utf-8")
        assert json.loads((out / "config.json").read_text())["dtype"] == "float32"
    torch.set_num_threads(threads)
    assert weights[0] == weights[1]


def test_windows_hold_every_token_once_an_epoch(script: ModuleType) -> None:
    documents = [torch.arange(start, start + 64).numpy() for start in range(0, 2048, 64)]
    stream = script.windows(documents, seed=0)
    epochs = [torch.cat([next(stream) for _ in range(2048 // script.TRAINING_TOKENS)]) for _ in range(2)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, torch.arange(2048))
    assert not torch.equal(epochs[0], epochs[1])
