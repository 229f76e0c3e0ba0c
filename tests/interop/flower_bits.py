"""The exported app of Flower beside `fedlit run`: 3 clients, 3 rounds, a tiny model, and every number of every record.

Each federation is trained by `fedlit run`, exported with `fedlit export --to flower`, and run by `flwr run` in Flower's
simulator. The test adds one module to the app, which hands the replies of each round to the strategy in an order drawn
anew. Then all records are compared: checksums of the server's state, losses and update norms of each client, scores,
bytes; times are left out. The adapters are compared as files, those that sites wrote of their own too. The last
federation is a deployment: a SuperLink and three SuperNodes, each with a file of rows of its own. One table, and exit
code 1 if anything differs.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from same_records import COMMON, DEALT, command, compare, emptied, records, rows

CASES: dict[str, list[str]] = {
    "fedit": [*DEALT, "method=fedit"],
    "fedsa_lora": [*DEALT, "method=fedsa_lora"],  # B is in the context's state
    "fedex_lora": [*DEALT, "method=fedex_lora"],  # single clients, and folds as factors
    "rolora": [*DEALT, "method=rolora"],
    "fedalt": [*DEALT, "method=fedalt"],  # every client starts from its own mean
    "own_rows": ["method=fedit", "partition.name=files", "partition.min_test_rows=0"],
}

PERMUTED = '''"""Replies in an order drawn anew for each round: of the test, no part of the app."""

import random

from fedlit_app import server_app
from fedlit_app.strategy import CenterStrategy


class Permuted(CenterStrategy):
    """Takes the replies in another order than they came."""

    def aggregate_train(self, server_round, replies):
        shuffled = sorted(replies, key=lambda reply: self.clients[reply.metadata.src_node_id])
        random.Random(server_round).shuffle(shuffled)
        return super().aggregate_train(server_round, shuffled)


server_app.CenterStrategy = Permuted
app = server_app.app
'''

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def main() -> None:
    """Compare all cases, or those named."""
    work = emptied(sys.argv[1])
    os.environ |= ENVIRONMENT | {"FLWR_HOME": str(work / "home"), "PATH": f"{here('')}:{os.environ['PATH']}"}
    compare("flwr", work, CASES, federated)


def here(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).with_name(name) if name else Path(sys.executable).parent)


def federated(folder: Path, words: list[str]) -> tuple[list[Any], list[Any]]:
    """Return the records of `fedlit run` and of the app."""
    folder.mkdir()
    real = "partition.name=files" in words
    settings = ["data=jsonl", *COMMON, *words, *rows(folder, real), f"run.dir={folder}", "run.name=here"]
    command(folder, "fedlit", "run", *settings)
    command(folder, "fedlit", "export", str(folder / "here"), "--to", "flower", "--out", str(folder / "app"))
    permute(folder / "app")
    with superlink(folder, simulated=not real) as link:
        if real:
            with nodes(folder, link):
                command(folder, "flwr", "run", "app", "test", "--stream", "-c", "simulated=false timeout-s=300")
        else:
            sizes = "num-supernodes=3 client-resources-num-cpus=1 init-args-num-cpus=2"
            command(folder, "flwr", "run", "app", "test", "--stream", "--federation-config", sizes)
    log = folder / "run.log"
    if not (folder / "here-sites/metrics.jsonl").is_file():
        print(log.read_text()[-4000:])
        sys.exit(f"the app wrote no record; see {log} and {folder}/superlink.log")
    return records(folder / "here"), records(folder / "here-sites")


def permute(app: Path) -> None:
    (app / "fedlit_app/permuted.py").write_text(PERMUTED)
    settings = app / "pyproject.toml"
    text = settings.read_text()
    assert text.count("fedlit_app.server_app:app") == 1
    settings.write_text(text.replace("fedlit_app.server_app:app", "fedlit_app.permuted:app"))


@contextmanager
def superlink(folder: Path, *, simulated: bool) -> Iterator[int]:
    """Start a SuperLink, and yield its port; `flwr` knows it as `test`."""
    port = free_port()
    home = Path(os.environ["FLWR_HOME"])
    home.mkdir(exist_ok=True)
    home.joinpath("config.toml").write_text(
        f'[superlink]\ndefault = "test"\n\n[superlink.test]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    kind = ["--simulation"] if simulated else []
    words = ["--insecure", *kind, "--isolation", "subprocess", "--host", "127.0.0.1", "--port", str(port)]
    with process(folder / "superlink.log", "flower-superlink", *words) as link:
        wait_for(f"http://127.0.0.1:{port}/health", link, folder / "superlink.log")
        yield port


@contextmanager
def nodes(folder: Path, port: int) -> Iterator[None]:
    """Start three SuperNodes, each with its rows, the last one first."""
    with (
        node(folder, port, 2),
        node(folder, port, 0),
        node(folder, port, 1),
    ):
        yield


@contextmanager
def node(folder: Path, port: int, client: int) -> Iterator[None]:
    own = f'client-id={client} data-path="{folder}/site_{client + 1}.jsonl"'
    words = ["--insecure", "--superlink", f"127.0.0.1:{port}", "--node-config", own]
    words += ["--isolation", "subprocess", "--host", "127.0.0.1", "--port", str(free_port())]
    with process(folder / f"node-{client}.log", "flower-supernode", *words):
        yield


@contextmanager
def process(log: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background until the block ends."""
    with log.open("w") as file, subprocess.Popen([here(name), *words], stdout=file, stderr=file, cwd=log.parent) as one:
        try:
            yield one
        finally:
            one.terminate()
            try:
                one.wait(20)
            except subprocess.TimeoutExpired:
                one.kill()


def wait_for(address: str, one: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if one.poll() is not None:
            sys.exit(f"{log.read_text()[-2000:]}\nthe SuperLink ended with {one.returncode}")
        try:
            with urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{address} does not answer")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
