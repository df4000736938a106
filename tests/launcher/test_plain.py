"""The plain engine: processes without an MPI, on this host and on others, and how they end."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import channel, process
from launcher.plain import Elsewhere, Part, Plain
from launcher.record import End, RunDirectory
from tests.launcher.conftest import TIMEOUT

# Seconds from a failure to the end of the last process. What launcher.job waits for comes to 16 if nothing ends when it is told to; the
# rest is for a machine with other work.
BOUND = 30.0
START = "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\n"
BOTH = START + "wait_for(f'start.{1 - rank}.json')\n"
WAITS = "wait_for('never')\n"
PLAIN = ("--engine", "plain", "--oversubscribe")

ENDS = [
    # name, what rank 1 of 2 does, exit code, words of the last line
    ("all well", "open('never', 'w')\n", 0, None),
    ("exit 3", "sys.exit(3)\n", 3, "ended with exit code 3"),
    ("exception", "{}['lr']\n", 1, "by KeyError: 'lr'"),
    ("SIGKILL", "os.kill(os.getpid(), signal.SIGKILL)\n", 137, "was killed by SIGKILL (signal 9)"),
    ("SIGSEGV", "import ctypes; ctypes.string_at(0)\n", 139, "was killed by SIGSEGV (signal 11)"),
]


@pytest.mark.parametrize(("one", "code", "words"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_ends(session, say, left_of, one, code, words):
    script = session.script(say + BOTH + f"if rank == 1:\n    {one}else:\n    {WAITS}")
    job = session.run(*PLAIN, "-n", 2, script)
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
    assert words in last and "the other rank was ended" in last


def test_the_environment_is_torchruns_and_no_mpis(session, say):
    script = session.script(say + "say('environ', environ=dict(os.environ), argv=sys.argv)\n")
    job = session.run(*PLAIN, "-n", 3, script, "a b", ":", PMI_RANK="0", OMPI_COMM_WORLD_RANK="0", PMIX_RANK="0")
    assert (job.returncode, job.stdout, job.stderr) == (0, "", "")
    for rank, seen in enumerate(session.files("environ.*.json", 3)):
        environ = seen["environ"]
        place = {"RANK": rank, "WORLD_SIZE": 3, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 3}
        assert {name: int(environ[name]) for name in place} == place
        assert environ["MASTER_ADDR"] == "127.0.0.1" and 1024 < int(environ["MASTER_PORT"]) < 65535
        assert not [name for name in environ if re.match(r"PMI|OMPI_COMM|MPI_LOCAL", name)]
        assert seen["argv"][1:] == ["a b", ":"]


def test_ranks_meet_over_tcp(session):
    """What a store does: rank 0 listens, the others come."""
    script = session.script(
        "import os, socket, time\n"
        "rank, size = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"
        "address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])\n"
        "if rank == 0:\n"
        "    with socket.create_server(address) as server:\n"
        "        print(sum(int(server.accept()[0].recv(9)) for _ in range(size - 1)), flush=True)\n"
        "else:\n"
        "    while True:\n"
        "        try:\n"
        "            socket.create_connection(address).send(b'%d' % 10 ** rank)\n"
        "            break\n"
        "        except ConnectionRefusedError:\n"
        "            time.sleep(0.02)\n"
    )
    job = session.run(*PLAIN, "-n", 4, script)
    assert (job.returncode, job.stdout, job.stderr) == (0, "1110\n", "")


def test_rank_0_reads_what_dlaunch_is_given(session, say):
    job = subprocess.run(
        [sys.executable, "-m", "launcher", *PLAIN, "-n", "2", session.script(say + "print(rank, repr(sys.stdin.read()))\n")],
        cwd=session.directory, env=session.environ, input="hello", capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert sorted(job.stdout.splitlines()) == ["0 'hello'", "1 ''"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_arrive_once_and_scripts_finish(session, say, left_of, number, code):
    counting = (
        "seen = []\nfor n in (1, 2, 10, 12, 15):\n"
        "    signal.signal(n, lambda n, f: (seen.append(n), say('seen%d' % len(seen), seen=seen)))\n"
    )
    script = session.script(
        say + counting + START + "while len(seen) < 2:\n    time.sleep(0.01)\nwait_for('go')\nsay('saved', seen=seen)\n"
    )
    job = session.start(*PLAIN, "-n", 2, script)
    run = session.files("start.*.json", 2)[0]["run"]
    job.send_signal(signal.SIGUSR1)
    session.files("seen1.*.json", 2)
    job.send_signal(number)
    session.files("seen2.*.json", 2)
    session.script("", "go")
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == code
    assert [saved["seen"] for saved in session.files("saved.*.json", 2)] == [[signal.SIGUSR1, number]] * 2
    assert err.splitlines()[-1].startswith(f"dlaunch: stopped by {number.name} after ")
    assert left_of(run) == []


def parents(pid):
    """A process's parent, its parent's, and so on."""
    found = []
    while pid > 1:
        with open(f"/proc/{pid}/stat") as stat:
            pid = int(stat.read().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


VICTIMS = [
    # victim, how many parents up from the script, words of the last line
    ("script", 0, r"rank 1 \(pid {pid} on .*\) was killed by SIGKILL \(signal 9\)"),
    ("supervisor", 1, r"rank 1: its supervisor \(pid {pid} on .*\) was killed by SIGKILL \(signal 9\)"),
    ("guard", 2, r"rank 1: its supervisor \(pid {pid} on .*\) was killed by SIGKILL \(signal 9\)"),
    ("process manager", 3, r"the plain engine was killed by SIGKILL \(signal 9\) .*, so all 3 ranks were ended"),
    ("dlaunch", 4, None),
]


@pytest.mark.parametrize(("victim", "up", "words"), VICTIMS, ids=[victim[0] for victim in VICTIMS])
def test_kill_9_leaves_nothing(session, say, left_of, victim, up, words):
    job = session.start(*PLAIN, "-n", 3, session.script(say + START + WAITS))
    starts = session.files("start.*.json", 3)
    pid = [starts[1]["pid"], *parents(starts[1]["pid"])][up]
    assert (pid == job.pid) == (victim == "dlaunch")
    assert len(left_of(starts[0]["run"])) == 3 * 3 + 1
    os.kill(pid, signal.SIGKILL)
    _, err = job.communicate(timeout=BOUND)
    assert job.returncode == (-9 if victim == "dlaunch" else 137)
    session.running.clear()
    session.until(lambda: left_of(starts[0]["run"]) == [], "the end of all processes", BOUND)
    if words is not None:
        assert re.search(words.format(pid=pid), err.splitlines()[-1]), err


# -- other hosts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_frames_arrive_whole_whatever_a_read_gives(piece):
    frames = [(channel.PLAN, b"{}"), (channel.OUT, bytes(range(256)) * 9), (channel.ERR, b""), (channel.DONE, b"0")]
    read, write = os.pipe()
    for kind, payload in frames:
        assert channel.send(write, kind, payload)
    os.close(write)
    sent = b"".join(iter(lambda: channel.read(read), b""))
    os.close(read)
    taken = channel.Frames()
    assert [frame for start in range(0, len(sent), piece) for frame in taken.feed(sent[start : start + piece])] == frames


def test_nobody_at_the_other_end_is_no_error():
    read, write = os.pipe()
    os.close(read)
    assert channel.send(write, channel.SIGNAL, 15) is False
    os.close(write)


# A host of its own process numbers, and its own temporary directory: what ssh reaches, without a second machine.
FAR = """#!/bin/sh
echo $$ > "{directory}/way.$1"
shift
exec unshare --mount --pid --fork --kill-child --mount-proc sh -c \
    'mkdir -p "{own}" && mount --bind "{own}" "{shared}" && exec "$@"' sh "$@"
"""
NEAR = '#!/bin/sh\necho $$ > "{directory}/way.$1"\nshift\nexec "$@"\n'


class Far:
    """A way to other hosts, and the temporary directory of dlaunch that they do not see."""

    def __init__(self, directory: Path, text: str):
        self.directory = directory
        self.way = directory / "way"
        self.tmp = directory / "tmp"
        (directory / "own").mkdir()
        self.tmp.mkdir()
        self.way.write_text(text.format(directory=directory, own=directory / "own", shared=self.tmp))
        self.way.chmod(0o700)


@pytest.fixture(params=["shared", "far"])
def far(request, tmp_path):
    """Other hosts that share everything with this one, and hosts that share the script's directory alone."""
    if request.param == "far":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("only root makes a host of its own process numbers (unshare)")
        tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False)
        if tried.returncode:
            pytest.skip(f"no host of its own process numbers can be made here: {tried.stderr.decode().strip()}")
    return Far(tmp_path, FAR if request.param == "far" else NEAR)


def start(session, far, script, *options, hosts="localhost:2,n2:2"):
    return session.start(*PLAIN, "--hosts", hosts, "--rsh", far.way, *options, script, TMPDIR=str(far.tmp))


def test_ranks_of_two_hosts(session, say, far):
    script = session.script(
        say + "names = 'RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT DISTTORCH_RUN_DIR GREETING'\n"
        "say('place', place=[os.environ[name] for name in names.split()], cwd=os.getcwd(), argv=sys.argv[1:])\n"
        "print('out', rank)\nprint('err', rank, file=sys.stderr)\n"
    )
    job = start(session, far, script, "--env", "GREETING=good day", "--master-addr", "127.0.0.1")
    out, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, err
    assert sorted(out.splitlines()) == [f"out {rank}" for rank in range(4)]
    assert sorted(err.splitlines()) == [f"err {rank}" for rank in range(4)]
    ranks = session.files("place.*.json", 4)
    for rank, seen in enumerate(ranks):
        assert seen["place"][:5] == [str(rank), "4", str(rank % 2), "2", "127.0.0.1"]
        assert seen["place"][5:] == [*ranks[0]["place"][5:7], "good day"]
        assert seen["cwd"] == str(session.directory)
    assert list(far.tmp.iterdir()) == list((far.directory / "own").iterdir()) == []


def test_lines_of_other_hosts_are_whole(session, say, far):
    script = session.script(say + "for i in range(200):\n    print(i, 'x' * 3000)\nprint('end', end='')\n")
    job = start(session, far, script, "--tag")
    out, err = job.communicate(timeout=TIMEOUT)
    assert (job.returncode, err) == (0, "")
    expected = [f"[{rank}] {i} {'x' * 3000}" for rank in range(4) for i in range(200)] + [f"[{rank}] end" for rank in range(4)]
    assert sorted(out.splitlines()) == sorted(expected)


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_fails(session, say, far, rank):
    script = session.script(
        say + "say('start')\nfor other in range(4):\n    wait_for(f'start.{other}.json')\n"
        f"if rank == {rank}:\n    raise ValueError('bad batch')\n" + WAITS
    )
    job = start(session, far, script)
    _, err = job.communicate(timeout=TIMEOUT)
    session.ended_soon(BOUND)
    assert job.returncode == 1
    assert f"dlaunch: rank {rank} failed first; its traceback ends with:" in err
    last = err.splitlines()[-1]
    assert re.match(rf"dlaunch: rank {rank} \(pid .*by ValueError: bad batch; the other 3 ranks were ended", last)
    session.until(lambda: processes_of(session) == [], "the end of all processes", BOUND)
    assert list((far.directory / "own").iterdir()) == []


def processes_of(session):
    """Every process that has the test's directory in its environment: those of other process numbers as well."""
    return process.carrying(f"DLAUNCH_TEST={session.directory}")


@pytest.fixture(autouse=True)
def marked(request):
    if "session" in request.fixturenames:
        session = request.getfixturevalue("session")
        session.environ["DLAUNCH_TEST"] = str(session.directory)


def test_signals_reach_other_hosts(session, say, far):
    script = session.script(
        say + "def note(n, f):\n    say('seen', number=n)\n    sys.exit(0)\n"
        "signal.signal(15, note)\nsay('start')\nwait_for('never')\n"
    )
    job = start(session, far, script)
    session.files("start.*.json", 4)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 143
    assert [seen["number"] for seen in session.files("seen.*.json", 4)] == [15] * 4
    assert "all 4 ranks have ended" in err


HOST_VICTIMS = [
    ("way", "rank 2: its host n2 was lost after .*: {way} ended with signal 9"),
    ("process manager", "the plain engine was killed by SIGKILL"),
    ("dlaunch", None),
]


@pytest.mark.parametrize(("victim", "words"), HOST_VICTIMS, ids=[victim[0] for victim in HOST_VICTIMS])
def test_kill_9_leaves_nothing_on_other_hosts(session, say, far, victim, words):
    job = start(session, far, session.script(say + "signal.signal(15, signal.SIG_IGN)\nsay('start')\n" + WAITS))
    starts = session.files("start.*.json", 4)
    way = int((far.directory / "way.n2").read_text())
    manager = parents(starts[0]["pid"])[2]
    assert len(processes_of(session)) > 10
    os.kill({"way": way, "process manager": manager, "dlaunch": job.pid}[victim], signal.SIGKILL)
    _, err = job.communicate(timeout=BOUND)
    session.running.clear()
    session.until(lambda: processes_of(session) == [], "the end of all processes", BOUND)
    if words is not None:
        assert re.search(words.format(way=re.escape(str(far.way))), err), err


def test_a_host_that_cannot_be_reached_is_said(session, say, tmp_path):
    way = tmp_path / "way"
    way.write_text("#!/bin/sh\necho no route to $1 >&2\nexit 255\n")
    way.chmod(0o700)
    script = session.script(say + WAITS)
    job = session.run(*PLAIN, "--hosts", "localhost:1,n2:1", "--rsh", way, script)
    assert job.returncode == 1
    assert "no route to n2" in job.stderr
    assert re.search(rf"rank 1: its host n2 was lost after .*: {way} ended with exit code 255", job.stderr.splitlines()[-1])


def test_a_host_without_the_directory_says_so(session, say, far):
    if "unshare" not in far.way.read_text():
        pytest.skip("hosts that share everything have it")
    script = session.script(say + WAITS)
    work = far.tmp / "work"  # not there on the other host
    work.mkdir()
    job = subprocess.run(
        [sys.executable, "-m", "launcher", *PLAIN, "--hosts", "localhost:1,n2:1", "--rsh", far.way, script],
        cwd=work, env={**session.environ, "TMPDIR": str(far.tmp)}, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert job.returncode == 1
    assert f"No such file or directory: {work}, where dlaunch was started" in job.stderr


@pytest.mark.parametrize("told_first", [True, False])
def test_the_cause_of_an_end_counts_whoever_writes_it_first(tmp_path, told_first):
    """A supervisor that is left alone ends its script, and may say so before somebody has seen what was lost."""
    directory = RunDirectory(tmp_path)
    told = End(1, "n2", 42, None, 15, 2.0, 1.0, True, False, [])
    lost = End(1, "n2", 0, 1, None, 3.0, 2.0, False, False, [], lost="the connection broke")
    for end in (told, lost) if told_first else (lost, told):
        (directory.write if end is told else directory.write_seen)(end)
        assert directory.read()[1] == {1: lost if end is lost or not told_first else told}
    assert directory.knows_why(1)
    assert RunDirectory(tmp_path).read()[1] == {1: lost}


def test_only_records_are_taken_from_a_channel(tmp_path):
    """What another host sends must not become a file of any name."""
    (tmp_path / "run").mkdir()
    read, write = os.pipe()
    for name in ("../escaped", "rank-1.end.json/../../escaped", "signals", "rank-0.notice"):
        channel.send(write, channel.FILE, {"name": name, "text": "text"})
    os.close(write)
    part = {"host": "n2", "first": 0, "ranks": 1, "command": None, "fd": read}
    plan = {"world_size": 1, "kernel": "k", "attempt": 0, "parts": [part], "program": [], "exported": []}
    other = Elsewhere.__new__(Elsewhere)
    other.source, other.frames, other.open, other.part = read, channel.Frames(), True, Part(**part)
    Plain(str(tmp_path / "run"), plan)._received(other)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rank-0.notice"]
    assert not (tmp_path / "escaped").exists()
    os.close(read)
