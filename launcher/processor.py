"""Sees to it that the array library uses the processor it is on.

OpenBLAS, which is inside NumPy's wheels, finds out by itself which kernels a processor can run (releases 0.3.27 to
0.3.31 do so for AVX-512 on AMD and Intel), so nothing need be set. But OPENBLAS_CORETYPE overrules it, and a value that
was exported once for another machine, in a profile or a container image, halves the speed of every matrix product
without a word. Ranks start without such a value, and the user hears about it; ``--env`` keeps it for those who mean it.
"""

from collections.abc import Mapping
from pathlib import Path

CORE_TYPE = "OPENBLAS_CORETYPE"

# OpenBLAS's own condition for its AVX-512 kernels, in the words of /proc/cpuinfo, and the core types that have them.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
AVX512_CORES = frozenset({"skylakex", "cooperlake", "sapphirerapids"})


def weaker_core_type(environ: Mapping[str, str], cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """What is to be said if OPENBLAS_CORETYPE names kernels without AVX-512 on a processor that has it; else None.

    Examples
    --------
    >>> weaker_core_type({}) is None
    True
    """
    forced = environ.get(CORE_TYPE, "")
    if not forced or forced.lower() in AVX512_CORES:
        return None
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:  # a system without /proc: nothing is known, so nothing is said
        return None
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    if not AVX512.issubset(flags):
        return None
    return (
        f"{CORE_TYPE}={forced} is left out for the ranks: this processor has AVX-512, and NumPy's matrix products would "
        f"take about twice as long as they need (--env {CORE_TYPE}={forced} keeps it)"
    )
