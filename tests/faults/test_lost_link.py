"""Two hosts with a network between them, two network namespaces in truth: training across it, and the network going away."""

import re

import pytest

from tests.faults.jobs import SLACK

TIMEOUT = 3.0
RANKS = 4
# MPI libraries see through the namespaces that it is one machine; this has them use the network. MPICH's UCX, Open MPI.
BY_NETWORK = {"UCX_TLS": "tcp,self", "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,tcp"}

TRAINS = """
import disttorch as torch
import disttorch.distributed as dist
from collectives import connect
dist.init_process_group()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
wrapped = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
generator = torch.Generator().manual_seed(rank)
steps = int(sys.argv[1])
world = connect()
tell("here", transport=world.transport, nodes=world.job.node_of)
begun = time.monotonic()
try:
    step = 0
    while step < steps or not steps:
        step += 1
        inputs = torch.randn(4, 8, generator=generator)
        optimizer.zero_grad()
        begun = time.monotonic()
        (wrapped(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        if step == 10:
            tell("loop")
except CommunicationError as error:
    tell("said", error=type(error).__name__, message=str(error), seconds=time.monotonic() - begun)
    raise
tell("end", parameters=[p.tolist() for p in model.parameters()])
dist.destroy_process_group()
"""


def start(jobs, hosts, engine, *arguments, transport="auto", timeout=TIMEOUT):
    return jobs.start(
        "dlaunch", RANKS, jobs.script(TRAINS), "--engine", engine, "--rsh", "ip netns exec {host}", "--timeout", timeout,
        "--hosts", ",".join(f"{name}:{RANKS // 2}" for name in hosts.names), "--log-dir", "logs",
        prefix=hosts.on(0), arguments=arguments,
        environ=BY_NETWORK | {"UCX_NET_DEVICES": hosts.wire, "DISTTORCH_TRANSPORT": transport},
    )  # fmt: skip


CASES = [
    # engine, transport, transport that is expected
    ("plain", "auto", "hierarchical"),
    ("plain", "tcp", "tcp"),
    ("mpiexec", "auto", "hierarchical"),
]
table = pytest.mark.parametrize(("engine", "transport", "expected"), CASES, ids=lambda value: str(value))


@table
def test_training_across_two_hosts(jobs, hosts, engine, transport, expected):
    job = start(jobs, hosts, engine, 20, transport=transport, timeout=60)  # nobody is to be late here, whatever else the machine does
    here = jobs.told("here", RANKS)
    ended = jobs.ended(job, SLACK, since=max(one["time"] for one in here))
    assert ended.code == 0, ended.err
    assert [(one["transport"], one["nodes"]) for one in here] == [(expected, [0, 0, 1, 1])] * RANKS
    first, *others = jobs.told("end", RANKS)
    assert all(one["parameters"] == first["parameters"] for one in others)


@table
def test_the_network_goes_away(jobs, hosts, engine, transport, expected):
    job = start(jobs, hosts, engine, 0, transport=transport)
    jobs.told("loop", RANKS)
    hosts.cut()
    ended = jobs.ended(job, TIMEOUT + SLACK)
    # MPI notices that its daemons are out of reach at about the same time, and may end a rank with a code of its own.
    assert ended.code == 1 if engine == "plain" else ended.code, ended.err
    told = [rank for rank in range(RANKS) if jobs.has_told("said", rank)]
    assert told
    reached = set()
    for one in jobs.told("said", told):
        mine, other = (0, 1) if one["rank"] < 2 else (1, 0)
        far = [2, 3] if mine == 0 else [0, 1]
        first, *lines = one["message"].splitlines()
        if one["error"] == "CommunicationError":
            # Its neighbour's time was over first, and it has failed.
            assert re.search(
                r"is gone\. rank \d .* has failed with CollectiveTimeoutError|rank \d \(\S+\) closed its connection", first
            ), one
            continue
        assert one["error"] == "CollectiveTimeoutError", one
        assert TIMEOUT <= one["seconds"] < TIMEOUT + SLACK
        found = re.search(rf"rank {one['rank']} has waited \d+\.\d s \(timeout 3 s\)\. Ranks (.*) of this group have not come:$", first)
        assert found, one
        # Its neighbour may be a step behind: the network went away in the middle of one.
        assert {*map(str, far)} <= {*found[1].split(", ")}, one
        for rank in far:
            [line] = [line for line in lines if line.startswith(f"  rank {rank} ")]
            why = re.escape(f"cannot be reached (no answer from {hosts.names[other]})")
            assert re.fullmatch(rf"  rank {rank} \(on \S+\): {why}", line), line
        reached.add(mine)
    assert reached
    last = ended.err.splitlines()[-1]
    assert "CollectiveTimeoutError: all_reduce" in ended.err
    named = r"dlaunch: rank \d \(pid \d+ .*CollectiveTimeoutError|dlaunch: rank \d: its host"
    by_mpi = r"|dlaunch: rank \d \(pid \d+ on \S+\) ended with exit code \d+" if engine == "mpiexec" else ""
    assert re.match(named + by_mpi, last), ended.err
