"""Every method side by side on one data set and model: a table in Markdown.

    python experiments/compare.py data=medquad data.path=medquad.jsonl.gz model=hf model.path=stories260k

All arguments but --methods, --lrs, --devices and --jobs are those of federate.py and hold for every run. A run that is
there already is taken up, so the same command goes on after an interruption. With several learning rates every method
shows the one with the lowest loss after the last round, on the rows that are scored: a comparison of tuned methods, not
of tuned methods on unseen rows.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedlit.analysis.comparison import Result, markdown, read_records, summarize
from fedlit.config import CONFIG_DIR, load_config
from fedlit.config.record import load_yaml, run_folder
from fedlit.errors import UserError

SCRIPT = Path(__file__).with_name("federate.py")
METHODS = sorted(path.stem for path in (CONFIG_DIR / "method").glob("*.yaml"))


def main() -> int:
    """Run what is missing, print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas between them (default: all)")
    parser.add_argument("--lrs", default="", help="learning rates with commas between them (default: local.lr)")
    parser.add_argument("--devices", type=int, default=1, help="processes of one run (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--output", type=Path, help="file for the table, besides the console")
    options, overrides = parser.parse_known_args()
    lrs = options.lrs.split(",") if options.lrs else [""]
    try:
        cells = {
            (method, lr): [f"method={method}", *overrides, *([f"local.lr={lr}"] if lr else [])]
            for method in options.methods.split(",")
            for lr in lrs
        }
        folders = {cell: _folder(cell, arguments) for cell, arguments in cells.items()}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(_run, arguments, folders[cell], options.devices) for cell, arguments in cells.items()]
        failed = [problem for run in runs if (problem := run.result())]
    for problem in failed:
        print(problem, file=sys.stderr)
    table = markdown(_results(folders))
    print(table)
    if options.output:
        options.output.write_text(table, encoding="utf-8")
    return 1 if failed else 0


def _folder(cell: tuple[str, str], arguments: list[str]) -> Path:
    """Return the run folder of a cell; its name has the learning rate in it."""
    return run_folder(load_config(arguments)).with_name("-".join(filter(None, cell)))


def _run(arguments: list[str], folder: Path, devices: int) -> str | None:
    """Run one federation to its end, its console in the run folder's place plus `.log`; return what went wrong."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    launcher = [str(Path(sys.executable).with_name("fabric")), "run", "--accelerator=cpu", f"--devices={devices}"]
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [*launcher, str(SCRIPT), *arguments, f"run.name={folder.name}"],
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return None if done.returncode == 0 else f"{folder.name} ended with exit code {done.returncode}; see {log}"


def _results(folders: dict[tuple[str, str], Path]) -> list[Result]:
    """Return a line for the untrained model, and one for each method with the learning rate that served it best."""
    results: dict[str, Result] = {}
    for (method, _), folder in folders.items():
        if not (folder / "metrics.jsonl").exists():
            continue
        records = read_records(folder)
        result = summarize(method, records, _lr(folder))
        if records[-1]["round"] == 0 or not result.scores:
            continue
        if method not in results or result.scores["global/loss"] < results[method].scores["global/loss"]:
            results[method] = result
        # Methods that change the model when they are set up have another round 0.
        if method == "fedit":
            results.setdefault("zero-shot", summarize("zero-shot", records[:1], None))
    return sorted(results.values(), key=lambda result: result.scores["global/loss"])


def _lr(folder: Path) -> float:
    return load_yaml((folder / "config.yaml").read_text(encoding="utf-8")).local.lr


if __name__ == "__main__":
    sys.exit(main())
