"""Counts what the fuzzer's cases do, as a table, with one small case for every way in which they break the contract.

python tests/fuzz/count.py --minutes 5 --seed 0 [--areas rows,scripts]
"""

import argparse
import os
import sys

from areas import AREAS
from runner import Runner
from search import count


def main(words: list[str]) -> int:
    """Search each area for its share of the time and print what was seen; 1 if a case breaks the contract."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--areas", default=",".join(AREAS))
    options = parser.parse_args(words)
    areas = options.areas.split(",")
    with Runner() as runner:
        counts = count(runner, areas, first_seed=options.seed, seconds=60 * options.minutes)
        print(counts.table())
        print(counts.cases(runner))
    return int(bool(counts.smallest))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
