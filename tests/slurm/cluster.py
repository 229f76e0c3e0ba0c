"""A private SLURM cluster for tests: slurmctld and one slurmd for each node, on loopback, in a temporary folder.

It needs neither systemd nor cgroups nor root, nor a configuration in /etc. SLURM's daemons listen on all interfaces
unless told otherwise, and `auth/none` lets whoever reaches them run commands: it is used only where they can be bound
to loopback, which takes a host name that resolves to 127.0.0.1. Elsewhere munge with a private key guards them.
"""

import contextlib
import getpass
import ipaddress
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_conf import KILL_WAIT_S, NODES, cgroup_plugin, resolves_to_loopback, search_path, slurm_conf

REPOSITORY = Path(__file__).resolve().parents[2]
JOBS = Path(__file__).parent / "jobs"
BINARIES = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")


class Cluster:
    """A running cluster; partition `one` has the first node, `all` has both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        """Return what a user's shell on the login node has: this Python first, no network, one thread.

        The rendezvous of another run is left in it, as happens to whoever submits from inside one.
        """
        foreign = ("SLURM", "SBATCH", "SRUN", "LT_", "WANDB_", "TORCHELASTIC_", "PYTEST", "FEDLIT_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {
            **clean,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "nowhere.invalid",
            "MASTER_PORT": "1",
            "RANK": "5",
        }

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of SLURM's commands to its end."""
        return subprocess.run(
            words, cwd=cwd, env=self.environment(), capture_output=True, text=True, timeout=60, check=False
        )

    def submit(self, *words: str, cwd: Path) -> str:
        """Give `sbatch` these words and return the job's id."""
        done = self.run("sbatch", "--parsable", *words, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Return the state of a job (or an element of an array, `7_2`), as squeue names it."""
        states = set(self.states(job).values())
        assert len(states) == 1, f"{job}: {states}"
        return states.pop()

    def states(self, job: str) -> dict[str, str]:
        """Return the states of the elements of an array by their id."""
        shown = self.run("squeue", "--noheader", "--states=all", "--array", "--format=%i %T", f"--jobs={job}")
        assert shown.returncode == 0, shown.stderr
        return dict(line.split() for line in shown.stdout.splitlines())

    def detail(self, job: str, key: str) -> str:
        """Return one field of `scontrol show job`."""
        shown = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        return next(word.split("=", 1)[1] for word in shown.split() if word.startswith(f"{key}="))

    def wait(self, *jobs: str, until: str = "", timeout_s: float = 120.0) -> None:
        """Wait until jobs are in a state, or have ended."""
        pending = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"}

        def ready() -> bool:
            states = {state for job in jobs for state in self.states(job).values()}
            return states == {until} if until else not states & pending

        self.wait_for(ready, timeout_s=timeout_s, what=f"{jobs} {until or 'to end'}")

    def wait_for(self, condition: Callable[[], bool], *, timeout_s: float = 120.0, what: str = "") -> None:
        """Wait until something is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {timeout_s:.0f} s for {what}\n{self.run('squeue', '--states=all', '-a').stdout}")
            time.sleep(0.05)

    def start_now(self, job: str) -> None:
        """Let a requeued job start at once; SLURM holds it until its old credential has expired.

        A daemon refuses a credential that was made in the second in which it revoked the old one: the job would fail
        before its first line.
        """
        self.wait(job, until="PENDING")
        time.sleep(2.0)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def signal(self, job: str, name: str) -> None:
        """Signal the tasks of a job, not its batch shell.

        For an element of an array with pending ones scancel repeats the signal every few seconds until it is ended.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                ["scancel", f"--signal={name}", job], env=self.environment(), timeout=1, capture_output=True, check=True
            )

    # ---- start and stop

    def start(self) -> None:
        """Start the daemons and wait until every node can take jobs."""
        for name in ("state", "spool", "log"):
            (self.folder / name).mkdir()
        on_loopback = resolves_to_loopback()
        if not on_loopback:
            self._start_munge()
        (self.folder / "slurm.conf").write_text(slurm_conf(self.folder, on_loopback=on_loopback))
        (self.folder / "cgroup.conf").write_text(f"CgroupPlugin={cgroup_plugin()}\n")
        self._daemon("slurmctld", "slurmctld", "-D", "-i")
        for name in NODES:
            self._daemon(f"slurmd.{name}", "slurmd", "-D", "-N", name)
        deadline = time.monotonic() + 30
        while self.run("sinfo", "-h", "-N", "-p", "all", "-o", "%t").stdout.split() != ["idle"] * len(NODES):
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self._daemons):
                logs = [path.read_text(errors="replace")[-2000:] for path in sorted((self.folder / "log").iterdir())]
                raise RuntimeError("SLURM did not start:\n" + "\n".join(logs))
            time.sleep(0.05)

    def stop(self) -> None:
        """Cancel what runs, end the daemons and whatever they left behind."""
        if (self.folder / "slurm.conf").exists():
            self.run("scancel", "--full", f"--user={getpass.getuser()}")
            deadline = time.monotonic() + KILL_WAIT_S + 10
            while self.run("squeue", "--noheader").stdout.strip() and time.monotonic() < deadline:
                time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Return the processes of this cluster: they all have its configuration in their environment."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        return [pid for path in Path("/proc").glob("[0-9]*") if mark in environ_of(pid := int(path.name))]

    def tasks(self, job: str, process: int) -> list[int]:
        """Return the processes that srun started as this one of a job's tasks, and their children."""
        mark = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={process}".encode(), b"SLURM_STEP_ID=0"}
        return [pid for pid in self.processes() if mark <= set(environ_of(pid))]

    def programs(self, job: str) -> list[str]:
        """Return the names of a job's processes."""
        mark = f"SLURM_JOB_ID={job}".encode()
        return [Path(f"/proc/{pid}/comm").read_text().strip() for pid in self.processes() if mark in environ_of(pid)]

    def listening_addresses(self) -> set[str]:
        """Return the addresses on which this cluster's processes listen."""
        sockets = set()
        for pid in self.processes():
            for path in Path(f"/proc/{pid}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    sockets.add(str(path.readlink()))
        addresses = set()
        for table in ("tcp", "tcp6"):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and f"socket:[{inode}]" in sockets:
                    number = bytes.fromhex(local.split(":")[0])
                    addresses.add(str(ipaddress.ip_address(number[::-1] if table == "tcp" else number)))
        return addresses

    def _daemon(self, name: str, *words: str) -> None:
        """Start a daemon that does not outlive this process."""
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with (self.folder / "log" / f"{name}.out").open("wb") as log:
            environment = {**self.environment(), "PATH": search_path()}
            self._daemons.append(
                subprocess.Popen([*guard, *words], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            )

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        munge.mkdir(mode=0o755)
        key = munge / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = [f"--{kind}-file={munge}/{kind}" for kind in ("key", "pid", "log", "seed")]
        self._daemon("munged", "munged", "--foreground", "--force", f"--socket={munge}/munge.sock", *files)
        while not (munge / "munge.sock").exists():
            assert self._daemons[0].poll() is None, (self.folder / "log" / "munged.out").read_text()
            time.sleep(0.02)


@contextlib.contextmanager
def private_cluster() -> Iterator[Cluster]:
    """Run a cluster; without SLURM's programs the test is skipped."""
    if missing := [name for name in BINARIES if shutil.which(name, path=search_path()) is None]:
        pytest.skip(f"SLURM is not installed: {', '.join(missing)} missing")
    # Names of unix sockets end at 108 characters: pytest's own temporary folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environ_of(pid: int) -> list[bytes]:
    """Return the environment that a process was started with; nothing if it has ended or is another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
