"""What the ranks print: straight through, or with ``--tag`` in whole lines that begin with the rank."""

import os
import re
import subprocess
import sys

import pytest

from launcher.output import TaggedWriter

TAGGED = [
    # pieces as they arrive, the bytes that go out
    ([b"one\ntwo\n"], b"[7] one\n[7] two\n"),
    ([b"on", b"e\ntw", b"o"], b"[7] one\n[7] two\n"),
    ([b"\n\n"], b"[7] \n[7] \n"),
    ([b"1%\r2%\r", b"3%\n"], b"[7] 1%\r[7] 2%\r[7] 3%\n"),
    ([b"\r1%", b"\r2%"], b"[7] \r[7] 1%\r[7] 2%\n"),
    ([b"dos\r\nline\r", b"\nend"], b"[7] dos\r\n[7] line\r\n[7] end\n"),
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
    job.communicate(timeout=15)
    assert job.returncode == 0


def test_rank_0_reads_what_dlaunch_is_given(session, say):
    script = session.script(say + "print(rank, repr(sys.stdin.read()))\n")
    job = subprocess.run(
        [sys.executable, "-m", "launcher", "-n", "2", script],
        cwd=session.directory, env=session.environ, input="hello", capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert sorted(job.stdout.splitlines()) == ["0 'hello'", "1 ''"]


def test_a_reader_that_goes_away_does_not_stop_the_job(session, say):
    script = session.script(say + "wait_for('go')\nprint('x' * 200000)\nsay('end')\n")
    job = session.start("-n", 2, "--tag", script)
    job.stdout.close()
    session.script("", "go")
    session.files("end.*.json", 2)
    assert job.wait(timeout=15) == 0
    job.stderr.close()


def test_a_background_process_of_a_good_script_does_not_hold_dlaunch(session, say):
    script = session.script(
        say + "import subprocess\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\nsay('start', child=child.pid)\n"
    )
    job = session.start("-n", 1, script)
    [start] = session.files("start.*.json", 1)
    assert job.wait(timeout=15) == 0
    os.kill(start["child"], 9)
    job.communicate()
