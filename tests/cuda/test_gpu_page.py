"""The examples of docs/gpu.md run, one after the other, on the stand-in for a GPU."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_examples_run(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "gpu.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 8
    script = tmp_path / "page.py"
    script.write_text("\n".join(["from tests import stand_in", "stand_in.install()", *blocks, "stand_in.check()", 'print("to the end")']))
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("to the end\n")
