"""A process that compares some operations or modules on a device, one line of JSON for each.

    python -m tests.gpu.compare operations float32 add matmul        on the GPU
    python -m tests.gpu.compare modules float16 Conv2d --device cpu  the comparison itself, without one

A failed launch can make a device useless for the rest of a process. The line that says that something was begun tells then
what it was, and the process ends with LOST so that another one goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

#: The exit code after which another process should go on with the names that are left.
LOST = 17


def prepare(device: str) -> Any:
    """The device to compare, with the stand-in put in CuPy's place where that is asked for."""
    if device == "stand-in":
        from tests import stand_in

        stand_in.install()
    import disttorch

    disttorch.backends.cudnn.allow_tf32 = False  # the default, as in PyTorch, has ten bits in convolutions
    return disttorch.device("cpu" if device == "cpu" else "cuda:0")


def main() -> int:
    """Compare, and say so."""
    parser = argparse.ArgumentParser(description="Compare operations or modules on a device with the CPU in float64.")
    parser.add_argument("kind", choices=["operations", "modules"])
    parser.add_argument("dtype")
    parser.add_argument("names", nargs="*", help="default: all")
    parser.add_argument("--device", choices=["cuda", "stand-in", "cpu"], default="cuda")
    parser.add_argument("--until", type=float, default=float("inf"), help="seconds since the epoch after which nothing is begun")
    parser.add_argument("--failures-only", action="store_true", help="print failures as text, and at the end a count")
    options = parser.parse_args()
    where = prepare(options.device)
    import disttorch
    from tests.gpu import inputs

    if not inputs.are_here():
        print("PyTorch is not installed, whose sample inputs these are", file=sys.stderr)
        return 2
    if options.kind == "operations":
        from tests.gpu.operations import check_operation as check
    else:
        from tests.gpu.modules import check_module as check
    compared = failed = same_dtype = 0
    for name in options.names or getattr(inputs, options.kind)():
        if time.time() > options.until:
            return 0
        if not options.failures_only:
            print(json.dumps({"begun": name}), flush=True)
        begun = time.perf_counter()
        outcome = check(name, options.dtype, where)
        lost = ""
        if where.type == "cuda":
            try:
                disttorch.cuda.synchronize()
            except Exception as error:  # whatever the driver says, this process can compute no more
                lost = f"after this the device was lost: {type(error).__name__}: {error}"
                outcome["failures"].append(lost)
        compared += outcome["compared"]
        same_dtype += outcome["same_dtype"]
        failed += bool(outcome["failures"])
        if options.failures_only:
            for text in outcome["failures"]:
                print(f"[{name}] {text}\n", flush=True)
        else:
            print(json.dumps({"name": name, "seconds": time.perf_counter() - begun, **outcome}), flush=True)
        if lost:
            sys.stdout.flush()
            os._exit(LOST)  # the library's own tidying up would wait for the device
    if options.failures_only:
        print(f"{compared} comparisons, {same_dtype} of them with the same dtype only; {failed} {options.kind} differ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
