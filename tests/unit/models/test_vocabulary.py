"""What a tokenizer says is held against what its model has, before anything is trained and without weights too."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from small_encoders import purpose_of, write_folder
from torch import nn
from transformers import AutoTokenizer, BertTokenizer, LlamaConfig, LlamaForCausalLM

from fedlit.assembly import assemble
from fedlit.config import ModelConfig, load_config
from fedlit.errors import UserError
from fedlit.inputs import Inputs
from fedlit.models import PACKAGED, Backbone, load_backbone
from fedlit.models.vocabulary import foreign_signs
from fedlit.partition.shards import Shard
from fedlit.planning import make_plan, rehearse
from fedlit.sizing import describe_sizes
from fedlit.tasks.causal_lm.task import CausalLM

PUBLISHED = Path(__file__).parents[2] / "published_configs"


def write(folder: Path, num_rows: int, tokenizer: Any, **given: Any) -> Path:
    """Write a random Llama with so many rows in its embedding."""
    config = LlamaConfig(
        vocab_size=num_rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **given},
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fresh() -> Any:
    return AutoTokenizer.from_pretrained(PACKAGED["tiny"])


def load(folder: Path, *, weights: bool = True, **given: Any) -> Backbone:
    return load_backbone(ModelConfig(path=str(folder), max_length_tokens=32, **given), weights=weights)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("num_rows", [2047, 1024, 3])
def test_a_tokenizer_beyond_the_embedding_is_refused(num_rows: int, weights: bool, tmp_path: Path) -> None:
    """Such an id ends in an IndexError, on a GPU in an assertion of the device."""
    folder = write(tmp_path, num_rows, fresh())
    with pytest.raises(UserError) as caught:
        load(folder, weights=weights)
    message = str(caught.value)
    assert message.startswith(f"the tokenizer of model.path={folder} has 2048 tokens, among them ")
    assert f"with id {num_rows}, but the model's embedding has {num_rows} rows" in message
    assert "\n" not in message
    assert len(message) <= 400


def test_the_message_names_the_option_that_chose_the_tokenizer(tmp_path: Path) -> None:
    folder = write(tmp_path, 1024, fresh())
    with pytest.raises(UserError, match=r"^the tokenizer of model\.tokenizer=tiny has 2048 tokens"):
        load(folder, tokenizer="tiny")


def test_an_embedding_larger_than_the_tokenizer_is_fine(tmp_path: Path) -> None:
    assert load(write(tmp_path, 2304, fresh())).notices == ()


def padded_beyond(folder: Path, kind: str = "llama") -> Path:
    """Write a model whose tokenizer has a padding token that was added after the embedding."""
    words = fresh()
    words.add_special_tokens({"pad_token": "[PAD]"})
    assert words.pad_token_id == 2048
    return write(folder, 2048, words) if kind == "llama" else write_folder(kind, folder, words)


def test_padding_is_masked_and_stops_nobody(tmp_path: Path) -> None:
    """Its id is never looked up: another fills the rows of a batch."""
    backbone = load(padded_beyond(tmp_path))
    assert backbone.unwritten == {"[PAD]": 2048}
    assert any("'[PAD]' (id 2048) beyond the model's embedding" in notice for notice in backbone.notices)
    config = load_config(["data.template={prompt}"])
    task = CausalLM.build(config, backbone)
    rows = [{"prompt": "def f(x):", "response": "Return x"}, {"prompt": "def f(x, y, z):", "response": "Return them"}]
    batch = task.collate(task.encode(rows))
    assert (batch.token_ids[0, -3:] == 2).all()  # padded
    assert int(batch.token_ids.max()) < 2048
    loss = task.loss(backbone.model, batch)
    one = [task.loss(backbone.model, task.collate(task.encode([row]))) for row in rows]
    counts = [len(task.collate(task.encode([row])).label_ids) for row in rows]
    torch.testing.assert_close(loss, sum(x * n for x, n in zip(one, counts, strict=True)) / sum(counts))


@pytest.mark.parametrize("weights", [True, False])
def test_padding_beyond_the_embedding_in_config_json_stops_nobody(weights: bool, tmp_path: Path) -> None:
    """No embedding could be built with it."""
    folder = padded_beyond(tmp_path)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "pad_token_id": 2048}))
    model: Any = load(folder, weights=weights).model
    assert model.config.pad_token_id is None


def test_padding_of_a_classifier(tokenizer: Any, tmp_path: Path) -> None:
    folder = padded_beyond(tmp_path / "bert", "bert")
    backbone = load_backbone(ModelConfig(path=str(folder), max_length_tokens=32), purpose_of("bert"))
    assert backbone.tokenizer.pad_token_id is None
    assert backbone.unwritten == {"[PAD]": 2048}


def plan_of(folder: Path, prompt: str, *options: str) -> Any:
    config = load_config([f"model.path={folder}", "model.max_length_tokens=32", *options])
    rows = [{"prompt": "def g()", "response": "Do it", "note": "[PAD]"}, {"prompt": prompt, "response": "Do"}] * 2
    shard = Shard(client_id=0, train=(0, 1, 2), test=(3,))
    return make_plan(Inputs(config=config, rows=rows, shards=[shard]))


def test_a_text_that_holds_the_token_is_refused_before_it_is_drawn(tmp_path: Path) -> None:
    """Columns that nobody reads may hold it."""
    folder = padded_beyond(tmp_path)
    rehearse(plan_of(folder, "def f()"))
    for written in ("what is [PAD] for?", "what is [pad] for?"):
        for start in (rehearse, lambda plan: describe_sizes(plan, 1)):
            with pytest.raises(UserError, match=r"holds '\[PAD\]', a token of the tokenizer with id 2048"):
                start(plan_of(folder, written))
    with pytest.raises(UserError, match=r"the text '\[PAD\]\{prompt\}' holds"):
        rehearse(plan_of(folder, "def f()", "data.template=[PAD]{prompt}"))


def test_an_added_token_that_no_text_holds_stops_nobody(tmp_path: Path) -> None:
    words = fresh()
    words.add_tokens(["<|user|>", "<|model|>"])
    folder = write(tmp_path, 2048, words)
    assert load(folder).unwritten == {"<|user|>": 2048, "<|model|>": 2049}
    rehearse(plan_of(folder, "def f()"))
    with pytest.raises(UserError, match=r"holds '<\|user\|>'"):
        rehearse(plan_of(folder, "<|user|> def f()"))


@pytest.mark.parametrize("name", ["eos_token", "bos_token"])
def test_an_added_token_that_the_tokenizer_puts_itself_is_refused(name: str, tmp_path: Path) -> None:
    words = fresh()
    words.add_special_tokens({name: "<|new|>"})
    folder = write(tmp_path, 2048, words)
    with pytest.raises(UserError, match=r"has 2049 tokens, among them '<\|new\|>' with id 2048"):
        load(folder)


def test_the_token_for_what_is_not_known_is_read(tmp_path: Path) -> None:
    """Of a tokenizer that spells out bytes it is a name alone, which transformers gives it for some architectures."""
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[CLS]", "[SEP]", "a", "b"]))
    words = BertTokenizer(str(vocabulary), unk_token="[UNK]")
    assert words.unk_token_id == 5
    folder = write_folder("bert", tmp_path / "bert", words, vocab_size=5)
    with pytest.raises(UserError, match=r"'\[UNK\]' with id 5, but the model's embedding has 5 rows"):
        load_backbone(ModelConfig(path=str(folder), max_length_tokens=32), purpose_of("bert"))
    spelled = fresh()
    spelled.unk_token = "<|unknown|>"
    assert load(write(tmp_path / "llama", 2048, spelled)).tokenizer.unk_token_id == 2048


SPECIAL = {
    "tinyllama": (32000, 1, 2),
    "gemma-2b": (256000, 2, 1),
    "gemma-2-9b": (256000, 2, 1),
    "llama-3.2-3b": (128256, 128000, 128001),
    "mistral-7b": (32000, 1, 2),
    "gpt2": (50257, 50256, 50256),
    "roberta-base": (50265, 0, 2),
    "roberta-large": (50265, 0, 2),
    "bert-base": (30522, None, None),
}
"""Tokens, and ids of the beginning and the end of a text, of the published tokenizers."""
IMAGES = {"vit", "siglip"}


class Words(SimpleNamespace):
    """A tokenizer of so many tokens."""

    def __len__(self) -> int:
        return self.size


def signs_of(model: str, tokenizer: str) -> list[str]:
    described = json.loads((PUBLISHED / model / "config.json").read_text())
    size, begin, end = SPECIAL[tokenizer]
    words = Words(size=size, bos_token_id=begin, eos_token_id=end, pad_token_id=None)
    embedding = nn.Embedding(described["vocab_size"], 1, device="meta")
    both: Any = SimpleNamespace(get_input_embeddings=lambda: embedding, get_output_embeddings=lambda: None)
    return list(foreign_signs(words, both, described))


def test_no_published_tokenizer_raises_a_false_alarm() -> None:
    assert {path.name for path in PUBLISHED.iterdir() if path.is_dir()} == SPECIAL.keys() | IMAGES
    assert {name: signs_of(name, name) for name in SPECIAL} == {name: [] for name in SPECIAL}


@pytest.mark.parametrize(
    ("model", "tokenizer", "sign"),
    [
        ("llama-3.2-3b", "gpt2", "bos_token_id is 50256 in the tokenizer and 128000 in config.json"),
        ("gemma-2b", "tinyllama", "eos_token_id is 2 in the tokenizer and 1 in config.json"),
        ("gemma-2b", "tinyllama", "the tokenizer has 32,000 tokens and the embedding 256,000 rows"),
        ("gpt2", "tinyllama", "bos_token_id is 1 in the tokenizer and 50256 in config.json"),
        ("roberta-base", "gpt2", "eos_token_id is 50256 in the tokenizer and 2 in config.json"),
    ],
)
def test_the_tokenizer_of_another_published_model_is_told(model: str, tokenizer: str, sign: str) -> None:
    assert sign in signs_of(model, tokenizer)


def test_several_ends_of_a_text_are_all_the_models_own() -> None:
    embedding = nn.Embedding(2048, 1)
    model: Any = SimpleNamespace(get_input_embeddings=lambda: embedding, get_output_embeddings=lambda: None)
    for end, signs in ((7, 0), (8, 1)):
        words = Words(size=2048, bos_token_id=None, eos_token_id=end, pad_token_id=None)
        assert len(list(foreign_signs(words, model, {"bos_token_id": 1, "eos_token_id": [5, 7]}))) == signs


@pytest.mark.parametrize("weights", [True, False])
def test_the_shared_models_and_each_others_tokenizer(weights: bool, shared_folder: Path) -> None:
    """Both know their tokens by the same special ids, and 105 fit into 512."""
    stories, baby = (str(shared_folder / "models" / name) for name in ("stories260k", "babyllama105"))
    for path in (stories, baby):
        own = load_backbone(ModelConfig(path=path, max_length_tokens=64), weights=weights)
        assert own.notices == ()
        again = load_backbone(ModelConfig(path=path, tokenizer=path, max_length_tokens=64), weights=weights)
        assert again.notices == ()
    (notice,) = load_backbone(ModelConfig(path=stories, tokenizer=baby, max_length_tokens=64), weights=weights).notices
    assert notice.startswith(f"the tokenizer of model.tokenizer={baby} may be another model's: ")
    assert "105 tokens and the embedding 512 rows" in notice
    assert "in the model's own" in notice
    with pytest.raises(UserError, match="has 512 tokens"):
        load_backbone(ModelConfig(path=baby, tokenizer=stories, max_length_tokens=64), weights=weights)


def shuffled(folder: Path) -> Path:
    """Write a tokenizer of the same size and special ids, in which two words have changed places."""
    fresh().save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [token for token, number in vocabulary.items() if number in (500, 501)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_a_tokenizer_of_the_same_size_in_which_an_id_means_another_word(tokenizer: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", 2048, tokenizer)
    other = str(shuffled(tmp_path / "other"))
    (notice,) = load(folder, tokenizer=other).notices
    assert f"model.tokenizer={other} may be another model's: id 500 is " in notice


def test_with_random_weights_every_vocabulary_is_as_good(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", 8192, fresh(), eos_token_id=7)
    assert len(load(folder).notices) == 1
    assert load(folder, weights=False, tokenizer="tiny").notices != ()
    assert load_backbone(ModelConfig(path=str(folder), weights="random", max_length_tokens=32)).notices == ()


def test_a_dry_run_tells_what_a_run_tells(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", 8192, fresh())
    (notice,) = load(folder).notices
    plan = plan_of(folder, "def f()", f"run.dir={tmp_path}", "num_clients=1", "eval.max_new_tokens=4")
    assert describe_sizes(plan, 1)[-1] == f"  note       {notice}"
    _, summary = assemble(plan, Fabric(accelerator="cpu", devices=1))
    assert summary.notices == (notice,)
