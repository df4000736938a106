"""Which engine starts the ranks, and how each is spelled."""

import json
import os
import pwd
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from launcher import command_line, engines, mpi
from launcher.command_line import UsageError
from launcher.hosts import Share
from launcher.launch import Launch
from launcher.mpi import Engine, Mpi, MpiError
from tests.launcher.conftest import TIMEOUT

FLAVOURS = {engine.name: engine for engine in mpi.ENGINES}
TWO = (Share("a", 0, 2), Share("b", 2, 1))
BOTH_ELSEWHERE = Launch(3, ["rank"], ["NAME"], "/run", TWO, one_host=False)
BY_NETNS = BOTH_ELSEWHERE._replace(rsh="ip netns exec {host}", agent="/run/rsh")
ROOT = ["--allow-run-as-root"] if os.geteuid() == 0 else []

SPELLED = [
    # flavour, launch, the options of its mpiexec
    ("MPICH", Launch(3, ["rank"], ["NAME"]), ["-localhost", "127.0.0.1"]),
    ("MPICH", BOTH_ELSEWHERE, ["-f", "/run/hosts"]),
    ("MPICH", BY_NETNS, ["-f", "/run/hosts", "-launcher", "ssh", "-launcher-exec", "/run/rsh"]),
    ("MPICH", BOTH_ELSEWHERE._replace(shares=(Share("127.0.0.1", 0, 2), Share("b", 2, 1))),
     ["-f", "/run/hosts", "-localhost", "127.0.0.1"]),
    ("MPICH", Launch(4, ["rank"], one_host=False, nodes=2, per_node=2), ["-ppn", "2"]),
    ("MPICH", Launch(4, ["rank"], one_host=False), []),
    ("Intel MPI", Launch(3, ["rank"]), []),
    ("Intel MPI", BY_NETNS, ["-f", "/run/hosts", "-launcher", "ssh", "-launcher-exec", "/run/rsh"]),
    ("Open MPI", Launch(3, ["rank"], ["NAME"]), ["--oversubscribe", "--bind-to", "none", *ROOT, "-x", "NAME"]),
    ("Open MPI", BY_NETNS, ["--bind-to", "none", *ROOT, "--host", "a:2,b:1", "--map-by", "slot:OVERSUBSCRIBE", "-x", "NAME"]),
    ("Open MPI", Launch(4, ["rank"], one_host=False, nodes=2, per_node=2),
     ["--bind-to", "none", *ROOT, "--map-by", "ppr:2:node:OVERSUBSCRIBE"]),
]  # fmt: skip


@pytest.mark.parametrize(("flavour", "launch", "options"), SPELLED)
def test_mpiexec_is_spelled(flavour, launch, options):
    command = Mpi(FLAVOURS[flavour], "/opt/mpiexec", "", None).command(launch)
    assert command == ["/opt/mpiexec", "-n", str(launch.ranks), *options, "rank"]


HERE = Launch(3, ["rank"], directory="/run")
ADDED = [
    # flavour, launch, the user's environment, what mpiexec finds besides
    ("Open MPI", BY_NETNS, {}, {"PRTE_MCA_plm_ssh_agent": "/run/rsh", "OMPI_MCA_plm_rsh_agent": "/run/rsh"}),
    ("Open MPI", BOTH_ELSEWHERE, {}, {}),
    ("Open MPI", HERE, {"TMPDIR": "/x"}, {"PRTE_MCA_prte_tmpdir_base": "/run", "OMPI_MCA_orte_tmpdir_base": "/run"}),
    ("Open MPI", HERE, {"PRTE_MCA_prte_local_tmpdir_base": "/x"}, {}),  # it refuses both
    ("Open MPI", HERE, {"OMPI_MCA_orte_tmpdir_base": "/x"}, {}),
    ("Intel MPI", HERE, {}, {"I_MPI_PIN": "0"}),
    ("Intel MPI", HERE, {"I_MPI_PIN": "1"}, {}),
    ("MPICH", HERE, {}, {}),
]


@pytest.mark.parametrize(("flavour", "launch", "environ", "added"), ADDED)
def test_what_mpiexec_finds_in_its_environment(flavour, launch, environ, added):
    assert FLAVOURS[flavour].environment(launch, {"HOME": "/home/ada", **environ}) == added


@pytest.mark.parametrize("user", [True, False], ids=["a user", "nobody knows who"])
def test_open_mpi_does_not_start_without_a_home(monkeypatch, user):
    monkeypatch.delenv("HOME", raising=False)
    entry = pwd.getpwuid(os.getuid())
    if not user:
        monkeypatch.setattr(os, "getuid", lambda: 2**31)
    assert FLAVOURS["Open MPI"].environment(HERE, {})["HOME"] == (entry.pw_dir if user else "/")


def test_the_file_of_hosts(tmp_path):
    path = Path(BOTH_ELSEWHERE._replace(directory=str(tmp_path)).host_file())
    assert path.read_text() == "a:2\nb:1\n"


LISTED = {
    "22.05": "MPI plugin types are...\n\tpmix\n\tnone\n\tcray_shasta\n\tpmi2\nspecific pmix plugin versions available: pmix_v4\n",
    "without pmix": "MPI plugin types are...\n\tpmi2\n\tnone\n",
    "19.05": "srun: MPI types are...\nsrun: none\nsrun: pmi2\nsrun: openmpi\n",
}
FAKE_SRUN = """#!/bin/sh
case "$*" in
  --mpi=list) printf '%s' '{listed}' >&2;;
esac
"""


@pytest.fixture
def slurm(tmp_path):
    """An environment in an allocation, with a srun and a scontrol of our own."""

    def make(listed="22.05", plugin="task/affinity", **environ):
        programs = {
            "srun": FAKE_SRUN.format(listed=LISTED[listed]),
            "scontrol": f"#!/bin/sh\necho 'TaskPlugin              = {plugin}'\n",
        }
        for name, text in programs.items():
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o700)
        return {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7", **environ}

    return make


def request(*options):
    return command_line.parse(["-n", "4", *options, "train.py"])


def library(monkeypatch, flavour, version="1.0"):
    found: tuple[Engine, str, None] = (FLAVOURS[flavour], f"{flavour} {version}", None)
    monkeypatch.setattr(engines, "find_library", lambda environ: found)


SRUN = [
    # flavour, version, what srun --mpi=list says, the value for --mpi (None: an error)
    ("MPICH", "5.0", "22.05", "pmi2"),
    ("MPICH", "5.0", "without pmix", "pmi2"),
    ("MPICH", "5.0", "19.05", "pmi2"),
    ("MPICH", "CRAY MPICH 8.1", "22.05", "cray_shasta"),
    ("MPICH", "CRAY MPICH 8.1", "without pmix", "pmi2"),
    ("Intel MPI", "2021", "22.05", "pmi2"),
    ("Open MPI", "5.0", "22.05", "pmix"),
    ("Open MPI", "5.0", "without pmix", None),
]


@pytest.mark.parametrize(("flavour", "version", "listed", "protocol"), SRUN)
def test_srun_speaks_the_librarys_protocol(monkeypatch, slurm, flavour, version, listed, protocol):
    library(monkeypatch, flavour, version)
    environ = slurm(listed)
    if protocol is None:
        with pytest.raises(MpiError, match=r"Open MPI needs srun --mpi=pmix, and this Slurm has none, pmi2 \(srun --mpi=list\)"):
            engines.choose(request("--engine", "srun"), environ)
        return
    command = engines.choose(request("--engine", "srun"), environ).command(Launch(4, ["rank", "--target", "[]"], directory="/run"))
    assert f"--mpi={protocol}" in command and "--ntasks=4" in command
    at = command.index("rank")
    assert command[at:] == ["rank", "--run-dir", "/run", "--kernel", command[at + 4], "--target", "[]"]


SRUN_OPTIONS = [
    # environment, task plugin, launch, options that are there, options that are not
    ({}, "task/affinity", {}, ["--cpu-bind=none"], ["--nodes", "--distribution", "--overcommit", "--cpus-per-task"]),
    ({}, "task/none", {}, [], ["--cpu-bind"]),
    ({"SLURM_CPU_BIND": "cores"}, "task/affinity", {}, [], ["--cpu-bind"]),
    ({"SLURM_CPUS_PER_TASK": "3"}, "task/affinity", {}, ["--cpus-per-task=3"], []),
    ({}, "task/affinity", {"oversubscribe": True}, ["--overcommit"], []),
    ({}, "task/affinity", {"nodes": 2, "per_node": 2}, ["--nodes=2", "--ntasks-per-node=2"], []),
    ({}, "task/affinity", {"shares": TWO}, ["--distribution=arbitrary"], ["--nodes"]),
]


@pytest.mark.parametrize(("added", "plugin", "launch", "there", "absent"), SRUN_OPTIONS)
def test_options_of_srun(monkeypatch, slurm, added, plugin, launch, there, absent):
    library(monkeypatch, "MPICH")
    engine = engines.choose(request("--engine", "srun"), slurm(plugin=plugin, **added))
    command = engine.command(Launch(4, ["rank", "--target", "[]"])._replace(**launch))
    assert set(there) <= set(command)
    assert not [word for word in command for option in absent if word.startswith(option)]


def test_srun_learns_the_hosts_from_a_file(monkeypatch, slurm, tmp_path):
    library(monkeypatch, "MPICH")
    engine = engines.choose(request("--engine", "srun"), slurm())
    added = engine.environment(BOTH_ELSEWHERE._replace(directory=str(tmp_path)), {"SLURM_STEP_ID": "0"})
    assert added == {"SLURM_OVERLAP": "1", "SLURM_HOSTFILE": str(tmp_path / "tasks")}
    assert (tmp_path / "tasks").read_text() == "a\na\nb\n"


CHOSEN = [
    # options, in an allocation, whether there is an mpiexec, what is chosen
    ([], False, True, "mpiexec"),
    ([], True, True, "mpiexec"),
    ([], True, False, "srun"),
    ([], False, False, "error: no mpiexec here"),
    (["--engine", "mpiexec"], True, False, "error: no mpiexec here"),
    (["--engine", "srun"], True, True, "srun"),
    (["--engine", "srun"], False, True, "error: --engine srun starts the ranks in an allocation, and this is none"),
    (["--engine", "plain"], False, False, "the plain engine"),
    (["--engine", "plain"], True, True, "the plain engine"),
    (["--nnodes", "2", "--node-rank", "0", "--master-addr", "a"], False, False, "the plain engine"),
]


@pytest.mark.parametrize(("options", "allocation", "has_mpiexec", "expected"), CHOSEN)
def test_the_choice(monkeypatch, slurm, options, allocation, has_mpiexec, expected):
    library(monkeypatch, "MPICH")

    def find(asked, environ):
        if not has_mpiexec:
            raise MpiError("no mpiexec here")
        return Mpi(FLAVOURS["MPICH"], "/opt/mpiexec", "MPICH 5", None)

    monkeypatch.setattr(engines, "find_mpi", find)
    environ = slurm() if allocation else {"PATH": "/usr/bin"}
    if expected.startswith("error: "):
        with pytest.raises((MpiError, UsageError), match=re.escape(expected[7:])):
            engines.choose(request(*options), environ)
    else:
        assert engines.choose(request(*options), environ).name == expected


def parts_of(command):
    plan = json.loads(command[command.index("--plan") + 1])
    return {part["host"]: (part["first"], part["ranks"], part["command"]) for part in plan["parts"]}


AGENT = [sys.executable, "-I", "-S", str(Path(engines.__file__).parent / "agent.py")]
SSH = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
STEP = "srun --nodes=1 --ntasks=1 --nodelist=a --overlap --mpi=none --quiet --unbuffered --kill-on-bad-exit=0 --cpu-bind=none"
WAYS = [
    # options, in an allocation, what reaches host a
    ([], False, [*SSH, "a", *AGENT]),
    (["--hosts", "a,b", "--rsh", "ip netns exec {host}"], False, ["ip", "netns", "exec", "a", *AGENT]),
    ([], True, [*STEP.split(), *AGENT]),
    (["--hosts", "a,b"], True, [*SSH, "a", *AGENT]),
]


@pytest.mark.parametrize(("options", "allocation", "way"), WAYS)
def test_how_the_plain_engine_reaches_hosts(slurm, options, allocation, way):
    asked = request("--engine", "plain", *options)
    engine = engines.choose(asked, slurm() if allocation else {})
    shares = (Share("localhost", 0, 1), Share("a", 1, 2))
    parts = parts_of(engine.command(Launch(3, ["rank"], directory="/run", shares=shares, one_host=False, rsh=asked.rsh)))
    assert parts == {"localhost": (0, 1, None), "a": (1, 2, way)}


DRY = [
    # options, a pattern in the command
    (["--engine", "mpiexec"], r"^/\S*/mpiexec\S* -n 4 "),
    (["--engine", "plain"], r" -I -S \S*/plain.py --run-dir RUN_DIRECTORY --plan "),
    (["--engine", "srun"], r"^/\S*/srun --mpi=pmi[2x] --ntasks=4 "),
    (["--engine", "plain", "--hosts", "localhost:2,n2.invalid:2"], r"ssh.*n2\.invalid"),
    (["--hosts", "localhost:2,n2.invalid:2", "--rsh", "ip netns exec {host}"], r"RUN_DIRECTORY/(hosts|rsh)|n2\.invalid:2"),
    (["--engine", "plain", "--bind", "cores"], r"--bind.*cores"),
]


@pytest.mark.parametrize(("options", "pattern"), DRY)
def test_dry_run(session, slurm, options, pattern):
    environ = {}
    if "srun" in options:
        environ = {**slurm(), "SLURM_NTASKS": "4"}
        environ["PATH"] = f"{environ['PATH']}:{os.environ['PATH']}"
    script = session.script("open('ran', 'w')\n")
    job = session.run("-n", 4, "--oversubscribe", "--dry-run", "--env", "GREETING=good day", *options, script, **environ)
    assert (job.returncode, job.stderr) == (0, "")
    assert re.search(pattern, job.stdout, re.MULTILINE), job.stdout
    assert "GREETING='good day' \\\n" in job.stdout and "DISTTORCH_ATTEMPT=0 \\\n" in job.stdout
    if "n2.invalid" in " ".join(options):
        assert "# localhost: ranks 0 to 1\n# n2.invalid: ranks 2 to 3\n" in job.stdout
    if "--rsh" in options:
        assert "# RUN_DIRECTORY/rsh goes to a host by: ip netns exec {host}\n" in job.stdout
    assert json.dumps([str(script)]) in job.stdout.replace("\\", "")
    # A shell understands all of it.
    assert shlex.split(job.stdout, comments=True)
    assert not (session.directory / "ran").exists()


# A srun that starts the tasks by itself, as pmi2 does: Slurm's own is tested where it is installed.
TASKS = """#!{python}
import os, subprocess, sys
if sys.argv[1] == "--mpi=list":
    sys.exit("MPI plugin types are...\\n\\tpmi2\\n\\tpmix")
options = [word for word in sys.argv[1:] if word.startswith("--")]
program = sys.argv[1 + next(i for i, word in enumerate(sys.argv[1:]) if not word.startswith("--")):]
count = int(next(word[9:] for word in options if word.startswith("--ntasks=")))
place = lambda n: {{"SLURM_PROCID": str(n), "SLURM_STEP_NUM_TASKS": str(count), "SLURM_LOCALID": str(n),
                   "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": str(count)}}
tasks = [subprocess.Popen(program, env={{**os.environ, **place(n)}}) for n in range(count)]
codes = [task.wait() for task in tasks]
if any(codes):
    print("srun: error: task failed:", codes, file=sys.stderr)
sys.exit(max(codes))
"""


@pytest.fixture
def tasks(tmp_path):
    (tmp_path / "srun").write_text(TASKS.format(python=sys.executable))
    (tmp_path / "srun").chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {"PATH": path, "SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "SLURM_JOB_NUM_NODES": "1"}


def test_ranks_by_srun(session, say, tasks):
    script = session.script(say + "say('place', place=[os.environ[n] for n in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE')])\n")
    job = session.run("-n", 3, "--engine", "srun", script, **tasks)
    assert (job.returncode, job.stderr) == (0, "")
    assert [seen["place"] for seen in session.files("place.*.json", 3)] == [[str(rank), "3", str(rank), "3"] for rank in range(3)]


def test_a_rank_of_srun_fails_and_srun_has_nothing_to_add(session, say, tasks, left_of):
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nfor other in range(3):\n    wait_for(f'start.{other}.json')\n"
        "if rank == 1:\n    sys.exit(5)\nwait_for('never')\n"
    )
    job = session.run("-n", 3, "--engine", "srun", script, **tasks)
    assert job.returncode == 5
    assert "srun: error" not in job.stderr
    assert re.match(r"dlaunch: rank 1 .*ended with exit code 5", job.stderr.splitlines()[-1])
    assert left_of(session.files("start.*.json", 3)[0]["run"]) == []


@pytest.mark.parametrize("victim", ["script", "guard", "srun", "dlaunch"])
def test_kill_9_under_srun_leaves_nothing(session, say, tasks, left_of, victim):
    script = session.script(say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nwait_for('never')\n")
    job = session.start("-n", 3, "--engine", "srun", script, **tasks)
    starts = session.files("start.*.json", 3)
    with open(f"/proc/{starts[1]['ppid']}/stat") as stat:
        guard = int(stat.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{guard}/stat") as stat:
        srun = int(stat.read().rpartition(")")[2].split()[1])
    os.kill({"script": starts[1]["pid"], "guard": guard, "srun": srun, "dlaunch": job.pid}[victim], signal.SIGKILL)
    _, err = job.communicate(timeout=TIMEOUT)
    session.running.clear()
    session.until(lambda: left_of(starts[0]["run"]) == [], "the end of all processes")
    if victim == "srun":
        assert "srun was killed by SIGKILL (signal 9)" in err.splitlines()[-1]
