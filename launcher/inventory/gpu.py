"""NVIDIA GPUs: asked of nvidia-smi, else of the driver's library, else of the kernel."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import gpus
from launcher.inventory.probe import ProbeError, ask, say, size

FIELDS = ("index", "name", "uuid", "memory.total", "memory.free", "driver_version", "compute_cap")
KEYS = ("index", "name", "uuid", "memory", "free", "capability")

# libcuda is the driver itself; attributes 75 and 76 are the compute capability (CUDA driver API, CUdevice_attribute).
_DRIVER = r"""
import ctypes, json
driver = ctypes.CDLL("libcuda.so.1")
def call(name, *arguments):
    status = getattr(driver, name)(*arguments)
    if status:
        text = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(text))
        raise SystemExit(f"{name}: {(text.value or b'').decode() or status}")
call("cuInit", 0)
number, version = ctypes.c_int(), ctypes.c_int()
call("cuDeviceGetCount", ctypes.byref(number))
call("cuDriverGetVersion", ctypes.byref(version))
found = []
for index in range(number.value):
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetName", name, 256, device)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    capability = [ctypes.c_int(), ctypes.c_int()]
    for part, attribute in zip(capability, (75, 76)):
        call("cuDeviceGetAttribute", ctypes.byref(part), attribute, device)
    found.append({
        "index": str(index), "name": name.value.decode(), "memory": memory.value,
        "capability": ".".join(str(part.value) for part in capability),
    })
print(json.dumps({"devices": found, "cuda": version.value}))
"""


def probe(environ: Mapping[str, str], root: Path = Path("/"), python: str = sys.executable) -> dict[str, Any]:
    """The GPUs of this host.

    Returns
    -------
    dict
        "devices": a list of dictionaries with "index", "name", "uuid", "memory" and "free" (bytes), "capability", each
        None where it is not known; "driver": the version of the kernel's module; "cuda": the newest CUDA that the driver
        runs, as 1000 major + 10 minor; "visible": CUDA_VISIBLE_DEVICES; "by": who was asked; "error": why there are none.
    """
    answer: dict[str, Any] = {
        "devices": [], "driver": _module(root), "cuda": None, "visible": environ.get(gpus.VISIBLE), "by": None, "error": None,
    }  # fmt: skip
    said = []
    try:
        answer["devices"], driver = _smi(environ)
        answer["by"] = "nvidia-smi"
        answer["driver"] = driver or answer["driver"]
    except ProbeError as error:
        said.append(f"nvidia-smi: {error}")
    try:
        # All that the host has, whatever this shell hides.
        found = ask(python, _DRIVER, {name: value for name, value in environ.items() if name != gpus.VISIBLE})
        answer["cuda"] = found["cuda"]
        if not answer["devices"]:
            answer["devices"] = [{**dict.fromkeys(KEYS), **device} for device in found["devices"]]
            answer["by"] = "libcuda.so.1"
    except ProbeError as error:
        said.append(str(error))
    if not answer["devices"]:
        answer["devices"], answer["by"] = _kernel(root), "/proc/driver/nvidia"
    if not answer["devices"]:
        answer["by"], answer["error"] = None, "; ".join(said) or "the driver says that there are none"
    return answer


def rows(found: Mapping[str, Any], ranks: int) -> list[tuple[str, str]]:
    """The lines of the report, for so many ranks on this host."""
    if not found["devices"]:
        return [("GPUs", f"none ({found['error']})")]
    lines = []
    for device in found["devices"]:
        words = [device["name"] or "no name"]
        if device["memory"] is not None:
            words.append(size(device["memory"]) + (f" ({size(device['free'])} free)" if device["free"] is not None else ""))
        if device["capability"] is not None:
            words.append(f"compute capability {device['capability']}")
        lines.append((f"GPU {device['index']}", ", ".join(words)))
    driver = found["driver"] or "version not known"
    if found["cuda"] is not None:
        driver += f", runs CUDA up to {found['cuda'] // 1000}.{found['cuda'] % 1000 // 10}"
    lines.append(("driver", driver))
    visible = len(gpus.present({gpus.VISIBLE: found["visible"]})) if found["visible"] is not None else len(found["devices"])
    if found["visible"] is not None:
        lines.append((gpus.VISIBLE, f"{found['visible'] or '(empty)'}: {visible} of {len(found['devices'])} may be used"))
    if ranks == 1:
        lines.append(("rank 0", "takes GPU 0 of these" if visible else "gets none"))
    elif ranks <= visible:
        lines.append(("ranks", f"rank r takes GPU r, 0 to {ranks - 1}"))
    else:
        lines.append(("ranks", f"{ranks} ranks, {visible} GPUs: not one for each (dlaunch -n {max(1, visible)})"))
    return lines


def _smi(environ: Mapping[str, str]) -> tuple[list[dict[str, Any]], str | None]:
    """The devices and the driver's version, by nvidia-smi."""
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        raise ProbeError("there is no such program on PATH")
    try:
        text = _query(program, FIELDS, environ)
    except ProbeError:
        text = _query(program, FIELDS[:-1], environ)  # drivers before 510 know no compute_cap
    devices: list[dict[str, Any]] = []
    driver = None
    for line in text.splitlines():
        cells: list[str | None] = [None if cell.strip() in ("", "[N/A]", "[Not Supported]") else cell.strip() for cell in line.split(",")]
        if len(cells) < len(FIELDS) - 1:
            continue  # "No devices were found"
        index, name, uuid, total, free, driver, capability = (cells + [None])[: len(FIELDS)]
        devices.append({
            "index": index, "name": name, "uuid": uuid, "memory": _mebi(total), "free": _mebi(free), "capability": capability,
        })  # fmt: skip
    return devices, driver


def _query(program: str, fields: Sequence[str], environ: Mapping[str, str]) -> str:
    return say([program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], environ)


def _mebi(text: str | None) -> int | None:
    return int(text) << 20 if text is not None and text.isdecimal() else None


def _kernel(root: Path) -> list[dict[str, Any]]:
    """What the kernel's module says of its devices."""
    devices: list[dict[str, Any]] = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        text = path.read_text(errors="replace")
        fields = dict(re.findall(r"^([^:\n]+):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))
        devices.append({
            **dict.fromkeys(KEYS), "index": fields.get("Device Minor", str(len(devices))), "name": fields.get("Model"),
            "uuid": fields.get("GPU UUID"),
        })  # fmt: skip
    return devices


def _module(root: Path) -> str | None:
    """The version of the kernel's module."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else None
