"""On a GPU, ours beside PyTorch eager and torch.compile: whole training steps in bfloat16 autocast, an optimizer, launches.

    python3 benchmarks/gpu.py                       everything, within nine minutes; writes docs/results/gpu-DEVICE-DATE.json
    python3 benchmarks/gpu.py --only gpt2 mlp       some of it; what the file has of the same card, day and code stays in it
    python3 benchmarks/gpu.py --quick --json WHERE  smaller batches and few repetitions; WHERE is a file, or a folder for it

All libraries train the same model from the same weights on the same batch on the same card, in turns in one process for each model,
so that one failure loses one model; and where a process ends with a library, another goes on without that. The file is written after
every model. Times are between CUDA events around several steps, after warming up; a figure is the median of rounds. Where time is short,
rounds are left out before models, and it is said. "captured" is a step that was recorded as a CUDA graph and is replayed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import signal
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
    "B200": (2250, 8.0), "GH200": (989, 4.0), "H200 NVL": (835, 4.8), "H200": (989, 4.8),
    "H100 PCIe": (756, 2.0), "H100 NVL": (835, 3.9), "H100": (989, 3.35),
    "A100-SXM4-40GB": (312, 1.555), "A100-PCIE-40GB": (312, 1.555), "A100 80GB PCIe": (312, 1.935), "A100": (312, 2.039),
    "A30": (165, 0.933), "A10": (125, 0.6),
    "L40S": (362, 0.864), "L40": (181, 0.864), "L4": (121, 0.3),
    "V100": (125, 0.9), "RTX 4090": (165, 1.008),
}  # fmt: skip
#: How the time is shared: seconds that should be enough for each, of which compiling by torch.compile is the most.
SHARES = {"gpt2": 130, "resnet50": 130, "mlp": 60, "lstm": 60, "adamw": 60, "launch": 25, "product": 30}
SECONDS = 530
RESULTS = ROOT / "docs" / "results"


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES), metavar="NAME", help=" ".join(SHARES))
    parser.add_argument("--quick", action="store_true", help="smaller batches, fewer rounds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything together (default: %(default)s)")
    parser.add_argument("--json", metavar="WHERE", type=Path, help="a file, or a folder (default: docs/results/gpu-DEVICE-DATE.json)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to try this script; its figures mean nothing")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--without", nargs="*", default=[], help=argparse.SUPPRESS)
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
    try:
        ended = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return ended.stdout.strip() or "unknown"


def peaks(card):
    """TFLOP/s and TB/s of a card's data sheet; None where it is not in the table."""
    return next((p for name, p in PEAKS.items() if name in card), None)


def run_one(name, seconds, options):
    """What the processes of one benchmark say: where one ends with a library under way, the next goes on without that."""
    until, found, without = time.time() + seconds, {}, []
    while True:
        why, over = run_process(name, until, without, found, options)
        lost = [result for result in found.values() if "under_way" in result]
        for result in lost:
            column = result.pop("under_way")
            without.append(f"{result['name']}: {column}")
            result["errors"].setdefault(column, why)
        if why and not lost:
            found.setdefault(name, {"name": name, "title": name, "seconds_a_step": {}, "errors": {}})["errors"]["process"] = why
        if not lost or over or time.time() > until - 10:
            return list(found.values())


def run_process(name, until, without, found, options):
    """Adds to the results found what a process says; returns why it ended, empty if all is well, and whether that was for its time."""
    command = [sys.executable, os.path.abspath(__file__), "--measure", name, "--device", options.device]
    command += ["--until", str(until), "--without", *without, *(["--quick"] if options.quick else [])]
    errors, over = [], threading.Event()

    def end():
        over.set()
        process.kill()

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True)
        reader.start()
        # It keeps to its time by itself between steps; compiling cannot be interrupted otherwise.
        watch = threading.Timer(until + 25 - time.time(), end)
        watch.daemon = True
        watch.start()
        try:
            for line in process.stdout:
                if line.startswith("RESULT ") and line.endswith("\n"):
                    result = json.loads(line.removeprefix("RESULT "))
                    known = found.setdefault(result["name"], {})
                    known.pop("under_way", None)
                    for key, value in result.items():  # what an earlier process measured and this one does not, stays
                        known[key] = {**known.get(key, {}), **value} if isinstance(value, dict) else value
        except BaseException:  # also where this is ended: the card is not to be kept busy
            process.kill()
            raise
        code = process.wait()
        watch.cancel()
        reader.join(5)
    if not code:
        return "", False
    return f"ended with {code}: {'its time was over' if over.is_set() else ''.join(errors)[-1500:].strip()}", over.is_set()


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
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    begun = time.time()
    card, versions, driver_version = machine(options.device)
    limits, today = peaks(card["name"]), datetime.date.today().isoformat()
    print(f"{card['name']}, driver {driver_version}; {', '.join(f'{k} {v}' for k, v in versions.items())}", flush=True)
    short = re.sub(r"[^a-z0-9]+", "-", card["name"].lower().removeprefix("nvidia ")).strip("-")
    target = options.json or (RESULTS if options.device == "cuda" else None)
    if target is not None:
        (target if target == RESULTS else target.parent).mkdir(parents=True, exist_ok=True)
        target = target / f"gpu-{short}-{today}.json" if target.is_dir() else target
    run = {
        "command": again(options), "date": today, "commit": commit(), "device": card, "driver": driver_version,
        "versions": versions, "peak": limits and {"tflops": limits[0], "tb_per_s": limits[1]}, "quick": options.quick,
    }  # fmt: skip
    before = earlier(target, run)
    results, wanted = [], sum(SHARES[n] for n in options.only)
    for i, name in enumerate(options.only):
        left = begun + options.seconds - time.time() - 10
        share = left * SHARES[name] / wanted
        wanted -= SHARES[name]
        if share < 10 and i:
            results.append({"name": name, "title": name, "seconds_a_step": {}, "errors": {"process": "not begun: the time was over"}})
        else:
            for result in run_one(name, share, options):
                results.append(result)
                print(shown(result, limits), flush=True)
        if target:
            write(target, joined(before, {**run, "seconds": round(time.time() - begun), "results": results}))
    if target:
        print(f"written to {target}; python docs/gpu_table.py puts it into the README")
    failed = sum(bool(r["errors"]) for r in results)
    print(f"{len(results)} results in {time.time() - begun:.0f} s" + (f", {failed} of them with errors" if failed else ""))
    return int(failed > 0)


def again(options):
    """The command that measures this, in a checkout; where the file goes is left out."""
    words = ["python3", "benchmarks/gpu.py"]
    words += ["--only", *options.only] if options.only != list(SHARES) else []
    words += ["--seconds", f"{options.seconds:g}"] if options.seconds != SECONDS else []
    return " ".join([*words, *(["--quick"] if options.quick else []), *(["--device", "cpu"] if options.device == "cpu" else [])])


def earlier(target, run):
    """What the file has already, of the same card, day and code measured in the same way; None if that is nothing."""
    try:
        found = json.loads(target.read_text())
        return found if all(found[key] == value for key, value in run.items() if key != "command") else None
    except (AttributeError, OSError, ValueError, KeyError, TypeError):  # no target, no file, or another one
        return None


def joined(before, now):
    """Both runs as one: of what both have, the later."""
    if before is None:
        return now
    measured = {r["name"]: r for r in before["results"]}
    measured.update((r["name"], r) for r in now["results"] if r["seconds_a_step"] or not measured.get(r["name"], r)["seconds_a_step"])
    commands = list(dict.fromkeys([*before["command"].split("; "), now["command"]]))
    return {**now, "command": "; ".join(commands), "seconds": before["seconds"] + now["seconds"], "results": list(measured.values())}


def write(target, run):
    """Beside the file, and renamed: whatever ends this, there is a whole one."""
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    beside.write_text(json.dumps(run, indent=1) + "\n")
    beside.replace(target)


if __name__ == "__main__":
    sys.exit(main())
