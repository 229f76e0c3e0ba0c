"""Record what a checkout makes of many small runs, and compare two such records: the guard of a change that may not
move a bit.

    python tests/bits.py record before.json            # in the checkout as it was
    python tests/bits.py record after.json [CASE ...]  # in the changed one
    python tests/bits.py compare before.json after.json

Recorded are, for every recipe of the table and the variations of tests/e2e/test_every_recipe.py and of MORE, the
SHA-256 of every file of the result and the records without their times. Both sides must run on one machine: bits differ
between processors and versions of torch.
"""

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

E2E = Path(__file__).resolve().parent / "e2e"
IMAGES = ["data=digits", "model=vit-small", "data.sample=200", "eval.max_examples=20", "num_rounds=2"]
# What the end-to-end variations leave out: other steps, other weights, heads.
MORE = {
    "fedit-prox-accumulate": ["method=fedit", "local.prox_mu=0.1", "local.accumulate=2", "method.weighting=uniform"],
    "fedit-linear-warmup": ["method=fedit", "local.schedule=linear", "local.warmup=0.5", "local.steps=4"],
    "fedit-epochs-clip": ["method=fedit", "local.epochs=1", "local.steps=null", "local.max_grad_norm=0.1"],
    "fedit-cosine-keep": ["method=fedit", "local.schedule=cosine", "local.steps=2", "local.optimizer_state=keep"],
    "fedex_lora-residual": ["method=fedex_lora", "method.residual_rank=2", "cohort_size=2"],
    "fedsvd-every": ["method=fedsvd", "method.svd_every=2", "cohort_size=2"],
    "scl-pooled": ["method=scl", "method.pooled=true"],
    "fedit-own": ["method=fedit", "eval.on=both", "eval.patience=2", "eval.choose_on=test"],
    "fedsa_lora-own-best": ["method=fedsa_lora", "eval.on=both", "run.result=best", "eval.choose_on=test"],
    "vit-fedex_lora": ["method=fedex_lora", *IMAGES],
    "vit-flora": ["method=flora", *IMAGES],
    "vit-private-head": ["method=fedit", "method.private_head=true", *IMAGES],
}
NOT_OF_TEXT = ("data=", "partition.min_test_rows", "eval.max_new_tokens")


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, E2E / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def record(out: Path, only: list[str], num_processes: int) -> None:
    """Run every case and write what came out."""
    sys.path.insert(0, str(E2E.parent))
    conftest, cases = _load("conftest"), _load("test_every_recipe")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in cases.ROWS))
        zygote = conftest.Zygote(Path(folder))
        try:
            for name, words in {**cases.CASES, **MORE}.items():
                if only and name not in only:
                    continue
                image = "data=digits" in words
                own = {word.split("=")[0] for word in words}
                defaults = [word for word in cases.TINY if word.split("=")[0] not in own]
                defaults = [word for word in defaults if not (image and word.startswith(NOT_OF_TEXT))]
                arguments = [*defaults, *words, *([] if image else [f"data.path={rows}"])]
                zygote.run(name, *arguments, num_processes=num_processes)
                found[name] = _outcome(Path(folder) / name)
                print(name, flush=True)
        finally:
            zygote.close()
    out.write_text(json.dumps(found))


def _outcome(run: Path) -> dict[str, Any]:
    paths = sorted(path for path in (run / "adapter").rglob("*") if path.is_file())
    files = {str(path.relative_to(run)): _digest(path) for path in paths}
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "files": files,
        "records": [{key: value for key, value in one.items() if not key.startswith("time/")} for one in records],
    }


def _digest(path: Path) -> str:
    data = path.read_bytes()
    if path.name == "adapter_config.json":  # names the folder of the packaged backbone, which lies in the checkout
        data = json.dumps({**json.loads(data), "base_model_name_or_path": None}, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def compare(before: Path, after: Path) -> int:
    """Print each case as equal, or what changed in it; return the number of changed ones."""
    old, new = json.loads(before.read_text()), json.loads(after.read_text())
    changed = 0
    for name in old.keys() & new.keys():
        told = [f"file {file}" for file in _different(old[name]["files"], new[name]["files"])]
        keys: dict[str, float] = {}
        for left, right in zip(old[name]["records"], new[name]["records"], strict=False):
            for key in _different(left, right):
                keys[key] = max(keys.get(key, 0.0), _relative(left.get(key), right.get(key)))
        told += [f"{key} ({relative:.1e})" for key, relative in sorted(keys.items())]
        if len(old[name]["records"]) != len(new[name]["records"]):
            told.append("number of records")
        changed += bool(told)
        print(f"{name}: {'equal' if not told else '; '.join(told)}")
    alone = sorted(old.keys() ^ new.keys())
    print(f"{len(old.keys() & new.keys()) - changed} equal, {changed} changed; only in one: {alone}")
    return changed


def _different(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _relative(left: Any, right: Any) -> float:
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        return float("inf")
    return abs(left - right) / max(abs(left), abs(right), 1e-300)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument("case", nargs="*")
    recording.add_argument("--processes", type=int, default=1)
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.command == "record":
        record(asked.file, asked.case, asked.processes)
        return 0
    return min(1, compare(asked.before, asked.after))


if __name__ == "__main__":
    sys.exit(main())
