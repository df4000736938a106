"""What the control groups of a container, or of a Slurm job, allow a process: processors' time and memory.

cgroups(7); for each limit the least one counts, of the process's own group and of those above it.
"""

from pathlib import Path

__all__ = ["cpu_quota", "cpu_share", "memory_limit"]

ROOT = Path("/")


def cpu_quota(root: Path = ROOT) -> float | None:
    """How many processors' time a process's group may use at a time; None where it is not limited.

    Unlike an affinity, such a limit (``docker run --cpus``, Kubernetes' limits) is not seen by libraries that start a thread for
    each processor; their threads stand still in turn.
    """
    found = []
    for directory in _directories(root, "cpu"):
        words = (_read(directory / "cpu.max") or "").split()
        if not words and (quota := _read(directory / "cpu.cfs_quota_us")):
            words = [quota.strip(), (_read(directory / "cpu.cfs_period_us") or "100000").strip()]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def cpu_share(ranks: int, root: Path = ROOT) -> float | None:
    """How many processors' time each of the ranks of this host may use at a time; None where it is not limited."""
    quota = cpu_quota(root)
    return None if quota is None else quota / ranks


def memory_limit(root: Path = ROOT) -> int | None:
    """The bytes that a process's group may use; None where it is not limited."""
    found = []
    for directory in _directories(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = (_read(directory / name) or "").strip()
            if text.isdigit() and int(text) < 1 << 60:  # version 1 writes "no limit" as a number near 2**63
                found.append(int(text))
    return min(found, default=None)


def _directories(root: Path, controller: str) -> list[Path]:
    """This process's control group and those above it, for cgroup versions 2 and 1."""
    found = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, names, path = (line.split(":", 2) + ["", ""])[:3]
        if number == "0" and not names:
            top = root / "sys/fs/cgroup"
        elif controller in names.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        # Inside a container the path may be that of the host, and what holds here is at the top.
        parts = [part for part in path.split("/") if part and part != ".."]
        found += [top.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
