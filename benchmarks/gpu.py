"""On a GPU, ours beside PyTorch eager and torch.compile: whole training steps in bfloat16 autocast, an optimizer, launches.

    python3 benchmarks/gpu.py                       everything, within nine minutes; writes docs/results/gpu-DEVICE-DATE.json
    python3 benchmarks/gpu.py --only gpt2 mlp       some of it
    python3 benchmarks/gpu.py --quick --json FILE   smaller batches and few repetitions

All libraries train the same model from the same weights on the same batch on the same card, in turns in one process for each model,
so that one failure loses one model. Times are between CUDA events around several steps, after warming up; a figure is the median of
rounds. Where time is short, rounds are left out before models, and it is said. "captured" is a step that was recorded as a CUDA
graph and is replayed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Another file beside this one has the name of a package of ours, and would be found first.
sys.path.insert(0, str(ROOT))

from gpu_measuring import measure  # noqa: E402

#: Dense bfloat16 (float16 on V100) in TFLOP/s and memory in TB/s, from the vendor's data sheets; the first name that fits.
PEAKS = {
    "B200": (2250, 8.0), "GH200": (989, 4.0), "H200": (989, 4.8), "H100 PCIe": (756, 2.0), "H100 NVL": (835, 3.9), "H100": (989, 3.35),
    "A100-SXM4-40GB": (312, 1.555), "A100": (312, 2.039), "A30": (165, 0.933), "A10": (125, 0.6),
    "L40S": (362, 0.864), "L40": (181, 0.864), "L4": (121, 0.3),
    "V100": (125, 0.9), "RTX 4090": (165, 1.008),
}  # fmt: skip
#: Seconds that are enough for each, of which compiling by torch.compile is the most.
SHARES = {"gpt2": 130, "resnet50": 130, "mlp": 60, "lstm": 60, "adamw": 60, "launch": 25, "product": 30}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES), metavar="NAME", help=" ".join(SHARES))
    parser.add_argument("--quick", action="store_true", help="smaller batches, fewer rounds")
    parser.add_argument("--seconds", type=float, default=530, help="for everything together (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="where the figures go (default: docs/results/gpu-DEVICE-DATE.json)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this script; its figures mean nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args()


def machine(device):
    """The card, the driver and the versions of everything, found without holding the card."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); import disttorch; d = disttorch.cuda; p = d.get_device_properties(0);"
        "print(json.dumps({'name': p.name, 'memory': p.total_memory, 'capability': f'{p.major}.{p.minor}',"
        " 'multiprocessors': p.multi_processor_count}))"
    )
    card = {"name": "CPU, to try the script"}
    if device == "cuda":
        ended = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"there is no CUDA device here: {ended.stderr.strip().rpartition(chr(10))[2]}")
        card = json.loads(ended.stdout)
    versions = {"python": sys.version.split()[0]}
    import importlib.metadata as metadata

    names = "numpy torch triton nvidia-cudnn-frontend".split()
    names += [f"{name}{number}" for name in ("nvidia-nccl-cu", "nvidia-cudnn-cu", "cupy-cuda") for number in ("12", "13", "12x", "13x")]
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    from disttorch import __version__

    versions["disttorch"] = __version__
    return card, versions, driver()


def driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def commit():
    ended = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.stdout.strip() or "unknown"


def peaks(card):
    """TFLOP/s and TB/s of a card's data sheet; None where it is not in the table."""
    return next((p for name, p in PEAKS.items() if name in card), None)


def run_one(name, seconds, options):
    """What the process of one benchmark says, by the names of its results, and the end of its errors where it failed."""
    command = [sys.executable, os.path.abspath(__file__), "--measure", name, "--device", options.device]
    command += ["--until", str(time.time() + seconds), *(["--quick"] if options.quick else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    errors = []
    reader = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)
    reader.start()
    # It keeps to its time by itself between steps; compiling cannot be interrupted otherwise.
    watch = threading.Timer(seconds + 25, process.kill)
    watch.start()
    found = {}
    for line in process.stdout:
        if line.startswith("RESULT "):
            result = json.loads(line.removeprefix("RESULT "))
            found[result["name"]] = result
    code = process.wait()
    watch.cancel()
    reader.join(5)
    if code:
        why = "its time was over" if code == -9 else "".join(errors)[-1500:].strip()
        found.setdefault(name, {"name": name, "title": name, "seconds_a_step": {}, "errors": {}})
        found[name]["errors"]["process"] = f"ended with {code}: {why}"
    return list(found.values())


def shown(result, limits):
    """A result as lines of text."""
    lines = [result["title"]]
    for column, seconds in result["seconds_a_step"].items():
        about = result["a_step"]
        text = f"  {column:<30} {1e3 * seconds:12.4f} ms"
        if about["count"] > 1:
            text += f" {about['count'] / seconds:14,.0f} {result['unit']}"
        if limits and about.get("flops"):
            text += f" {100 * about['flops'] / seconds / limits[0] / 1e12:6.1f}% of {limits[0]} TFLOP/s"
        if limits and about.get("bytes"):
            text += f" {100 * about['bytes'] / seconds / limits[1] / 1e12:6.1f}% of {limits[1]} TB/s"
        if result.get("peak_memory", {}).get(column):
            text += f" {result['peak_memory'][column] / 2**20:10,.0f} MB at most"
        lines.append(text)
    lines += [f"  {column}: {text}" for column, text in result["errors"].items()]
    if "note" in result:
        lines.append(f"  {result['note']}")
    return "\n".join(lines)


def main():
    options = parse()
    if options.measure:
        measure(options)
        return 0
    begun = time.time()
    card, versions, driver_version = machine(options.device)
    limits = peaks(card["name"])
    print(f"{card['name']}, driver {driver_version}; {', '.join(f'{k} {v}' for k, v in versions.items())}", flush=True)
    results, wanted = [], sum(SHARES[n] for n in options.only)
    for i, name in enumerate(options.only):
        left = begun + options.seconds - time.time() - 10
        share = SHARES[name] * min(1.0, left / max(1, wanted))
        wanted -= SHARES[name]
        if share < 10 and i:
            results.append({"name": name, "title": name, "seconds_a_step": {}, "errors": {"process": "not begun: the time was over"}})
            continue
        for result in run_one(name, share, options):
            results.append(result)
            print(shown(result, limits), flush=True)
    today = datetime.date.today().isoformat()
    written = {
        "command": " ".join(["python3", *sys.argv]), "date": today, "commit": commit(), "device": card, "driver": driver_version,
        "versions": versions, "peak": limits and {"tflops": limits[0], "tb_per_s": limits[1]}, "seconds": round(time.time() - begun),
        "quick": options.quick, "results": results,
    }  # fmt: skip
    short = re.sub(r"[^a-z0-9]+", "-", card["name"].lower().removeprefix("nvidia ")).strip("-")
    default = ROOT / "docs" / "results" / f"gpu-{short}-{today}.json"
    target = Path(options.json) if options.json else default if options.device == "cuda" else None
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(written, indent=1) + "\n")
        print(f"written to {target}; python docs/gpu_table.py puts it into the README")
    failed = sum(bool(r["errors"]) for r in results)
    print(f"{len(results)} results in {time.time() - begun:.0f} s" + (f", {failed} of them with errors" if failed else ""))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
