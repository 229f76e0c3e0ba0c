"""Stands in PATH as `fedlit`, `python`, `fabric` and so on: asks the test to do it, and ends as it ends.

It runs without site-packages, within hundredths of a second.
"""

import json
import os
import signal
import socket
import sys

asked = socket.socket(socket.AF_UNIX)
asked.connect(os.environ["PAGES_SOCKET"])
request = {
    "name": os.path.basename(sys.argv[0]),  # noqa: PTH119  pathlib takes time to import
    "words": sys.argv[1:],
    "folder": os.getcwd(),  # noqa: PTH109
    "environment": dict(os.environ),
    "pid": os.getpid(),
}
asked.sendall(json.dumps(request).encode() + b"\n")
answers = asked.makefile()
begun = json.loads(answers.readline())
if "exec" in begun:
    os.execv(begun["exec"][0], begun["exec"])
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda number, _frame: os.kill(begun["pid"], number))
sys.exit(json.loads(answers.readline())["code"] % 256 if "pid" in begun else begun["code"])
