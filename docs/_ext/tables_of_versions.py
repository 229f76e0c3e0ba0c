"""The tested versions, from `pyproject.toml` and `constraints.txt`."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from markdown import code, table

ROOT = Path(__file__).parents[2]

PURPOSES = {
    "torch": "tensors, training, process groups",
    "lightning": "Lightning Fabric: devices, precision, `fabric run`",
    "transformers": "backbones, tokenizers, generation",
    "peft": "form of the exported adapter, and its loading",
    "datasets": "data sets of the hub, parquet and arrow files",
    "torchmetrics": "base class of the scores",
    "wandb": "logger",
    "omegaconf": "checks of types in the configuration",
    "galore-torch": "GaLore (`fedftg`)",
    "pyyaml": "YAML files",
    "numpy": "streams that deal rows",
    "safetensors": "files of tensors",
    "nltk": "stems and tokens of scores, METEOR without WordNet",
    "rapidfuzz": "longest common subsequence of ROUGE-L",
    "regex": "words of texts in any script",
    "sacrebleu": "BLEU and its tokens",
    "scikit-learn": "`data=digits`, `partition.name=topics`",
    "scipy": "significance tests of a report",
    "threadpoolctl": "one thread for scikit-learn",
    "pillow": "images",
    "rich": "console",
    "matplotlib": "figures",
    "plotly": "the page of a sweep",
    "jinja2": "chat templates",
    "tensorboard": "logger",
    "wandb-workspaces": "`fedlit page --wandb`",
    "dp-accounting": "epsilon, and the noise that fits one (`privacy.unit`)",
    "cryptography": "keys and masks of `privacy.secure_aggregation=true`",
    "pycocoevalcap": "the score `meteor_15`; needs a Java runtime",
    "sphinx": "this site",
    "furo": "this site",
    "myst-nb": "this site",
    "sphinx-copybutton": "this site",
    "sphinx-design": "this site",
    "latex2mathml": "this site: formulas",
    "pytest": "tests",
    "pytest-xdist": "tests in several processes",
    "hypothesis": "tests of properties",
    "rouge-score": "tests: an independent ROUGE-L",
    "ruff": "lint",
    "mypy": "types",
    "build": "the wheel",
    "hatchling": "the wheel",
}


def requirements() -> Iterator[tuple[str, str, str]]:
    """Yield the extra ('' for none), the package and the versions that are allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in groups.items():
        for line in lines:
            match = re.fullmatch(r"([A-Za-z0-9_.-]+)([<>=!~].*)?", line)
            if match:  # another extra of fedlit's own is none
                yield extra, match[1], match[2] or ""


def tested() -> dict[str, str]:
    """Return the versions of `constraints.txt` by package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    return {_plain(name): number for name, number in pairs}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions() -> str:
    """Return the table of packages."""
    found = tested()
    rows = [
        (
            code(name),
            allowed.replace("<", "\\<"),
            found.get(_plain(name), "not tested"),
            code(extra) if extra else "",
            PURPOSES[name],
        )
        for extra, name, allowed in requirements()
    ]
    return table(("package", "allowed", "tested", "extra", "what for"), rows, "versions")
