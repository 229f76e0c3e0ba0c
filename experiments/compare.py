"""The file behind `fedlit compare`, for `fabric run`, torchrun and sbatch, which start files."""

import sys

from fedlit.commands.compare import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
