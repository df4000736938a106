"""Ranks that die, by whatever: who, how and where is said, the others do not wait, and nothing is left."""

import os
import re
import signal
import time

import pytest

from tests.faults.jobs import SLACK, line_of

# Ranks reduce large arrays again and again; nothing else happens, so that a rank is in the middle of one whenever it dies.
LOOP = """
if nodes := os.environ.get("NODES"):
    os.environ["DISTTORCH_NODE"] = nodes[rank]
world = connect()
tell("here", transport=world.transport)
array = np.ones(4_000_000, np.float32)
while True:
    world.all_reduce(array, "avg")
    if not os.path.exists(f"loop.{rank}.json"):
        tell("loop")
"""
KILLS = [
    # way, transport, nodes, transport that is expected, victim
    *(("dlaunch", "auto", None, "shared", victim) for victim in range(3)),
    ("dlaunch", "mpi", None, "mpi", 0),
    ("dlaunch", "auto", "aab", "hierarchical", 2),
    ("plain", "auto", None, "shared", 0),
    ("plain", "tcp", None, "tcp", 0),
    ("plain", "tcp", None, "tcp", 2),
    ("mpiexec", "auto", None, "shared", 0),
    ("mpiexec", "auto", None, "shared", 1),
]


@pytest.mark.parametrize(("way", "transport", "nodes", "expected", "victim"), KILLS, ids=lambda value: str(value))
def test_kill_9_in_the_middle_of_a_reduction(jobs, way, transport, nodes, expected, victim):
    environ = {"DISTTORCH_TRANSPORT": transport, "DISTTORCH_FLIGHT_DIR": "flight"} | ({"NODES": nodes} if nodes else {})
    job = jobs.start(way, 3, jobs.script(LOOP), environ=environ)
    assert {one["transport"] for one in jobs.told("here", 3)} == {expected}
    pid = jobs.told("loop", 3)[victim]["pid"]
    os.kill(pid, signal.SIGKILL)
    ended = jobs.ended(job, SLACK, segments=way != "mpiexec")
    if way == "mpiexec":
        # What is said depends on who is first, mpiexec or a rank that sees its neighbour gone.
        assert ended.code != 0
        killed = r"\(signal 9\)|KILLED BY SIGNAL: 9|exited on signal 9"
        assert re.search(rf"{killed}|rank {victim} \(pid {pid} .*its process has ended", ended.said), ended.said
        return
    assert ended.code == 128 + signal.SIGKILL, ended.err
    last = ended.err.splitlines()[-1]
    who = rf"dlaunch: rank {victim} \(pid {pid} on \S+\)"
    assert re.match(rf"{who} was killed by SIGKILL \(signal 9\) after .*; the other 2 ranks were ended", last), last


def test_the_others_see_it_by_themselves(jobs):
    """Without anybody who ends them: a launcher that does not watch."""
    script = jobs.script(LOOP.replace('    world.all_reduce(array, "avg")', """
    try:
        world.all_reduce(array, "avg")
    except CommunicationError as error:
        tell("said", error=type(error).__name__, message=str(error))
        wait_for("never")
"""))  # fmt: skip
    job = jobs.start("plain", 3, script, environ={"DISTTORCH_FLIGHT_DIR": "flight"})
    loop = jobs.told("loop", 3)
    # The supervisor cannot tell of its rank's end while it is stopped.
    with open(f"/proc/{loop[1]['pid']}/stat") as stat:
        supervisor = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGSTOP)
    begun = time.monotonic()
    os.kill(loop[1]["pid"], signal.SIGKILL)
    told = jobs.told("said", [0, 2])
    assert time.monotonic() - begun < SLACK
    for one in told:
        assert one["error"] == "CommunicationError"
        assert re.match(
            rf"all_reduce\(avg\) of float32 \[4000000\], number \d+ of group world: rank {one['rank']} waits for a rank that is gone\. "
            rf"rank 1 \(pid {loop[1]['pid']} on \S+\): its process has ended; last called all_reduce avg of float32 in world",
            one["message"],
        ), one["message"]
    os.kill(supervisor, signal.SIGCONT)
    assert jobs.ended(job, SLACK).code == 128 + signal.SIGKILL


def test_who_was_killed_is_named_though_another_is_recorded_first(jobs):
    """The others see a death by themselves, and may have failed because of it before its supervisor has taken notice."""
    job = jobs.start("plain", 3, jobs.script(LOOP), environ={"DISTTORCH_FLIGHT_DIR": "flight"})
    loop = jobs.told("loop", 3)
    with open(f"/proc/{loop[1]['pid']}/stat") as stat:
        supervisor = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(loop[1]["pid"], signal.SIGKILL)
    jobs.until(lambda: os.path.exists(os.path.join(loop[0]["run"], "signals")), "dlaunch to end the others", SLACK)
    os.kill(supervisor, signal.SIGCONT)
    ended = jobs.ended(job, SLACK)
    assert ended.code == 128 + signal.SIGKILL, ended.err
    assert re.match(rf"dlaunch: rank 1 \(pid {loop[1]['pid']} .*was killed by SIGKILL", ended.err.splitlines()[-1]), ended.err


BEGIN = """
world = connect()
world.barrier()
tell("here")
def last_words():
    {how}
if rank == {victim}:
    wait_for(*(f"here.{{r}}.json" for r in range(size)))
    last_words()
for _ in range(10**9):
    world.all_reduce(np.ones(100_000))
"""
ENDS = [
    # name, how rank 1 ends, exit code, what is said of it under dlaunch
    ("exception", "{}['lr']  # the end", 1, "by KeyError: 'lr'"),
    ("thread", "t = threading.Thread(target=lambda: {}['lr']); t.start(); t.join(); time.sleep(600)  # the end", 1, "by KeyError: 'lr'"),
    ("sys.exit", "sys.exit(3)", 3, "ended with exit code 3"),
    ("sys.exit words", "sys.exit('no data')", 1, "ended with exit code 1"),
    ("os._exit", "os._exit(7)", 7, "ended with exit code 7"),
    ("world.abort", "world.abort(5)", 5, r"called MPI_Abort|ended with exit code 5"),
    ("segmentation fault", "import ctypes; ctypes.string_at(0)  # the end", 139, r"was killed by SIGSEGV \(signal 11\)"),
]
STARTS = [("dlaunch", 0), ("plain", 1), ("mpiexec", 1)]


@pytest.mark.parametrize(("way", "victim"), STARTS, ids=lambda value: str(value))
@pytest.mark.parametrize(("how", "code", "said"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS])
def test_a_rank_ends_while_others_wait(jobs, way, victim, how, code, said):
    script = jobs.script(BEGIN.format(how=how, victim=victim))
    job = jobs.start(way, 2, script, environ={"DISTTORCH_FLIGHT_DIR": "flight"})
    here = jobs.told("here", 2)
    ended = jobs.ended(job, SLACK, since=max(one["time"] for one in here), segments=way != "mpiexec")
    if "# the end" in how and (way != "mpiexec" or "string_at" not in how):  # dlaunch lets Python say where it crashed
        place = line_of(script, "the end")
        name, _, line = place.partition(":")
        assert re.search(rf'{name}", line {line},? in ', ended.said), ended.said
    if way == "mpiexec":
        # Which exit code its ranks had, mpiexec says in ways of its own.
        assert ended.code != 0
        return
    assert ended.code == code, ended.err
    last = ended.err.splitlines()[-1].lstrip("\0")
    assert re.match(rf"dlaunch: rank {victim} \(pid {here[victim]['pid']} on \S+\) .*({said})", last), last


HOOK = """
import disttorch as torch
import disttorch.distributed as dist
dist.init_process_group()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
wrapped = torch.nn.parallel.DistributedDataParallel(model)
steps = 0
def hook(grad):
    if rank == 1 and steps == 3:
        raise ValueError("bad gradient")  # the end
model[0].weight.register_hook(hook)
tell("here")
while True:
    wrapped(torch.ones(4, 8)).sum().backward()
    steps += 1
"""


@pytest.mark.parametrize("way", ["dlaunch", "plain", "mpiexec"])
def test_an_exception_in_a_backward_hook_of_a_distributed_model(jobs, way):
    script = jobs.script(HOOK)
    job = jobs.start(way, 2, script, environ={"DISTTORCH_FLIGHT_DIR": "flight"})
    here = jobs.told("here", 2)
    ended = jobs.ended(job, SLACK, since=max(one["time"] for one in here), segments=way != "mpiexec")
    assert ended.code != 0
    assert "ValueError: bad gradient" in ended.said
    if way != "mpiexec":
        assert ended.code == 1
        last = ended.err.splitlines()[-1]
        assert re.match(rf"dlaunch: rank 1 \(pid {here[1]['pid']} .*by ValueError: bad gradient; the other rank was ended", last), last
