"""What a machine has for the tests: the device, the driver and the libraries, in words."""

from __future__ import annotations

import subprocess
import warnings
from importlib import import_module, metadata

#: Warnings that say what the libraries of this machine lack. A run on a GPU shows them; they are no errors, which would come again at
#: every call.
OF_LIBRARIES = (
    "default:convolution and attention on CUDA are computed without cuDNN", "default:cuDNN (refuses|could build none of its engines)",
)  # fmt: skip


def import_quietly(name: str) -> None:
    """Import a module of another library, whatever it has to say of what else is installed: in a test that would be an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module(name)


def driver() -> str:
    """The driver's version, from its own tool; empty where that is not there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return text.split()[0] if text.split() else ""


def package(*names: str) -> str:
    """The version of the first of these packages that is installed."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "none"


def described() -> str:
    """One line: name and computing capability of the device, and versions."""
    import cupy

    import disttorch

    properties = disttorch.cuda.get_device_properties(0)
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    parts = [
        f"{properties.name} (compute capability {properties.major}.{properties.minor}, {properties.total_memory / 2**30:.0f} GiB)",
        f"driver {driver() or 'unknown'}",
        f"CUDA {runtime // 1000}.{runtime % 1000 // 10}",
        f"CuPy {cupy.__version__}",
        f"NCCL {package('nvidia-nccl-cu13', 'nvidia-nccl-cu12')}",
        f"cuDNN {package('nvidia-cudnn-cu13', 'nvidia-cudnn-cu12')}",
        f"cuDNN frontend {package('nvidia-cudnn-frontend')}",
        f"disttorch {disttorch.__version__}",
    ]
    return ", ".join(parts)
