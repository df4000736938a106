"""Sees to it that the array library uses the processor it is on.

OpenBLAS, which is inside NumPy's wheels, finds out by itself which kernels a processor can run, and takes those with AVX-512
where there is any (releases 0.3.27 to 0.3.31 do so on AMD and Intel). That is right but for two cases:

- OPENBLAS_CORETYPE overrules it, and a value that was exported once for another machine, in a profile or a container image,
  halves the speed of every matrix product without a word. Ranks start without such a value, and the user hears about it;
  ``--env`` keeps it for those who mean it.
- AMD's Zen 4 has AVX-512, but carries it out in halves, so those kernels gain nothing there, and the older ones, for AVX2, are
  faster in float32, most so for few rows (docs/architecture.md has figures). Ranks on such a processor start with these.
"""

from collections.abc import Mapping
from pathlib import Path

__all__ = ["CORE_TYPE", "CPUINFO", "core_type_variables", "gains_by_avx512", "weaker_core_type"]

CORE_TYPE = "OPENBLAS_CORETYPE"

# OpenBLAS's own condition for its AVX-512 kernels, in the words of /proc/cpuinfo, and the core types that have them.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
AVX512_CORES = frozenset({"skylakex", "cooperlake", "sapphirerapids"})
# Of the processors with AVX-512, this family of AMD's is Zen 4; Zen 5, which has its full width, is 26.
ZEN4 = ("AuthenticAMD", "25")

CPUINFO = Path("/proc/cpuinfo")


def gains_by_avx512(cpuinfo: Path = CPUINFO) -> bool | None:
    """Whether matrix products are fastest with AVX-512 on this processor; None where nothing is known of it."""
    said = _read(cpuinfo)
    if "flags" not in said:
        return None
    return AVX512.issubset(said["flags"].split()) and not _is_zen4(said)


def core_type_variables(environ: Mapping[str, str], cpuinfo: Path = CPUINFO) -> dict[str, str]:
    """The core type that has to be set for a rank on this processor, unless the user has set one.

    Examples
    --------
    >>> core_type_variables({"OPENBLAS_CORETYPE": "SkylakeX"})
    {}
    """
    return {CORE_TYPE: "Haswell"} if not environ.get(CORE_TYPE) and _is_zen4(_read(cpuinfo)) else {}


def weaker_core_type(environ: Mapping[str, str], cpuinfo: Path = CPUINFO) -> str | None:
    """What is to be said if OPENBLAS_CORETYPE names kernels without AVX-512 on a processor that gains by it; else None.

    Examples
    --------
    >>> weaker_core_type({}) is None
    True
    """
    forced = environ.get(CORE_TYPE, "")
    if not forced or forced.lower() in AVX512_CORES or not gains_by_avx512(cpuinfo):
        return None
    return (
        f"{CORE_TYPE}={forced} is left out for the ranks: this processor has AVX-512, and NumPy's matrix products would "
        f"take about twice as long as they need (--env {CORE_TYPE}={forced} keeps it)"
    )


def _is_zen4(said: Mapping[str, str]) -> bool:
    return (said.get("vendor_id"), said.get("cpu family")) == ZEN4 and AVX512.issubset(said.get("flags", "").split())


def _read(cpuinfo: Path) -> dict[str, str]:
    """What is said of the first processor. Nothing on a system without /proc: then nothing is known."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
