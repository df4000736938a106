"""--max-restarts and --min-ranks: when a job is started again, with how many ranks, and when not."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from launcher import command_line, restart
from launcher.mpi import find_mpi
from launcher.record import End
from tests.launcher.conftest import TIMEOUT

ATTEMPT = "attempt = int(os.environ['DISTTORCH_ATTEMPT'])\n"
both = pytest.mark.parametrize("engine", ["mpiexec", "plain"])


def run(session, engine, *arguments, **environ):
    return session.run("--oversubscribe", "--engine", engine, *arguments, **environ)


ENDS = [
    # what rank 1 does in its first two starts, how it is told
    ("os.kill(os.getpid(), signal.SIGKILL)", r"was killed by SIGKILL \(signal 9\)"),
    ("os.kill(os.getpid(), signal.SIGTERM)", r"was killed by SIGTERM \(signal 15\)"),
    ("os.abort()", r"was killed by SIGABRT \(signal 6\)"),
    ("raise ValueError('bad batch')", "by ValueError: bad batch"),
    ("sys.exit(3)", "ended with exit code 3"),
    ("sys.exit(1)", "ended with exit code 1"),
]


@pytest.mark.parametrize(
    ("engine", "end", "told"), [("mpiexec", *ENDS[0]), ("mpiexec", *ENDS[3]), *(("plain", *end) for end in ENDS)]
)
def test_a_failed_job_is_started_again(session, say, left_of, engine, end, told):
    script = session.script(
        say + ATTEMPT + "say(f'start-{attempt}', run=os.environ['DISTTORCH_RUN_DIR'])\n"
        "wait_for(f'start-{attempt}.{1 - rank}.json')\n"
        f"if attempt < 2:\n    if rank == 1:\n        {end}\n    wait_for('never')\nprint('end', rank)\n"
    )
    job = run(session, engine, "-n", 2, "--max-restarts", 3, script)
    assert job.returncode == 0, job.stderr
    assert sorted(job.stdout.splitlines()) == ["end 0", "end 1"]
    said = [line for line in job.stderr.splitlines() if line.startswith("dlaunch: r") and "failed first" not in line]
    assert re.match(rf"dlaunch: rank 1 \(pid \d+ on .*\) .*{told}.*; the other rank was ended", said[0]), said[0]
    assert said[1] == "dlaunch: restart 1 of 3, with 2 ranks"
    assert re.match(rf"dlaunch: rank 1 .*{told}", said[2])
    assert said[3:] == ["dlaunch: restart 2 of 3, with 2 ranks"]
    runs = [session.files(f"start-{attempt}.*.json", 2)[0]["run"] for attempt in range(3)]
    assert len(set(runs)) == 3
    assert [left_of(directory) for directory in runs] == [[]] * 3
    assert not any(os.path.exists(directory) for directory in runs)


@both
def test_exit_code_and_last_words_are_those_of_the_last_start(session, say, engine):
    script = session.script(say + ATTEMPT + "sys.exit(30 + attempt)\n")
    job = run(session, engine, "-n", 1, "--max-restarts", 2, script)
    assert job.returncode == 32
    lines = [line for line in job.stderr.splitlines() if line]
    assert [re.sub(r" \(pid.*?\)| after.*", "", line) for line in lines] == [
        "dlaunch: rank 0 ended with exit code 30",
        "dlaunch: restart 1 of 2, with 1 rank",
        "dlaunch: rank 0 ended with exit code 31",
        "dlaunch: restart 2 of 2, with 1 rank",
        "dlaunch: rank 0 ended with exit code 32",
        "dlaunch: this was the last of 3 starts (--max-restarts 2)",
    ]


NOT_AGAIN = [
    # name, script, exit code, what is said last
    ("well", "pass\n", 0, None),
    ("wrong call", "import argparse\nargparse.ArgumentParser().parse_args(['--no-such'])\n", 2, "as a wrong call of the script does"),
]


@both
@pytest.mark.parametrize(("text", "code", "said"), [case[1:] for case in NOT_AGAIN], ids=[case[0] for case in NOT_AGAIN])
def test_what_is_not_started_again(session, say, engine, text, code, said):
    job = run(session, engine, "-n", 1, "--max-restarts", 3, session.script(say + ATTEMPT + "say(f'start{attempt}')\n" + text))
    assert job.returncode == code
    assert (session.directory / "start0.0.json").exists() and not (session.directory / "start1.0.json").exists()
    assert "restart 1 of 3" not in job.stderr
    assert said is None or said in job.stderr


def test_exit_code_2_later_on_is_a_failure_as_any_other(session, say, monkeypatch):
    outcome = restart.Outcome(1, {0: None}, {0: ended(2, 5.0)}, None, [], 2, [], 5.0)
    late = restart.Outcome(1, {0: None}, {0: ended(2, 50.0)}, None, [], 2, [], 50.0)
    runner = restart.Runner.__new__(restart.Runner)
    runner.request = command_line.parse(["-n", "1", "--max-restarts", "1", "train.py"])
    runner.environ = {}
    monkeypatch.setattr(runner, "_stopped", lambda seconds: False, raising=False)
    assert not runner._may_restart(outcome, 0)
    assert runner._may_restart(late, 0)


def ended(code, elapsed):
    return End(0, "n1", 1, code, None, 0.0, elapsed, False, False, [])


@pytest.mark.parametrize(("engine", "number"), [("mpiexec", signal.SIGTERM), ("plain", signal.SIGTERM), ("plain", signal.SIGINT)])
@pytest.mark.parametrize("when", ["at work", "while a failed start ends", "before the restart"])
def test_a_job_that_the_user_ends_stays_ended(session, say, engine, number, when):
    script = session.script(
        say + ATTEMPT + "signal.signal(15, lambda n, f: (say('told'), wait_for('go'), sys.exit(0)))\nsay(f'start{attempt}')\n"
        "wait_for(f'start{attempt}.{1 - rank}.json')\n"
        + ("" if when == "at work" else "if rank == 1:\n    sys.exit(3)\n")
        + ("time.sleep(60)\n" if when != "before the restart" else "signal.signal(15, signal.SIG_DFL)\ntime.sleep(60)\n")
    )
    constants = {"job.AFTER_FAILURE": 60, "restart.PAUSE": 60, "restart.LONGEST_PAUSE": 60}  # time for the signal to come in time
    job = session.start("--oversubscribe", "--engine", engine, "-n", 2, "--max-restarts", 3, script, constants=constants)
    session.files("start0.*.json", 2)
    if when == "while a failed start ends":
        session.files("told.0.json", 1)
    if when == "before the restart":
        session.script("", "go")
        for line in job.stderr:
            if "ended with exit code 3" in line:
                break
    job.send_signal(number)
    session.script("", "go")
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == (3 if when == "while a failed start ends" else 128 + number), err
    assert "restart 1 of" not in err
    if when == "before the restart":
        assert f"stopped by {number.name} before restart 1" in err
    assert not (session.directory / "start1.0.json").exists()


@both
def test_user_signals_reach_a_restarted_job(session, say, engine):
    script = session.script(
        say + ATTEMPT + "if attempt == 0:\n    sys.exit(3)\n"
        "signal.signal(signal.SIGUSR1, lambda n, f: say('seen'))\nsay('start')\nwait_for('go')\n"
    )
    job = session.start("--oversubscribe", "--engine", engine, "-n", 2, "--max-restarts", 1, script)
    session.files("start.*.json", 2)
    job.send_signal(signal.SIGUSR1)
    session.files("seen.*.json", 2)
    session.script("", "go")
    job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0


@both
def test_ranks_killed_at_any_moment_and_the_result_is_right(session, say, left_of, engine):
    """A job that keeps its state in files ends with the right sum, whatever is killed and when."""
    script = session.script(
        say + ATTEMPT + """
state = f"sum.{rank}"
step, total = map(int, open(state).read().split()) if os.path.exists(state) else (0, 0)
say(f"start-{attempt}", run=os.environ["DISTTORCH_RUN_DIR"])
while step < 40 or attempt == 0:  # the first start is always killed
    time.sleep(0.02)
    if step == 40:
        continue
    step, total = step + 1, total + step + 1
    with open(state + ".new", "w") as file:
        file.write(f"{step} {total}")
    os.replace(state + ".new", state)
print("sum", rank, total)
"""
    )
    seed = random.SystemRandom().randrange(1 << 30)
    moments = random.Random(seed)
    job = session.start("--oversubscribe", "--engine", engine, "-n", 3, "--max-restarts", 6, script)
    runs = []
    for attempt in range(4):
        session.until(lambda n=attempt: job.poll() == 0 or len([*session.directory.glob(f"start-{n}.*.json")]) == 3, "the next start")
        if job.poll() == 0:
            break  # what was killed had come to its end before
        starts = session.files(f"start-{attempt}.*.json", 3)
        runs.append(starts[0]["run"])
        time.sleep(moments.uniform(0, 0.25))
        victim = moments.choice(starts)[moments.choice(["pid", "ppid"])]
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            break  # it was quicker
    out, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, f"seed {seed}: {err}"
    # A rank that had come to its end before another was killed says it once more.
    assert set(out.splitlines()) == {f"sum {rank} {40 * 41 // 2}" for rank in range(3)}, f"seed {seed}"
    assert [left_of(directory) for directory in runs] == [[]] * len(runs), f"seed {seed}"
    assert "restart 1 of 6, with 3 ranks" in err


def test_mpiexec_killed_is_a_failure_and_started_again(session, say, left_of):
    script = session.script(
        say + ATTEMPT + "say(f'start{attempt}', run=os.environ['DISTTORCH_RUN_DIR'])\nif attempt == 0:\n    wait_for('never')\n"
    )
    job = session.start("--oversubscribe", "-n", 2, "--max-restarts", 1, script)
    runs = session.files("start0.*.json", 2)[0]["run"]
    with open(f"/proc/{job.pid}/task/{job.pid}/children") as children:
        [mpiexec] = map(int, children.read().split())
    os.kill(mpiexec, signal.SIGKILL)
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, err
    assert "killed by SIGKILL" in err or "ended the job with SIGKILL" in err
    assert "restart 1 of 1, with 2 ranks" in err
    assert left_of(runs) == []


# -- hosts that are gone -----------------------------------------------------------------------------------------------

# A way to hosts on this machine; those whose name is in the file "gone" do not answer.
WAY = '#!/bin/sh\nhost=$1\nshift\nif grep -qx "$host" gone 2>/dev/null; then echo "no route to $host" >&2; exit 255; fi\nexec "$@"\n'


@pytest.fixture
def way(session):
    path = session.directory / "way"
    path.write_text(WAY)
    path.chmod(0o700)
    return path


GONE = [
    # hosts, -n, --min-ranks, gone from the start, exit code, ranks
    ("a:2,b:2", 4, None, [], 0, 4),
    ("a:2,b:2", 4, 2, [], 0, 4),
    ("a:2,b:2", 4, 2, ["b"], 0, 2),
    ("a:2,b:2", 4, 3, ["b"], 2, 0),
    ("a:2,b:2,c:2", 4, 4, ["b"], 0, 4),  # c has room for them
    ("a,b", 3, 1, ["a"], 0, 1),  # without numbers each has its even share
    ("a:1,b:1", 2, 1, ["a", "b"], 2, 0),
]


@pytest.mark.parametrize(("hosts", "ranks", "least", "gone", "code", "expected"), GONE)
def test_hosts_that_are_gone_from_the_start(session, say, way, hosts, ranks, least, gone, code, expected):
    (session.directory / "gone").write_text("".join(f"{host}\n" for host in gone))
    script = session.script(say + "say('start', size=os.environ['WORLD_SIZE'])\n")
    options = [] if least is None else ["--min-ranks", least]
    job = run(session, "plain", "-n", ranks, "--hosts", hosts, "--rsh", way, *options, script)
    assert job.returncode == code, job.stderr
    for host in gone:
        assert f"host {host} cannot be reached (no route to {host}): its " in job.stderr
    if code:
        assert re.search(rf"only \d of {ranks} ranks have a host, and --min-ranks is {least}: no start", job.stderr)
    assert [seen["size"] for seen in session.files("start.*.json", expected)] == [str(expected)] * expected


@pytest.mark.parametrize(("least", "code"), [(2, 0), (None, 1)], ids=["--min-ranks 2", "no --min-ranks"])
def test_a_host_that_goes_in_the_middle(session, say, way, least, code):
    script = session.script(
        say + ATTEMPT + "say(f'start{attempt}', size=os.environ['WORLD_SIZE'], place=os.environ['LOCAL_WORLD_SIZE'])\n"
        "if attempt == 0:\n    wait_for('never')\n"
    )
    options = [] if least is None else ["--min-ranks", least]
    job = session.start(
        "--oversubscribe", "--engine", "plain", "-n", 4, "--hosts", "a:2,b:2", "--rsh", way, "--max-restarts", 2, *options, script
    )
    starts = session.files("start0.*.json", 4)
    (session.directory / "gone").write_text("b\n")
    with open(f"/proc/{starts[2]['ppid']}/stat") as stat:
        guard = int(stat.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{guard}/stat") as stat:
        os.kill(int(stat.read().rpartition(")")[2].split()[1]), signal.SIGKILL)  # the agent of b
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == code, err
    assert re.search(r"dlaunch: rank 2: its host b was lost after .*: .*way ended with signal 9", err)
    assert "host b cannot be reached (no route to b): its 2 slots are left out" in err
    if code == 0:
        assert "restart 1 of 2, with 2 ranks" in err
        assert [seen["size"] for seen in session.files("start1.*.json", 2)] == ["2", "2"]
    else:
        assert "only 2 of 4 ranks have a host, and --min-ranks is not given: no start" in err
        assert not list(session.directory.glob("start1.*"))


def test_no_rank_had_started_and_every_host_is_there(session, say):
    """Not the job failed but what starts it: once more would not help."""
    version = subprocess.check_output([find_mpi("auto", session.environ).mpiexec, "--version"], text=True)
    fake = session.directory / "mpiexec"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"if sys.argv[1] == '--version':\n    print({version!r})\nelse:\n    sys.exit('there are no slots')\n"
    )
    fake.chmod(0o755)
    job = session.run("-n", 2, "--mpi", fake, "--max-restarts", 3, session.script("pass\n"))
    assert job.returncode == 1
    assert job.stderr.splitlines()[-1] == "dlaunch: no rank had started, though every host is there: no restart"


CANCELLED = [("CANCELLED\n", True), ("COMPLETING\n", True), ("RUNNING\n", False), ("", False)]


@pytest.mark.parametrize(("state", "cancelled"), CANCELLED)
def test_a_job_that_slurm_is_ending(tmp_path, state, cancelled):
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ntest \"$*\" = '--noheader --format=%T --jobs 77' && printf '{state}'\n")
    squeue.chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert restart._cancelled({"PATH": path, "SLURM_JOB_ID": "77"}) == cancelled
    assert not restart._cancelled({"PATH": path})
