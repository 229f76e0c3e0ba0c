"""`python -m fedlit` is the command `fedlit`."""

import sys

from fedlit.cli import main

if __name__ == "__main__":
    sys.exit(main())
