"""The statistics of `fedlit report` on tables whose truth is known: counts of what holds, a CSV file a question.

python simulate.py --tables 2000 --seed 0
python simulate.py --only coverage level
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from simulated_differences import Line, coverage, family, flip, level, pilot, power
from simulated_tables import shares

RESULTS = Path(__file__).resolve().parent / "results"

PARTS: dict[str, Callable[[int, int], list[Line]]] = {
    "coverage": coverage,
    "level": level,
    "family": family,
    "power": power,
    "pilot": pilot,
    "flip": flip,
    "shares": shares,
}


def write(path: Path, lines: Sequence[Line]) -> None:
    """Write lines with the same keys as a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def main(words: Sequence[str]) -> int:
    """Run the parts that were asked for, each into its file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", type=int, default=2000, help="for each case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV files")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args(words)
    for name in asked.only:
        start = time.process_time()
        write(asked.out / f"{name}.csv", PARTS[name](asked.tables, asked.seed))
        print(f"{name}: {time.process_time() - start:.0f} s of one core", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
