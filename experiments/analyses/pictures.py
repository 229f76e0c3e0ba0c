"""Copies the pictures of docs/explanation/analyses.md from folders that `fedlit analyse` has written, with few colours:

python pictures.py runs/medquad/analyses runs/local_steps/analyses
"""

import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs" / "explanation"
NAMES = (
    "deviation-rounds",
    "deviation-steps",
    "rank-rounds",
    "subspaces",
    "norms",
    "excess_risk",
    "forgetting",
    "initialisation",
)
NUM_COLOURS = 48


def main(folders: list[Path]) -> None:
    """Take each picture from the last folder that has it."""
    for name in NAMES:
        source = [path for folder in folders if (path := folder / f"{name}.png").is_file()][-1]
        target = DOCS / f"analyses_{name.replace('-', '_')}.png"
        with Image.open(source) as image:
            image.convert("RGB").quantize(NUM_COLOURS).save(target, optimize=True)
        print(f"{target.name} {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
