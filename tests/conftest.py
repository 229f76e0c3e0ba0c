"""Fixtures of all tests: one CPU thread, the packaged tokenizer, a random Llama smaller still, the shared folder."""

import copy
import gc
import os
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from nightly import is_nightly
from torch import nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fedlit.client.host import ModelHost
from fedlit.client.steps import ClientModule, LocalSteps
from fedlit.client.trainers.serial import SerialTrainer
from fedlit.config import DataConfig, EvalConfig, LocalConfig, MethodConfig, RunConfig
from fedlit.data import pydoc
from fedlit.data.collation import Example
from fedlit.methods import build_method
from fedlit.models import PACKAGED, PROJECTIONS
from fedlit.process.memory import keep_freed_memory
from fedlit.seeding import torch_stream
from fedlit.tasks.causal_lm.task import CausalLM

SHARED = Path(__file__).parents[2] / "shared"
SEED = 11
VERBS = ("close", "read", "write", "merge", "sort", "open the", "compare", "send", "parse", "split", "join", "copy")

gc.disable()  # imports and collection make objects that stay; until they are all there, looking for waste is waste


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """From here on look for waste among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before those that are marked slow are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs nightly. Begin with the tests that wait for SLURM's clocks: at the end they would keep one worker
    alone.
    """
    for item in items:
        if is_nightly(item.nodeid.removeprefix("tests/")):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: "slurm" not in item.keywords)


@pytest.fixture(scope="session", autouse=True)
def fast_allocator() -> None:
    """As in a run: a third of the suite's time would be page faults."""
    keep_freed_memory()


@pytest.fixture(scope="session", autouse=True)
def rows_of_the_standard_library() -> Iterator[None]:
    """Parse this interpreter's own files once in a process, for they stay the same; every caller gets its own rows."""
    read, root, found = pydoc.read_rows, sysconfig.get_path("stdlib"), list[list[dict[str, str]]]()

    def read_once() -> list[dict[str, str]]:
        if sysconfig.get_path("stdlib") != root:
            return read()
        if not found:
            found.append(read())
        return copy.deepcopy(found[0])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pydoc, "read_rows", read_once)
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The number of threads changes the bits of a matrix product."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_rendezvous_is_left() -> Iterator[None]:
    """Fabric leaves the port of a run in this process's environment, where the next test's processes would meet."""
    yield
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real data sets and pretrained models beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("there is no folder `shared` beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(PACKAGED["tiny"])


@pytest.fixture(scope="session")
def small_llama() -> Callable[..., LlamaForCausalLM]:
    """A frozen random Llama of 2 layers; q (32, 24), k and v (16, 24), o (24, 32): no square projection."""

    def build(seed: int = 0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
        config = LlamaConfig(
            vocab_size=2048,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=256,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
        return model.to(dtype).requires_grad_(False)

    return build


@pytest.fixture(scope="session")
def make_task(tokenizer: Any) -> Callable[..., CausalLM]:
    def build(loss_on: str = "response", max_length_tokens: int = 64, given: Any = None, **evaluation: Any) -> CausalLM:
        return CausalLM(
            tokenizer=given or tokenizer,
            data=DataConfig(),
            eval=EvalConfig(**evaluation),
            max_length_tokens=max_length_tokens,
            loss_on=loss_on,
        )

    return build


@pytest.fixture(scope="session")
def rows() -> list[dict[str, str]]:
    """Prompts and responses of unequal lengths."""
    return [
        {
            "prompt": f"def f{i}({', '.join('abcdef'[: i % 6])}):",
            "response": f"Return {verb} {i}" + " or more" * (i % 4),
        }
        for i, verb in enumerate(VERBS)
    ]


@pytest.fixture(scope="session")
def examples(make_task: Callable[..., CausalLM], rows: list[dict[str, str]]) -> list[Example]:
    return make_task().encode(rows)


@pytest.fixture(scope="session")
def fabric() -> Fabric:
    """One process without a group: what a client needs of Fabric is its precision and its backward."""
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def make_trainer(
    fabric: Fabric, small_llama: Callable[..., nn.Module], make_task: Callable[..., CausalLM]
) -> Callable[..., SerialTrainer]:
    """Return a function that builds a trainer of one method on the small Llama; other names are local.*."""

    def build(
        method: str = "fedit",
        options: dict[str, Any] | None = None,
        optimizer: str | None = None,
        task: Any = None,
        precision: Any = None,
        **local: Any,
    ) -> SerialTrainer:
        settings = LocalConfig(**{"steps": 3, "batch_size": 4, "lr": 0.05, **local})
        options = {"lora_rank": 2, "lora_alpha": 3.0, "target_modules": "attention", **(options or {})}
        parts = build_method(
            RunConfig(method=MethodConfig(name=method, optimizer=optimizer, options=options), local=settings)
        )
        model = small_llama()
        with torch_stream(SEED, "adapter"):
            parts.adapter.attach(model, PROJECTIONS["llama"])
        host = ModelHost(model, parts, parts.adapter.layers(model))
        module = ClientModule(model, task or make_task(), parts, host.trained)
        own_fabric = Fabric(accelerator="cpu", devices=1, precision=precision) if precision else fabric
        return SerialTrainer(
            host=host,
            module=module,
            steps=LocalSteps(fabric=own_fabric, module=module, local=settings),
            local=settings,
            seed=SEED,
            num_rounds=5,
            parts=parts.parts,
        )

    return build


@pytest.fixture(scope="module", autouse=True)
def few_open_files() -> Iterator[None]:
    """Let go of what earlier federations hold open: beyond a thousand files `select`, which terminals need, fails."""
    yield
    if sum(1 for _ in Path("/proc/self/fd").iterdir()) > 200:
        gc.collect()
