"""METEOR 1.5: what is missing is told before anything is read, and no Java program is waited for or left behind.

A script stands in for Java here; its numbers are compared where Java and pycocoevalcap are installed.
"""

import gzip
import json
import math
import os
import shutil
import stat
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from fedlit.config import load_config
from fedlit.errors import UserError
from fedlit.inputs import gather_inputs
from fedlit.metrics import meteor_jar
from fedlit.metrics.meteor_15 import Meteor15
from fedlit.process import communication

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")

# Answers as METEOR does, with the share of equal words for a score, and tokenizes by splitting at spaces.
JAVA = """#!{python}
import os, sys, time
open("{folder}/pids", "a").write(f"{{os.getpid()}}\\n")
open("{folder}/arguments", "a").write(" ".join(sys.argv[1:]) + "\\n")
mode = open("{folder}/mode").read()
if sys.argv[1] == "-version":
    sys.exit(3 if mode == "broken" else 0)
if "-cp" in sys.argv:
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line.lower().replace(b".", b" ."))
    sys.exit(0)
scores = []
for line in sys.stdin:
    kind, *parts = [part.strip() for part in line.split("|||")]
    if mode == "hang":
        time.sleep(60)
    if mode == "dies":
        print("OutOfMemoryError", file=sys.stderr)
        sys.exit(1)
    if mode == "talks":
        print("Error: what is this?", flush=True)
    elif kind == "SCORE":
        scores.append(max(float(part == parts[-1]) for part in parts[:-1]))
        print(scores[-1], flush=True)
    else:
        assert parts == [str(score) for score in scores]
        print(*scores, sum(scores) / len(scores), sep="\\n", flush=True)
"""


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a script called java first on the path, and files where the package's would be."""
    folder = tmp_path / "java"
    folder.mkdir()
    script = folder / "java"
    script.write_text(JAVA.format(python=sys.executable, folder=folder))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (folder / "mode").write_text("well")
    (folder / "jar").touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(meteor_jar, "_file", lambda name: folder / "jar")
    return folder


def score(predictions: list[str], references: list[list[str]]) -> float:
    metric = Meteor15()
    metric.update(predictions, references)
    return float(metric.compute().item())


def gone(folder: Path) -> bool:
    """Tell whether none of the programs that were started is there any more."""
    pids = [int(line) for line in (folder / "pids").read_text().split()]
    assert pids
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_score(java: Path) -> None:
    texts, references = ["A b.", "c ||| \u2028 d", ""], [["x", "a b."], ["c d"], ["e"]]
    assert score(texts, references) == pytest.approx(2 / 3)
    assert score(texts[::-1], references[::-1]) == pytest.approx(2 / 3)
    assert math.isnan(Meteor15().compute().item())
    tokenizer, meteor = (java / "arguments").read_text().splitlines()[:2]
    assert "-preserveLines -lowerCase -encoding UTF-8" in tokenizer
    assert meteor.endswith("- - -stdio -l en -norm")
    assert "-Dfile.encoding=UTF-8" in meteor
    assert gone(java)


@pytest.mark.parametrize("mode", ["dies", "talks", "hang"])
def test_a_program_that_fails_is_told_and_gone(java: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_jar, "TIMEOUT_S", 2.0)
    (java / "mode").write_text(mode)
    began_s = time.monotonic()
    with pytest.raises(UserError) as caught:
        score(["a"] * 5000, [["a"]] * 5000)
    message = str(caught.value)
    assert message.startswith("meteor_15: METEOR gave no score (")
    assert ("OutOfMemoryError" in message) == (mode == "dies")
    assert "\n" not in message
    assert len(message) <= 400
    assert time.monotonic() - began_s < 30
    assert gone(java)


def test_every_process_hears_of_it(java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 0 computes; another one starts no program and takes what process 0 says."""
    monkeypatch.setattr(communication, "process_index", lambda: 1)
    monkeypatch.setattr(communication, "gather_objects", lambda value: [0.25, value])
    assert score(["a"], [["a"]]) == 0.25
    monkeypatch.setattr(communication, "gather_objects", lambda value: ["meteor_15: no score", value])
    with pytest.raises(UserError, match="meteor_15: no score"):
        score(["a"], [["a"]])
    assert not (java / "pids").exists()


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("package", ["pycocoevalcap", "fedlit[meteor]"]),
        ("jar", ["meteor/meteor-1.5.jar", "fedlit[meteor]"]),
        ("java", ["there is no java", "install a Java runtime"]),
        ("broken", ["`java -version` ends with code 3"]),
    ],
)
def test_what_is_missing_is_told_before_a_row_is_read(
    java: Path, what: str, parts: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def absent(name: str) -> Path:
        raise PackageNotFoundError

    if what == "package":
        monkeypatch.setattr(meteor_jar, "_file", absent)
    elif what == "jar":
        (java / "jar").unlink()
    elif what == "java":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        (java / "mode").write_text("broken")
    (tmp_path / "rows.jsonl").write_text("no JSON\n")
    config = load_config(
        ["data=jsonl", f"data.path={tmp_path}/rows.jsonl", "data.scores=[rouge_l,meteor_15]", f"run.dir={tmp_path}"]
    )
    with pytest.raises(UserError) as caught:
        gather_inputs(config)
    message = str(caught.value)
    assert all(part in message for part in ["data.scores", "meteor_15", *parts]), message
    assert "\n" not in message
    assert len(message) <= 400


def installed() -> bool:
    try:
        distribution("pycocoevalcap")
    except PackageNotFoundError:
        return False
    return shutil.which("java") is not None


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="needs pycocoevalcap and a Java runtime")
def test_the_numbers_of_the_caption_evaluation(shared_folder: Path) -> None:
    """Recorded from pycocoevalcap 1.2 with its own tokenizer; 0.4563 is what all inputs of the test set have."""
    meteor_jar.require_meteor()
    inputs: dict[int, list[str]] = {}
    with gzip.open(shared_folder / "data" / "e2e_nlg" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            inputs.setdefault(row["mr_id"], []).append(row["ref"])
    pairs = [(texts[0], texts[1:]) for texts in inputs.values() if len(texts) > 1][:100]
    expected = score([text for text, _ in pairs], [references for _, references in pairs])
    assert expected == pytest.approx(0.46473321200082296, rel=1e-12)
    turned = pairs[::-1]
    assert score([text for text, _ in turned], [references for _, references in turned]) == expected
    scripts = ["naïve café", "你好世界", "Привет, мир!", "สวัสดี", "नमस्ते दुनिया"]
    assert score(scripts, [[text] for text in scripts]) == 1.0
    assert score(["", "..."], [["a dog"], ["a dog"]]) == 0.0
