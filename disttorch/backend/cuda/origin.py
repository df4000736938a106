"""Who asked: the operation of ours and the line of the script that a frame or a traceback belongs to. For error messages."""

from __future__ import annotations

import linecache
from types import FrameType, TracebackType

__all__ = ["asking", "innermost"]

_ROOT = __name__.partition(".")[0]
#: rooms that carry operations out for others, and so are not what the user called
_BELOW = tuple(f"{_ROOT}.{room}" for room in ("backend", "autograd", "ops.autocast", "ops.public"))


def innermost(traceback: TracebackType | None) -> FrameType | None:
    """The frame in which a traceback ends."""
    frame = None
    while traceback is not None:
        frame, traceback = traceback.tb_frame, traceback.tb_next
    return frame


def asking(frame: FrameType | None) -> str:
    """The operation that a frame works for and the line that called it: ``disttorch.ops.linear.matmul, called at train.py:12 (y = x @ w)``.

    Parameters
    ----------
    frame : frame or None
        Where something happened.

    Returns
    -------
    str
        As much of it as the frames show; "a script" where they show nothing.
    """
    operation, backward, outside, ours = "", False, "", False
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_name
        if module == _ROOT or module.startswith(f"{_ROOT}."):
            ours = ours or not module.startswith(f"{_ROOT}.backend.")
            operation = operation or _operation(frame, module, name)
            backward = backward or (module == f"{_ROOT}.autograd.engine")
        elif module.partition(".")[0] not in ("", "cupy", "cupyx", "contextlib", "functools"):  # "": a function that we compiled
            if ours or not outside:  # what lies further in is a library that we called, or that called for memory
                file, number = frame.f_code.co_filename, frame.f_lineno
                text = linecache.getline(file, number).strip()
                outside = f"{file}:{number}" + (f" ({text})" if text else "")
            if ours:
                break
        frame = frame.f_back
    what = (f"the backward pass of {operation}" if backward and operation else operation) or ("backward" if backward else "")
    return f"{what}, called at {outside}" if what and outside else what or outside or "a script"


def _operation(frame: FrameType, module: str, name: str) -> str:
    """The name of the operation that a frame of ours belongs to; empty if it only carries one out."""
    if module == f"{_ROOT}.autograd.operation":
        declared = getattr(frame.f_locals.get("operation"), "name", None)
        return f"{_ROOT}.{declared}" if isinstance(declared, str) else ""
    if module == f"{_ROOT}.autograd.engine":
        node = frame.f_locals.get("node")
        declared = getattr(getattr(node, "operation", None), "name", None)
        return f"{_ROOT}.{declared}" if isinstance(declared, str) else ""
    if name == "function":  # made from a table, under the name that it was given
        declared = frame.f_locals.get("name")
        return f"{_ROOT}.{declared}" if isinstance(declared, str) else ""
    if module.startswith(_BELOW) or name.startswith(("_", "<")):
        return ""
    return f"{module}.{name}"
