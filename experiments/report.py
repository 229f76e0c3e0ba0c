"""The file behind `fedlit report`, for `fabric run`, torchrun and sbatch, which start files."""

import sys

from fedlit.commands.report import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
