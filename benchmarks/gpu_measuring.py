"""What one process of `gpu.py` does: measures one model, or an optimizer, launches, a product, with every library that is there.

Whenever it knows more it prints a line of JSON that begins with RESULT, so that what it has is not lost when its time is over.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import statistics
import time

from gpu_models import MODELS

OURS, THEIRS = "disttorch", "PyTorch"


def libraries():
    """Ours, and PyTorch where it is installed."""
    import disttorch

    found = {OURS: disttorch}
    if importlib.util.find_spec("torch"):
        import torch

        found[THEIRS] = torch
    return found


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


def measure(options):
    """The benchmark that the options name."""
    if options.measure in OTHERS:
        OTHERS[options.measure](options)
    else:
        measure_model(options.measure, options)
