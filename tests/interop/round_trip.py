"""A result of fedlit on its way through other people's tools and back, with the loss on both sides of every joint.

    train (fedlit) -> merge, chat -> peft, transformers' pipeline, lm-eval -> train on (TRL) -> train on (fedlit)

Every loss is over the same rows: the mean negative log likelihood of all responses' tokens, those at their ends among
them, as fedlit's global/loss. `ours` is computed by this file from nothing but a model's logits.
One table tells both sides; a difference above the tolerance ends with exit code 1, a tool that is not installed is a
line that says so and exit code 0.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5
"""Relative, of two losses in float32."""
PROMPT = "Q: {prompt} A:"
"""Ends without a blank: lm-eval would count one as the response's."""
TRAIN = [{"prompt": f"{number} plus 1", "response": f" it is {number + 1}."} for number in range(24)]
TESTED = [{"prompt": f"{number} plus 2", "response": f" it is {number + 2}, of course."} for number in range(8)]
SETTINGS = [
    "method=fedit",
    "model=hf",
    "num_clients=2",
    "local.steps=4",
    "local.batch_size=4",
    "local.lr=0.01",
    "partition.name=iid",
    "data.label=null",
    f'data.template="{PROMPT}"',
    "eval.max_new_tokens=8",
    "eval.max_examples=null",
    "logging.wandb=disabled",
    "model.name=tiny",
]


@dataclass
class Table:
    """The joints, as they are found."""

    lines: list[tuple[str, str, str, str]] = field(default_factory=list)
    failed: bool = False

    def losses(self, joint: str, before: float, after: float, tolerance: float = TOLERANCE) -> None:
        """Hold two numbers that should be one against each other."""
        difference = abs(before - after) / max(abs(before), 1e-12)
        self._add(joint, f"{before:.8f}", f"{after:.8f}", difference <= tolerance, f"{difference:.1e}")

    def texts(self, joint: str, before: str, after: str) -> None:
        """Hold two texts against each other."""
        self._add(joint, repr(before)[:28], repr(after)[:28], before == after, "equal" if before == after else "differ")

    def skip(self, joint: str, reason: str) -> None:
        """Tell of a joint that was not looked at."""
        self.lines.append((joint, "-", "-", f"skipped: {reason}"))

    def _add(self, joint: str, before: str, after: str, good: bool, told: str) -> None:
        self.failed |= not good
        self.lines.append((joint, before, after, f"{told} {'ok' if good else 'FAILED'}"))

    def show(self) -> None:
        """Print all lines."""
        for line in [("joint", "before", "after", "difference"), *self.lines]:
            print(f"{line[0]:58}  {line[1]:>28}  {line[2]:>28}  {line[3]}")


def fedlit(*words: str) -> str:
    """Run a command of fedlit and return what it printed."""
    done = subprocess.run([sys.executable, "-m", "fedlit", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"fedlit {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def train(work: Path, name: str, model: Path, *words: str) -> list[dict[str, Any]]:
    """Run a federation and return its records."""
    where = [f"run.dir={work / 'runs'}", f"run.name={name}", f"model.path={model}"]
    rows = [f"data.path={work / 'train.jsonl'}", f"data.test_path={work / 'test.jsonl'}"]
    fedlit("run", *SETTINGS, *rows, *where, *words)
    lines = (work / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def row_losses(model: Any, tokenizer: Any, *, ended: bool = True) -> list[list[float]]:
    """Return the negative log likelihood of every token of every response, one row after the other, unpadded."""
    import torch  # noqa: PLC0415  the table is told without it
    from torch.nn import functional  # noqa: PLC0415

    losses = []
    for row in TESTED:
        prompt = tokenizer(PROMPT.format(**row))["input_ids"]
        response = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        ids = torch.tensor([*prompt, *response, *([tokenizer.eos_token_id] if ended else [])])
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1].float()
        losses.append(functional.cross_entropy(logits, ids[len(prompt) :], reduction="none").tolist())
    return losses


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def mean_of_tokens(losses: Sequence[Sequence[float]]) -> float:
    """Return the mean over all tokens: fedlit's global/loss, and the loss of one batch of all rows."""
    return mean([loss for row in losses for loss in row])


def greedy(pipe: Any, row: dict[str, str]) -> str:
    """Return what transformers' pipeline answers, as a person would call it."""
    [found] = pipe(PROMPT.format(**row), max_new_tokens=8, do_sample=False, return_full_text=False)
    return str(found["generated_text"]).strip()


def result_of_fedlit(work: Path, base: Path, table: Table) -> float:
    """Train, merge and ask; return the loss of the result."""
    records = train(work, "first", base, "num_rounds=2")
    fedlit("merge", str(work / "runs" / "first"))
    run = work / "runs" / "first"
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline  # noqa: PLC0415

    loss: float = records[-1]["global/loss"]
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run / "adapter").eval()
    whole = AutoModelForCausalLM.from_pretrained(run / "merged").eval()
    table.losses(
        "fedlit's last round | peft.PeftModel of its adapter", loss, mean_of_tokens(row_losses(adapted, tokenizer))
    )
    own = AutoTokenizer.from_pretrained(run / "merged")
    table.losses("fedlit's last round | its merged model in transformers", loss, mean_of_tokens(row_losses(whole, own)))
    row = TESTED[3]
    said = fedlit("chat", str(run), "--prompt", row["prompt"]).strip()
    table.texts(
        "fedlit chat | pipeline of the merged model",
        said,
        greedy(pipeline("text-generation", str(run / "merged")), row),
    )
    table.texts(
        "fedlit chat | pipeline of the adapter over its base",
        said,
        greedy(pipeline("text-generation", model=adapted.merge_and_unload(), tokenizer=tokenizer), row),
    )
    return loss


def lm_eval_reads(work: Path, base: Path, table: Table) -> None:
    """Ask lm-eval for the log likelihoods of a local task, over the adapter and over the merged model."""
    import lm_eval  # noqa: PLC0415
    from lm_eval.tasks import TaskManager  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    folder = work / "tasks"
    folder.mkdir()
    (folder / "joint.yaml").write_text(
        "task: joint\n"
        "dataset_path: json\n"
        "dataset_kwargs:\n"
        f"  data_files: {{test: {work / 'test.jsonl'}}}\n"
        "test_split: test\n"
        "output_type: loglikelihood\n"
        f'doc_to_text: "{PROMPT.replace("{", "{{").replace("}", "}}")}"\n'
        'doc_to_target: "{{response}}"\n'
        'target_delimiter: ""\n'
        "metric_list:\n"
        "  - metric: perplexity\n"
    )
    run = work / "runs" / "first"
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run / "adapter").eval()
    ours = [-sum(row) for row in row_losses(adapted, tokenizer, ended=False)]
    for what, arguments in (
        ("peft=the adapter", f"pretrained={base},peft={run / 'adapter'}"),
        ("the merged model", f"pretrained={run / 'merged'}"),
    ):
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args=f"{arguments},dtype=float32",
            tasks=["joint"],
            task_manager=TaskManager(include_path=str(folder)),
            device="cpu",
            batch_size=1,
            bootstrap_iters=0,
        )
        samples = sorted(found["samples"]["joint"], key=lambda sample: sample["doc_id"])
        theirs = [float(sample["resps"][0][0][0]) for sample in samples]
        table.losses(f"ours | lm-eval, {what}: log likelihoods", mean(ours), mean(theirs))
        table.losses(
            f"ours | lm-eval, {what}: the row that differs most",
            *max(zip(ours, theirs, strict=True), key=lambda pair: abs(pair[0] - pair[1])),
        )


def trl_trains_on(work: Path, base: Path, loss: float, table: Table) -> float:
    """Train the adapter for three steps in TRL; return its loss afterwards, as TRL evaluates it."""
    from datasets import Dataset  # noqa: PLC0415
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    # TRL puts the end-of-text token behind a completion as text, which must then be read as that token.
    tokenizer = AutoTokenizer.from_pretrained(base, split_special_tokens=False)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), work / "runs" / "first" / "adapter", is_trainable=True
    )
    rows = [{"prompt": PROMPT.format(**row), "completion": row["response"]} for row in TESTED]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(work / "sft"),
            per_device_train_batch_size=len(rows),
            per_device_eval_batch_size=len(rows),
            max_steps=3,
            learning_rate=1e-2,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            completion_only_loss=True,
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    table.losses("fedlit's last round | TRL before its first step", loss, trainer.evaluate()["eval_loss"])
    trainer.train()
    steps = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    table.losses("fedlit's last round | TRL's first training loss", loss, steps[0])
    after: float = trainer.evaluate()["eval_loss"]
    assert after < loss, f"TRL did not train: {loss} before, {after} after"
    trainer.save_model(str(work / "sft"))
    return after


def fedlit_goes_on(work: Path, base: Path, adapter: Path, what: str, loss: float, table: Table) -> None:
    """Continue in fedlit, and look once more with peft."""
    from peft import PeftModel  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    name = f"on-{adapter.name}"
    records = train(work, name, adapter, "num_rounds=1")
    table.losses(f"{what} | fedlit's round 0 from it", loss, records[0]["global/loss"])
    described = json.loads((work / "runs" / name / "adapter" / "adapter_config.json").read_text())
    table.texts("the base | the base that the new adapter names", str(base), described["base_model_name_or_path"])
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), work / "runs" / name / "adapter")
    again = mean_of_tokens(row_losses(adapted.eval(), AutoTokenizer.from_pretrained(base)))
    table.losses("fedlit's round 1 | peft.PeftModel of that", records[1]["global/loss"], again)


def main(work: Path) -> int:
    """Go the whole way and return the exit code."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for name, rows in (("train", TRAIN), ("test", TESTED)):
        (work / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    from fedlit.models import PACKAGED  # noqa: PLC0415

    base = work / "base"
    shutil.copytree(PACKAGED["tiny"], base)
    print(", ".join(f"{name} {version(name)}" for name in ("fedlit", "torch", "transformers", "peft")))
    table = Table()
    loss = result_of_fedlit(work, base, table)
    fedlit_goes_on(work, base, work / "runs" / "first" / "adapter", "fedlit's last round", loss, table)
    steps: list[tuple[str, str, Callable[[], None]]] = [
        ("lm_eval", "lm-eval", lambda: lm_eval_reads(work, base, table)),
        ("trl", "trl", lambda: through_trl(work, base, loss, table)),
    ]
    for module, package, step in steps:
        if find_spec(module) is None:
            table.skip(package, f"{package} is not installed; pip install -r tests/interop/requirements.txt")
            continue
        print(f"{package} {version(package)}")
        step()
    table.show()
    return 1 if table.failed else 0


def through_trl(work: Path, base: Path, loss: float, table: Table) -> None:
    """Train on in TRL, and then in fedlit."""
    after = trl_trains_on(work, base, loss, table)
    fedlit_goes_on(work, base, work / "sft", "TRL after its last step", after, table)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
