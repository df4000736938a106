"""A training that survives being killed: it saves a checkpoint every few steps and goes on from the last one.

    train.py STEPS SEED [KILLS]

Its data and its parameters depend on nothing but the step, so that the end is the same to the bit however often it was
interrupted. With KILLS, each start of the job but the last is killed by one of its own ranks at a moment that SEED and the
number of the start decide: between two steps, in the middle of a reduction, or while the checkpoint is being written.
"""

import json
import os
import random
import signal
import sys
import threading
import time

import disttorch as torch
import disttorch.distributed as dist

STEPS, SEED, KILLS = (*map(int, sys.argv[1:]), 0)[:3]
EVERY = 5
PATH = "checkpoint.safetensors"

dist.init_process_group()
rank, size = dist.get_rank(), dist.get_world_size()
attempt = int(os.environ.get("DISTTORCH_ATTEMPT", "0"))
torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
first = 0
if os.path.exists(PATH):
    state = torch.load(PATH)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    first = state["step"]
wrapped = torch.nn.parallel.DistributedDataParallel(model)


# Who dies in this start, in which step, and how many seconds after it, or after a checkpoint in it, has begun.
fate = random.Random(f"{SEED} {attempt}")
victim, saving, seconds = fate.randrange(size), fate.random() < 0.4, fate.uniform(0.0, 0.004)
last = first + fate.randrange(1, 15)
if saving:  # by rank 0
    victim, last = 0, last // EVERY * EVERY + EVERY - 1


def die_soon() -> None:
    """In a thread of its own, so that it can be in the middle of anything."""
    threading.Thread(target=lambda: (time.sleep(seconds), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()


if rank == 0:
    with open("starts", "a") as file:
        file.write(json.dumps({"attempt": attempt, "first": first, "run": os.environ.get("DISTTORCH_RUN_DIR")}) + "\n")

for step in range(first, STEPS):
    dies = attempt < KILLS and rank == victim and step == last
    if dies and not saving:
        die_soon()
    generator = torch.Generator().manual_seed(1000 * step + rank)
    inputs = torch.randn(8, 16, generator=generator)
    targets = inputs[:, :4] * 2 - inputs[:, 4:8]
    loss = torch.nn.functional.mse_loss(wrapped(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if rank == 0 and (step + 1) % EVERY == 0:
        if dies and saving:
            die_soon()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, PATH)

if attempt < KILLS:
    time.sleep(60)  # for the end, which is only a moment away
if rank == 0:
    torch.save({"model": model.state_dict(), "loss": loss.detach()}, "end.safetensors")
dist.destroy_process_group()
