"""--node-rank: a dlaunch on each host, started by hand; here all of them on this one."""

import os
import re
import signal
import socket
import sys

import pytest

from launcher import channel, nodes
from launcher.meeting import master_port
from tests.launcher.conftest import TIMEOUT

BOUND = 30.0
WAITS = "wait_for('never')\n"


def free_port():
    """A port that is free with the one after it."""
    while True:
        port = master_port()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
def together(session):
    """Starts the dlaunches of all nodes; each gets its own options."""
    port = free_port()

    def start(script, ranks, *options, of=2, own=None, order=None, constants=None):
        jobs = {}
        for node in order or range(of):
            jobs[node] = session.start(
                "-n", (own or {}).get(node, ranks), "--nnodes", of, "--node-rank", node, "--master-addr", "127.0.0.1",
                "--master-port", port, "--oversubscribe", *options, script, constants=constants,
            )  # fmt: skip
        return [jobs[node] for node in sorted(jobs)]

    start.port = port
    return start


def ended(jobs, timeout=TIMEOUT):
    """(exit code, stdout, stderr) of each."""
    said = [job.communicate(timeout=timeout) for job in jobs]
    return [(job.returncode, *words) for job, words in zip(jobs, said)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["node 0 first", "node 0 last"])
def test_every_rank_finds_its_place(session, say, together, order):
    names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT DISTTORCH_ATTEMPT"
    script = session.script(say + f"say('place', place=[os.environ[name] for name in '{names}'.split()])\nprint(rank)\n")
    said = ended(together(script, 7, of=3, order=order))
    assert [(code, err) for code, _, err in said] == [(0, "")] * 3
    places = [seen["place"] for seen in session.files("place.*.json", 7)]
    local = [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2), (0, 2), (1, 2)]
    assert places == [
        [str(rank), "7", str(own), str(here), "127.0.0.1", str(together.port), "0"] for rank, (own, here) in enumerate(local)
    ]
    # Each node's ranks write where their dlaunch does.
    assert [sorted(out.split()) for _, out, _ in said] == [["0", "1", "2"], ["3", "4"], ["5", "6"]]


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_fails_and_all_nodes_hear_of_it(session, say, left_of, together, rank):
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nfor other in range(4):\n    wait_for(f'start.{other}.json')\n"
        f"if rank == {rank}:\n    raise ValueError('bad batch')\n" + WAITS
    )
    said = ended(together(script, 4))
    assert [code for code, _, _ in said] == [1, 1]
    for _, _, err in said:
        assert re.match(rf"dlaunch: rank {rank} .*by ValueError: bad batch; the other 3 ranks were ended", err.splitlines()[-1])
    assert left_of(session.files("start.*.json", 4)[0]["run"]) == []


@pytest.mark.parametrize("node", [0, 1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_ends_one_ends_all(session, say, left_of, together, node, number, code):
    script = session.script(
        say + "seen = []\nsignal.signal(2, lambda n, f: seen.append(n))\nsignal.signal(15, lambda n, f: seen.append(n))\n"
        "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nwhile not seen:\n    time.sleep(0.01)\nsay('saved', seen=seen)\n"
    )
    jobs = together(script, 4)
    run = session.files("start.*.json", 4)[0]["run"]
    jobs[node].send_signal(number)
    said = ended(jobs)
    assert [each for each, _, _ in said] == [code] * 2
    assert all(f"stopped by {number.name}" in err for _, _, err in said)
    assert [seen["seen"] for seen in session.files("saved.*.json", 4)] == [[number]] * 4
    assert left_of(run) == []


def test_restarts_are_those_of_all_nodes(session, say, together):
    script = session.script(
        say + "attempt = int(os.environ['DISTTORCH_ATTEMPT'])\nsay(f'start{attempt}')\n"
        "for other in range(4):\n    wait_for(f'start{attempt}.{other}.json')\n"
        "if attempt < 2:\n    if rank == 3 - attempt:\n        os.kill(os.getpid(), 9)\n    wait_for('never')\n"
    )
    said = ended(together(script, 4, "--max-restarts", 2))
    assert [code for code, _, _ in said] == [0, 0]
    assert "restart 1 of 2, with 4 ranks" in said[0][2] and "restart 2 of 2, with 4 ranks" in said[0][2]
    assert "rank 3" in said[0][2] and "rank 2" in said[0][2]
    for attempt in range(3):
        session.files(f"start{attempt}.*.json", 4)


@pytest.mark.parametrize("least", [None, 2], ids=["", "--min-ranks"])
def test_a_node_is_killed(session, say, left_of, together, monkeypatch, least):
    script = session.script(
        say + "attempt = int(os.environ['DISTTORCH_ATTEMPT'])\n"
        "say(f'start{attempt}', run=os.environ['DISTTORCH_RUN_DIR'], size=os.environ['WORLD_SIZE'])\n"
        "if attempt == 0:\n    wait_for('never')\n"
    )
    jobs = together(script, 4, *([] if least is None else ["--min-ranks", least, "--max-restarts", 1]))
    run = session.files("start0.*.json", 4)[0]["run"]
    jobs[1].kill()
    (code, _, err), _ = ended(jobs)
    assert re.search(r"rank 2: its host node 1 was lost after .*: the connection to its dlaunch broke", err)
    if least is None:
        assert code == 1
    else:
        assert code == 0, err
        assert "node 1 did not come: left out" in err
        assert "restart 1 of 1, with 2 ranks" in err
        assert [seen["size"] for seen in session.files("start1.*.json", 2)] == ["2", "2"]
    session.until(lambda: left_of(run) == [], "the end of all processes", BOUND)


def test_a_node_that_was_started_again_takes_part_again(session, say, together):
    script = session.script(
        say + "attempt = int(os.environ['DISTTORCH_ATTEMPT'])\nsay(f'start{attempt}', size=os.environ['WORLD_SIZE'])\n"
        "if attempt == 0:\n    wait_for('never')\n"
    )
    constants = {"restart.REJOIN": 60}  # seconds that the restart waits for it: Python takes its time on a machine with other work
    jobs = together(script, 2, "--max-restarts", 1, "--min-ranks", 1, constants=constants)
    session.files("start0.*.json", 2)
    jobs[1].kill()
    jobs[1].communicate()
    session.running.remove(jobs[1])
    again = together(script, 2, order=[1])
    said = ended([jobs[0], *again])
    assert [code for code, _, _ in said] == [0, 0], said
    assert [seen["size"] for seen in session.files("start1.*.json", 2)] == ["2", "2"]


def test_node_0_is_killed(session, say, left_of, together):
    script = session.script(say + "signal.signal(15, signal.SIG_IGN)\nsay('start', run=os.environ['DISTTORCH_RUN_DIR'])\n" + WAITS)
    jobs = together(script, 2)
    run = session.files("start.*.json", 2)[0]["run"]
    jobs[0].kill()
    _, (code, _, err) = ended(jobs)
    assert code == 1
    assert "the dlaunch of node 0 (127.0.0.1) is gone, so the ranks of node 1 have been ended" in err
    session.running.clear()
    session.until(lambda: left_of(run) == [], "the end of all processes", BOUND)


def test_nodes_that_were_told_different_things(session, together):
    jobs = together(session.script("open('ran', 'w')\n"), 0, own={0: 4, 1: 6})
    said = "node 1 (127.0.0.1) was started with --nnodes 2 and 6 ranks, node 0 with --nnodes 2 and 4 ranks"
    assert [(code, err) for code, _, err in ended(jobs)] == [(2, f"dlaunch: {said}\n")] * 2
    assert not (session.directory / "ran").exists()


def test_two_nodes_of_one_number(session, say, together):
    jobs = together(session.script(say + WAITS), 3, of=3, order=[0, 1]) + together(session.script(say + WAITS), 3, of=3, order=[1])
    said = ended(jobs)
    assert [code for code, _, _ in said] == [2, 2, 2]
    assert "two dlaunches were started with --node-rank 1" in said[0][2]


def test_who_knocks_and_says_nothing_sensible_is_sent_away(session, say, together):
    script = session.script(say + "say('start')\n")
    first = together(script, 2, order=[0])
    session.until(lambda: knocked(together.port + 1), "node 0 to listen")
    rest = together(script, 2, order=[1])
    assert [code for code, _, _ in ended([*first, *rest])] == [0, 0]


def knocked(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            link.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return True
    except ConnectionRefusedError:
        return False


def test_what_a_node_says_at_once_is_left_for_the_engine():
    """Ctrl-C on a node that has only just said who it is."""
    waiting = nodes.Nodes("127.0.0.1", port := free_port(), 2, 2)
    with socket.create_connection(("127.0.0.1", port)) as link:
        read, write = os.pipe()
        channel.send(write, channel.HELLO, {"node": 1, "nodes": 2, "ranks": 2})
        channel.send(write, channel.SIGNAL, 2)
        link.sendall(os.read(read, 1 << 12))
        os.close(read)
        os.close(write)
        assert waiting.gather(60.0, lambda seconds: False, print) == []
        assert channel.Frames().feed(channel.read(waiting.links[1].fileno())) == [(channel.SIGNAL, b"2")]
        waiting.over(0, [])


def test_nodes_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(nodes, "SAYING", 0.05)
    said = []
    waiting = nodes.Nodes("127.0.0.1", free_port(), 3, 6)
    assert waiting.listener.getsockname()[0] == "127.0.0.1"  # nothing is open to the outside
    assert waiting.gather(60.0, lambda seconds: bool(said), said.append) == [1, 2]
    assert waiting.gather(0.1, lambda seconds: False, said.append) == [1, 2]
    waiting.over(0, [])
    assert "waiting for the dlaunch of nodes 1, 2" in said


def test_a_port_that_is_taken_is_said(session, together):
    with socket.create_server(("127.0.0.1", together.port + 1)):
        [job] = together(session.script("pass\n"), 2, order=[0])
        [(code, _, err)] = ended([job])
    assert code == 2
    assert f"cannot listen at 127.0.0.1:{together.port + 1}, the port after --master-port: [Errno 98]" in err


def test_ctrl_c_while_it_waits(session, together):
    for node, code in ((0, 130), (1, 130)):
        [job] = together(session.script("pass\n"), 2, order=[node])
        session.until(lambda pid=job.pid: handles_sigterm(pid), "its handlers")
        job.send_signal(signal.SIGINT)
        assert [each for each, _, _ in ended([job])] == [code]
        session.running.remove(job)


def handles_sigterm(pid):
    """Whether a process has a handler for SIGTERM, as dlaunch has once it has begun."""
    with open(f"/proc/{pid}/status") as lines:
        mask = int(next(line.split()[1] for line in lines if line.startswith("SigCgt")), 16)
    return bool(mask >> (signal.SIGTERM - 1) & 1)


def test_dry_run(session):
    script = session.script("open('ran', 'w')\n")
    options = ["-n", 5, "--nnodes", 2, "--master-addr", "127.0.0.1", "--dry-run", "--oversubscribe"]
    zero = session.run(*options, "--node-rank", 0, script)
    one = session.run(*options, "--node-rank", 1, script)
    assert (zero.returncode, zero.stderr, one.returncode, one.stderr) == (0, "", 0, "")
    assert "# localhost: ranks 0 to 2\n# node 1: ranks 3 to 4\n" in zero.stdout
    assert "MASTER_PORT=29500" in zero.stdout and "plain.py" in zero.stdout
    assert "# node 1 of 2 does what that of node 0 says at 127.0.0.1:29501\n# and runs, for each of 2 ranks:\n" in one.stdout
    assert one.stdout.splitlines()[-1].startswith(f"{sys.executable} -I -S ")
    assert not (session.directory / "ran").exists()
