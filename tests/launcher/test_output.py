"""What the ranks print: straight through, or with ``--tag`` in whole lines that begin with the rank."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest

from launcher.output import Lines, TaggedWriter, write_all
from launcher.rank import HOLD
from tests.launcher.conftest import TIMEOUT

TAGGED = [
    # pieces as they arrive, the bytes that go out
    ([b"one\ntwo\n"], b"[7] one\n[7] two\n"),
    ([b"on", b"e\ntw", b"o"], b"[7] one\n[7] two\n"),
    ([b"\n\n"], b"[7] \n[7] \n"),
    ([b"1%\r2%\r", b"3%\n"], b"[7] 1%\r[7] 2%\r[7] 3%\n"),
    ([b"\r1%", b"\r2%"], b"[7] \r[7] 1%\r[7] 2%\n"),
    ([b"dos\r\nline\r", b"\nend"], b"[7] dos\r\n[7] line\r\n[7] end\n"),
    ([b"a", b"b", b"c\r", b"d", b"\r", b"\ne\r", b"f"], b"[7] abc\r[7] d\r\n[7] e\r[7] f\n"),
    ([b"\xff\xfe\n"], b"[7] \xff\xfe\n"),
    ([], b""),
]


@pytest.mark.parametrize(("pieces", "expected"), TAGGED)
def test_tagged_bytes(pieces, expected):
    read, write = os.pipe()
    writer = TaggedWriter(7, write, None)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    os.close(write)
    with open(read, "rb") as file:
        assert file.read() == expected


def test_a_line_of_many_megabytes_is_not_looked_through_at_each_of_its_pieces():
    lines = Lines(may_go_on=True)
    begun = time.process_time()
    for _ in range(4000):
        assert lines.feed(bytes(10_000)) == b""
    assert len(lines.feed(b"\n")) == 40_000_001
    assert time.process_time() - begun < 3  # 20 ms; copying all of it each time would take 30 s


def test_tagged_lines_are_whole_and_in_order(session, say):
    """Lines longer than a pipe takes at once, from three ranks and on both streams."""
    count, length = 60, 9000
    script = session.script(
        say + f"for i in range({count}):\n"
        f"    print(i, chr(97 + rank) * {length}, flush=True)\n"
        f"    print('err', i, chr(97 + rank) * {length}, file=sys.stderr)\n"
        "print('no newline', end='')\n"
    )
    job = session.run("-n", 3, "--oversubscribe", "--tag", script)
    assert job.returncode == 0
    for text, form in ((job.stdout, r"\[(\d)\] ()(\d+) (\w+)"), (job.stderr, r"\[(\d)\] (err )(\d+) (\w+)")):
        lines = text.splitlines()
        for rank in range(3):
            mine = [re.fullmatch(form, line) for line in lines if line.startswith(f"[{rank}]")]
            if text is job.stdout:
                assert mine.pop() is None
            assert [(int(m[1]), int(m[3]), m[4]) for m in mine] == [
                (rank, i, chr(97 + rank) * length) for i in range(count)
            ]
    assert sorted(line for line in job.stdout.splitlines() if "no newline" in line) == [
        f"[{rank}] no newline" for rank in range(3)
    ]


MERGED = """
import pathlib, subprocess, sys
from launcher.output import Merged

directory = pathlib.Path(sys.argv[1])
merged = Merged(directory)
manager = subprocess.Popen([sys.executable, "-c", sys.argv[2]], stdout=merged.stdout)
here = subprocess.Popen([sys.executable, "-c", sys.argv[3], directory])
merged.start()
manager.wait()
here.wait()
merged.close(timeout=60.0)
"""
# Lines of a rank elsewhere, in the pieces that the process manager's reads gave it.
MANAGER = """
import os
text = b"".join(b"[1] %d %s\\n" % (i, b"b" * 9000) for i in range(60)) + b"its last words"
for i in range(0, len(text), 4321):
    os.write(1, text[i : i + 4321])
"""
RANK_HERE = """
import pathlib, sys
from launcher.output import LinesOfOthers
here = LinesOfOthers(pathlib.Path(sys.argv[1]), tag=True)
for i in range(60):
    here.write(1, b"[0] %d %s\\n" % (i, b"a" * 9000))
"""


def test_lines_that_the_process_manager_passes_on_stay_whole(tmp_path):
    command = [sys.executable, "-c", MERGED, tmp_path, MANAGER, RANK_HERE]
    job = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (job.returncode, job.stderr) == (0, "")
    lines = job.stdout.splitlines()
    assert "its last words" in lines
    for rank, letter in enumerate("ab"):
        assert [line for line in lines if line.startswith(f"[{rank}]")] == [f"[{rank}] {i} {letter * 9000}" for i in range(60)]


def test_without_tag_the_bytes_are_the_script_s(session):
    script = session.script(
        "import sys\nsys.stdout.buffer.write(b'out \\xff\\r1%\\r2%')\nsys.stderr.buffer.write(b'err \\xff\\r1%\\r2%')\n"
    )
    job = subprocess.run(
        [sys.executable, "-m", "launcher", "-n", "1", script],
        env=session.environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (job.stdout, job.stderr) == (b"out \xff\r1%\r2%", b"err \xff\r1%\r2%")


@pytest.mark.parametrize("tag", [[], ["--tag"]], ids=["plain", "tag"])
def test_output_arrives_while_the_script_runs(session, say, tag):
    script = session.script(say + "print('out', flush=True)\nprint('err', file=sys.stderr)\nwait_for('go')\n")
    job = session.start("-n", 1, *tag, script)
    prefix = "[0] " if tag else ""
    assert job.stdout.readline() == f"{prefix}out\n"
    assert job.stderr.readline() == f"{prefix}err\n"
    session.script("", "go")
    job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0


def test_rank_0_reads_what_dlaunch_is_given(session, say):
    script = session.script(say + "print(rank, repr(sys.stdin.read()))\n")
    job = subprocess.run(
        [sys.executable, "-m", "launcher", "-n", "2", script],
        cwd=session.directory, env=session.environ, input="hello", capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert sorted(job.stdout.splitlines()) == ["0 'hello'", "1 ''"]


@pytest.mark.parametrize("tag", [[], ["--tag"]], ids=["plain", "tag"])
def test_a_slow_reader_gets_all_of_it(session, say, tag):
    """Nothing is lost that had no room, neither of the ranks nor of dlaunch."""
    script = session.script(
        say + "sys.stderr.write('e' * 300_000 + '\\n')\nprint('o' * 300_000, flush=True)\nraise ValueError('bad batch')\n"
    )
    job = session.start("-n", 1, *tag, script)
    session.until(lambda: full(job.stdout) or full(job.stderr), "a full pipe")
    out, err = job.communicate(timeout=60)
    assert out.count("o") == 300_000
    assert err.count("e" * 300_000) == 1
    assert err.splitlines()[-1].startswith("dlaunch: rank 0 ")
    assert err.splitlines()[-1].endswith("by ValueError: bad batch")


def full(pipe):
    waiting = fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"1234")
    return int.from_bytes(waiting, sys.byteorder) >= 61_000


def test_an_mpiexec_that_dies_at_a_full_pipe_leaves_it_as_it_was(session, say):
    """MPICH's lets it not block while it waits for room: for dlaunch, too, the user's shell, and what that runs next."""
    out, write = os.pipe()
    script = session.script(say + "say('start')\nprint('x' * 300_000, flush=True)\nwait_for('never')\n")
    job = subprocess.Popen(
        [sys.executable, "-m", "launcher", "-n", "2", script],
        cwd=session.directory, env=session.environ, stdin=subprocess.DEVNULL, stdout=write, stderr=write,
    )  # fmt: skip
    session.files("start.*.json", 2)
    with open(out) as file:
        session.until(lambda: full(file), "a full pipe")
        with open(f"/proc/{job.pid}/task/{job.pid}/children") as children:
            [mpiexec] = map(int, children.read().split())
        os.kill(mpiexec, signal.SIGSTOP)
        os.set_blocking(write, False)
        os.kill(mpiexec, signal.SIGKILL)
        session.until(lambda: os.get_blocking(write), "a pipe that blocks")
        os.close(write)
        assert file.read().splitlines()[-1].startswith("dlaunch: mpiexec was killed by SIGKILL")
    assert job.wait(timeout=30) == 137


def test_a_descriptor_that_does_not_block_is_waited_for():
    read, write = os.pipe()
    os.set_blocking(write, False)
    text = b"0123456789" * 30_000

    def writes():
        with open(write, "wb") as file:
            write_all(file.fileno(), text)

    writer = threading.Thread(target=writes)
    writer.start()
    with open(read, "rb") as file:
        assert file.read() == text
    writer.join()


def test_a_reader_that_goes_away_does_not_stop_the_job(session, say):
    script = session.script(say + "wait_for('go')\nprint('x' * 200000)\nsay('end')\n")
    job = session.start("-n", 2, "--tag", script)
    job.stdout.close()
    session.script("", "go")
    session.files("end.*.json", 2)
    assert job.wait(timeout=TIMEOUT) == 0
    job.stderr.close()


@pytest.mark.parametrize("tag", [[], ["--tag"]], ids=["plain", "tag"])
def test_a_reader_that_is_slow_gets_everything(session, say, tag):
    """As a pager that shows the first page: whatever the ranks have left in between is not given up while it holds everything up."""
    script = session.script(say + "print('x' * 60000, flush=True)\nsay('end')\n")
    job = session.start("-n", 2, *tag, script, constants=dict.fromkeys(("job.LINGER", "job.COPYING", "job.SPEAKING"), 0.2))
    session.files("end.*.json", 2)
    time.sleep(1.5)  # a multiple of what may be waited for without a reader
    out, err = job.communicate(timeout=TIMEOUT)
    assert (job.returncode, err) == (0, "")
    assert out.count("x") == 120000


@pytest.mark.parametrize("engine", ["auto", "plain"])
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_what_is_closed_is_as_dev_null(session, say, closed, engine):
    """As where a daemon starts dlaunch: the number must not go to one of its pipes, or of mpiexec's."""
    speaks = "print('x', flush=True)\nsys.stderr.write('y\\n')\nsay('end', read=sys.stdin.read())\n"
    script = session.script(say + speaks + "wait_for(f'end.{1 - rank}.json')\nsys.exit(3)\n")
    ranks = [sys.executable, "-m", "launcher", "-n", "2", "--engine", engine, str(script)]
    begun = time.monotonic()
    job = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *ranks],
        cwd=session.directory, env=session.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert job.returncode == 3, job.stderr
    assert time.monotonic() - begun < HOLD  # that long a supervisor waits for a dlaunch that does not hear of it
    assert [end["read"] for end in session.files("end.*.json", 2)] == ["", ""]
    assert job.stdout.replace("\n", "") == ("" if "1" in closed else "xx")
    assert ("" if "2" in closed else "yy") == "".join(re.findall(r"^y+$", job.stderr, re.MULTILINE))
    assert job.stderr == "" or "ended with exit code 3" in job.stderr.splitlines()[-1]


def test_a_report_goes_nowhere_where_stdout_is_closed(session):
    job = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "launcher", "info"],
        cwd=session.directory, env=session.environ, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (job.returncode, job.stdout, job.stderr) == (0, "", "")


def test_a_background_process_of_a_good_script_does_not_hold_dlaunch(session, say):
    script = session.script(
        say + "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nsay('start', child=child.pid)\n"
    )
    job = session.start("-n", 1, script)
    [start] = session.files("start.*.json", 1)
    assert job.wait(timeout=TIMEOUT) == 0
    os.kill(start["child"], 9)
    job.communicate()
