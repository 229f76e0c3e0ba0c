"""Whole runs in processes of their own, and what they use: peak memory, and CPU seconds of each round.

A run is `fedlit run` with a random Llama in a folder and rows of plain text, so that its evaluation is one loss.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from meter import proportional_bytes, tree
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from fedlit.models import PACKAGED

HERE = Path(__file__).resolve()
SAMPLE_S = 0.1
"""Between two looks at a run's memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A Llama in float32; heads are 64 wide, and the MLP is 8/3 as wide as the rest."""

    hidden: int = 256
    layers: int = 4

    def num_parameters(self) -> int:
        """Return the parameters of the frozen model, embeddings included."""
        return self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.width) + 2 * 2048 * self.hidden

    @property
    def width(self) -> int:
        """Of the MLP."""
        return self.hidden * 8 // 3

    def lora_parameters(self, rank: int) -> int:
        """Return those of LoRA on all seven projections of a layer."""
        return self.layers * rank * (4 * 2 * self.hidden + 3 * (self.hidden + self.width))

    def save(self, folder: Path) -> Path:
        """Write a random model of this shape with the packaged tokenizer and return its folder."""
        path = folder / f"llama-{self.hidden}-{self.layers}"
        if not path.is_dir():
            tokenizer = AutoTokenizer.from_pretrained(PACKAGED["tiny"])
            config = LlamaConfig(
                vocab_size=2048,
                hidden_size=self.hidden,
                intermediate_size=self.width,
                num_hidden_layers=self.layers,
                num_attention_heads=self.hidden // 64,
                max_position_embeddings=1024,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            torch.manual_seed(0)
            LlamaForCausalLM(config).save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path


def write_rows(folder: Path, num: int, num_words: int = 160) -> Path:
    """Write rows of random words, 2 to 4 tokens each, and return their file."""
    path = folder / f"rows-{num}-{num_words}.jsonl"
    if not path.is_file():
        draw = random.Random(num)
        words = ["".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5)) for _ in range(1000)]
        texts = (" ".join(draw.choices(words, k=num_words)) for _ in range(num))
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What a run used.

    peak_mb: proportional set size of all its processes together, the most that was seen. rounds: CPU seconds, seconds
    on the clock and memory of each round after the first record, by round number. seconds: of the whole run.
    """

    peak_mb: float
    seconds: float
    rounds: Mapping[int, Mapping[str, float]]

    def cpu_s_per_round(self, first: int = 2) -> float:
        """Return the mean CPU seconds of the rounds from `first` on: the first has what is made once."""
        numbers = [number for number in self.rounds if number >= first]
        return sum(self.rounds[number]["cpu_s"] for number in numbers) / len(numbers)


class RunFailed(Exception):
    """A run ended otherwise than well; the text is the end of what it said."""


def watched(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """Run a command in a folder and return (peak megabytes of its processes together, seconds).

    Raises:
        RunFailed: it ended with an error.
    """
    begun, peak = time.monotonic(), [0.0]
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT)
        done = threading.Event()

        def look() -> None:
            while not done.wait(SAMPLE_S):
                peak[0] = max(peak[0], sum(map(proportional_bytes, tree(process.pid))) / 1e6)

        looker = threading.Thread(target=look)
        looker.start()
        code = process.wait()
        done.set()
        looker.join()
        output.seek(0)
        if code:
            raise RunFailed(f"{' '.join(command)}: exit code {code}\n{output.read()[-2000:]}")
    return peak[0], time.monotonic() - begun


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a run finds this fedlit and this folder."""
    path = os.pathsep.join([str(HERE.parents[2]), str(HERE.parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **more}


def run(words: Sequence[str], model: Path, rows: Path, folder: Path) -> Used:
    """Run a federation on plain texts to its end and return what it used."""
    folder.mkdir(parents=True)
    log = folder / "meter.jsonl"
    common = [
        *("data=plain", f"data.path={rows}", f"data.test_path={write_rows(rows.parent, 5, 8)}"),
        *(f"model.path={model}", "model=hf", "method.target_modules=all", "partition.name=iid"),
        *("compute.accelerator=cpu", "eval.every=1000000", "eval.max_examples=4", "analysis=[]"),
        *("plugins=[meter]", "logging.loggers=[meter]", f"run.dir={folder}", "run.name=run"),
    ]
    command = [sys.executable, "-m", "fedlit", "run", *common, *words]
    peak_mb, seconds = watched(command, environment(METER=str(log)), folder)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    rounds = {}
    for before, after in pairwise(lines):
        used = {key: after[key] - before[key] for key in ("cpu_s", "wall_s")}
        rounds[after["round"]] = {**used, "pss_mb": after["pss_mb"]}
    return Used(peak_mb=peak_mb, seconds=seconds, rounds=rounds)
