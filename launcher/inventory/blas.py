"""Which BLAS NumPy's matrix products run in, and the kernels that it chose for this processor."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.inventory.probe import ProbeError, ask
from launcher.processor import CPUINFO, gains_by_avx512

# NumPy is loaded and the process's memory map names the BLAS. threadpoolctl knows more libraries than OpenBLAS; without
# it OpenBLAS is asked itself, under the names that its builds give their functions.
_PROGRAM = r"""
import ctypes, json, os
import numpy
said = {"version": None, "path": None, "kernels": None, "threads": None, "by": None}
build = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
said["name"] = build.get("name")
try:
    import threadpoolctl
except ImportError:
    threadpoolctl = None
for found in threadpoolctl.threadpool_info() if threadpoolctl else []:
    if found["user_api"] == "blas":
        said.update(
            name=found["internal_api"], version=found["version"], path=found["filepath"], threads=found["num_threads"],
            kernels=found.get("architecture"), by="threadpoolctl",
        )
        break
else:
    with open("/proc/self/maps") as maps:
        paths = {line.split(None, 5)[5].strip() for line in maps if line.count("/")}
    wanted = ("openblas", "mkl_rt", "blis", "libblas", "flexiblas", "armpl", "libsci")
    blas = sorted(path for path in paths if any(name in os.path.basename(path) for name in wanted))
    for path in blas:
        said["path"] = path
        library = ctypes.CDLL(path)
        for start in ("scipy_", ""):
            for end in ("64_", ""):
                core = getattr(library, f"{start}openblas_get_corename{end}", None)
                if core is None:
                    continue
                core.restype = ctypes.c_char_p
                config = getattr(library, f"{start}openblas_get_config{end}")
                config.restype = ctypes.c_char_p
                said.update(
                    name="openblas", kernels=core().decode(), version=config().decode().split()[1], by="the library itself",
                    threads=getattr(library, f"{start}openblas_get_num_threads{end}")(),
                )
        if said["kernels"]:
            break
print(json.dumps(said))
"""


def probe(environ: Mapping[str, str], cpuinfo: Path = CPUINFO, python: str = sys.executable) -> dict[str, Any]:
    """NumPy's BLAS: "name", "version", "path", "kernels" (OpenBLAS's core type), "threads"; and whether the processor gains by "avx512"."""
    try:
        return {**ask(python, _PROGRAM, environ), "avx512": gains_by_avx512(cpuinfo), "error": None}
    except ProbeError as error:
        return {"error": str(error), "avx512": gains_by_avx512(cpuinfo)}


def rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the report."""
    if found["error"] is not None:
        return [("NumPy's BLAS", f"not known: {found['error']}")]
    name = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS"}.get(found["name"], found["name"] or "unknown")
    version = f" {found['version']}" if found["version"] else ""
    where = f" ({found['path']})" if found["path"] else ""
    lines = [("NumPy's BLAS", f"{name}{version}{where}")]
    if found["kernels"]:
        lines.append(("kernels", f"{found['kernels']}{_remark(found)}, {found['threads']} threads where nothing limits them"))
    return lines


def _remark(found: Mapping[str, Any]) -> str:
    weak = re.search(r"haswell|zen|sandybridge|nehalem|prescott", found["kernels"], re.IGNORECASE)
    return " (this processor has AVX-512, and these kernels do not use it)" if found["avx512"] and weak else ""
