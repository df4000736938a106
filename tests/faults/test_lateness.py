"""Ranks that do not come: who waits is told who is missing and what it did last, and the records of the ranks say it, too."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.faults.jobs import SLACK, line_of, runs

TIMEOUT = 3.0
"""Seconds, of the collectives."""

# Rank 1 comes to two calls and not to the third.
LATE = """
if nodes := os.environ.get("NODES"):
    os.environ["DISTTORCH_NODE"] = nodes[rank]
world = connect()
for _ in range(2):
    world.all_reduce(np.ones(1000, np.float32))
tell("here", transport=world.transport)
if rank == 1:
    {busy}
begun = time.monotonic()
try:
    world.broadcast(np.ones((2, 3)), 0)  # the call
    world.barrier()  # a root need not wait for the others
except CommunicationError as error:
    tell("said", error=type(error).__name__, message=str(error), seconds=time.monotonic() - begun)
    raise
"""
BUSY = {
    "sleeps": "time.sleep(600)",
    "calculates": "sum(range(10**13))",  # in C, where no signal handler of Python's runs
}

CASES = [
    # way, ranks, transport, nodes, what rank 1 does, transport that is expected
    ("dlaunch", 3, "auto", None, "sleeps", "shared"),
    ("dlaunch", 3, "mpi", None, "calculates", "mpi"),
    ("dlaunch", 4, "auto", "aabb", "sleeps", "hierarchical"),
    ("dlaunch", 3, "auto", "aba", "calculates", "hierarchical"),
    ("plain", 3, "auto", None, "calculates", "shared"),
    ("plain", 3, "tcp", None, "sleeps", "tcp"),
    ("plain", 3, "auto", "aab", "sleeps", "hierarchical"),
    ("mpiexec", 2, "auto", None, "sleeps", "shared"),
]


@pytest.mark.parametrize(("way", "ranks", "transport", "nodes", "busy", "expected"), CASES, ids=lambda value: str(value))
def test_who_is_missing_and_what_it_did_last(jobs, way, ranks, transport, nodes, busy, expected):
    script = jobs.script(LATE.format(busy=BUSY[busy]))
    environ = {"DISTTORCH_TRANSPORT": transport} | ({"NODES": nodes} if nodes else {})
    options = ["--timeout", TIMEOUT, "--log-dir", "logs"]
    if way == "mpiexec":
        options = []
        environ |= {"DISTTORCH_TIMEOUT": str(TIMEOUT), "DISTTORCH_FLIGHT_DIR": "logs"}
    job = jobs.start(way, ranks, script, *options, environ=environ)
    here = jobs.told("here", ranks)
    assert {one["transport"] for one in here} == {expected}
    ended = jobs.ended(job, TIMEOUT + SLACK, since=max(one["time"] for one in here), segments=way != "mpiexec")
    assert ended.code == 1, ended.said
    assert ended.time - max(one["time"] for one in here) > TIMEOUT - 0.1
    waiting = [rank for rank in range(ranks) if rank != 1]
    # Under mpiexec, and where one rank is through with its end before another is, the first ends them all.
    told = [one for one in waiting if jobs.has_told("said", one)]
    assert told
    for one in jobs.told("said", told):
        assert one["error"] == "CollectiveTimeoutError", one
        assert TIMEOUT <= one["seconds"] < TIMEOUT + SLACK
        first, *lines = one["message"].splitlines()
        call = "broadcast of float64 [2, 3], root 0, number 3" if "broadcast" in first else "barrier, number 4"
        assert re.match(
            rf"{re.escape(call)} of group world: rank {one['rank']} has waited \d+\.\d s \(timeout 3 s\)\. Ranks? ", first
        ), first
        if nodes and busy == "calculates":
            why = r" \(on \S+\): does not answer \(its process is stopped, or calculates something .*; asked at .*\)"
        else:
            why = (
                rf" \(pid {here[1]['pid']} on \S+\): last called all_reduce sum of float32 in world, number 2 of its group, "
                r"\d+\.\d s ago"
            )
        [line] = [line for line in lines if line.startswith("  rank 1 ")]
        assert re.fullmatch(f"  rank 1{why}", line), line
        if len(lines) == 1:
            assert first.endswith("Rank 1 of this group has not come:")
        else:  # one of another node has given up already
            assert nodes and all(re.search("is gone|has failed|has ended", line) for line in lines if "rank 1" not in line), lines
    if way != "mpiexec":
        last = ended.err.splitlines()[-1]
        assert re.match(rf"dlaunch: rank [{''.join(map(str, waiting))}] .*ended with exit code 1 .*CollectiveTimeoutError", last), last
    records = {path.name: json.loads(path.read_text()) for path in (jobs.directory / "logs").glob("*.flight.json")}
    late = records.pop("rank-1.flight.json", None)  # it was asked for it
    assert late is None or (busy == "sleeps" and late["reason"] == "signal")
    assert records
    for record in records.values():
        assert record["reason"] == "timeout"
        *before, entry = record["entries"]
        assert [one["state"] for one in before[:2]] == ["complete", "complete"]
        assert entry["state"] == "failed" and entry["operation"] in ("broadcast", "barrier")
        if entry["operation"] == "broadcast":
            assert entry["where"] == line_of(script, "the call")
    doctor = diagnosed(jobs)
    assert "rank 1" in doctor, doctor


def diagnosed(jobs):
    """What dlaunch doctor says of the records."""
    said = subprocess.run(
        [sys.executable, "-m", "launcher", "doctor", "logs"],
        cwd=jobs.directory, env=jobs.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.parametrize("way", ["dlaunch", "plain"])
def test_sigusr1_makes_all_ranks_write_their_records(jobs, way):
    """Also the one for which the others wait; its record says in which line it is."""
    script = jobs.script(LATE.format(busy="time.sleep(600)  # sleeps"))
    job = jobs.start(way, 3, script, "--timeout", 300, "--log-dir", "logs")
    jobs.told("here", 3)
    paths = [jobs.directory / "logs" / f"rank-{rank}.flight.json" for rank in range(3)]

    def asked():
        job.send_signal(signal.SIGUSR1)
        jobs.until(lambda: all(path.exists() for path in paths), "three flight records", SLACK)
        records = [json.loads(path.read_text()) for path in paths]
        for path in paths:
            path.unlink()
        return records

    def in_place(records):
        """Whether rank 1 sleeps and the others wait for it; just after they have told that they are here they need not yet."""
        sleeps = any(line_of(script, "sleeps") in frame for frame in records[1]["stack"])
        return sleeps and all(record["entries"][-1]["state"] == "under way" for record in (records[0], records[2]))

    jobs.until(lambda: in_place(asked()), "rank 1 to sleep and the others to wait", SLACK)
    job.send_signal(signal.SIGUSR1)
    jobs.until(lambda: all(path.exists() for path in paths), "three flight records", SLACK)
    records = [json.loads(path.read_text()) for path in paths]
    assert [record["reason"] for record in records] == ["signal"] * 3
    assert in_place(records), records
    doctor = diagnosed(jobs)
    assert re.search(rf"^ +1 +{line_of(script, 'sleeps')} in <module>", doctor, re.MULTILINE), doctor
    assert re.search(r"^ +1 +2 +all_reduce sum float32 \(1000,\) +complete", doctor, re.MULTILINE), doctor
    job.send_signal(signal.SIGTERM)
    ended = jobs.ended(job, SLACK)
    assert ended.code == 128 + signal.SIGTERM
    for rank, path in enumerate(paths):
        assert f"rank {rank}: SIGUSR1: flight record written to {path}" in ended.err


AHEAD = """
world = connect()
tell("here")
if rank == 1:
    time.sleep(600)
for _ in range(200):
    world.all_reduce(np.ones(1000, np.float32), async_op=True)
"""


@pytest.mark.parametrize("way", ["dlaunch", "plain"])
def test_a_rank_that_runs_far_ahead_waits_for_the_others_too(jobs, way):
    """Nobody waits for any of the calls; what the ranks can keep of them has an end."""
    job = jobs.start(way, 2, jobs.script(AHEAD), "--timeout", TIMEOUT, "--log-dir", "logs")
    here = jobs.told("here", 2)
    ended = jobs.ended(job, TIMEOUT + SLACK, since=max(one["time"] for one in here))
    assert ended.code == 1
    said = r"CollectiveTimeoutError: all_reduce.*rank 0 has waited 3\.\d s .*Rank 1 of this group has not come"
    assert re.search(said, ended.err), ended.err
    assert json.loads((jobs.directory / "logs" / "rank-0.flight.json").read_text())["reason"] == "timeout"


# The stopped rank can be any; the one that hosts the store, and roots, too.
STOPPED = """
if nodes := os.environ.get("NODES"):
    os.environ["DISTTORCH_NODE"] = nodes[rank]
world = connect()
tell("here")
array = np.ones(1_000_000, np.float32)
while True:
    world.all_reduce(array)
    if not os.path.exists(f"loop.{rank}.json"):
        tell("loop")
"""
STOPS = [
    # way, transport, nodes, the rank that is stopped
    ("dlaunch", "auto", None, 0),
    ("dlaunch", "mpi", None, 1),
    ("dlaunch", "auto", "aab", 2),
    ("plain", "auto", None, 2),
    ("plain", "tcp", None, 0),
    ("mpiexec", "auto", None, 1),
]


@pytest.mark.parametrize(("way", "transport", "nodes", "stopped"), STOPS, ids=lambda value: str(value))
def test_a_stopped_rank(jobs, way, transport, nodes, stopped):
    environ = {"DISTTORCH_TRANSPORT": transport} | ({"NODES": nodes} if nodes else {})
    options = ["--timeout", TIMEOUT]
    if way == "mpiexec":
        options, environ = [], environ | {"DISTTORCH_TIMEOUT": str(TIMEOUT), "DISTTORCH_FLIGHT_DIR": "flight"}
    job = jobs.start(way, 3, jobs.script(STOPPED), *options, environ=environ)
    pid = jobs.told("loop", 3)[stopped]["pid"]
    os.kill(pid, signal.SIGSTOP)
    ended = jobs.ended(job, TIMEOUT + SLACK, segments=way != "mpiexec")
    assert ended.code == 1, ended.said
    assert not runs(pid)
    what = r"all_reduce\(sum\) of float32 \[1000000\], number \d+ of group world"
    assert re.search(rf"CollectiveTimeoutError: {what}: rank \d has waited [3-9]\.\d s", ended.err), ended.err
    said = rf"rank {stopped} \(pid {pid} on \S+\): is stopped \(by SIGSTOP, Ctrl-Z or a debugger\); last called all_reduce"
    if nodes:  # nobody is left on its node who could look
        said = rf"rank {stopped} \(on \S+\): does not answer \(its process is stopped, or calculates"
    assert re.search(said, ended.err), ended.err
