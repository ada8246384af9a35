"""A real SLURM on this machine: controller, node and munge, on the loopback interface, ended by pid."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.servers import free_port, until

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
KillWait=5
MessageTimeout=100
BatchStartTimeout=120
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=20000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Run SLURM in a folder; yield the environment in which its commands reach it."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    ports = [free_port(), free_port()]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, ports=ports))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    files = [f"--{part}-file={folder}/munge.{part}" for part in ("key", "pid", "seed", "log")]
    try:
        for command in (
            ["munged", "--force", f"--socket={folder}/munge.socket", *files],
            ["slurmctld", "-i"],
            ["slurmd", "-N", host],
        ):
            subprocess.run([f"/usr/sbin/{command[0]}", *command[1:]], env=environment, check=True)
        until(lambda: is_idle(environment))
        yield environment
    finally:
        with suppress(subprocess.CalledProcessError):
            told(environment, "scancel", "--partition=debug")
            until(lambda: not told(environment, "squeue", "--noheader"))
        for name in ("slurmd", "slurmctld", "munge"):
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)


def is_idle(environment: dict[str, str]) -> bool:
    """Return whether the controller answers, and its node waits for jobs."""
    try:
        return "idle" in told(environment, "sinfo", "--noheader", "--format=%T")
    except subprocess.CalledProcessError:
        return False


def told(environment: dict[str, str], *command: str) -> str:
    """Return what a command of SLURM prints."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
