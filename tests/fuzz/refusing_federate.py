"""Stands for experiments/federate.py where a command starts runs in processes of their own: those take ten seconds."""

import sys

if __name__ == "__main__":
    sys.stderr.write("error: a run that the fuzzer leaves out\n")
    sys.exit(2)
