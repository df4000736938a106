"""Our own kernels under NVIDIA's compute-sanitizer: reads and writes out of bounds, races in shared memory, uninitialized memory.

    python -m tests.gpu.sanitize                 every tool, each under a limit of time
    python -m tests.gpu.sanitize racecheck       one

Kernels run tens of times slower there, so it is the small shapes of tests/backend and of this folder that run. A tool's own exit
code says whether it found something; its report is printed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

from tests.gpu.pool import ROOT

#: The tools, and their options.
TOOLS = {
    "memcheck": ["--leak-check", "no"],
    "racecheck": ["--racecheck-report", "all"],
    "synccheck": [],
    "initcheck": [],
}
OURS = "tests/gpu/test_kernels.py::test_a_kernel_computes_what_the_cpu_does"


def main() -> int:
    """Run the tools; 0 where none found anything."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tools", nargs="*", choices=[*TOOLS, []], help="default: all")
    parser.add_argument("--seconds", type=float, default=140, help="for each tool (default: %(default)s)")
    parser.add_argument("-k", default="float32 or bfloat16", help="which cases, as pytest's -k (default: %(default)s)")
    options = parser.parse_args()
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(program):
        print("compute-sanitizer is not here; it comes with the CUDA toolkit", file=sys.stderr)
        return 2
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.gpu.unpooled"]
    tests += ["-k", f"({options.k}) and not 50257", OURS]
    found = {}
    for tool in options.tools or TOOLS:
        command = [program, "--tool", tool, *TOOLS[tool], "--error-exitcode", "66", "--target-processes", "application-only"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        print("==", " ".join([*command, *tests]), flush=True)
        try:
            found[tool] = subprocess.run([*command, *tests], cwd=ROOT, env=env, timeout=options.seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            found[tool] = 124
    words = {0: "nothing", 66: "ERRORS, see above", 124: "not through in time"}
    print("; ".join(f"{tool}: {words.get(code, f'exit code {code}')}" for tool, code in found.items()))
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
