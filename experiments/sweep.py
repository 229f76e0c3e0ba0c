"""The file behind `fedlit sweep`, for `fabric run`, torchrun and sbatch, which start files."""

import sys

from fedlit.commands.sweep import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
