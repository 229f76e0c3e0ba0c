"""The file behind `fedlit run`, for `fabric run`, torchrun and srun, which start files."""

import sys

from fedlit.commands.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
