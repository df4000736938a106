"""--log-dir: a file for each stream of each rank, and what happens when it cannot be written."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from launcher.logs import Logged, prepare

WRITES = "print('out', rank, flush=True)\nprint('err', rank, file=sys.stderr)\n"
both = pytest.mark.parametrize("engine", ["mpiexec", "plain"])


def contents(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in sorted(directory.rglob("*")) if path.is_file()}


@both
@pytest.mark.parametrize("tag", [[], ["--tag"]], ids=["", "tag"])
def test_files_of_the_ranks(session, say, engine, tag):
    job = session.run("-n", 2, "--engine", engine, *tag, "--log-dir", "new/logs", session.script(say + WRITES))
    assert job.returncode == 0, job.stderr
    assert contents(session.directory / "new/logs") == {
        f"rank-{rank}.{name}": f"{name} {rank}\n" for rank in range(2) for name in ("out", "err")
    }
    # The terminal has it as well.
    prefix = [f"[{rank}] " if tag else "" for rank in range(2)]
    assert sorted(job.stdout.splitlines()) == sorted(f"{prefix[rank]}out {rank}" for rank in range(2))
    assert sorted(job.stderr.splitlines()) == sorted(f"{prefix[rank]}err {rank}" for rank in range(2))


@both
@pytest.mark.parametrize("given", [{}, {"DISTTORCH_FLIGHT_DIR": "elsewhere"}], ids=["", "flight directory"])
def test_attempts_are_kept_apart(session, say, engine, given):
    script = session.script(
        say + WRITES + "say('flight' + os.environ['DISTTORCH_ATTEMPT'], directory=os.environ['DISTTORCH_FLIGHT_DIR'])\n"
        "sys.exit(3 if os.environ['DISTTORCH_ATTEMPT'] < '2' else 0)\n"
    )
    job = session.run("-n", 1, "--engine", engine, "--max-restarts", 2, "--log-dir", "logs", script, **given)
    assert job.returncode == 0, job.stderr
    logs = session.directory / "logs"
    assert contents(logs) == {
        f"{attempt}rank-0.{name}": f"{name} 0\n" for attempt in ("", "attempt-1/", "attempt-2/") for name in ("out", "err")
    }
    flights = Path(given["DISTTORCH_FLIGHT_DIR"]) if given else logs  # records of an attempt must not take the place of another's
    for attempt, directory in enumerate((flights, flights / "attempt-1", flights / "attempt-2")):
        assert session.files(f"flight{attempt}.*.json", 1)[0]["directory"] == str(directory)


def test_what_an_earlier_job_left_is_put_aside(tmp_path):
    logs = tmp_path / "logs"
    assert prepare(str(logs)) is None
    ours = ["rank-0.out", "rank-11.err", "rank-0.flight.json", "attempt-1/rank-0.out"]
    for number in (1, 2):
        for name in (*ours, "notes.txt", "rank-0.bak"):
            (logs / name).parent.mkdir(exist_ok=True)
            (logs / name).write_text(str(number))
        assert prepare(str(logs)) == str(logs / f"earlier-{number}")
        assert contents(logs / f"earlier-{number}") == dict.fromkeys(sorted(ours), str(number))
    assert {path.name for path in logs.iterdir()} == {"notes.txt", "rank-0.bak", "earlier-1", "earlier-2"}


def test_a_second_job_says_where_the_first_ones_logs_are(session, say):
    script = session.script(say + WRITES)
    for number in range(2):
        job = session.run("-n", 1, "--engine", "plain", "--log-dir", "logs", script)
        assert job.returncode == 0
        aside = f"dlaunch: what an earlier job left in {session.directory}/logs is in {session.directory}/logs/earlier-1 now\n"
        assert job.stderr == (aside if number else "") + "err 0\n"


def test_a_directory_that_cannot_be_made_is_said_before_anything_starts(session):
    (session.directory / "file").touch()
    job = session.run("-n", 1, "--log-dir", "file/logs", session.script("open('ran', 'w')\n"))
    assert (job.returncode, job.stdout) == (2, "")
    assert job.stderr == f"dlaunch: --log-dir {session.directory}/file/logs: Not a directory\n"
    assert not (session.directory / "ran").exists()


class Onward:
    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data

    def close(self):
        self.data += b"."


def test_a_file_that_cannot_be_written_is_said_once_and_nothing_is_lost(tmp_path):
    (tmp_path / "rank-0.out").symlink_to("/dev/full")
    said, onward = [], Onward()
    log = Logged(tmp_path / "rank-0.out", onward, said.append)
    for data in (b"one ", b"two ", b"three"):
        log.write(data)
    log.close()
    assert said == [f"{tmp_path}/rank-0.out: No space left on device"]
    assert onward.data == b"one two three."


def test_a_file_that_cannot_be_made_is_said_once(tmp_path):
    (tmp_path / "file").touch()
    said, onward = [], Onward()
    log = Logged(tmp_path / "file" / "rank-0.out", onward, said.append)
    log.write(b"one")
    log.close()
    assert (said, onward.data) == ([f"{tmp_path}/file/rank-0.out: File exists"], b"one.")


@contextlib.contextmanager
def small_disk(size):
    """A file system of so many bytes."""
    directory = tempfile.mkdtemp(prefix="dlaunch-test-")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", directory], capture_output=True, check=False)
    try:
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
        yield Path(directory)
    finally:
        if not made.returncode:
            subprocess.run(["umount", "--lazy", directory], check=True)  # what has just ended may hold it for a moment
        shutil.rmtree(directory)


@both
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
@pytest.mark.parametrize("where", ["logs", "logs and run directory"])
def test_a_full_disk_does_not_end_the_job(session, say, engine, where):
    count = 3000
    script = session.script(say + f"wait_for('go')\nfor i in range({count}):\n    print(rank, 'line', i)\nsay('end')\n")
    with small_disk(64 * 1024) as disk:
        environ = {"TMPDIR": str(disk)} if "run" in where else {}
        job = session.start("-n", 2, "--tag", "--engine", engine, "--log-dir", disk / "logs", script, **environ)
        session.script("", "go")
        out, err = job.communicate(timeout=60)
        logged = sum(path.stat().st_size for path in (disk / "logs").glob("rank-*.out"))
    assert job.returncode == 0, err
    session.files("end.*.json", 2)
    lines = out.splitlines()
    for rank in range(2):
        expected = [f"[{rank}] {rank} line {i}" for i in range(count)]
        assert [line for line in lines if line.startswith(f"[{rank}] ")] == expected
    assert 0 < logged <= 64 * 1024
    said = [line for line in err.splitlines() if "cannot write its log" in line]
    assert said and all("No space left on device" in line and "output goes to the terminal only" in line for line in said)
    assert len(said) == 1 or "run" in where
