"""Jobs on two hosts: two network namespaces with addresses of their own, joined by a wire."""

import re
import subprocess
import sys

import pytest

from launcher.mpi import find_mpi
from tests.hosts import two_hosts
from tests.launcher.conftest import TIMEOUT

RSH = "ip netns exec {host}"

# Open MPI's ranks know by the host's name who shares memory with them, and name that memory by it. So a host that is one
# for them also has a name and a /dev/shm of its own.
OWN_SHM = """#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare --uts --mount sh -c \
    'hostname "h${0##*.}" && mount -t tmpfs none /dev/shm && exec "$@"' "$host" "$@"
"""
PLACE = """
print(*(os.environ[name] for name in "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR".split()), flush=True)
"""

# Rank 0 listens where the ranks were told to meet; the addresses that come in are those of their hosts.
MEET = PLACE + """
import socket
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
size = int(os.environ["WORLD_SIZE"])
if rank == 0:
    with socket.create_server(address) as server:
        print("from", *sorted(server.accept()[1][0] for _ in range(size - 1)), flush=True)
else:
    while True:
        try:
            socket.create_connection(address, timeout=5)
            break
        except OSError:
            time.sleep(0.05)
"""
SUM = PLACE + """
from mpi4py import MPI
print("sum", MPI.COMM_WORLD.allreduce(10 ** MPI.COMM_WORLD.rank), flush=True)
"""


@pytest.fixture(scope="module")
def hosts():
    """The names of two namespaces; they and the wire between them are gone afterwards."""
    with two_hosts() as hosts:
        yield [*hosts.names]


def way(session):
    """The way to a host for the MPI at hand."""
    if find_mpi("auto", session.environ).engine.name != "Open MPI":
        return RSH
    session.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    path = session.script(OWN_SHM, "way")
    path.chmod(0o700)
    return f"{path} {{host}}"


def launch(session, host, *arguments, rsh=RSH):
    """Runs dlaunch on one of the hosts."""
    job = subprocess.Popen(
        ["ip", "netns", "exec", host, sys.executable, "-m", "launcher",
         "--oversubscribe", "--rsh", rsh, *map(str, arguments)],
        cwd=session.directory, env=session.environ, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    session.running.append(job)
    return job


def places(hosts, counts):
    """What PLACE prints."""
    size = sum(counts)
    found = []
    for count in counts:
        found += [f"{len(found) + local} {size} {local} {count} {hosts[0]}" for local in range(count)]
    return found


def ended(job):
    out, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, err
    return sorted(out.splitlines())


@pytest.mark.parametrize("counts", [(2, 2), (1, 2)])
def test_the_plain_engine_from_outside(session, say, hosts, counts):
    job = session.start(
        "--oversubscribe", "--rsh", RSH, "--engine", "plain", "-n", sum(counts), "--hosts",
        ",".join(f"{host}:{count}" for host, count in zip(hosts, counts)), session.script(say + MEET),
    )  # fmt: skip
    others = [hosts[0]] * (counts[0] - 1) + [hosts[1]] * counts[1]
    assert ended(job) == [*places(hosts, counts), " ".join(["from", *others])]


def test_the_plain_engine_from_one_of_them(session, say, hosts):
    job = launch(session, hosts[1], "--engine", "plain", "-n", 4, "--hosts", ",".join(hosts), session.script(say + MEET))
    assert ended(job) == [*places(hosts, (2, 2)), f"from {hosts[0]} {hosts[1]} {hosts[1]}"]


# A host whose temporary directory is its own.
OWN_TMP = """#!/bin/sh
host=$1
shift
exec ip netns exec "$host" unshare --mount sh -c 'mount -t tmpfs none "$0" && exec "$@"' TMP "$@"
"""


def test_a_run_directory_that_somebody_removes_on_another_host(session, say, hosts):
    """What its agent made there is made again, and how its ranks end is known."""
    tmp = session.directory / "tmp"
    tmp.mkdir()
    way = session.script(OWN_TMP.replace("TMP", str(tmp)), "way")
    way.chmod(0o700)
    script = session.script(
        say + "import shutil\nif rank == 1:\n    shutil.rmtree(os.environ['DISTTORCH_RUN_DIR'])\n"
        "    wait_for(os.environ['DISTTORCH_RUN_DIR'])\n    sys.exit(3)\nwait_for('never')\n"
    )
    job = session.run(
        "--oversubscribe", "--rsh", way, "--engine", "plain", "-n", 2, "--hosts", ",".join(f"{host}:1" for host in hosts), script,
        TMPDIR=str(tmp),
    )  # fmt: skip
    assert job.returncode == 3, job.stderr
    assert re.search(r"dlaunch: rank 1 .* ended with exit code 3", job.stderr.splitlines()[-1])


def test_mpiexec(session, say, hosts):
    script = session.script(say + SUM)
    job = launch(session, hosts[0], "-n", 4, "--hosts", f"{hosts[0]}:2,{hosts[1]}:2", script, rsh=way(session))
    assert ended(job) == [*places(hosts, (2, 2)), *["sum 1111"] * 4]


def test_lines_of_both_hosts_stay_whole_under_mpiexec(session, say, hosts):
    length, count = 9000, 60
    script = session.script(say + f"for i in range({count}):\n    print(i, chr(97 + rank) * {length}, flush=True)\n")
    job = launch(session, hosts[0], "-n", 2, "--hosts", ",".join(hosts), "--tag", script, rsh=way(session))
    lines = ended(job)
    for rank in range(2):
        assert [line for line in lines if line.startswith(f"[{rank}]")] == sorted(
            f"[{rank}] {i} {chr(97 + rank) * length}" for i in range(count)
        )


@pytest.mark.parametrize("engine", ["plain", "mpiexec"])
def test_a_rank_fails_on_the_other_host(session, say, hosts, left_of, engine):
    script = session.script(
        say + "say('start', run=os.environ['DISTTORCH_RUN_DIR'])\nfor other in range(3):\n    wait_for(f'start.{other}.json')\n"
        "if rank == 2:\n    raise ValueError('bad batch')\nwait_for('never')\n"
    )
    job = launch(session, hosts[0], "--engine", engine, "-n", 3, "--hosts", f"{hosts[0]}:1,{hosts[1]}:2", script)
    _, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 1
    assert re.match(r"dlaunch: rank 2 .*by ValueError: bad batch; the other 2 ranks were ended", err.splitlines()[-1])
    assert left_of(session.files("start.*.json", 3)[0]["run"]) == []


def test_nodes_that_are_started_by_hand(session, say, hosts):
    script = session.script(say + MEET)
    jobs = []
    for node, host in enumerate(hosts):
        jobs.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, sys.executable, "-m", "launcher", "-n", "4", "--oversubscribe", "--nnodes", "2",
                 "--node-rank", str(node), "--master-addr", hosts[0], str(script)],
                cwd=session.directory, env=session.environ, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        session.running.append(jobs[-1])
    assert sorted(line for job in jobs for line in ended(job)) == [
        *places(hosts, (2, 2)), f"from {hosts[0]} {hosts[1]} {hosts[1]}"
    ]  # fmt: skip


@pytest.mark.parametrize("engine", ["plain", "mpiexec"])
def test_a_host_that_is_gone(session, say, hosts, engine):
    """No namespace has this name, so the way there fails."""
    net = hosts[0].rpartition(".")[0]
    job = launch(
        session, hosts[0], "--engine", engine, "-n", 3, "--min-ranks", 2, "--hosts", f"{hosts[0]}:1,{net}.9:1,{hosts[1]}:1",
        session.script(say + PLACE),
    )  # fmt: skip
    out, err = job.communicate(timeout=TIMEOUT)
    assert job.returncode == 0, err
    assert sorted(out.splitlines()) == places(hosts, (1, 1))
    assert f"host {net}.9 cannot be reached" in err and "its slot is left out" in err
