"""Freed memory stays with the process: computing the same temporary again costs no new page faults."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
from fedlit.process.memory import keep_freed_memory
agreed = keep_freed_memory() if sys.argv[1] == "keep" else True
source = torch.ones(4096, 4096)
for turn in range(20):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    (source * 2).exp()
print(agreed, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_repeated_temporary_costs_no_page_faults() -> None:
    faults = {}
    for choice in ("keep", "default"):
        done = subprocess.run([sys.executable, "-c", CODE, choice], capture_output=True, text=True, check=True)
        agreed, count = done.stdout.split()
        assert agreed == "True"
        faults[choice] = int(count)
    assert faults["keep"] * 10 < faults["default"]
