"""Slurm: the allocation that this shell is in, and how its srun can start MPI's ranks."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from typing import Any

from launcher.inventory.probe import ProbeError, say

# What Slurm tells the processes of a job (sbatch(1), "OUTPUT ENVIRONMENT VARIABLES").
VARIABLES = {
    "job": "SLURM_JOB_ID", "step": "SLURM_STEP_ID", "partition": "SLURM_JOB_PARTITION", "nodes": "SLURM_JOB_NUM_NODES",
    "node_list": "SLURM_JOB_NODELIST", "tasks": "SLURM_NTASKS", "tasks_per_node": "SLURM_TASKS_PER_NODE",
    "cpus_per_task": "SLURM_CPUS_PER_TASK", "gpus_on_node": "SLURM_GPUS_ON_NODE",
}  # fmt: skip
PATIENCE = 10.0  # seconds: srun asks the controller for its configuration


def probe(environ: Mapping[str, str]) -> dict[str, Any]:
    """The allocation, and srun.

    Returns
    -------
    dict
        "allocation": a dictionary by the keys of `VARIABLES`, or None outside of one; "srun": its path; "mpi": the types
        for ``srun --mpi``; "error": why srun does not say them.
    """
    allocation = None
    if "SLURM_JOB_ID" in environ:
        allocation = {key: environ.get(name) for key, name in VARIABLES.items()}
    srun = shutil.which("srun", path=environ.get("PATH"))
    answer: dict[str, Any] = {"allocation": allocation, "srun": srun, "mpi": [], "error": None}
    if srun is None:
        return answer
    try:
        # Into one pipe, because releases differ in where they write it.
        said = say(["/bin/sh", "-c", 'exec "$0" --mpi=list 2>&1', srun], environ, PATIENCE)
    except ProbeError as error:
        return {**answer, "error": str(error)}
    # "MPI plugin types are..." and a type a line, of some releases with "srun: " before it; pmix's versions in one more.
    words = [re.sub(r"^srun:\s*", "", line).strip() for line in said.splitlines()]
    answer["mpi"] = [word for word in words if re.fullmatch(r"\w+", word)]
    if not answer["mpi"]:
        answer["error"] = "srun --mpi=list names none"
    return answer


def rows(found: Mapping[str, Any], flavour: str | None) -> list[tuple[str, str]]:
    """The lines of the report; `flavour` is the MPI's."""
    allocation = found["allocation"]
    if allocation is None:
        where = "not inside an allocation" if found["srun"] else "not here: neither an allocation nor srun"
        lines = [("Slurm", where)]
    else:
        job = f"job {allocation['job']}" + _of(allocation, "step", ", step {}") + _of(allocation, "partition", ", partition {}")
        lines = [("Slurm", job)]
        nodes = f"{allocation['nodes'] or '?'} ({allocation['node_list'] or 'not named'})"
        lines.append(("nodes", nodes))
        tasks = allocation["tasks"] or "not given (sbatch --ntasks)"
        tasks += _of(allocation, "tasks_per_node", ", {} a node") + _of(allocation, "cpus_per_task", ", {} processors each")
        lines.append(("tasks", tasks + _of(allocation, "gpus_on_node", ", {} GPUs on this node")))
    if found["srun"] is not None:
        types = f"{', '.join(found['mpi'])}{_starts(found['mpi'], flavour)}"
        lines.append(("srun --mpi", types if found["mpi"] else f"not known: {found['error']}"))
    return lines


def _of(allocation: Mapping[str, Any], key: str, text: str) -> str:
    return text.format(allocation[key]) if allocation[key] else ""


def _starts(types: list[str], flavour: str | None) -> str:
    """Which of the types starts ranks of this MPI."""
    wanted = {"MPICH": ("pmi2", "pmix", "cray_shasta"), "Open MPI": ("pmix",), "Intel MPI": ("pmi2", "pmix")}.get(flavour or "")
    if wanted is None:
        return ""
    fits = next((kind for name in wanted for kind in types if kind == name or kind.startswith(name + "_v")), None)
    if fits is None:
        return f"; none of them starts {flavour}, which needs {' or '.join(wanted)}: dlaunch starts it through mpiexec"
    return f"; {flavour} is started with --mpi={fits}"
