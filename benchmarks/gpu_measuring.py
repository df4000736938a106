"""What one process of `gpu.py` does: measures one model, or an optimizer, launches, a product, with every library that is there.

Whenever it knows more it prints a line of JSON that begins with RESULT, so that what it has is not lost when its time is over, and says
what it is about to do, so that it is known what it ended with. A library that fails costs its own figures and no others.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import statistics
import time
from contextlib import contextmanager

from gpu_models import MODELS

OURS, THEIRS = "disttorch", "PyTorch"
#: With these begins what PyTorch's errors say of its own settings, after what has happened.
HINTS = ("CUDA kernel errors might be", "Search for `cuda", "Set TORCHDYNAMO_VERBOSE", "from user code")


def libraries(result, device):
    """Ours, and PyTorch where it is installed; where it is and cannot be used, the result says why."""
    import disttorch

    found = {OURS: disttorch}
    if importlib.util.find_spec("torch"):
        try:
            import torch

            if device == "cuda" and not torch.cuda.is_available():
                raise RuntimeError(f"PyTorch {torch.__version__} finds no CUDA device that it was built for")
            found[THEIRS] = torch
        except Exception as error:  # or a library that it needs is missing, or of another version
            result["errors"][THEIRS] = reason(error)
    return found


def reason(error):
    """What an error says, in one line."""
    lines = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines()]
    end = next((i for i, line in enumerate(lines) if line.startswith(HINTS)), None)
    return " ".join(line for line in lines[:end] if line)[:600]


@contextmanager
def column_of(result, column, torch, device):
    """What fails in the with-block is a line of the result. Where the device is lost with it, so is the process, with that under way."""
    result["under_way"] = column
    say(result)
    try:
        yield
    except Exception as error:  # one library's or variant's, not the end of the others
        result["errors"][column] = reason(error)
        say(result)
        try:
            if device == "cuda":
                torch.cuda.synchronize()
        except Exception:
            os._exit(1)  # what ends in order would ask the device
    del result["under_way"]
    say(result)


def give_back(torch, device):
    """Memory that is free to the others."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


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

    def held(self):
        """Bytes that this library's tensors take now; the highest counts from here."""
        if not self.on_gpu:
            return 0
        self.torch.cuda.synchronize()
        self.torch.cuda.reset_peak_memory_stats()
        return self.torch.cuda.memory_allocated()

    def peak(self, held):
        """Bytes that they have taken at the highest since then, beyond those `held`; None without a GPU."""
        if not self.on_gpu:
            return None
        self.torch.cuda.synchronize()
        return self.torch.cuda.max_memory_allocated() - held


#: Steps that are taken before one is captured, and steps whose losses are compared.
WARM, COMPARED = 3, 6


def captured(torch, step):
    """A replay of a step, which was recorded after warming up on a stream of its own."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    loss = None if loss is None else loss.detach()

    def replay(keeps=step):
        """A graph has the addresses of parameters and of the batch, which the step keeps."""
        graph.replay()
        return loss

    return replay


def training(torch, make, size, device, weights, batch, way):
    """A function that trains for one step and returns the loss, as a tensor that the next step may overwrite."""
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

    def forward(*batch):
        return loss_of(model, *batch)

    if way.startswith("compile"):  # with the loss, which over the words of a language model is no small part
        forward = torch.compile(forward, mode=way.removeprefix("compile").strip() or "default")

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=on_gpu):
            loss = forward(*inputs)
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
    result = {
        "name": name, "title": title, "unit": unit, "seconds_a_step": {}, "rounds": {}, "peak_memory": {}, "first_losses": {}, "errors": {},
    }  # fmt: skip
    found = libraries(result, options.device)
    found[OURS].manual_seed(0)
    model, _, draw, result["a_step"] = make(found[OURS], size)
    weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    result["parameters"] = sum(p.numel() for p in model.parameters())
    del model
    batch = draw(np.random.default_rng(0))
    runs = {}
    for column, library, way in variants(name, found, options.device):
        if f"{name}: {column}" in options.without:
            continue
        if runs and time.time() > options.until - (20 if way.startswith("compile") else 2):
            result["errors"][column] = "not begun: the time was over"
            continue
        torch = found[library]
        with column_of(result, column, torch, options.device):
            runs[column] = prepared(result, column, Clock(torch, options.device), way, make, size, weights, batch)
            record(result, runs)
        if column not in runs:
            give_back(torch, options.device)
    rounds = 3 if options.quick else 9
    for number in range(rounds):
        for column in runs:
            clock, step, times, seconds = runs[column]
            if step is None:
                continue
            if time.time() > options.until - (times + 1) * seconds[-1]:
                result["note"] = f"at most {number + 1} of {rounds} rounds: the time was over"
                continue
            with column_of(result, column, clock.torch, options.device):
                turn = clock.turn(step, times)
                if number:
                    seconds.append(turn)
                else:
                    seconds[:] = [turn]  # in the place of the few steps by which their number was chosen
            if column in result["errors"]:
                runs[column] = clock, None, times, seconds
        record(result, runs)
    check_losses(result)
    say(result)


def prepared(result, column, clock, way, make, size, weights, batch):
    """A clock, a step that is warm, how many of them a round has, and a list of what they took."""
    held = clock.held()  # by the library's other variants, which keep what they train
    step = training(clock.torch, make, size, "cuda" if clock.on_gpu else "cpu", weights, batch, way)
    before = WARM if way == "captured" else 0
    result["first_losses"][column] = [None] * before + [float(step()) for _ in range(before, COMPARED)]
    if way in ("eager", "compile"):  # a graph takes its memory when it is captured, and none in a replay
        clock.held()
        step()
    result["peak_memory"][column] = clock.peak(held)
    once = clock.turn(step, 3)
    return clock, step, max(2, min(200, round(0.6 / once))), [once]


def check_losses(result):
    """All must have trained the same thing. In bfloat16 what they make of it moves apart with time."""
    losses, result["losses_differ_by"] = result["first_losses"], {}
    reference = losses.get(f"{THEIRS} eager") or losses.get(f"{OURS} eager", [])
    for column, found in losses.items():
        differences = {i: abs(a - b) / max(abs(b), 1e-9) for i, (a, b) in enumerate(zip(found, reference)) if a is not None}
        result["losses_differ_by"][column] = max(differences.values(), default=None)
        if not all(d < (2e-2 if i < 3 else 5e-2) for i, d in differences.items()):  # each, for a NaN is never the highest
            result["errors"][f"losses of {column}"] = f"in the same steps they are {found}, and not {reference}"


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
    for library, torch in libraries(result, options.device).items():
        for way, given in {"eager": fused, "captured": {**fused, "capturable": True}}.items():
            column = f"{library} {way}"
            if way == "captured" and (options.device != "cuda" or library == THEIRS):
                continue
            if f"adamw: {column}" in options.without:
                continue
            with column_of(result, column, torch, options.device):
                adamw_steps(result, column, Clock(torch, options.device), way, given, tensors, each, 3 if options.quick else 9)
            give_back(torch, options.device)


def adamw_steps(result, column, clock, way, given, tensors, each, rounds):
    torch, device, held = clock.torch, "cuda" if clock.on_gpu else "cpu", clock.held()
    params = [torch.nn.Parameter(torch.ones(each, device=device)) for _ in range(tensors)]
    for p in params:
        p.grad = torch.full((each,), 0.5, device=device)
    step = torch.optim.AdamW(params, lr=1e-3, **given).step
    if way == "captured":
        step = captured(torch, step)
    for _ in range(3):
        step()
    result["peak_memory"][column] = clock.peak(held)
    timed(result, column, clock, step, 5, rounds)


def timed(result, column, clock, run, times, rounds=9):
    """Note the time of a call: the median of rounds of so many."""
    clock.seconds(run, times)
    seconds = [clock.seconds(run, times) for _ in range(rounds)]
    result["seconds_a_step"][column], result["rounds"][column] = statistics.median(seconds), len(seconds)


def measure_launch(options):
    """What a tiny operation costs the host, and a tiny one that is recorded for gradients."""
    for grad in (False, True):
        result = {
            "name": "launch with gradient" if grad else "launch", "unit": "operations/s", "seconds_a_step": {}, "rounds": {}, "errors": {},
            "title": "x + y of four elements" + (", recorded for gradients" if grad else ""), "a_step": {"count": 1, "flops": None},
        }  # fmt: skip
        for library, torch in libraries(result, options.device).items():
            column = f"{library} eager"
            if f"{result['name']}: {column}" in options.without:
                continue
            with column_of(result, column, torch, options.device):
                x, y = (torch.ones(4, device=options.device) for _ in range(2))
                x.requires_grad_(grad)
                timed(result, column, Clock(torch, options.device), lambda x=x, y=y: x + y, 200 if options.device == "cpu" else 5000)


def measure_product(options):
    """A large product in bfloat16, and a copy of memory: how near the card comes to its data sheet."""
    n = 256 if options.device == "cpu" else 8192
    cases = {
        "product": (f"bfloat16 product of {n} x {n} matrices", "products/s", {"count": 1, "flops": 2.0 * n**3}),
        "copy": ("a copy of 4 GB" if n == 8192 else "a copy", "copies/s", {"count": 1, "flops": None, "bytes": 2 * 4 * n * n * 16}),
    }
    for name, (title, unit, about) in cases.items():
        result = {"name": name, "title": title, "unit": unit, "a_step": about, "seconds_a_step": {}, "rounds": {}, "errors": {}}
        for library, torch in libraries(result, options.device).items():
            column = f"{library} eager"
            if f"{name}: {column}" in options.without:
                continue
            with column_of(result, column, torch, options.device):
                torch.manual_seed(0)
                timed(result, column, Clock(torch, options.device), large(torch, name, n, options.device), 10)
            give_back(torch, options.device)


def large(torch, name, n, device):
    """A call on large arrays, which it alone keeps."""
    if name == "product":
        a, b = (torch.randn(n, n, device=device).to(torch.bfloat16) for _ in range(2))
        return lambda: a @ b
    a = torch.randn(16 * n, n, device=device)
    b = torch.empty_like(a)
    return lambda: b.copy_(a)


OTHERS = {"adamw": measure_adamw, "launch": measure_launch, "product": measure_product}


def measure(options):
    """The benchmark that the options name."""
    if options.measure in OTHERS:
        OTHERS[options.measure](options)
    else:
        measure_model(options.measure, options)
