"""``--gpus``: which GPUs the ranks of a host see, through CUDA_VISIBLE_DEVICES.

Without the option nothing is set. With it, all ranks of a host see the same list, in the same order, and each takes the
one at its LOCAL_RANK, as scripts do by convention (``cuda.set_device(LOCAL_RANK)``); ranks that see each other's GPUs can
also copy between them directly.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

VISIBLE = "CUDA_VISIBLE_DEVICES"


class GpuError(ValueError):
    """The GPUs that were asked for are not there, or are too few."""


class Gpus(NamedTuple):
    """What was asked for: ``number`` GPUs of each host, or those with the numbers ``devices``; neither: all that are there."""

    number: int | None = None
    devices: tuple[int, ...] | None = None


def parse(text: str) -> Gpus:
    """Reads ``auto``, ``none``, ``4`` (the first four) or ``0,2,3`` (these; ``2,`` is number 2 alone).

    Examples
    --------
    >>> parse("auto"), parse("none"), parse("4")
    (Gpus(number=None, devices=None), Gpus(number=None, devices=()), Gpus(number=4, devices=None))
    >>> parse("0,2,3").devices
    (0, 2, 3)
    """
    if text == "auto":
        return Gpus()
    if text == "none":
        return Gpus(devices=())
    if re.fullmatch(r"\d+", text) and int(text) > 0:
        return Gpus(number=int(text))
    if re.fullmatch(r"\d+,|\d+(,\d+)+,?", text):
        devices = tuple(int(part) for part in text.split(",") if part)
        if len(set(devices)) < len(devices):
            raise GpuError(f"--gpus {text} names a GPU twice")
        return Gpus(devices=devices)
    hint = "; none is no GPU at all, 0, is number 0 alone" if text == "0" else ""
    raise GpuError(f"--gpus {text}: it is auto, none, a number of GPUs (4) or a list of them (0,2,3){hint}")


def present(environ: Mapping[str, str], root: Path = Path("/")) -> list[str]:
    """The GPUs that this job may see on this host, by the names that CUDA_VISIBLE_DEVICES has for them."""
    if VISIBLE in environ:
        names = [name.strip() for name in environ[VISIBLE].split(",")]
        # CUDA stops at the first entry that it does not know, such as -1 or none at all.
        bad = next((index for index, name in enumerate(names) if not name or name.startswith("-")), len(names))
        return names[:bad]
    devices = [path for path in root.glob("dev/nvidia[0-9]*") if path.name[6:].isdigit()]
    return [str(number) for number in range(len(devices))]


def variables(asked: Gpus | None, found: list[str], ranks_here: int, oversubscribe: bool, host: str) -> dict[str, str]:
    """What is set for the ranks of a host.

    Parameters
    ----------
    asked : Gpus or None
        The option; None where it was not given.
    found : list of str
        `present` on that host. Numbers in `asked` count in this list, as CUDA counts.
    ranks_here : int
        LOCAL_WORLD_SIZE.
    oversubscribe : bool
        Whether there may be more ranks than GPUs.
    host : str
        For the messages.

    Raises
    ------
    GpuError
        A GPU that was asked for is not there, or ranks would have none.

    Examples
    --------
    >>> variables(parse("0,2"), ["4", "5", "6"], 2, False, "n1")
    {'CUDA_VISIBLE_DEVICES': '4,6'}
    >>> variables(parse("auto"), [], 2, False, "n1")
    {}
    """
    if asked is None:
        return {}
    if asked == Gpus():
        if found and ranks_here > len(found) and not oversubscribe:
            raise GpuError(_too_few(ranks_here, len(found), host))
        return {}
    numbers = asked.devices if asked.devices is not None else tuple(range(asked.number or 0))
    if missing := [number for number in numbers if number >= len(found)]:
        has = f"has {len(found)}" if found else "has none that this job may use"
        raise GpuError(f"--gpus asks for GPU {', '.join(map(str, missing))} (counted from 0), but host {host} {has}")
    if numbers and ranks_here > len(numbers) and not oversubscribe:
        raise GpuError(_too_few(ranks_here, len(numbers), host))
    return {VISIBLE: ",".join(found[number] for number in numbers)}


def host_name() -> str:
    """This host's name."""
    return os.uname().nodename


def _too_few(ranks: int, gpus: int, host: str) -> str:
    return (
        f"{ranks} ranks on host {host} would share {gpus} GPU{'' if gpus == 1 else 's'}: ranks with LOCAL_RANK {gpus} and "
        f"above find none of their own. Start fewer, or --oversubscribe if the script shares them itself"
    )
