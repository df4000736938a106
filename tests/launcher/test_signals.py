"""Signals to `dlaunch` reach every script once; the scripts may finish their work, and then all is over."""

import os
import signal
import subprocess
import sys
import time

import pytest

from launcher import record
from tests.launcher.conftest import TIMEOUT

COUNTING = """
seen = []
def note(number, frame):
    seen.append(signal.Signals(number).name)
    say("seen" + str(len(seen)), seen=seen)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
say("start", run=os.environ["DISTTORCH_RUN_DIR"])
"""

# Not signal.pause, which would miss a signal that comes between the look and the pause.
UNTIL_TOLD = """
while not {"SIGINT", "SIGTERM", "SIGHUP"} & set(seen):
    time.sleep(0.01)
wait_for("go")
say("saved", seen=seen)
"""

UNTIL_SEEN = "while not seen:\n    time.sleep(0.01)\n"

ENDING = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
BEFORE = [*ENDING, (signal.SIGUSR1, 138)]


@pytest.mark.parametrize(
    ("number", "code", "mpi"),
    [*((*ending, "") for ending in ENDING), (signal.SIGTERM, 143, "from mpi4py import MPI\n")],
)
def test_scripts_that_handle_it_finish_their_work(session, say, left_of, number, code, mpi):
    job = session.start("-n", 2, session.script(say + mpi + COUNTING + UNTIL_TOLD))
    run = session.files("start.*.json", 2)[0]["run"]
    job.send_signal(number)
    session.files("seen1.*.json", 2)
    session.script("", "go")
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == code
    assert [saved["seen"] for saved in session.files("saved.*.json", 2)] == [[number.name]] * 2
    assert err.splitlines()[-1].startswith(f"dlaunch: stopped by {number.name} after ")
    assert "all 2 ranks have ended" in err
    assert left_of(run) == []


@pytest.mark.parametrize(
    ("number", "code", "mpi"),
    # UCX, which is in both MPIs, has a handler of its own for SIGHUP.
    [(*ending, mpi) for ending in ENDING for mpi in ("", "from mpi4py import MPI\n")],
)
def test_scripts_that_do_not_handle_it_end(session, say, left_of, number, code, mpi):
    job = session.start("-n", 2, session.script(say + mpi + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nwait_for('never')\n"))
    run = session.files("start.*.json", 2)[0]["run"]
    job.send_signal(number)
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == code
    assert err.count("KeyboardInterrupt") == (2 if number == signal.SIGINT else 0)
    assert "all 2 ranks have ended" in err
    assert left_of(run) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_user_signals_pass_and_the_job_goes_on(session, say, number):
    job = session.start("-n", 2, session.script(say + COUNTING + UNTIL_TOLD))
    session.files("start.*.json", 2)
    for count in (1, 2):
        job.send_signal(number)
        session.files(f"seen{count}.*.json", 2)
    job.send_signal(signal.SIGTERM)
    session.files("seen3.*.json", 2)
    session.script("", "go")
    job.communicate(timeout=TIMEOUT)
    assert job.returncode == 143
    assert [saved["seen"] for saved in session.files("saved.*.json", 2)] == [[number.name] * 2 + ["SIGTERM"]] * 2


def test_a_rank_that_ends_early_does_not_end_those_that_are_saving(session, say, running):
    script = session.script(
        say + COUNTING + "if rank == 1:\n    signal.signal(signal.SIGTERM, signal.SIG_DFL)\nsay('ready')\n" + UNTIL_TOLD
    )
    job = session.start("-n", 2, script)
    session.files("ready.*.json", 2)
    [_, one] = session.files("start.*.json", 2)
    job.send_signal(signal.SIGTERM)
    session.files("seen1.0.json", 1)
    session.until(lambda: not running(one["pid"]), "the end of rank 1")
    session.script("", "go")
    job.communicate(timeout=TIMEOUT)
    assert job.returncode == 143
    session.files("saved.0.json", 1)


def test_after_the_grace_period_they_are_killed(session, say, left_of):
    job = session.start("-n", 2, "--grace", "0.5", session.script(say + COUNTING + "while True:\n    signal.pause()\n"))
    run = session.files("start.*.json", 2)[0]["run"]
    begun = time.monotonic()
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=TIMEOUT)
    assert 0.5 <= time.monotonic() - begun < 10  # which is the period where none is given
    assert job.returncode == 143
    assert "ranks 0 and 1 had not ended within the grace period and got SIGKILL" in err
    assert left_of(run) == []


def test_a_second_ctrl_c_ends_at_once(session, say, left_of):
    job = session.start("-n", 2, "--grace", "3600", session.script(say + COUNTING + "while True:\n    signal.pause()\n"))
    run = session.files("start.*.json", 2)[0]["run"]
    job.send_signal(signal.SIGINT)
    session.files("seen1.*.json", 2)
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=TIMEOUT)
    assert job.returncode == 130
    assert left_of(run) == []


def test_ctrl_c_before_the_scripts_have_started(session, say, left_of):
    job = session.start("-n", 2, session.script(say + "wait_for('never')\n"))
    session.until(lambda: bool(_children(job.pid)), "mpiexec or the search for it")
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=TIMEOUT)
    assert job.returncode in (130, -signal.SIGINT)  # the latter before there was anything to end
    assert not [pid for pid in _children(os.getpid()) if pid != job.pid and _mentions(pid, str(session.directory))]


@pytest.mark.parametrize(("number", "code"), BEFORE)
def test_a_signal_while_the_mpi_is_looked_for(session, number, code):
    """On a file system that is slow this takes long."""
    package = session.directory / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("import pathlib, time\npathlib.Path('looks').touch()\ntime.sleep(100)\n")
    path = f"{session.directory}{os.pathsep}{session.environ['PYTHONPATH']}"
    job = session.start("-n", 2, session.script("print(1)"), PYTHONPATH=path)
    session.until((session.directory / "looks").exists, "the look for the MPI")
    job.send_signal(number)
    assert job.communicate(timeout=TIMEOUT) == ("", f"dlaunch: stopped by {number.name} before the start\n")
    assert job.returncode == code


def test_a_terminals_ctrl_c_arrives_once(session, say):
    """A terminal sends SIGINT to the whole foreground group: mpiexec and the scripts must not be in it."""
    script = session.script(say + COUNTING + UNTIL_TOLD)
    job = subprocess.Popen(
        [sys.executable, "-m", "launcher", "-n", "2", script],
        cwd=session.directory, env=session.environ, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    session.files("start.*.json", 2)
    os.killpg(job.pid, signal.SIGINT)
    session.files("seen1.*.json", 2)
    session.script("", "go")
    job.communicate(timeout=TIMEOUT)
    assert job.returncode == 130
    assert [saved["seen"] for saved in session.files("saved.*.json", 2)] == [["SIGINT"]] * 2


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_supervisor_on_another_host_reads_signals_from_the_run_directory(session, say, number):
    """As under Slurm on two nodes: the kernel that `dlaunch` names is another one, the run directory is shared."""
    script = session.script(say + COUNTING.replace('os.environ["DISTTORCH_RUN_DIR"]', '""') + UNTIL_SEEN + "say('saved', seen=seen)\n")
    run = session.directory / "run"
    run.mkdir()
    directory = record.RunDirectory(run)
    supervisor = _supervisor(session, run, script)
    session.files("start.*.json", 1)
    directory.pass_on(number)
    assert session.files("saved.*.json", 1)[0]["seen"] == [number.name]
    session.until(lambda: 0 in directory.read()[1], "the end report")
    assert directory.read()[1][0].code == 0
    run.rename(session.directory / "gone")
    supervisor.communicate(timeout=TIMEOUT)
    assert supervisor.returncode == 0


def test_a_signal_from_before_its_start_is_not_for_a_script(session, say):
    """On another host, where the supervisor reads what was passed on: SIGUSR1 ends a program that does not expect it yet."""
    script = session.script(say + COUNTING.replace('os.environ["DISTTORCH_RUN_DIR"]', '""') + UNTIL_SEEN + "say('saved', seen=seen)\n")
    run = session.directory / "run"
    run.mkdir()
    directory = record.RunDirectory(run)
    directory.pass_on(signal.SIGUSR1)
    supervisor = _supervisor(session, run, script)
    session.files("start.*.json", 1)
    directory.pass_on(signal.SIGUSR2)
    assert session.files("saved.*.json", 1)[0]["seen"] == ["SIGUSR2"]
    supervisor.communicate(timeout=TIMEOUT)
    assert supervisor.returncode == 0


def test_a_supervisor_without_a_run_directory_reports_on_stderr(session, say):
    """As on two nodes that share no file system: the process manager's signals are all there is."""
    script = session.script(say + COUNTING.replace('os.environ["DISTTORCH_RUN_DIR"]', '""') + UNTIL_SEEN + "sys.exit(6)\n")
    supervisor = _supervisor(session, session.directory / "nowhere", script)
    session.files("start.*.json", 1)
    supervisor.send_signal(signal.SIGUSR1)
    _, err = supervisor.communicate(timeout=TIMEOUT)
    assert supervisor.returncode == 6
    assert session.files("seen1.*.json", 1)[0]["seen"] == ["SIGUSR1"]
    assert "dlaunch: rank 0 (pid " in err and "ended with exit code 6" in err


def _supervisor(session, run, script) -> subprocess.Popen:
    place = {"PMI_RANK": "0", "PMI_SIZE": "1", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "launcher.rank", "--run-dir", run, "--kernel", "another", "--target", f'["{script}"]'],
        cwd=session.directory, env={**session.environ, **place}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    session.running.append(supervisor)
    return supervisor


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def _mentions(pid: int, word: str) -> bool:
    with open(f"/proc/{pid}/cmdline") as command:
        return word in command.read()
