"""The MPI that mpi4py loads, its mpiexec, and whether it can send from GPU memory."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from launcher.inventory.probe import ProbeError, ask, say
from launcher.mpi import MpiError, find_mpi

_VERSION = r"""
import json
import mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
print("\n" + json.dumps(MPI.Get_library_version()))
"""


def probe(environ: Mapping[str, str], python: str = sys.executable) -> dict[str, Any]:
    """What ``dlaunch --engine mpiexec`` would use.

    Returns
    -------
    dict
        "flavour" ("MPICH", "Open MPI", "Intel MPI"), "version", "library" and "mpiexec" (paths), "cuda" (whether it takes
        arrays of a GPU; None where that cannot be told) with "cuda_why"; and "error".
    """
    keys = ("flavour", "version", "library", "mpiexec", "cuda", "cuda_why", "error")
    answer: dict[str, Any] = dict.fromkeys(keys)
    try:
        found = find_mpi("auto", environ, python)
    except MpiError as error:
        return {**answer, "error": str(error)}
    cuda, why = _cuda(found.engine.name, found.mpiexec, environ, python)
    answer.update(
        flavour=found.engine.name, version=found.version, library=found.library, mpiexec=found.mpiexec, cuda=cuda, cuda_why=why
    )
    return answer


def rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the report."""
    if found["error"] is not None:
        return [("MPI", f"none: {found['error']}")]
    version = found["version"] if found["flavour"] in found["version"] else f"{found['flavour']}: {found['version']}"
    cuda = {True: "yes", False: "no", None: "not known"}[found["cuda"]]
    lines = [("MPI", version)]
    if found["library"]:
        lines.append(("library", found["library"]))
    return [*lines, ("mpiexec", found["mpiexec"]), ("CUDA-aware", f"{cuda} ({found['cuda_why']})")]


def _cuda(flavour: str, mpiexec: str, environ: Mapping[str, str], python: str) -> tuple[bool | None, str]:
    """Whether an MPI was built for arrays in GPU memory, and who says so."""
    if flavour == "Open MPI":
        program = os.path.join(os.path.dirname(mpiexec), "ompi_info")
        if not os.access(program, os.X_OK):
            program = shutil.which("ompi_info", path=environ.get("PATH")) or program
        try:
            said = say([program, "--parsable", "--all"], environ)
        except ProbeError as error:
            return None, f"ompi_info: {error}"
        built = re.search(r"built_with_cuda_support:value:(true|false)", said)
        return (None, "ompi_info does not say") if built is None else (built[1] == "true", "by ompi_info")
    try:
        text = ask(python, _VERSION, environ)
    except ProbeError as error:
        return None, str(error)
    if re.search(r"CRAY", text):
        on = environ.get("MPICH_GPU_SUPPORT_ENABLED")
        return on == "1", f"MPICH_GPU_SUPPORT_ENABLED={on or '(not set)'}"
    configured = re.search(r"configure:(.*)", text, re.IGNORECASE)
    if configured is None:
        return None, f"{flavour} does not say how it was built"
    given = re.search(r"--(?:with-cuda|enable-cuda)\b(?!=no)", configured[1]) is not None
    return given, f"it was built {'with' if given else 'without'} --with-cuda"
