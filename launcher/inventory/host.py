"""This host: processors and which of them the ranks get, memory, limits."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from launcher import binding, contract, control_groups
from launcher.diagnosis.words import runs, short
from launcher.inventory.probe import size

SMALL = 1 << 30  # bytes of /dev/shm; containers get 64 MiB if nobody asks for more
LIMITS = {"open files": resource.RLIMIT_NOFILE, "locked memory": resource.RLIMIT_MEMLOCK, "processes": resource.RLIMIT_NPROC}
SHOWN = 8  # different kinds of ranks that are listed


def python() -> dict[str, Any]:
    """The interpreter that the ranks will run in, and the system under it."""
    libc, version = platform.libc_ver()
    return {
        "version": platform.python_version(),
        "executable": sys.executable,
        "environment": sys.prefix if sys.prefix != sys.base_prefix else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": f"{libc} {version}".strip() or None,
        "host": os.uname().nodename,
    }


def processors(
    ranks: int, bind: str, environ: Mapping[str, str], usable: set[int] | None = None, root: Path = Path("/")
) -> dict[str, Any]:
    """Processors, NUMA nodes, and what each of `ranks` ranks on this host gets.

    Parameters
    ----------
    ranks : int
        Ranks on this host.
    bind : str
        What ``dlaunch --bind`` is given: "none", "cores" or "numa".
    environ : mapping
        The ranks' environment, which may set the number of threads.
    usable : set of int, optional
        The processors that may be used; default: those of this process.
    root : Path
        Where /proc and /sys are.
    """
    usable = os.sched_getaffinity(0) if usable is None else usable
    topology = binding.topology(usable, root / "sys/devices/system")
    nodes = []
    for node in topology.nodes:
        number = next((path.name[4:] for path in _nodes(root) if set(node) & _numbers(path / "cpulist")), None)
        memory = None if number is None else _node_memory(root / f"sys/devices/system/node/node{number}/meminfo")
        nodes.append({"node": None if number is None else int(number), "processors": node, "memory": memory})
    each = []
    for rank in range(ranks):
        mine, sharing = (sorted(usable), ranks) if bind == "none" else binding.share(bind, topology, rank, ranks)
        threads = contract.thread_variables(None, len(mine), sharing, environ, control_groups.cpu_share(ranks, root))
        count = threads.get("OMP_NUM_THREADS") or environ.get("OMP_NUM_THREADS", "")
        each.append({"local_rank": rank, "processors": mine, "shared_by": sharing, "threads": count})
    return {
        "model": _model(root / "proc/cpuinfo"),
        "usable": sorted(usable),
        "cores": len(topology.cores),
        "online": len(_numbers(root / "sys/devices/system/cpu/online")) or os.cpu_count(),
        "quota": control_groups.cpu_quota(root),
        "numa": nodes,
        "bind": bind,
        "ranks": each,
    }


def memory(root: Path = Path("/")) -> dict[str, Any]:
    """Main memory, what a container may use of it, and /dev/shm, in bytes."""
    text = _read(root / "proc/meminfo") or ""
    found = {name: int(kib) << 10 for name, kib in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE)}
    answer: dict[str, Any] = {
        "total": found.get("MemTotal"),
        "available": found.get("MemAvailable"),
        "limit": control_groups.memory_limit(root),
        "shm": None,
        "shm_error": None,
    }
    try:
        shm = os.statvfs(root / "dev/shm")
        answer["shm"] = {"size": shm.f_frsize * shm.f_blocks, "free": shm.f_frsize * shm.f_bavail}
        if not os.access(root / "dev/shm", os.W_OK):
            answer["shm_error"] = "it cannot be written to"
    except OSError as error:
        answer["shm_error"] = error.strerror
    return answer


def limits() -> dict[str, int | None]:
    """The soft limits of this shell that jobs run into; None: unlimited."""
    found = {name: resource.getrlimit(number)[0] for name, number in LIMITS.items()}
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in found.items()}


def fabrics(root: Path = Path("/")) -> list[str]:
    """InfiniBand and RoCE devices, which need memory that may be locked."""
    return sorted(path.name for path in (root / "sys/class/infiniband").glob("*"))


def processor_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the report."""
    usable = found["usable"]
    text = f"{len(usable)} of {found['online']} usable: {', '.join(runs(usable))}"
    if found["cores"] != len(usable):
        text += f"; {found['cores']} cores"
    if found["quota"] is not None:
        text += f"; the container may use {found['quota']:g} of them at a time"
    lines = [("processor", found["model"] or "not named by /proc/cpuinfo"), ("processors", text)]
    for node in found["numa"]:
        where = "NUMA node not known" if node["node"] is None else f"NUMA node {node['node']}"
        amount = "" if node["memory"] is None else f"; {size(node['memory'])}"
        lines.append((where, f"{_processors(node['processors'])}{amount}"))
    kinds: dict[tuple, list[int]] = {}
    for rank in found["ranks"]:
        kinds.setdefault((tuple(rank["processors"]), rank["shared_by"], rank["threads"]), []).append(rank["local_rank"])
    ways = list(kinds.items())
    for (mine, sharing, threads), ranks in ways[:SHOWN]:
        name = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {short(ranks)}"
        noun = ("thread" if threads == "1" else "threads") + (" each" if len(ranks) > 1 else "")
        shared = "" if sharing == 1 else f", shared by {sharing} ranks"
        lines.append((name, f"{threads} {noun}, on {_processors(mine)}{shared}"))
    if len(ways) > SHOWN:
        lines.append(("", f"and {sum(len(ranks) for _, ranks in ways[SHOWN:])} ranks more, likewise"))
    return lines


def memory_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of the report."""
    total = "not known" if found["total"] is None else size(found["total"])
    if found["available"] is not None:
        total += f", {size(found['available'])} available"
    if found["limit"] is not None:
        total += f"; the container may use {size(found['limit'])}"
    shm = found["shm_error"] or ""
    if found["shm"] is not None:
        shm = f"{size(found['shm']['size'])}, {size(found['shm']['free'])} free{f'; {shm}' if shm else ''}"
    return [("memory", total), ("/dev/shm", shm)]


def limit_rows(found: Mapping[str, int | None]) -> list[tuple[str, str]]:
    """The lines of the report."""
    return [
        (name, "unlimited" if value is None else size(value) if name == "locked memory" else str(value))
        for name, value in found.items()
    ]


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What about this host will slow a job down or stop it; of "processors", "memory", "limits" and "fabrics"."""
    said = []
    ranks, usable = len(found["processors"]["ranks"]), len(found["processors"]["usable"])
    quota = found["processors"]["quota"]
    if ranks > usable:
        said.append(f"{ranks} ranks share {usable} processors, so each runs slower than it would alone.")
    threads = sum(_outer(rank["threads"]) for rank in found["processors"]["ranks"])
    if quota is not None and quota < threads:
        fits = f" dlaunch --threads {int(quota / ranks)} fits." if quota >= ranks else ""
        said.append(
            f"The container's quota ({quota:g} processors) is less than the threads that the ranks start ({threads}), which will stand "
            f"still in turn.{fits}"
        )
    shm = found["memory"]["shm"]
    if shm is None or found["memory"]["shm_error"]:
        said.append(f"/dev/shm: {found['memory']['shm_error']}; the ranks of a host exchange their arrays there.")
    elif shm["size"] < SMALL:
        said.append(
            f"/dev/shm has {size(shm['size'])}, and the ranks of a host exchange their arrays there: docker run --shm-size=8g, or "
            "--ipc=host."
        )
    locked = found["limits"]["locked memory"]
    if found["fabrics"] and locked is not None:
        said.append(
            f"Locked memory is limited to {size(locked)}, and {', '.join(found['fabrics'])} registers the memory that it sends: "
            "ulimit -l unlimited."
        )
    return said


def _outer(threads: str) -> int:
    """The number of threads of the outermost level in an OMP_NUM_THREADS; 0 where it is not known."""
    first = threads.split(",")[0].strip()
    return int(first) if first.isdigit() else 0


def _processors(numbers: Collection[int]) -> str:
    return f"{'processor' if len(numbers) == 1 else 'processors'} {', '.join(runs(numbers))}"


def _nodes(root: Path) -> list[Path]:
    return sorted((root / "sys/devices/system/node").glob("node[0-9]*"), key=lambda path: int(path.name[4:]))


def _node_memory(path: Path) -> int | None:
    found = re.search(r"MemTotal:\s+(\d+) kB", _read(path) or "")
    return int(found[1]) << 10 if found else None


def _model(cpuinfo: Path) -> str | None:
    found = re.search(r"^(?:model name|Model|cpu)\s*:\s*(.+)$", _read(cpuinfo) or "", re.MULTILINE)
    return found[1].strip() if found else None


def _numbers(path: Path) -> set[int]:
    """The kernel's list of numbers "0-3,8" in a file; none where it is absent."""
    found: set[int] = set()
    for low, high in re.findall(r"(\d+)(?:-(\d+))?", _read(path) or ""):
        found.update(range(int(low), int(high or low) + 1))
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
