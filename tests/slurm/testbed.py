"""A real Slurm of two nodes, n1 and n2, on this one machine.

    python tests/slurm/testbed.py

starts munged, slurmctld and two slurmd in a temporary directory, on free ports of the loopback interface, and prints the
line `export SLURM_CONF=...` with which sinfo, sbatch and srun find them. It ends when its standard input does: whoever
started it may be killed, and the daemons, the jobs and the directory still go. Needs root, since slurmd starts jobs as the
users who submit them, and the programs of Debian's packages slurmctld, slurmd, slurm-client and munge.
"""

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from launcher import process  # noqa: E402  found where the line above says
from launcher.meeting import master_port  # noqa: E402

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
NODES = ("n1", "n2")
CPUS = 4  # of each node, whatever the machine has: the jobs ask for cores, and share those that there are
GPUS = 2  # of each node: device files that nothing opens
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

# Reasons, in the order of the lines. NoInAddrAny: no port is open to the outside. linuxproc: cgroups cannot be had in a
# container; it finds a job's processes by their parents. config_overrides: more CPUs than the machine has. JobRequeue as
# Slurm's own default. The short times are for tests that should not wait.
CONFIGURATION = """
ClusterName=testbed
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
MpiDefault=none
JobRequeue=1
ReturnToService=2
KillWait=5
CompleteWait=0
InactiveLimit=0
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PreemptExemptTime=0
JobCompType=jobcomp/filetxt
JobCompLoc={directory}/jobcomp
NodeName={nodes} NodeHostname=localhost NodeAddr=127.0.0.1 Port={node_ports} CPUs={cpus} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Testbed:
    """The daemons, as children of this process.

    Parameters
    ----------
    directory : Path
        An empty directory of theirs.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.configuration = directory / "slurm.conf"
        self.environ = {"PATH": PATH, "SLURM_CONF": str(self.configuration), "LC_ALL": "C"}
        self.daemons: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self) -> None:
        """Starts the daemons and waits until both nodes take jobs."""
        self._start_munge()
        ports = free_ports(1 + len(NODES))
        self.configuration.write_text(
            CONFIGURATION.format(
                directory=self.directory, port=ports[0], nodes=",".join(NODES), cpus=CPUS, gpus=GPUS,
                node_ports=",".join(map(str, ports[1:])),
            )
        )  # fmt: skip
        for number in range(GPUS):
            os.mknod(self.directory / f"gpu{number}", stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
        (self.directory / "gres.conf").write_text(f"Name=gpu File={self.directory}/gpu[0-{GPUS - 1}]\n")
        (self.directory / "state").mkdir()
        self._start("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.configuration))
        for node in NODES:
            self._start(f"slurmd-{node}", "slurmd", "-D", "-N", node, "-f", str(self.configuration))
        self._until(self._nodes_are_idle, "both nodes to be idle", 180)

    def _start_munge(self) -> None:
        munge = self.directory / "munge"
        munge.mkdir()
        (munge / "key").touch(mode=0o600)
        (munge / "key").write_bytes(secrets.token_bytes(128))
        # --force: temporary directories are open to others, of which it warns.
        files = [f"--{name}-file={munge}/{name}" for name in ("key", "log", "pid", "seed")]
        self._start("munged", "munged", "--foreground", "--force", f"--socket={munge}/socket", *files)
        self._until((munge / "socket").exists, "munged's socket", 60)

    def _start(self, name: str, *command: str) -> None:
        with open(self.directory / f"{name}.log", "ab") as log:
            daemon = subprocess.Popen(
                command,
                env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                preexec_fn=process.dying_with_parent(signal.SIGTERM, os.getpid()),  # noqa: PLW1509  no thread runs
            )  # fmt: skip
        self.daemons.append((name, daemon))

    def _nodes_are_idle(self) -> bool:
        said = self._ask("sinfo", "--noheader", "--partition=all", "--states=idle", "--format=%D")
        return said.strip() == str(len(NODES))

    def _ask(self, *command: str) -> str:
        asked = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=30, check=False)
        return asked.stdout

    def _until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            for name, daemon in self.daemons:
                if daemon.poll() is not None:
                    raise RuntimeError(f"{name} ended with {daemon.returncode} before {what}:\n{self._log(name)}")
            if time.monotonic() > limit:
                logs = "\n".join(f"{name}:\n{self._log(name)}" for name, _ in self.daemons)
                raise RuntimeError(f"waited {seconds} s for {what}\n{logs}")
            time.sleep(0.1)

    def _log(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def end(self) -> None:
        """Ends the jobs, then the daemons, each by its process id, then what a job may have left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.configuration.exists():
                self._ask("scancel", "--signal=KILL", "--full", "--user=root")
                self._ask("scancel", "--user=root")
                limit = time.monotonic() + 20
                while (self._ask("squeue", "--noheader") or steps(self.directory)) and time.monotonic() < limit:
                    time.sleep(0.1)
        for _, daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in {*self._left(), *process.carrying(f"SLURM_CONF={self.configuration}")}:
            process.signal_process(pid, process.start_ticks(pid), signal.SIGKILL)

    def _left(self) -> list[int]:
        """What outlives slurmd, slurmstepd above all: it overwrites its environment, but keeps slurmd's directory."""
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):  # gone meanwhile, or no process
                if name.isdigit() and os.readlink(f"/proc/{name}/cwd") == str(self.directory):
                    found.append(int(name))
        return found


def steps(directory: Path, job: str = "*") -> list[str]:
    """The steps of jobs that are not over yet, by the names of their slurmstepd's sockets: node_job.step."""
    return [path.name for node in NODES for path in directory.glob(f"spool.{node}/{node}_{job}.*")]


def missing() -> str | None:
    """Why there can be no testbed on this machine; None if there can."""
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program, path=PATH) is None]
    if packages:
        return f"Slurm is not installed: apt-get install {' '.join(packages)}"
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root: slurmd starts jobs as the users who submit them"
    return None


def files_of_open_mpi(directory: Path) -> dict[str, str]:
    """The variable that has a job's daemons write into a directory of its own, as where each job has its own /tmp.

    Slurm kills them together with all who could remove their files, and another daemon with the same process id would not start.
    """
    return {"PRTE_MCA_prte_tmpdir_base": str(directory)}


def free_ports(count: int) -> list[int]:
    """TCP ports that are free now, and that the system does not give to connections before the daemons listen."""
    found: set[int] = set()
    while len(found) < count:
        found.add(master_port())
    return sorted(found)


def main() -> None:
    """Runs a testbed until standard input ends."""
    if reason := missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    directory = Path(tempfile.mkdtemp(prefix="slurm-")).resolve()
    testbed = Testbed(directory)
    try:
        testbed.start()
        print(f"export SLURM_CONF={testbed.configuration}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.buffer.read()
    finally:
        testbed.end()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
