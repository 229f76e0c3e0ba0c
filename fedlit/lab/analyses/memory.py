"""What a client's device holds: weights, gradients, optimizer, activations, of the runs and of the papers' models.

Mahla, Jadhav and Ramakrishnan, arXiv 2410.23111, appendix: FedFTG takes about 20 GB, LoRA methods 14.2 GB, on an RTX
A6000. Model, sequence length and GaLore's rank are not said there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedlit.errors import UserError
from fedlit.inputs import Inputs
from fedlit.lab.analyses.base import Analysis, Findings, Run, Table, by_label
from fedlit.lab.analyses.paper_models import GEMMA_2B, TINYLLAMA, PaperModel
from fedlit.lab.analysis.column import Bars, Panel, Picture
from fedlit.outside.loading import load_plugins
from fedlit.partition.shards import Shard
from fedlit.planning import make_plan
from fedlit.sizing import measure

PURPOSES = ("weights", "gradients", "optimizer", "activations", "server")
PUBLISHED_GB: Mapping[str, float] = {"fedftg": 20.0, "LoRA": 14.2}
NUM_TOKENS = 512
"""Longest row in FedFTG's released code; the paper gives none."""
RANK = 8
GALORE_RANK = 16
"""In FedFTG's released code, which never hands it to the optimizer; the paper gives none."""
_FLOAT = 4


def paper_memory(model: PaperModel, method: str, *, num_tokens: int = NUM_TOKENS) -> dict[str, int]:
    """Return bytes by purpose of one row in float32 under `LoRA` (rank 8 on query, key and value, AdamW), `fedftg` (the
    up projections with GaLore of rank 16) or `fedftg, AdamW` (as its released code trains).

    GaLore keeps two moments (r, m) and a projector (n, r) of a gradient (m, n) or its transpose, the larger side being
    m: 2 m r + n r numbers. Activations are those of `fedlit.sizing`: 12 h + 5 m a token and block, and 3 V a token.
    """
    if method == "LoRA":
        trained = model.lora("query, key, value", RANK)
        moments = 2 * trained
    else:
        trained = model.blocks * model.up.num_out * model.up.num_in
        small, large = sorted(model.up)
        projected = model.blocks * GALORE_RANK * (2 * large + small)
        moments = 2 * trained if method.endswith("AdamW") else projected
    block = 12 * model.hidden + 5 * model.width
    return {
        "weights": _FLOAT * (model.total + (trained if method == "LoRA" else 0)),
        "gradients": _FLOAT * trained,
        "optimizer": _FLOAT * moments,
        "activations": _FLOAT * num_tokens * (model.blocks * block + 3 * model.vocabulary),
    }


class Memory(Analysis):
    """Bytes by purpose of every run, and the published ones beside counts from shapes."""

    name = "memory"
    title = "Memory of a client's device"
    source = "arXiv 2410.23111 (FedFTG), appendix, dataset preparation"

    def findings(self, runs: Sequence[Run]) -> Findings:
        """Return the runs' sizes as `dry_run=true` has them, and the papers' models."""
        sizes: dict[str, dict[str, int]] = {}
        notes = [_NOTE]
        for label, repeats in by_label(runs).items():
            try:
                sizes[label] = run_memory(repeats[0])
            except (UserError, OSError) as error:
                notes.append(f"Not of {label}: {error}.")
        tables, pictures = [_papers_table()], []
        if sizes:
            tables.insert(0, _table(sizes))
            parts = {purpose: [found.get(purpose, 0) / 1e6 for found in sizes.values()] for purpose in PURPOSES}
            panel = Panel(x="memory (MB)", y="", bars=Bars(rows=list(sizes), parts=parts))
            height = 0.55 + 0.16 * len(sizes)
            caption = "Bytes of one device by purpose, computed from shapes; activations are estimated."
            pictures = [Picture(name="memory", caption=caption, panels=[panel], height=height)]
        return Findings(tables=tables, pictures=pictures, notes=notes)


_NOTE = (
    "Bytes are counted from shapes; activations are an estimate (12 h + 5 m values a token and block, three of the "
    "vocabulary's size a token). What a CUDA device really held is not in the record of these runs."
)


def run_memory(run: Run) -> dict[str, int]:
    """Return bytes by purpose of a run, from its configuration and the shapes of its model.

    Raises:
        UserError: the model is not there any more.
    """
    load_plugins(run.config.plugins)
    sizes = run.shard_sizes() or [1] * run.config.num_clients
    starts = [sum(sizes[:client]) for client in range(len(sizes))]
    shards = [
        Shard(client_id=client, train=tuple(range(start, start + size)), test=())
        for client, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]
    classes = tuple(run.config.data.classes or ())
    return dict(measure(make_plan(Inputs(config=run.config, rows=[], shards=shards, classes=classes))).memory_bytes)


def _table(sizes: Mapping[str, Mapping[str, int]]) -> Table:
    rows: list[dict[str, Any]] = [
        {"setting": label}
        | {f"{purpose} (MB)": found.get(purpose, 0) / 1e6 for purpose in PURPOSES}
        | {"total (MB)": sum(found.values()) / 1e6}
        for label, found in sizes.items()
    ]
    return Table(name="memory", caption="Memory of one device.", columns=tuple(rows[0]), rows=rows)


def _papers_table() -> Table:
    rows: list[dict[str, Any]] = []
    for model in (TINYLLAMA, GEMMA_2B):
        for method in ("LoRA", "fedftg", "fedftg, AdamW"):
            found = paper_memory(model, method)
            rows.append(
                {"model": model.name, "method": method}
                | {f"{purpose} (GB)": size / 1e9 for purpose, size in found.items()}
                | {"total (GB)": sum(found.values()) / 1e9}
                | {"published (GB)": PUBLISHED_GB[method.split(",")[0]]}
            )
    caption = (
        f"The papers' models at one row of {NUM_TOKENS} tokens in float32, beside the published numbers, of which the "
        "paper does not say the model."
    )
    return Table(name="memory_published", caption=caption, columns=tuple(rows[0]), rows=rows)
