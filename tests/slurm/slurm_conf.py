"""The configuration of a private SLURM cluster: no cgroups, no accounting, nothing outside its folder.

Sources: the manual pages slurm.conf(5) and cgroup.conf(5), of 22.05 to 24.11.
"""

import contextlib
import getpass
import os
import random
import shutil
import socket
import subprocess
from pathlib import Path

NODES = ("127.0.0.1", "127.0.0.2")
"""Addresses for names: a job's first node must resolve, and other names of this machine do not everywhere."""
CPUS = 8
"""Of each node, whatever this machine has."""
KILL_WAIT_S = 20
"""Time between SIGTERM and SIGKILL."""

SLURM_CONF = """\
ClusterName=private
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
{authentication}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
JobRequeue=0
FirstJobId={first_job}
KillWait={kill_wait_s}
MinJobAge=600
{nodes}
PartitionName=one Nodes={first_node} Default=YES MaxTime=INFINITE State=UP
PartitionName=all Nodes=ALL MaxTime=INFINITE State=UP
"""


def slurm_conf(folder: Path, *, on_loopback: bool) -> str:
    """Return the text of slurm.conf for a cluster that writes to `folder`, on ports that are free.

    With `auth/none` whoever reaches a daemon runs what he likes: only `on_loopback`. Elsewhere munge asks for a key.
    """
    authentication = (
        "AuthType=auth/none\nCredType=cred/none\nAuthInfo=cred_expire=5\n"
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
        if on_loopback
        else f"AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={folder}/munge/munge.sock,cred_expire=5"
    )
    ports = free_ports(1 + len(NODES))
    nodes = [
        f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} RealMemory=4000"
        for name, port in zip(NODES, ports[1:], strict=True)
    ]
    return SLURM_CONF.format(
        folder=folder,
        user=getpass.getuser(),
        authentication=authentication,
        controller_port=ports[0],
        first_job=first_job(),
        kill_wait_s=KILL_WAIT_S,
        nodes="\n".join(nodes),
        first_node=NODES[0],
    )


def resolves_to_loopback() -> bool:
    """Tell whether SLURM can be bound to loopback alone on this machine."""
    try:
        return socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
    except OSError:
        return False


def first_job() -> int:
    """Return the first job id, far from that of a neighbour's cluster: Fabric makes a port of its last four digits."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return 10000 + 1000 * (worker % 9) + random.SystemRandom().randrange(1, 800)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface on which nobody listens."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def cgroup_plugin() -> str:
    """Return the plugin that needs no cgroups: versions before 23.02 have none, but load this one without using it."""
    slurmctld = shutil.which("slurmctld", path=search_path())
    assert slurmctld is not None
    words = subprocess.run([slurmctld, "-V"], capture_output=True, text=True, check=True).stdout.split()
    version = tuple(int(part) for part in words[1].split(".")[:2])
    return "disabled" if version >= (23, 2) else "cgroup/v1"


def search_path() -> str:
    """Return PATH with the folders of daemons, which an ordinary user's lacks."""
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
