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
import gc
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Another file beside this one has the name of a package of ours, and would be found first.
sys.path.insert(0, str(ROOT))

from gpu_models import MODELS  # noqa: E402

#: Dense bfloat16 (float16 on V100) in TFLOP/s and memory in TB/s, from the vendor's data sheets; the first name that fits.
PEAKS = {
    "B200": (2250, 8.0), "GH200": (989, 4.0), "H200": (989, 4.8), "H100 PCIe": (756, 2.0), "H100 NVL": (835, 3.9), "H100": (989, 3.35),
    "A100-SXM4-40GB": (312, 1.555), "A100": (312, 2.039), "A30": (165, 0.933), "A10": (125, 0.6), "L40S": (362, 0.864), "L4": (121, 0.3),
    "V100": (125, 0.9), "RTX 4090": (165, 1.008),
}  # fmt: skip
#: Seconds that are enough for each, of which compiling by torch.compile is the most.
SHARES = {"gpt2": 130, "resnet50": 130, "mlp": 60, "lstm": 60, "adamw": 60, "launch": 25, "product": 30}
OURS, THEIRS = "disttorch", "PyTorch"


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


def libraries():
    """Ours, and PyTorch where it is installed."""
    import disttorch

    found = {OURS: disttorch}
    if importlib.util.find_spec("torch"):
        import torch

        found[THEIRS] = torch
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Measuring: in a process for each model, which prints a line of JSON whenever it knows more


class Clock:
    """Seconds of the device's work, for one library."""

    def __init__(self, torch, device):
        self.torch, self.on_gpu = torch, device == "cuda"

    def seconds(self, run, times):
        """Of one of `times` calls."""
        if not self.on_gpu:
            begun = time.perf_counter()
            for _ in range(times):
                run()
            return (time.perf_counter() - begun) / times
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.torch.cuda.synchronize()
        begin.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / times

    def turn(self, run, times):
        """The same in this library's turn: with its memory taken again before, and given to the others afterwards."""
        run()
        found = self.seconds(run, times)
        if self.on_gpu:
            self.torch.cuda.empty_cache()
        return found

    def peak(self, run):
        """Bytes that tensors took at the highest during a call, None without a GPU."""
        if not self.on_gpu:
            return None
        self.torch.cuda.synchronize()
        self.torch.cuda.reset_peak_memory_stats()
        run()
        self.torch.cuda.synchronize()
        return self.torch.cuda.max_memory_allocated()


def captured(torch, step):
    """A replay of a step, which was recorded after warming up on a stream of its own."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def replay(keeps=step):
        """A graph has the addresses of parameters and of the batch, which the step keeps."""
        graph.replay()

    return replay


def training(torch, make, size, device, weights, batch, way):
    """A function that trains for one step and returns the loss, as a tensor; None where it is a replay."""
    torch.manual_seed(0)
    model, loss_of, _, _ = make(torch, size)
    state = {name: torch.tensor(value) for name, value in weights.items()}
    model.load_state_dict(state)
    model.to(device)
    on_gpu = device == "cuda"
    options = {"fused": True} if on_gpu else {}
    if way == "captured":
        options["capturable"] = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **options)
    inputs = [torch.tensor(b).to(device) for b in batch]
    if inputs[0].dim() == 4:
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
    called = torch.compile(model) if way.startswith("compile") else model
    if way == "compile reduce-overhead":
        called = torch.compile(model, mode="reduce-overhead")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=on_gpu):
            loss = loss_of(called, *inputs)
        loss.backward()
        optimizer.step()
        return loss

    return captured(torch, step) if way == "captured" else step


def variants(name, found, device):
    """(column, library, way) of what is measured of a model; the slowest to prepare last."""
    listed = [(f"{OURS} eager", OURS, "eager")]
    if THEIRS in found:
        listed.append((f"{THEIRS} eager", THEIRS, "eager"))
    if device != "cuda":
        return listed
    listed.append((f"{OURS} captured", OURS, "captured"))
    if THEIRS in found:
        if name == "mlp":  # here launches are the cost, so PyTorch has its graphs as well
            listed.append((f"{THEIRS} captured", THEIRS, "captured"))
            listed.append(("torch.compile reduce-overhead", THEIRS, "compile reduce-overhead"))
        listed.append(("torch.compile", THEIRS, "compile"))
    return listed


def measure_model(name, options):
    import numpy as np

    title, make, unit = MODELS[name]
    size = "tiny" if options.device == "cpu" else "quick" if options.quick else "full"
    found = libraries()
    found[OURS].manual_seed(0)
    model, _, draw, about = make(found[OURS], size)
    weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    parameters = sum(p.numel() for p in model.parameters())
    del model
    batch = draw(np.random.default_rng(0))
    result = {
        "name": name, "title": title, "unit": unit, "parameters": parameters, "a_step": about, "seconds_a_step": {}, "rounds": {},
        "peak_memory": {}, "first_losses": {}, "errors": {},
    }  # fmt: skip
    runs = {}
    for column, library, way in variants(name, found, options.device):
        if runs and time.time() > options.until - (20 if way.startswith("compile") else 2):
            result["errors"][column] = "not begun: the time was over"
            continue
        torch = found[library]
        clock = Clock(torch, options.device)
        try:
            step = training(torch, make, size, options.device, weights, batch, way)
            if way == "eager":
                result["first_losses"][column] = [float(step()) for _ in range(3)]
            for _ in range(3):
                step()
            result["peak_memory"][column] = clock.peak(step)
            once = clock.turn(step, 3)
        except Exception as error:  # one library's or variant's failure is a line of the result, not the end of it
            result["errors"][column] = f"{type(error).__name__}: {error}"[:600]
            gc.collect()
            continue
        runs[column] = (clock, step, max(2, min(200, round(0.6 / once))), [once])
        record(result, runs)
    rounds = 3 if options.quick else 9
    for number in range(rounds):
        for clock, step, times, seconds in runs.values():
            if time.time() > options.until - (times + 1) * seconds[-1]:
                result["note"] = f"at most {number + 1} of {rounds} rounds: the time was over"
                continue
            turn = clock.turn(step, times)
            if number:
                seconds.append(turn)
            else:
                seconds[:] = [turn]  # in the place of the few steps by which their number was chosen
        record(result, runs)
    check_losses(result)
    say(result)


def check_losses(result):
    """Both libraries must have trained the same thing."""
    losses = result["first_losses"]
    if len(losses) == 2:
        ours, theirs = losses.values()
        worst = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(ours, theirs))
        result["losses_differ_by"] = worst
        if not worst < 2e-2:
            result["errors"]["losses"] = f"after the same steps ours are {ours}, PyTorch's {theirs}"


def record(result, runs):
    result["seconds_a_step"] = {column: statistics.median(seconds) for column, (_, _, _, seconds) in runs.items()}
    result["rounds"] = {column: len(seconds) for column, (_, _, _, seconds) in runs.items()}
    say(result)


def say(result):
    print("RESULT " + json.dumps(result), flush=True)


def measure_adamw(options):
    """One step of AdamW on a billion parameters in float32, in 100 tensors."""
    tensors, each = (4, 1000) if options.device == "cpu" else (100, 1_000_000 if options.quick else 10_000_000)
    result = {
        "name": "adamw", "title": f"AdamW, one step on {tensors * each:,} parameters", "unit": "steps/s", "parameters": tensors * each,
        "a_step": {"count": 1, "flops": None, "bytes": 28 * tensors * each},
        "seconds_a_step": {}, "rounds": {}, "peak_memory": {}, "errors": {},
    }  # fmt: skip
    fused = {"fused": True} if options.device == "cuda" else {}
    for library, torch in libraries().items():
        for way, given in {"eager": fused, "captured": {**fused, "capturable": True}}.items():
            column = f"{library} {way}"
            if way == "captured" and (options.device != "cuda" or library == THEIRS):
                continue
            try:
                params = [torch.nn.Parameter(torch.ones(each, device=options.device)) for _ in range(tensors)]
                for p in params:
                    p.grad = torch.full((each,), 0.5, device=options.device)
                optimizer = torch.optim.AdamW(params, lr=1e-3, **given)
                clock, step = Clock(torch, options.device), optimizer.step
                if way == "captured":
                    step = captured(torch, step)
                for _ in range(3):
                    step()
                result["peak_memory"][column] = clock.peak(step)
                seconds = [clock.seconds(step, 5) for _ in range(3 if options.quick else 9)]
                result["seconds_a_step"][column], result["rounds"][column] = statistics.median(seconds), len(seconds)
            except Exception as error:  # as for a model
                result["errors"][column] = f"{type(error).__name__}: {error}"[:600]
            params = optimizer = step = p = None
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
            say(result)


def measure_launch(options):
    """What a tiny operation costs the host, and a tiny one that is recorded for gradients."""
    for grad in (False, True):
        result = {
            "name": "launch with gradient" if grad else "launch", "unit": "operations/s", "seconds_a_step": {}, "rounds": {}, "errors": {},
            "title": "x + y of four elements" + (", recorded for gradients" if grad else ""), "a_step": {"count": 1, "flops": None},
        }  # fmt: skip
        for library, torch in libraries().items():
            column = f"{library} eager"
            x, y = (torch.ones(4, device=options.device) for _ in range(2))
            x.requires_grad_(grad)

            def run(x=x, y=y):
                return x + y

            times = 200 if options.device == "cpu" else 5000
            clock = Clock(torch, options.device)
            clock.seconds(run, times)
            seconds = [clock.seconds(run, times) for _ in range(9)]
            result["seconds_a_step"][column], result["rounds"][column] = statistics.median(seconds), len(seconds)
        say(result)


def measure_product(options):
    """A large product in bfloat16, and a copy of memory: how near the card comes to its data sheet."""
    n = 256 if options.device == "cpu" else 8192
    cases = {
        "product": (f"bfloat16 product of {n} x {n} matrices", "products/s", {"count": 1, "flops": 2.0 * n**3}),
        "copy": ("a copy of 4 GB" if n == 8192 else "a copy", "copies/s", {"count": 1, "flops": None, "bytes": 2 * 4 * n * n * 16}),
    }
    for name, (title, unit, about) in cases.items():
        result = {"name": name, "title": title, "unit": unit, "a_step": about, "seconds_a_step": {}, "rounds": {}, "errors": {}}
        for library, torch in libraries().items():
            torch.manual_seed(0)
            if name == "product":
                a, b = (torch.randn(n, n, device=options.device).to(torch.bfloat16) for _ in range(2))
                run = lambda a=a, b=b: a @ b  # noqa: E731
            else:
                a = torch.randn(16 * n, n, device=options.device)
                b = torch.empty_like(a)
                run = lambda a=a, b=b: b.copy_(a)  # noqa: E731
            clock = Clock(torch, options.device)
            clock.seconds(run, 5)
            seconds = [clock.seconds(run, 10) for _ in range(9)]
            result["seconds_a_step"][f"{library} eager"] = statistics.median(seconds)
            result["rounds"][f"{library} eager"] = len(seconds)
            a = b = run = None
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
        say(result)


OTHERS = {"adamw": measure_adamw, "launch": measure_launch, "product": measure_product}


# ---------------------------------------------------------------------------------------------------------------------
# The whole run


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
        OTHERS[options.measure](options) if options.measure in OTHERS else measure_model(options.measure, options)
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
