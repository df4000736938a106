"""Ranks that call different things: every rank hears of it, before data moves, and who calls what; nobody waits."""

import json
import re

import pytest

from tests.faults.jobs import SLACK, line_of

# What the last rank calls where the others call something else. Each call has a line of its own, which messages name.
CASES = """
f32, i32 = np.float32, np.int32
def odd_or(odd, usual):
    return odd if rank == size - 1 else usual
def operation(group):
    odd_or(
        lambda: group.barrier(),  # odd operation
        lambda: group.all_reduce(np.ones(4, f32)),  # usual operation
    )()
def size_of_short(group):
    odd_or(
        lambda: group.all_reduce(np.ones(5, f32)),  # odd size_of_short
        lambda: group.all_reduce(np.ones(4, f32)),  # usual size_of_short
    )()
def size_of_long(group):
    odd_or(
        lambda: group.all_reduce(np.ones(300_001, f32)),  # odd size_of_long
        lambda: group.all_reduce(np.ones(300_000, f32)),  # usual size_of_long
    )()
def shape(group):
    odd_or(
        lambda: group.all_reduce(np.ones((3, 2), f32)),  # odd shape
        lambda: group.all_reduce(np.ones((2, 3), f32)),  # usual shape
    )()
def dtype(group):
    odd_or(
        lambda: group.all_reduce(np.ones(4, i32)),  # odd dtype
        lambda: group.all_reduce(np.ones(4, f32)),  # usual dtype
    )()
def root(group):
    odd_or(
        lambda: group.broadcast(np.ones(4, f32), 1),  # odd root
        lambda: group.broadcast(np.ones(4, f32), 0),  # usual root
    )()
def reduction(group):
    odd_or(
        lambda: group.all_reduce(np.ones(4, f32), "max"),  # odd reduction
        lambda: group.all_reduce(np.ones(4, f32), "sum"),  # usual reduction
    )()
def order(group):
    def one():
        group.all_reduce(np.ones(4, f32))  # odd order
        group.broadcast(np.ones(4, f32))
    def other():
        group.broadcast(np.ones(4, f32))  # usual order
        group.all_reduce(np.ones(4, f32))
    odd_or(one, other)()
KINDS = [operation, size_of_short, size_of_long, shape, dtype, root, reduction, order]
"""

# Every kind in a group of its own, since a group in which ranks are out of step carries nothing more.
CAUGHT = CASES + """
if nodes := os.environ.get("NODES"):
    os.environ["DISTTORCH_NODE"] = nodes[rank]
world = connect()
groups = [world.subgroup(range(size)) for kind in KINDS]
tell("here")
said = {}
for kind, group in zip(KINDS, groups):
    if kind.__name__ in sys.argv[1:]:
        continue
    begun = time.monotonic()
    try:
        kind(group)
        said[kind.__name__] = "nothing", "", time.monotonic() - begun
    except CommunicationError as error:
        said[kind.__name__] = type(error).__name__, str(error), time.monotonic() - begun
        try:
            group.barrier()
            raise AssertionError("a group whose ranks are out of step went on")
        except CommunicationError as error:
            assert "has failed before, its ranks are out of step" in str(error), error
    world.barrier()
tell("said", said=said, transport=world.transport)
"""

TEXTS = {
    # what --debug mismatch calls the odd rank's call and those of the others
    "operation": ("barrier", "all_reduce(sum) of float32 [4]"),
    "size_of_short": ("all_reduce(sum) of float32 [5]", "all_reduce(sum) of float32 [4]"),
    "size_of_long": ("all_reduce(sum) of float32 [300001]", "all_reduce(sum) of float32 [300000]"),
    "shape": ("all_reduce(sum) of float32 [3, 2]", "all_reduce(sum) of float32 [2, 3]"),
    "dtype": ("all_reduce(sum) of int32 [4]", "all_reduce(sum) of float32 [4]"),
    "root": ("broadcast of float32 [4], root 1", "broadcast of float32 [4], root 0"),
    "reduction": ("all_reduce(max) of float32 [4]", "all_reduce(sum) of float32 [4]"),
    "order": ("all_reduce(sum) of float32 [4]", "broadcast of float32 [4], root 0"),
}

DEBUGGED = [
    # way, ranks, transport that is forced, nodes of the ranks, transport that is expected
    ("dlaunch", 3, "auto", None, "shared"),
    ("dlaunch", 2, "mpi", None, "mpi"),
    ("dlaunch", 4, "auto", "aabb", "hierarchical"),
    ("plain", 3, "auto", "aab", "hierarchical"),
    ("plain", 3, "tcp", None, "tcp"),
    ("mpiexec", 2, "auto", None, "shared"),
]


@pytest.mark.parametrize(("way", "ranks", "transport", "nodes", "expected"), DEBUGGED, ids=lambda value: str(value))
def test_the_table_of_debug_mismatch_names_calls_and_lines(jobs, way, ranks, transport, nodes, expected):
    script = jobs.script(CAUGHT)
    environ = {"DISTTORCH_TRANSPORT": transport, "DISTTORCH_DEBUG": "mismatch", "DISTTORCH_FLIGHT_DIR": "flight"}
    job = jobs.start(way, ranks, script, environ=environ | ({"NODES": nodes} if nodes else {}))
    here = jobs.told("here", ranks)
    ended = jobs.ended(job, 2 * SLACK, since=max(one["time"] for one in here))
    assert ended.code == 0, ended.said
    for one in jobs.told("said", ranks):
        assert one["transport"] == expected
        assert one["said"].keys() == TEXTS.keys()
        for kind, (odd, usual) in TEXTS.items():
            error, message, seconds = one["said"][kind]
            assert error == "CollectiveMismatchError", (kind, error, message)
            first, *table = message.splitlines()
            assert re.fullmatch(r"the ranks of group world/\d+ called different things as number 1:", first)
            width = max(len(odd), len(usual))
            calls = [usual] * (ranks - 1) + [odd]
            places = [line_of(script, f"usual {kind}")] * (ranks - 1) + [line_of(script, f"odd {kind}")]
            assert table == [f"  rank {r}: {call:{width}}  at {place}" for r, (call, place) in enumerate(zip(calls, places))]
            assert seconds < SLACK


PLAIN = [
    # way, ranks, transport, expected, kinds that are not compared: the same bytes, and nothing but a debug mode looks at more
    ("dlaunch", 3, "auto", "shared", ["shape"]),
    ("plain", 2, "auto", "shared", ["shape"]),
    # Over TCP a rank is done with a broadcast that it had no part in, and would wait in the next call for one that has failed.
    ("plain", 3, "tcp", "tcp", ["shape", "order"]),
]

# What is said without the debug mode, of the odd rank and of the others.
CARDS = {
    "operation": ("barrier", "all_reduce sum of float32, 16 bytes"),
    "size_of_short": ("all_reduce sum of float32, 20 bytes", "all_reduce sum of float32, 16 bytes"),
    "size_of_long": ("all_reduce sum of float32, 1,200,004 bytes", "all_reduce sum of float32, 1,200,000 bytes"),
    "dtype": ("all_reduce sum of int32, 16 bytes", "all_reduce sum of float32, 16 bytes"),
    "root": ("broadcast of float32, 16 bytes, root 1", "broadcast of float32, 16 bytes, root 0"),
    "reduction": ("all_reduce max of float32, 16 bytes", "all_reduce sum of float32, 16 bytes"),
    "order": ("all_reduce sum of float32, 16 bytes", "broadcast of float32, 16 bytes, root 0"),
}


@pytest.mark.parametrize(("way", "ranks", "transport", "expected", "unseen"), PLAIN, ids=lambda value: str(value))
def test_without_the_debug_mode(jobs, way, ranks, transport, expected, unseen):
    script = jobs.script(CAUGHT)
    environ = {"DISTTORCH_TRANSPORT": transport, "DISTTORCH_FLIGHT_DIR": "flight"}
    job = jobs.start(way, ranks, script, environ=environ, arguments=unseen)
    here = jobs.told("here", ranks)
    ended = jobs.ended(job, 2 * SLACK, since=max(one["time"] for one in here))
    assert ended.code == 0, ended.said
    last = ranks - 1
    for one in jobs.told("said", ranks):
        assert one["transport"] == expected
        assert one["said"].keys() == CARDS.keys() - {*unseen}
        for kind, (odd, usual) in CARDS.items():
            if kind in unseen:
                continue
            error, message, seconds = one["said"][kind]
            assert seconds < SLACK
            if expected == "shared":
                assert error == "CollectiveMismatchError", (kind, error, message)
                # Whoever finds the difference does not wait for those who have not come yet.
                lines = message.splitlines()[1 : ranks + 1]
                for r, line in enumerate(lines):
                    assert line in (f"  rank {r}: {odd if r == last else usual}", f"  rank {r}: has not come here yet")
                assert f"  rank {last}: {odd}" in lines and sum(line.endswith(usual) for line in lines) >= 1
                assert "DISTTORCH_DEBUG=mismatch" in message
            elif kind == "root" and one["rank"] != last and error == "nothing":
                continue  # a broadcast is over for those who got from their root what they expected
            else:
                # Two ranks whose calls met have found out; others hear it from them, in their words.
                assert error in ("CollectiveMismatchError", "CommunicationError"), (kind, error, message)
                said = rf"rank {last} calls|rank {last} sends|from rank {last}, which sends"
                assert re.search(said, message), (kind, message)


ENDING = CASES + """
if nodes := os.environ.get("NODES"):
    os.environ["DISTTORCH_NODE"] = nodes[rank]
world = connect()
world.barrier()
tell("here")
globals()[sys.argv[1]](world)
"""

ENDS = [
    # way, ranks, transport, nodes, debug, kind
    ("dlaunch", 3, "auto", None, True, "dtype"),
    ("dlaunch", 3, "auto", None, False, "size_of_long"),
    ("dlaunch", 4, "auto", "aabb", True, "reduction"),
    ("dlaunch", 3, "auto", "aba", False, "operation"),
    ("plain", 3, "auto", None, True, "order"),
    ("plain", 3, "auto", "aab", True, "root"),
    ("plain", 3, "tcp", None, False, "order"),
    ("mpiexec", 2, "auto", None, True, "shape"),
    ("mpiexec", 2, "auto", None, False, "root"),
]


@pytest.mark.parametrize(("way", "ranks", "transport", "nodes", "debug", "kind"), ENDS, ids=lambda value: str(value))
def test_the_job_ends(jobs, way, ranks, transport, nodes, debug, kind):
    script = jobs.script(ENDING)
    options = ["--timeout", 300, "--log-dir", "logs", *(["--debug", "mismatch"] if debug else [])]
    environ = {"DISTTORCH_TRANSPORT": transport} | ({"NODES": nodes} if nodes else {})
    if way == "mpiexec":
        options = []
        environ |= {"DISTTORCH_FLIGHT_DIR": "logs", "DISTTORCH_TIMEOUT": "300"} | ({"DISTTORCH_DEBUG": "mismatch"} if debug else {})
    job = jobs.start(way, ranks, script, *options, arguments=[kind], environ=environ)
    here = jobs.told("here", ranks)
    ended = jobs.ended(job, SLACK, since=max(one["time"] for one in here), segments=way != "mpiexec")
    assert ended.code == 1, ended.said
    assert "CollectiveMismatchError" in ended.err
    if debug:
        for which in ("odd", "usual"):
            assert f"at {line_of(script, f'{which} {kind}')}" in ended.err
    if nodes and not debug:  # found inside of a node, and told in the numbers of the group
        assert f"  rank {ranks - 1}: barrier" in ended.err and "  rank 1: " not in ended.err
    if way != "mpiexec":
        last = ended.err.splitlines()[-1]
        assert re.match(r"dlaunch: rank \d \(pid \d+ on .*\) ended with exit code 1 .* by collectives.errors.C\w*Error: ", last), ended.err
        assert f"the other {ranks - 1} ranks were ended" in last
    records = list((jobs.directory / "logs").glob("rank-*.flight.json"))
    assert any(json.loads(record.read_text())["reason"] == "mismatch" for record in records)
