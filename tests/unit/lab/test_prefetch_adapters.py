"""What is fetched for a run that starts from an adapter: the adapter, and the base that it stands on."""

import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from fedlit.errors import UserError
from fedlit.lab.prefetch import HubModel, LocalPath, base_need, needs_of, run_configs
from fedlit.lab.prefetch.hub import model_files


def adapter(folder: Path, base: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": base}))
    return folder


def needs(folder: Path) -> list[object]:
    return list(needs_of(run_configs(["model=hf", f"model.path={folder}"])))


def test_the_base_of_a_local_adapter(tmp_path: Path) -> None:
    one = adapter(tmp_path / "one", "owner/base")
    assert needs(one) == [LocalPath("model.path", str(one)), HubModel("owner/base", weights=True)]
    (tmp_path / "its_base").mkdir()
    adapter(one, "../its_base")
    assert needs(one)[1] == LocalPath("model.path (base)", str((one / "../its_base").absolute()))
    assert needs(adapter(one, "tiny")) == [LocalPath("model.path", str(one))]


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"an adapter over the base \./nowhere, which is no folder here; put it there"):
        needs(adapter(tmp_path / "one", "./nowhere"))


def test_the_files_of_an_adapter() -> None:
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "adapter_model.bin"]
    assert model_files(names, weights=True) == names[1:4]
    assert model_files(["config.json", "model.safetensors", "adapter_model.safetensors"], weights=True) == [
        "config.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize(
    ("base", "expected"), [("owner/base", HubModel("owner/base", True)), ("tiny", None), (None, "names no base")]
)
def test_the_base_of_an_adapter_of_the_hub(
    base: object, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter(tmp_path, base)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename="adapter_config.json")], sha="a" * 40)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(model_info=lambda _: info))
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda _repo, name, revision: str(tmp_path / name) if revision else None
    )
    need = HubModel("owner/adapter", weights=True)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            base_need(need)
        return
    assert base_need(need) == expected
    info.siblings = [SimpleNamespace(rfilename="config.json")]
    assert base_need(need) is None


def test_the_folder_of_many_clients_adapters_is_told(tmp_path: Path) -> None:
    adapter(tmp_path / "client-00000", "owner/base")
    with pytest.raises(UserError, match=r"holds an adapter of each client; give one, model\.path=.*/client-00000$"):
        needs(tmp_path)
