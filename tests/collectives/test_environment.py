"""Which variables tell a process its rank: every launcher, their order, and what is refused."""

from __future__ import annotations

import pytest

from collectives import Environment, LaunchError, environment

SLURM_STEP = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NTASKS": "99", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}  # fmt: skip
CONTRACT = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "6",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_RANK": "2",
}  # fmt: skip

FOUND = {
    "nothing": ({}, Environment(0, 1, 0, 1, "none")),
    "contract": (CONTRACT, Environment(3, 8, 1, 2, "contract")),
    "contract without the node": ({"RANK": "3", "WORLD_SIZE": "8"}, Environment(3, 8, None, None, "contract")),
    "contract of one": ({"RANK": "0", "WORLD_SIZE": "1"}, Environment(0, 1, 0, 1, "contract")),
    "mpich": (MPICH, Environment(1, 4, 1, 2, "mpich")),
    "open mpi": (OPEN_MPI, Environment(2, 6, 0, 2, "openmpi")),
    "pmix alone": ({"PMIX_RANK": "2"}, Environment(2, None, None, None, "pmix")),
    "slurm step": (SLURM_STEP, Environment(5, 7, 1, 2, "slurm")),
    "slurm step, last node": (SLURM_STEP | {"SLURM_NODEID": "3", "SLURM_LOCALID": "0"}, Environment(5, 7, 0, 1, "slurm")),
    "slurm step, old names": (
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Environment(1, 2, None, None, "slurm"),
    ),
    "slurm batch shell": ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_LOCALID": "0"}, Environment()),
    "contract before mpich": (CONTRACT | MPICH, Environment(3, 8, 1, 2, "contract")),
    "mpich before slurm": (MPICH | SLURM_STEP, Environment(1, 4, 1, 2, "mpich")),
    "pmi2 in a slurm step takes the node's ranks from slurm": (
        SLURM_STEP | {"PMI_RANK": "5", "PMI_SIZE": "7"}, Environment(5, 7, 1, 2, "mpich"),
    ),
    "pmix in a slurm step takes the size from slurm": (
        SLURM_STEP | {"PMIX_RANK": "5"}, Environment(5, 7, 1, 2, "pmix"),
    ),
    "another rank's node is not ours": (
        SLURM_STEP | {"RANK": "4", "WORLD_SIZE": "7"}, Environment(4, 7, None, None, "contract"),
    ),
    "empty variables are unset": ({"RANK": "", "WORLD_SIZE": ""}, Environment()),
}  # fmt: skip


@pytest.mark.parametrize(("variables", "expected"), FOUND.values(), ids=FOUND)
def test_environment(variables: dict[str, str], expected: Environment) -> None:
    assert environment(variables) == expected


REFUSED = {
    "rank without size": ({"RANK": "3"}, "RANK=3 is set, but WORLD_SIZE is not"),
    "size without rank": ({"WORLD_SIZE": "3"}, "WORLD_SIZE=3 is set, but RANK is not"),
    "rank beyond size": (CONTRACT | {"RANK": "8"}, "RANK=8 is no rank of WORLD_SIZE=8"),
    "negative": (CONTRACT | {"RANK": "-1"}, "RANK=-1 is negative"),
    "no number": (MPICH | {"PMI_SIZE": "four"}, "PMI_SIZE='four' is not an integer"),
    "local rank beyond local size": (CONTRACT | {"LOCAL_RANK": "2"}, "LOCAL_RANK=2 is no rank of this node's 2"),
    "step without rank": ({"SLURM_STEP_ID": "0"}, "SLURM_STEP_ID=0 is set, but SLURM_PROCID is not"),
    "tasks unreadable": (SLURM_STEP | {"SLURM_STEP_TASKS_PER_NODE": "2*3"}, "cannot read '2*3'"),
    "node beyond list": (SLURM_STEP | {"SLURM_NODEID": "4"}, "SLURM_NODEID=4, but .* lists 4 nodes"),
}


@pytest.mark.parametrize(("variables", "message"), REFUSED.values(), ids=REFUSED)
def test_contradictions_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message.replace("*", r"\*").replace(r".\*", ".*")):
        environment(variables)
