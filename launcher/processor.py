"""Says when the environment keeps the array library from using the processor it is on.

OpenBLAS, which is inside NumPy's wheels, finds out by itself which kernels a processor can run (releases 0.3.27 to
0.3.31 do so for AVX-512 on AMD and Intel), so nothing is set here. But OPENBLAS_CORETYPE overrules it, and a value that
was exported once for another machine, in a profile or a container image, halves the speed of every matrix product
without a word. The variable is the user's and stays as it is; the user hears about it.
"""

from collections.abc import Mapping
from pathlib import Path

CORE_TYPE = "OPENBLAS_CORETYPE"

# OpenBLAS's own condition for its AVX-512 kernels, in the words of /proc/cpuinfo, and the core types that have them.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
AVX512_CORES = frozenset({"skylakex", "cooperlake", "sapphirerapids"})


def core_type_warning(environ: Mapping[str, str], cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """A warning if OPENBLAS_CORETYPE names kernels without AVX-512 on a processor that has it; else None.

    Examples
    --------
    >>> core_type_warning({}) is None
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
        f"{CORE_TYPE}={forced} is set, but this processor has AVX-512: NumPy's matrix products take about twice "
        f"as long as they need. Unset it, and OpenBLAS picks the right kernels"
    )
