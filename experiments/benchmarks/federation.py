"""A whole federation against a bare two-process loop: `python experiments/benchmarks/federation.py`, four minutes.

On both sides two processes on loopback, one thread each, train LoRA factors on all seven projections of a random Llama
with AdamW (fused); the clients' rows have the same tokens, 30 % of them labelled, none is padding.

fedlit: `fedlit run` as a person starts it, under torchrun's variables: rows from a file, tokenised by fedlit, records,
status and a checkpoint every round, its console. Loggers are off, and evaluation is put off to rounds that do not come
(`eval.every`, `analysis=[]`): the bare loop has neither.

Bare: what a competent person writes without a harness (bare_federation.py). peft's `get_peft_model`, the model called
with `labels`, which computes all logits, a new fused AdamW for each client, `loss.item()` a step. Each process takes
every second client, loads the server's factors, trains, and adds the weighted change to one flat float32 vector, which
one all-reduce sums at the end of the round. Its rows are tokenised before it starts. It keeps nothing on the disk,
checks nothing, records nothing.

Each side is measured in processes of its own, as they are used, and takes turns with the other within one process tree:
a turn is one round. The first two rounds of each are not counted, which leaves start-up out; of the others the ratio is
the median over the pairs of their CPU seconds, of all threads of both processes. The null control is the bare loop
against itself. A second bare loop has torch's own choice of AdamW, which goes over the tensors one by one, to show how
much the optimizer is; it has no target. That both sides do the same work is seen from the number of trained parameters
and from the losses, which must agree to 5 %: the models differ in their random weights.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from federation_inputs import Shape, write_model, write_rows
from lines import Line, add_arguments, tell
from paired_timing import Elapsed, interleave, median, median_interval
from turns import Side

HERE = Path(__file__).resolve().parent
NUM_WARM = 2
"""Rounds before the first that counts."""
PLAIN = "bare, AdamW not fused"

FEW = Shape(hidden=256, layers=8, rank=128, clients=4, steps=8, batch_size=4, num_tokens=128, rows=32)
MANY = Shape(hidden=256, layers=4, rank=8, clients=64, steps=1, batch_size=1, num_tokens=32, rows=4)
QUICK = Shape(hidden=64, layers=2, rank=4, clients=4, steps=2, batch_size=1, num_tokens=16, rows=4)


def words(folder: Path, shape: Shape, name: str, options: Sequence[str]) -> list[str]:
    """Return the words of `fedlit run`; its run is called `name`."""
    return [
        "data=jsonl",
        f"data.path={folder / 'rows.jsonl'}",
        f"data.test_path={folder / 'test.jsonl'}",
        "data.label=null",
        "partition.name=natural",
        "partition.column=client",
        f"model.path={folder / 'model'}",
        "model.weights=random",
        "model.name=random-llama",
        "method=fedit",
        "method.target_modules=all",
        f"method.lora_rank={shape.rank}",
        f"num_clients={shape.clients}",
        "num_rounds=1000000",
        f"local.steps={shape.steps}",
        f"local.batch_size={shape.batch_size}",
        f"local.lr={shape.lr}",
        "eval.every=1000000",
        "eval.max_new_tokens=1",
        "analysis=[]",
        "logging.loggers=[]",
        "compute.accelerator=cpu",
        f"run.dir={folder / 'runs'}",
        f"run.name={run_folder(folder, name).name}",
        *options,
    ]


def run_folder(folder: Path, name: str) -> Path:
    """Return where the run of a side of fedlit's lies."""
    return folder / "runs" / name.replace("=", "-")


class Federations:
    """Both sides of one shape, started."""

    def __init__(self, folder: Path, shape: Shape, options: Mapping[str, Sequence[str]], *, plain: bool) -> None:
        self._folder, self._shape = folder, shape
        (folder / "model").mkdir(parents=True)
        write_rows(folder, shape, write_model(folder / "model", shape))
        script = str(HERE / "federation.py")
        given = {field: getattr(shape, field) for field in ("rank", "steps", "batch_size", "lr")}
        self.sides: dict[str, Side] = {}
        try:
            for name, fused in {"bare": True, **({PLAIN: None} if plain else {})}.items():
                told = {"folder": str(folder), "shape": {**given, "fused": fused}}
                self._start(name, [script, "--worker", "bare", json.dumps(told)])
            for name, more in options.items():
                asked = words(folder, shape, name, more)
                self._start(name, [script, "--worker", "fedlit", json.dumps(asked)])
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, words: Sequence[str]) -> None:
        side = self.sides[name] = Side(words, 2, self._folder / f"{name.replace(' ', '-')}.log")
        for _ in range(NUM_WARM):
            side.turn()
        side.parts.clear()

    def measure(self, num_pairs: int) -> dict[str, list[Elapsed]]:
        """Return the turns of every side, and of the null control."""
        turns = {name: side.turn for name, side in self.sides.items()}
        return interleave({**turns, "null": self.sides["bare"].turn}, num_pairs, seed=0)

    def require_same_work(self, name: str) -> None:
        """Stop where a side of fedlit's trains other numbers than the bare loop, or has other losses."""
        records = run_folder(self._folder, name) / "metrics.jsonl"
        last = json.loads(records.read_text().splitlines()[-1])
        losses = [value for key, value in last.items() if key.startswith("client/") and key.endswith("/train_loss")]
        bare = self.sides["bare"].parts[-1]
        trained = last["communication/uplink_bytes"] / 4 / self._shape.clients
        assert trained == round(bare["trained"]) == self._shape.trained, (trained, bare, self._shape.trained)
        loss = sum(losses) / len(losses)
        assert abs(loss / bare["loss"] - 1) < 0.05, f"losses {loss}, {bare['loss']}: the sides do different work"

    def close(self) -> None:
        """End all processes."""
        for side in self.sides.values():
            side.close()


def ratio_line(
    what: str, turns: Mapping[str, Sequence[Elapsed]], side: str, note: str, target: float | None = None
) -> Line:
    """Return the line of a side over the bare loop, by CPU time; wall time stands in the note."""
    ratios = {
        clock: [
            getattr(mine, clock) / getattr(bare, clock) for mine, bare in zip(turns[side], turns["bare"], strict=True)
        ]
        for clock in ("cpu_s", "wall_s")
    }
    null = [one.cpu_s / other.cpu_s for one, other in zip(turns["null"], turns["bare"], strict=True)]
    seconds = {name: median([turn.cpu_s for turn in turns[name]]) for name in ("bare", side)}
    return Line(
        what=what,
        value=median(ratios["cpu_s"]),
        interval=median_interval(ratios["cpu_s"]),
        null=median(null),
        target=target,
        note=f"{seconds[side]:.3f} over {seconds['bare']:.3f} s of CPU a round; by the clock "
        f"{median(ratios['wall_s']):.2f}; {note}",
    )


def shares(parts: Sequence[Mapping[str, float]], turns: Sequence[Elapsed]) -> str:
    """Return what part of a round's CPU time its pieces take, in words."""
    total = sum(turn.cpu_s for turn in turns)
    names = dict.fromkeys(name for part in parts for name in part)
    spent = {name: sum(part.get(name, 0.0) for part in parts) / total for name in names}
    return "of it " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in sorted(spent.items()))


def measure(
    name: str,
    shape: Shape,
    target: float,
    num_pairs: int,
    options: Mapping[str, tuple[Sequence[str], float]] | None = None,
    *,
    plain: bool = False,
) -> list[Line]:
    """Return the lines of one shape.

    options: by a name that is told, further words of `fedlit run` and the target of such a run. plain: also tell of the
    bare loop without the fused optimizer.
    """
    asked: dict[str, Sequence[str]] = {"fedlit": [], **{key: more for key, (more, _) in (options or {}).items()}}
    targets = {"fedlit": target, **{key: goal for key, (_, goal) in (options or {}).items()}}
    size, lines = f"{shape.trained / 1e6:.2f} M trained", []
    with tempfile.TemporaryDirectory() as folder:
        federations = Federations(Path(folder), shape, asked, plain=plain)
        try:
            turns = federations.measure(num_pairs)
        finally:
            federations.close()
        for side in asked:
            federations.require_same_work(side)
            what = name if side == "fedlit" else f"{name}, {side}"
            share = shares(federations.sides[side].parts, turns[side])
            lines.append(ratio_line(what, turns, side, f"{size}; {share}", targets[side]))
    return [*lines, ratio_line(f"{name}: the bare loop, AdamW not fused", turns, PLAIN, size)] if plain else lines


def known_options(words: Sequence[str]) -> bool:
    """Tell whether this version of fedlit takes these options."""
    from fedlit.config.loading import resolve_words  # noqa: PLC0415
    from fedlit.errors import UserError  # noqa: PLC0415

    try:
        resolve_words([*words])
    except UserError:
        return False
    return True


def main() -> int:
    """Measure both shapes."""
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], json.loads(sys.argv[3]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=10, help="rounds of each side that count (default: 10)")
    parser.add_argument("--only", choices=("few", "many"), help="one of the two shapes")
    add_arguments(parser)
    given = parser.parse_args()
    few, many, pairs = (QUICK, QUICK, 2) if given.quick else (FEW, MANY, given.pairs)
    lines: list[Line] = []
    if given.only != "many":
        name = f"a whole federation, {few.clients} clients x {few.steps} steps of {few.batch_size} x {few.num_tokens}"
        lines += measure(name, few, 1.0, pairs if given.quick else min(pairs, 6))
    if given.only != "few":
        name = f"many tiny clients, {many.clients} x {many.steps} step of {many.batch_size} x {many.num_tokens}"
        together = ["local.clients_per_batch=8"]
        options = {"clients_per_batch=8": (together, 0.6)} if known_options(together) else {}
        if not options:
            print("this version does not know local.clients_per_batch: its line is left out")
        lines += measure(name, many, 0.8, pairs, options, plain=True)
    tell("federation", lines, given)
    return 0


def worker(side: str, given: object) -> int:
    """Be one process of a side."""
    if side == "bare":
        import bare_federation  # noqa: PLC0415  torch and peft, which the other side starts by itself

        assert isinstance(given, dict)
        bare_federation.main(Path(given["folder"]), given["shape"])
    else:
        import fedlit_federation  # noqa: PLC0415

        assert isinstance(given, list)
        fedlit_federation.main(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
