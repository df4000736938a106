"""A rank fails: the exit code, the last lines on stderr, and nothing left behind within ten seconds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import process, run_directories
from tests.launcher.conftest import ROOT, TIMEOUT

# Seconds from a failure to the end of the last process. What launcher.job waits for comes to 16 if nothing ends when it is told to; the
# rest is for a machine with other work.
BOUND = 30.0

MPI = "from mpi4py import MPI\nworld = MPI.COMM_WORLD\nworld.Barrier()\n"
STUCK_IN_C = "import ctypes\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nctypes.CDLL(None).pause()\nwait_for('never')\n"
WAITS = "wait_for('never')\n"

ENDS = [
    # name, what rank 1 of 2 does, what rank 0 does, exit code, words of the last line
    ("all well", "pass\n", "pass\n", 0, None),
    ("exit 0", "sys.exit(0)\n", "pass\n", 0, None),
    ("well with MPI", MPI, MPI, 0, None),
    ("exit 3", "sys.exit(3)\n", WAITS, 3, "ended with exit code 3"),
    ("exit with a message", "sys.exit('no data at /data')\n", WAITS, 1, "ended with exit code 1"),
    ("os._exit", "os._exit(7)\n", WAITS, 7, "ended with exit code 7"),
    ("exception", "{}['lr']\n", WAITS, 1, "by KeyError: 'lr'"),
    ("SyntaxError", "exec('a b')\n", WAITS, 1, "by SyntaxError: invalid syntax"),
    ("SIGKILL", "os.kill(os.getpid(), signal.SIGKILL)\n", WAITS, 137, "was killed by SIGKILL (signal 9)"),
    ("SIGUSR1", "os.kill(os.getpid(), signal.SIGUSR1)\n", WAITS, 138, "does not get it before it has said so (signal.signal)"),
    ("SIGSEGV", "import ctypes; ctypes.string_at(0)\n", WAITS, 139, "was killed by SIGSEGV (signal 11)"),
    ("SIGABRT", "os.abort()\n", WAITS, 134, "was killed by SIGABRT (signal 6)"),
    ("the other ignores SIGTERM in C", "sys.exit(4)\n", STUCK_IN_C, 4, "ended with exit code 4"),
    ("exit 3 with MPI", MPI + "sys.exit(3)\n", MPI + "world.Barrier()\n", 3, "ended with exit code 3"),
    ("exception with MPI", MPI + "1 / 0\n", MPI + "world.Barrier()\n", 1, "by ZeroDivisionError: division by zero"),
    ("SIGKILL with MPI", MPI + "os.kill(os.getpid(), 9)\n", MPI + "world.Barrier()\n", 137, "was killed by SIGKILL"),
    ("SIGSEGV with MPI", MPI + "import ctypes; ctypes.string_at(0)\n", MPI + "world.Barrier()\n", 139, "by SIGSEGV"),
    ("os._exit with MPI", MPI + "os._exit(9)\n", MPI + "world.Barrier()\n", 9, "ended with exit code 9"),
]


@pytest.mark.parametrize(("one", "zero", "code", "words"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_ends(session, say, left_of, one, zero, code, words):
    body = "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nwait_for(f'start.{1 - rank}.json')\n"
    for condition, text in (("if rank == 1:", one), ("else:", zero)):
        body += "\n    ".join([condition, *text.splitlines()]) + "\n"
    job = session.run("-n", 2, session.script(say + body))
    starts = session.files("start.*.json", 2)
    session.ended_soon(BOUND)
    assert job.returncode == code, job.stderr
    assert left_of(starts[0]["run"]) == []
    assert not os.path.exists(starts[0]["run"])
    if words is None:
        assert job.stderr == ""
        return
    last = job.stderr.splitlines()[-1]
    assert last.startswith(f"dlaunch: rank 1 (pid {starts[1]['pid']} on {os.uname().nodename}) ")
    assert words in last
    assert "the other rank was ended" in last
    assert "BAD TERMINATION" not in job.stdout + job.stderr and "prterun" not in job.stderr


def test_the_traceback_of_the_first_rank_is_shown_again_without_our_frames(session, say):
    script = session.script(
        say + "def train():\n    raise ValueError('bad batch')\n"
        "if rank == 1:\n    train()\nwait_for('never')\n"
    )
    job = session.run("-n", 2, script)
    assert job.returncode == 1
    lines = job.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"  # as Python printed it, when it happened
    assert "launcher" not in "".join(lines[:5])
    end = lines.index("dlaunch: rank 1 failed first; its traceback ends with:")
    assert lines[end - 1] == ""  # between what the ranks said and what dlaunch says
    assert lines[end + 1 : -1] == ["    " + line for line in lines[: end - 1]]
    assert lines[-2] == "    ValueError: bad batch"


SLOW = """
import subprocess
def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])
manager = parent(parent(os.getppid()))  # who has started the guard: hydra's proxy, or Open MPI's mpiexec itself
pause = f"import os, time; os.kill({manager}, 19); open('slow', 'w').close(); time.sleep(0.4); os.kill({manager}, 18)"
subprocess.Popen([sys.executable, "-c", pause], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
wait_for("slow")
print("last words", flush=True)
raise ValueError("bad batch")
"""


def test_last_words_are_not_lost_with_an_mpiexec_that_is_slow(session, say):
    job = session.run("-n", 1, session.script(say + SLOW))
    assert job.returncode == 1
    assert job.stdout == "last words\n"
    lines = job.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[lines.index("") - 1] == "ValueError: bad batch"


def test_a_segmentation_fault_says_in_which_line(session, say):
    job = session.run("-n", 1, session.script(say + "import ctypes\ndef inner():\n    ctypes.string_at(0)\ninner()\n"))
    assert job.returncode == 139
    assert re.search(r"dlaunch: rank 0 failed first.*\n.*Fatal Python error: Segmentation fault", job.stderr)
    assert "in inner" in job.stderr


@pytest.mark.parametrize("victim", ["script", "supervisor", "guard", "mpiexec"])
@pytest.mark.parametrize("mpi", [False, True], ids=["plain", "MPI"])
def test_kill_9_in_the_middle(session, say, left_of, running, victim, mpi):
    script = session.script(say + (MPI if mpi else "") + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\n" + WAITS)
    job = session.start("-n", 3, "--oversubscribe", script)
    starts = session.files("start.*.json", 3)
    supervisor = starts[1]["ppid"]
    with open(f"/proc/{supervisor}/stat") as stat:
        guard = int(stat.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{job.pid}/task/{job.pid}/children") as children:
        [mpiexec] = map(int, children.read().split())
    victims = {"script": starts[1]["pid"], "supervisor": supervisor, "guard": guard, "mpiexec": mpiexec}
    os.kill(victims[victim], signal.SIGKILL)
    _, err = job.communicate(timeout=BOUND)
    assert left_of(starts[0]["run"]) == []
    # A process that was killed has no environment any more a moment before it is dead.
    session.until(lambda: not any(running(start["pid"]) for start in starts), "the end of all scripts", BOUND)
    last = err.splitlines()[-1]
    if victim == "mpiexec":
        assert job.returncode == 137
        assert re.match(r"dlaunch: mpiexec was killed by SIGKILL \(signal 9\) after .*, so all 3 ranks were ended", last)
        return
    if victim == "guard":  # MPI's process manager sees this one itself, and ends the others
        assert job.returncode == 137
        told = rf"dlaunch: rank 1: its guard \(pid {guard} on .*\) was killed by SIGKILL \(signal 9\) after .* s, so MPI ended the job"
        assert re.match(told, last)
    else:
        assert job.returncode == 137
        pid = {"script": starts[1]["pid"], "supervisor": supervisor}[victim]
        assert f"(pid {pid} on {os.uname().nodename}) was killed by SIGKILL (signal 9)" in last
    assert "rank 1" in last


def test_a_process_manager_on_another_host_is_killed(session, say, left_of):
    """MPI's process manager has a process on each host; its ranks there must not outlive it."""
    script = session.script(say + "signal.signal(15, signal.SIG_IGN)\nsay('start', run=os.environ['DISTTORCH_RUN_DIR'])\n" + WAITS)
    job = session.start("-n", 2, script)
    starts = session.files("start.*.json", 2)
    pid = starts[1]["ppid"]
    for _ in range(2):  # the guard, and who started it: hydra's proxy, or Open MPI's mpiexec itself
        with open(f"/proc/{pid}/stat") as stat:
            pid = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    job.communicate(timeout=BOUND)
    assert job.returncode != 0
    assert left_of(starts[0]["run"]) == []


def test_children_of_a_failed_script_do_not_outlive_it(session, say, left_of, running):
    script = session.script(
        say + "import subprocess\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "own = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'], start_new_session=True)\n"
        "say('start', run=os.environ['DISTTORCH_RUN_DIR'], workers=[worker.pid, own.pid])\n"
        "wait_for(f'start.{1 - rank}.json')\n"
        "if rank == 1:\n    sys.exit(5)\n" + WAITS
    )
    assert session.run("-n", 2, script).returncode == 5
    starts = session.files("start.*.json", 2)
    assert left_of(starts[0]["run"]) == []
    session.until(lambda: not any(running(pid) for start in starts for pid in start["workers"]), "the end of all workers")


@pytest.mark.parametrize("meanwhile", [WAITS, "world.Barrier()\n"], ids=["computes", "waits for it"])
def test_abort_of_mpi(session, say, meanwhile):
    """Whoever is killed by MPICH's process manager is not the script, whose MPI_Finalize fails with a code of its own."""
    aborts = "if rank == 1:\n    try:\n        {}['lr']\n    except KeyError:\n        traceback.print_exc()\n        world.Abort(5)\n"
    job = session.run("-n", 2, session.script(say + "import traceback\n" + MPI + aborts + meanwhile))
    assert job.returncode == 5, job.stderr
    *_, before, last = (line.lstrip("\0") for line in job.stderr.splitlines())  # Open MPI's message ends with one
    assert re.match(r"dlaunch: rank 1 \(.*(called MPI_Abort|ended with exit code 5)", last)
    assert before == "    KeyError: 'lr'"


def test_a_rank_that_is_done_without_mpi_finalize(session, say):
    """MPI ends the others because of it, and so it is the one to be told of."""
    script = session.script(say + MPI + "if rank == 1:\n    os._exit(0)\nworld.Barrier()\n")
    job = session.run("-n", 2, script)
    assert job.returncode != 0
    last = job.stderr.splitlines()[-1]
    assert "Rank 1 had ended with exit code 0 before: if that was without MPI_Finalize, as by os._exit, mpiexec took it" in last, job.stderr


SHARES = """
from mpi4py import MPI
window = MPI.Win.Allocate_shared(1 << 20, comm=MPI.COMM_WORLD)
mapped = [line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/" in line]
say("start", files=mapped, pid=os.getpid(), supervisor=os.getppid())
"""


def test_the_shared_memory_of_mpi_is_given_back(session, say):
    """MPI unlinks its segments in MPI_Finalize, to which a job that is ended does not come."""
    script = session.script(say + SHARES + "wait_for(f'start.{1 - rank}.json')\nif rank == 1:\n    sys.exit(3)\n" + WAITS)
    job = session.run("-n", 2, script)
    assert job.returncode == 3
    files = {file for start in session.files("start.*.json", 2) for file in start["files"]}
    assert files
    assert not [file for file in files if os.path.exists(file)]


def test_the_shared_memory_of_mpi_is_given_back_by_a_rank_alone(session, say):
    connect = "import collectives\nworld = collectives.connect()\n"
    mapped = 'say("start", files=[line.split()[-1] for line in open("/proc/self/maps") if "/dev/shm/" in line])\n'
    job = session.run("-n", 1, session.script(say + connect + mapped + "raise KeyError('lr')\n"))
    assert job.returncode == 1 and "KeyError: 'lr'" in job.stderr
    (start,) = session.files("start.*.json", 1)
    assert not [file for file in start["files"] if os.path.exists(file)]


def test_the_shared_memory_of_mpi_is_given_back_where_no_rank_is_left_to_ask(session, say):
    """All ranks get SIGKILL at once, as where memory runs out."""
    job = session.start("-n", 2, session.script(say + SHARES + WAITS))
    starts = session.files("start.*.json", 2)
    files = {file for start in starts for file in start["files"] if os.path.exists(file)}
    assert files

    def rests():
        """How often the supervisors have gone to sleep: they wake up for nothing but their looks."""
        said = [Path(f"/proc/{start['supervisor']}/status").read_text() for start in starts]
        return [int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1]) for status in said]

    before = rests()
    session.until(lambda: all(now >= then + 2 for now, then in zip(rests(), before, strict=True)), "a look of both supervisors")
    for start in starts:
        os.kill(start["pid"], signal.SIGSTOP)  # so that neither takes notice of the other's end
    for start in starts:
        os.kill(start["pid"], signal.SIGKILL)
    job.communicate(timeout=BOUND)
    assert job.returncode == 128 + signal.SIGKILL
    assert not [file for file in files if os.path.exists(file)]


STARTS_MPI = ["from mpi4py import MPI\n", "from collectives import mpi_world\nMPI = mpi_world.start()\n"]


@pytest.mark.parametrize("start", STARTS_MPI, ids=["mpi4py", "collectives"])
def test_the_shared_memory_of_mpi_is_given_back_by_ranks_that_crash_at_once(session, say, start):
    """Before their supervisors look by themselves: a rank tells its supervisor that MPI has started."""
    script = session.script(
        say + start + "MPI.COMM_WORLD.Barrier()\n"
        "def state():\n"
        "    with open(f'/proc/{os.getppid()}/stat') as stat:\n        return stat.read().rpartition(')')[2].split()[0]\n"
        "while state() != 'S':\n    pass\n"  # it has done what it was waked up for
        "lines = [line.split() for line in open('/proc/self/maps') if '/dev/shm/' in line]\n"
        "say('start', files=[words[5] for words in lines if os.path.exists(words[5])])\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    job = session.run("-n", 2, script)
    assert job.returncode == 128 + signal.SIGKILL
    files = {file for path in session.directory.glob("start.*.json") for file in json.loads(path.read_text())["files"]}
    assert files
    assert not [file for file in files if os.path.exists(file)]


def test_the_shared_memory_of_mpi_is_given_back_where_mpi_does_not_come_to_its_start(session, say):
    """In a full /dev/shm MPI_Init ends by SIGBUS: what there is of its memory would keep /dev/shm full for the next job."""
    script = session.script(
        say + "import mmap\n"
        "path = f'/dev/shm/mpich_shm_{os.getpid()}_0'\n"
        "fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)\nos.truncate(fd, 4096)\nmapped = mmap.mmap(fd, 4096)\n"
        "say('start', file=path)\n"
        "os.write(2, b'Fatal Python error: Bus error\\n')\n"
        "def state():\n"
        "    with open(f'/proc/{os.getppid()}/stat') as stat:\n        return stat.read().rpartition(')')[2].split()[0]\n"
        "while state() != 'S':\n    pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert session.run("-n", 1, "--engine", "plain", script).returncode == 128 + signal.SIGKILL
    path = session.files("start.*.json", 1)[0]["file"]
    stays = os.path.exists(path)
    if stays:
        os.unlink(path)
    assert not stays


def test_a_process_whose_memory_may_not_be_seen_has_no_segments():
    """The supervisor of a program with capabilities goes on."""
    program = (
        "import os, sys\nfrom launcher import process\nif os.getuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    open('/proc/1/maps').read()\nexcept PermissionError:\n    print(process.shared_segments(1))\n"
        "else:\n    print('seen')\n"
    )
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    if said.stdout == "seen\n":
        pytest.skip("this user's own process is the first one of the machine")
    assert (said.stdout, said.stderr) == ("set()\n", "")


SESSIONS = [
    # directory, its process, whether it is one of Open MPI's daemons, which a killed one has left
    ("ompi.4711", 4711, True),
    ("prted.4711", 4711, True),
    ("ompi.4711", 471, False),
    ("run.4711", 4711, False),  # of a script that calls its output so
    ("ompi.4711.old", 4711, False),
]


@pytest.mark.parametrize(("name", "pid", "theirs"), SESSIONS)
def test_what_a_killed_daemon_of_open_mpi_leaves_is_removed(name, pid, theirs, tmp_path):
    """The next daemon with its process id would not start."""
    directory = tmp_path / name
    (directory / "0").mkdir(parents=True)
    (directory / "pmix.host.tool").touch()
    process.remove_session("", pid)
    process.remove_session(str(directory), pid)
    assert directory.exists() is not theirs


HOLDS_OPEN = """
import os, sys, time
directory = f"{sys.argv[1]}.{os.getpid()}"
os.mkdir(directory)
file = open(f"{directory}/{sys.argv[2]}", "w")
print(flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize(("name", "file", "theirs"), [("ompi", "hwloc.sm", True), ("ompi", "out", False), ("run", "hwloc.sm", False)])
def test_the_files_of_a_daemon_of_open_mpi_are_found(name, file, theirs, tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDS_OPEN, name, file], cwd=tmp_path, stdout=subprocess.PIPE) as daemon:
        daemon.stdout.readline()
        assert process.session_of(daemon.pid) == (str(tmp_path / f"{name}.{daemon.pid}") if theirs else "")
        daemon.kill()
    assert process.session_of(daemon.pid) == ""


def test_the_files_of_open_mpi_go_with_the_job(session, say):
    """They are in the run directory; where dlaunch and mpiexec are killed, the guards are left to remove them."""
    from launcher.mpi import find_mpi

    if find_mpi("auto", session.environ).engine.name != "Open MPI":
        pytest.skip("mpi4py loads another MPI")
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'], files=os.environ['PMIX_SERVER_TMPDIR'])\n" + WAITS
    )
    job = session.start("-n", 2, script)
    start = session.files("start.*.json", 2)[0]
    mpiexec = int(start["files"].rpartition(".")[2])
    assert os.path.dirname(start["files"]) == start["run"] and os.listdir(start["files"])
    job.send_signal(signal.SIGSTOP)
    os.kill(mpiexec, signal.SIGKILL)
    session.until(lambda: not os.path.exists(start["files"]), "the removal of mpiexec's files", BOUND)
    job.kill()
    job.communicate(timeout=BOUND)
    shutil.rmtree(start["run"])


def test_a_failing_rank_runs_its_exit_functions_but_does_not_wait_in_them_for_ever(session, say):
    script = session.script(
        say + MPI + "import atexit\n"
        "def finish():\n    say('atexit')\n    world.Barrier()\n"
        "atexit.register(finish)\n"
        "if rank == 1:\n    raise ValueError('bad batch')\n" + WAITS
    )
    job = session.run("-n", 2, script)
    assert job.returncode == 1
    session.files("atexit.1.json", 1)
    assert "in finish" in job.stderr  # where it hung


def test_when_dlaunch_itself_is_killed_nothing_stays(session, say, left_of):
    script = session.script(say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\n" + WAITS)
    job = session.start("-n", 2, script)
    run = session.files("start.*.json", 2)[0]["run"]
    assert len(left_of(run)) >= 6
    job.kill()
    job.communicate(timeout=BOUND)
    session.running.clear()
    session.until(lambda: left_of(run) == [], "the end of all processes", BOUND)
    assert not os.path.exists(run)


def test_where_all_is_killed_at_once_the_next_job_removes_what_stays(session, say, left_of):
    """As Slurm or a full memory does it: no supervisor is left to do so."""
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nif not os.path.exists('once'):\n    wait_for('never')\n"
    )
    environ = {"TMPDIR": str(session.directory)}
    job = session.start("--engine", "plain", "-n", 2, script, **environ)
    run = session.files("start.*.json", 2)[0]["run"]
    for pid in [job.pid, *left_of(run)]:
        os.kill(pid, signal.SIGSTOP)  # so that none takes notice of another's end
    for pid in [job.pid, *left_of(run)]:
        os.kill(pid, signal.SIGKILL)
    job.communicate(timeout=BOUND)
    session.running.clear()
    session.until(lambda: left_of(run) == [], "the end of all processes", BOUND)
    assert os.path.exists(run)
    session.script("", "once")
    assert session.run("--engine", "plain", "-n", 1, script, **environ).returncode == 0
    assert list(session.directory.glob("dlaunch-*")) == []


STAYS = [
    # name, what the directory holds, who holds it, whether it is removed
    ("dlaunch-dead", "alive", None, True),
    ("dlaunch-used", "alive", "held", False),
    ("dlaunch-elsewhere", "alive", "another kernel", False),
    ("dlaunch-mine", "notes.txt", None, False),  # of a user who calls a directory so
    ("dlaunch-link", "alive", "a link", False),
    ("other-dead", "alive", None, False),
]


@pytest.mark.parametrize(("name", "file", "state", "gone"), STAYS, ids=[case[0] for case in STAYS])
def test_what_is_taken_for_the_directory_of_a_dead_job(name, file, state, gone, tmp_path):
    path = (tmp_path / "target") if state == "a link" else tmp_path / name
    path.mkdir()
    held = run_directories.begin(str(path))
    (path / "rank-0.start.json").write_text("{}")
    (path / "ompi.4711" / "0").mkdir(parents=True)
    if state == "another kernel":
        (path / "alive").write_text("4711")
    if state == "a link":
        (tmp_path / name).symlink_to(path)
    if file != "alive":
        (path / "alive").rename(path / file)
    if state != "held":
        for fd in held._fds:
            os.close(fd)
    run_directories.remove_left(str(tmp_path))
    assert path.exists() is not gone
    assert gone or (path / "rank-0.start.json").exists()


def test_the_last_one_out_removes_the_directory(tmp_path):
    path = str(tmp_path / "run")
    os.mkdir(path)
    users = [run_directories.begin(path), run_directories.hold(path), run_directories.hold(path)]
    for user in users:
        assert os.path.exists(path)
        user.leave()
    assert not os.path.exists(path)


@pytest.mark.parametrize("engine", ["mpiexec", "plain"])
@pytest.mark.parametrize(("what", "code"), [("run", 3), ("run", 0), ("tmp", 3), ("tmp", 0)])
def test_a_run_directory_that_somebody_removes(session, say, left_of, engine, what, code):
    """What clears away old temporary files takes the directory of a job that takes long; or all of TMPDIR goes."""
    tmp = session.directory / "tmp"
    tmp.mkdir()
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nwait_for('go')\nprint('done', rank, flush=True)\n"
        f"sys.exit({code} if rank == 1 else 0)\n"
    )
    job = session.start("--engine", engine, "-n", 2, script, TMPDIR=str(tmp))
    run = session.files("start.*.json", 2)[0]["run"]
    shutil.rmtree(run if what == "run" else tmp)
    said = job.stderr.readline()
    session.script("", "go")
    out, err = job.communicate(timeout=BOUND)
    assert said.startswith(f"dlaunch: somebody has removed the job's run directory {run}")
    assert job.returncode == code, err
    assert "done 1" in out and (code or "done 0" in out)
    assert "Traceback" not in err
    assert not code or re.search(r"dlaunch: rank 1 \(pid \d+ on .*\) ended with exit code 3", err)
    assert left_of(run) == []
    assert not os.path.exists(run)


def test_mpiexec_that_does_not_start_is_told_apart(session, monkeypatch):
    """An mpiexec of the right flavour that refuses to work, as one does without slots."""
    from launcher.mpi import find_mpi

    version = subprocess.check_output([find_mpi("auto", session.environ).mpiexec, "--version"], text=True)
    fake = session.directory / "mpiexec"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"if sys.argv[1] == '--version':\n    print({version!r})\nelse:\n    sys.exit('there are no slots')\n"
    )
    fake.chmod(0o755)
    job = session.run("-n", 2, "--mpi", fake, session.script("pass\n"))
    assert job.returncode == 1
    lines = job.stderr.splitlines()
    assert lines[:2] == ["there are no slots", ""]
    assert "mpiexec ended with exit code 1 before any rank had started" in lines[2]
    assert lines[3].startswith(f"  {fake} -n 2 ")


def test_without_a_place_for_the_run_directory_nothing_starts(session):
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "launcher", "-n", "2", str(session.script("print(1)"))]
    job = subprocess.run(
        limited, cwd=session.directory, env=session.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT,
        check=False,
    )  # fmt: skip
    assert job.returncode == 2
    assert job.stderr.startswith("dlaunch: the job's run directory cannot be made: No usable temporary directory found"), job.stderr
    assert job.stderr.count("\n") == 1


def test_modules_run_as_python_does(session):
    package = session.directory / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(
        "import json, os, sys\nfrom . import __name__ as parent\n"
        "json.dump([__name__, parent, sys.argv[1:], sys.path[0]], open(f'seen.{os.environ.get(\"RANK\")}', 'w'))\n"
    )
    assert session.run("-n", 1, "-m", "package", "--lr", "3").returncode == 0
    plain = [sys.executable, "-m", "package", "--lr", "3"]
    subprocess.run(plain, cwd=session.directory, env=session.environ, check=True)
    seen = [json.loads((session.directory / f"seen.{rank}").read_text()) for rank in (0, None)]
    assert seen[0] == seen[1] == ["__main__", "package", ["--lr", "3"], str(session.directory)]


def test_scripts_can_pickle_and_spawn(session):
    """What multiprocessing's spawn and pickle need from __main__ is what `python script.py` leaves there."""
    script = session.script(
        "import multiprocessing, pickle, sys\n"
        "class Batch:\n    pass\n"
        "def double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    assert type(pickle.loads(pickle.dumps(Batch()))) is Batch\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]), sorted(n for n in globals() if not n.startswith('__')))\n"
    )
    launched = session.run("-n", 1, script)
    plain = subprocess.run(
        [sys.executable, script], env=session.environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert (launched.stdout, launched.stderr, launched.returncode) == (plain.stdout, "", 0)
