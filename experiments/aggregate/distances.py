"""How far each rule of `fedlit aggregate` is from the mean of the effective changes, and how far anything must be.

Adapters of plain peft (train.py) are aggregated by the command line, every result is loaded by peft again, and what it
adds to each weight is compared with the mean of what the adapters add, densely and in float64. The least distance of a
rank is that of the dense SVD (Eckart and Young), whatever has that rank.

    python distances.py --out results            # both layouts, both sets of adapters: two minutes on one core
"""

import argparse
import copy
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from train import backbone, parsed, train

from fedlit.cli import main as fedlit

WEIGHTS = (3, 2, 1)
ADAPTERS = {
    "mixed": (["--rank=4"], ["--rank=8", "--rslora"], ["--rank=16"]),
    "rslora first": (["--rank=8", "--rslora"], ["--rank=4"], ["--rank=16"]),
    "equal": (["--rank=8"], ["--rank=8"], ["--rank=8"]),
}
RULES = {
    "flexlora": ("--rank=4",),
    "flexlora 8": ("--rank=8",),
    "flexlora 16": (),
    "flora": (),
    "hetlora": (),
    "fedit": (),
    "fedex": (),
    "lora_fair": (),
    "fedrot": (),
    "fedrot b": ("--align=b",),
}
"""Rules with their options, by a name that begins with the rule's."""
OF_PEFT = {"cat": {}, "svd": {"svd_rank": 8}, "linear": {}}
"""Ways of peft's own `add_weighted_adapter`."""
COLUMNS = ("layout", "adapters", "by", "rule", "options", "rank", "distance", "least", "beyond", "told")


def changes(folder: Path, model: Any) -> dict[str, np.ndarray]:
    """Return what peft adds to every weight when it merges an adapter, in float64."""
    exact = copy.deepcopy(model).double()
    return merged_changes(PeftModel.from_pretrained(exact, folder, autocast_adapter_dtype=False), model)


def merged_changes(tuned: Any, model: Any) -> dict[str, np.ndarray]:
    """Return what the active adapter of a model adds to every weight, in float64."""
    merged = dict(tuned.double().merge_and_unload().named_parameters())
    own = dict(model.named_parameters())
    return {
        name: (merged[name].data - weight.data.double()).numpy()
        for name, weight in own.items()
        if not torch.equal(merged[name].data, weight.data.double())
    }


def distance(given: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """Return the relative Frobenius norm of the difference over all layers."""
    missed = np.sqrt(sum(np.square(given.get(name, 0.0) - each).sum() for name, each in wanted.items()))
    return float(missed / np.sqrt(sum(np.square(each).sum() for each in wanted.values())))


def least(wanted: dict[str, np.ndarray], rank: int) -> float:
    """Return the least distance that matrices of this rank can have, from the dense singular values."""
    values = [np.linalg.svd(each, compute_uv=False) for each in wanted.values()]
    cut = sum(np.square(each[rank:]).sum() for each in values)
    return float(np.sqrt(cut / sum(np.square(each).sum() for each in values)))


def by_peft(folders: Sequence[Path], model: Any, way: str) -> dict[str, np.ndarray]:
    """Return what `add_weighted_adapter` makes of the adapters.

    Raises:
        ValueError: it cannot, as with different ranks.
    """
    names = [folder.name for folder in folders]
    exact = copy.deepcopy(model).double()
    tuned = PeftModel.from_pretrained(exact, folders[0], adapter_name=names[0], autocast_adapter_dtype=False)
    for name, folder in zip(names[1:], folders[1:], strict=True):
        tuned.load_adapter(folder, name, autocast_adapter_dtype=False)
    shares = [weight / sum(WEIGHTS) for weight in WEIGHTS]
    tuned.double().add_weighted_adapter(names, shares, "mean", combination_type=way, **OF_PEFT[way])
    tuned.set_adapter("mean")
    return merged_changes(tuned, model)


def rows(layout: str, adapters: str, root: Path) -> list[dict[str, object]]:
    """Train, aggregate by every rule, and measure each result that there is."""
    model = backbone(layout)
    folders = []
    for number, words in enumerate(ADAPTERS[adapters]):
        folders.append(root / f"site-{number}")
        train(folders[-1], parsed([str(folders[-1]), f"--backbone={layout}", f"--seed={number + 1}", *words]))
    own = [changes(folder, model) for folder in folders]
    shares = np.asarray(WEIGHTS) / sum(WEIGHTS)
    wanted = {name: sum(share * each[name] for share, each in zip(shares, own, strict=True)) for name in own[0]}
    base = {"layout": Path(layout).name, "adapters": adapters}
    made: list[dict[str, object]] = []
    for number, (name, options) in enumerate(RULES.items()):
        out, rule = root / f"out-{number}", name.split()[0]
        words = [*map(str, folders), f"--rule={rule}", f"--weights={','.join(map(str, WEIGHTS))}", f"--out={out}"]
        refused = fedlit(["aggregate", *words, *options])
        told = {"told": "refused: equal ranks and scalings only"} if refused else measured(changes(out, model), wanted)
        made.append({**base, "by": "fedlit", "rule": rule, "options": " ".join(options), **told})
    for way, sizes in OF_PEFT.items():
        try:
            told = measured(by_peft(folders, model, way), wanted)
        except ValueError as error:
            told = {"told": f"refused: {error}"}
        made.append(
            {**base, "by": "peft", "rule": way, "options": " ".join(f"{k}={v}" for k, v in sizes.items()), **told}
        )
    return made


def measured(given: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, object]:
    """Return the rank and the distance of a result, and the least distance of that rank."""
    rank = max(int(np.linalg.matrix_rank(each, rtol=1e-6)) for each in given.values())
    found, best = distance(given, wanted), least(wanted, rank)
    return {"rank": rank, "distance": f"{found:.8f}", "least": f"{best:.8f}", "beyond": f"{found - best:.1e}"}


def main(words: Sequence[str] | None = None) -> None:
    """Write distances.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--layouts", nargs="+", default=["gpt2", "llama"], help="gpt2, llama, folders of models")
    options = parser.parse_args(words)
    table = []
    for layout in options.layouts:
        for adapters in ADAPTERS:
            with tempfile.TemporaryDirectory() as root:
                table += rows(layout, adapters, Path(root))
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "distances.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
