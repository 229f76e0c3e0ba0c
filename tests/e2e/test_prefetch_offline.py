"""The command against a hub on loopback: what it fetches is all that a run without a network reads."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SCRIPT, SMALL, environment, merge
from datasets import Dataset
from fake_hub import FakeHub, fake_hub

from fedlit.models import PACKAGED

PREFETCH = REPOSITORY / "experiments" / "prefetch.py"
MODEL = ["model=hf", "model.path=nobody/small-llama"]
DATA = ["data.source=hub", "data.hub_id=nobody/Rows", "data.hub_test_split=test"]


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A repository of the packaged model with other frameworks' files in it, and one of rows in parquet files."""
    model = tmp_path / "hub" / "models" / "nobody" / "small-llama"
    shutil.copytree(PACKAGED["tiny"], model, ignore=shutil.ignore_patterns("README.md"))
    for name in ("pytorch_model.bin", "tf_model.h5", "consolidated.safetensors", "onnx/model.onnx"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(bytes(100))
    data = tmp_path / "hub" / "datasets" / "nobody" / "Rows"
    data.mkdir(parents=True)
    (data / "README.md").write_text("---\nlicense: mit\n---\n")
    for split, num in (("train", 40), ("test", 12)):
        rows = [{"prompt": f"def f{i}():", "response": f"Return {i}", "label": "ab"[i % 2]} for i in range(num)]
        Dataset.from_list(rows).to_parquet(data / f"{split}.parquet")
    return tmp_path / "hub"


def run(words: list[str], hub: FakeHub, home: Path, script: Path = PREFETCH, **more: str) -> tuple[int, str, str]:
    variables = {k: v for k, v in environment().items() if not k.startswith("HF_")}
    variables |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(
        [sys.executable, str(script), *words], env=variables, capture_output=True, text=True, check=False, timeout=240
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_run_reads_what_was_fetched_and_asks_for_no_more(hub_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with fake_hub(hub_folder) as hub:
        code, out, err = run([*MODEL, *DATA, "--dry-run"], hub, home)
        assert code == 0, err
        assert not [path for path in hub.downloads if not path.endswith("README.md")]
        assert [line.split()[2] for line in out.splitlines()[:2]] == ["missing", "missing"]

        code, out, err = run([*MODEL, *DATA], hub, home)
        assert code == 0, err
        model_files = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
        wanted = [f"nobody/small-llama/{name}" for name in (*model_files, "tokenizer_config.json")]
        wanted += [f"datasets/nobody/Rows/{name}.parquet" for name in ("test", "train")]
        assert {path for path in hub.downloads if not path.endswith("README.md")} == {
            path.replace("/resolve/main", "") for path in wanted
        }
        lines = out.splitlines()
        for line in lines[:2]:
            assert line.split()[2] == "downloaded"
            assert Path(line.split()[-1]).is_dir()
        assert f"HF_HOME={home} HF_HUB_OFFLINE=1" in lines[-2]
        assert lines[-1] == str(home)

        hub.requests.clear()
        code, out, err = run([*MODEL, *DATA], hub, home)
        assert code == 0, err
        assert hub.downloads == []
        assert [line.split()[2] for line in out.splitlines()[:2]] == ["present", "present"]

        hub.requests.clear()
        words = merge(SMALL, [*MODEL, *DATA, "num_rounds=1", f"run.dir={tmp_path}", "run.name=offline"])
        code, _, err = run(words, hub, home, script=SCRIPT, HF_HUB_OFFLINE="1")
        assert code == 0, err
        assert hub.requests == []
        assert (tmp_path / "offline" / "metrics.jsonl").read_text().count("\n") == 2


def test_what_the_hub_refuses_is_one_line_with_its_remedy(hub_folder: Path, tmp_path: Path) -> None:
    """One process asks for all, for the sake of its imports; nothing listens on the last endpoint."""
    shutil.copytree(hub_folder / "models/nobody/small-llama", hub_folder / "models/nobody/gated")
    shutil.copytree(hub_folder / "datasets/nobody/Rows", hub_folder / "datasets/nobody/Gated")
    shutil.copytree(hub_folder / "models/nobody/small-llama", hub_folder / "models/nobody/empty")
    (hub_folder / "models/nobody/empty/model.safetensors").unlink()
    (hub_folder / "models/nobody/empty/pytorch_model.bin").unlink()
    asked = [
        (["model=hf", "model.path=nobody/gated"], "model nobody/gated is gated; accept its licence at https://hugging"),
        (["data.source=hub", "data.hub_id=nobody/Gated"], "data set nobody/Gated is gated; accept its licence"),
        (["model=hf", "model.path=nobody/nothing"], "the hub shows no model nobody/nothing to you; check the name"),
        (["data.source=hub", "data.hub_id=nobody/nothing"], "the hub shows no data set nobody/nothing to you;"),
        (["model=hf", "model.path=nobody/empty"], "model nobody/empty has neither model.safetensors nor"),
        ([*DATA, "data.hub_split=trian"], "Unknown split"),
    ]
    script = tmp_path / "ask.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(PREFETCH.parent)!r})\nfrom prefetch import main\n"
        f"for words in {[words for words, _ in asked]!r}: print(main(words))\n"
    )
    with fake_hub(hub_folder, gated=("nobody/gated", "nobody/Gated")) as hub:
        _, out, err = run([], hub, tmp_path / "home", script=script, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert out.split() == ["2"] * len(asked), err
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    for line, (_, message) in zip(errors, asked, strict=True):
        assert message in line

    code, _, err = run(MODEL, hub, tmp_path / "home")  # it has closed
    assert (code, err.count("\n")) == (2, 1)
    assert "the hub cannot be reached for model nobody/small-llama" in err
    code, _, err = run(MODEL, hub, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert (code, err) == (
        2,
        "error: HF_HUB_OFFLINE forbids the look-up of model nobody/small-llama; unset it on the login node\n",
    )
