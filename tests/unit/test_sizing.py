"""What a run will take, for every task and method, of models that this machine could not hold."""

from pathlib import Path

import pytest

from fedlit.config import load_config
from fedlit.inputs import Inputs
from fedlit.partition.shards import Shard
from fedlit.planning import Plan, make_plan
from fedlit.sizing import Sizes, describe_sizes, measure

PUBLISHED = Path(__file__).parents[1] / "published_configs"
TASKS = {"roberta-base": "sequence_classification", "siglip": "image_classification", "vit": "image_classification"}


def plan(model: str, *options: str) -> Plan:
    """Return three clients of ten rows each on a published model."""
    config = load_config([f"model={model}", *options])
    if model != "tiny":
        config.model.path, config.model.tokenizer = str(PUBLISHED / model), "tiny"
    config.data.task = TASKS.get(model, "causal_lm")
    classes = ("glioma", "meningioma", "pituitary") if model in TASKS else ()
    rows = [{"prompt": "a", "response": "b"}] * 33
    shards = [
        Shard(client_id=client, train=tuple(range(11 * client, 11 * client + 10)), test=(11 * client + 10,))
        for client in range(3)
    ]
    return make_plan(Inputs(config=config, rows=rows, shards=shards, classes=classes))


def sizes(model: str, *options: str) -> Sizes:
    return measure(plan(model, *options))


@pytest.mark.parametrize("model", ["tinyllama", "gpt2", "roberta-base", "siglip", "vit"])
@pytest.mark.parametrize("method", ["fedit", "scl method.compression_dim=9", "fedftg", "fed_sb"])
def test_every_task_and_method_has_its_lines(model: str, method: str) -> None:
    name, *options = method.split()
    if name == "fedftg" and model == "tinyllama":
        options.append("compute.precision=bf16-mixed")
    lines = describe_sizes(plan(model, f"method={name}", *options), num_processes=2)
    assert lines[0].startswith(f"{name} of {model} on ")
    assert lines[1].endswith("3 in a round; 2 + 1 on 2 devices")
    headings = [line.split()[0] for line in lines[1:]]
    assert headings[:5] == ["clients", "rows", "parameters", "traffic", "memory"]
    assert headings[5:] == ["note"] * (model in ("tinyllama", "gpt2", "roberta-base")), "the tokenizer is another's"


def test_the_head_is_among_what_is_trained_and_sent() -> None:
    found = sizes("roberta-base", "method=fedit", "method.lora_rank=4", "method.target_modules=[query,value]")
    head = 768 * 768 + 768 + 3 * 768 + 3
    assert found.num_trainable == found.num_shared == 147_456 + head
    assert found.uplink_bytes == found.downlink_bytes == 4 * (147_456 + head)
    assert found.num_frozen == 124_055_040
    private = sizes("roberta-base", "method=fedit", "method.private_head=true")
    assert private.num_private == head


def test_activations_go_by_what_is_read() -> None:
    """Tokens of a text, patches of an image; a vocabulary for language models alone."""
    layer = 12 * 768 + 5 * 3072
    row = 4 * 8  # float32, batches of eight
    assert sizes("siglip").memory_bytes["activations"] == row * 196 * 12 * layer
    assert sizes("vit").memory_bytes["activations"] == row * 196 * 12 * layer
    assert sizes("roberta-base").memory_bytes["activations"] == row * 512 * 12 * layer
    assert sizes("gpt2").memory_bytes["activations"] == row * 128 * (12 * layer + 3 * 50257)
    checkpoints = sizes("gpt2", "model.gradient_checkpointing=true").memory_bytes["activations"]
    assert checkpoints == row * 128 * (layer + 11 * 768 + 3 * 50257)


def test_a_backbone_in_4_bits_counts_as_such() -> None:
    """On a machine without CUDA too; LoRA's factors, norms and the embedding keep their type."""
    whole, small = (sizes("mistral-7b", *options) for options in ((), ("model.quantization=nf4",)))
    in_blocks = 7_241_732_096 - 2 * 32_000 * 4096 - 65 * 4096
    assert whole.memory_bytes["weights"] == 2 * 7_241_732_096 + 4 * whole.num_trainable
    saved = whole.memory_bytes["weights"] - small.memory_bytes["weights"]
    assert saved == pytest.approx(in_blocks * (2 - 4.127 / 8), rel=1e-4)
    assert small.num_trainable == whole.num_trainable
    assert small.num_frozen == whole.num_frozen == 7_241_732_096


def test_what_a_dry_run_says_is_what_the_tensors_are() -> None:
    found = sizes("tinyllama", "method=fedit", "method.target_modules=qkv", "method.lora_rank=8")
    assert (found.num_trainable, found.num_frozen) == (1_531_904, 1_100_048_384)
    assert found.memory_bytes["gradients"] == 4 * 1_531_904
    assert found.memory_bytes["optimizer"] == 8 * 1_531_904


@pytest.mark.parametrize(
    ("num_rounds", "square", "flat"), [(2, 2 * 24 * 4096, 2 * 24 * 2304), (60, 2048**2, 256 * 2048)]
)
def test_what_is_folded_grows_to_a_dense_matrix_at_most(num_rounds: int, square: int, flat: int) -> None:
    """Three clients of rank 8 on q (2048, 2048), k and v (256, 2048) of 22 layers, beside what FedIT's server holds."""
    words = ["method.target_modules=qkv", "method.lora_rank=8", f"num_rounds={num_rounds}"]
    plain, folding = (sizes("tinyllama", f"method={name}", *words) for name in ("fedit", "fedex_lora"))
    grown = folding.memory_bytes["server"] - plain.memory_bytes["server"]
    assert grown == 4 * 22 * (square + 2 * flat)
