"""Train a small convolutional network to tell ten kinds of clothing apart, on as many ranks as you start.

    dlaunch -n 2 examples/fashion_mnist.py --epochs 10        two ranks on this machine
    python examples/fashion_mnist.py                          one process
    srun --mpi=pmi2 -n 8 python examples/fashion_mnist.py     a Slurm job

It saves a checkpoint after each epoch, and in the middle of one when it gets SIGUSR1 or SIGTERM, with which a batch system
says that the time is up; then it ends. Started again with --resume it goes on there, and comes to the same network to the
bit as if nothing had happened (slurm/preemptible.sbatch does this by itself).

The images are Zalando's Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747): 60,000 to learn from and 10,000 to be
tested on. Where they cannot be had, it trains on the small UCI handwritten digits that lie beside this file.
"""

import argparse
import gzip
import hashlib
import math
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from tqdm import tqdm

import disttorch as torch
import disttorch.distributed as dist
from disttorch import nn
from disttorch.nn.parallel import DistributedDataParallel
from disttorch.utils.data import DataLoader, DistributedSampler, TensorDataset

# ---------------------------------------------------------------------------------------------------------------------
# The data

SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

# MD5 of each file: as published (github.com/zalandoresearch/fashion-mnist), and of what is in it, however compressed
FILES = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
}


def read_idx(path):
    """The array in a file of Fashion-MNIST, whose checksum must be right."""
    packed = path.read_bytes()
    published, content = FILES[path.name]
    try:
        raw = gzip.decompress(packed)
    except (OSError, EOFError) as error:
        sys.exit(f"{path} is damaged: {error}")
    found = hashlib.md5(raw).hexdigest()
    if hashlib.md5(packed).hexdigest() != published and found != content:
        sys.exit(
            f"{path} is not the file of Fashion-MNIST: the MD5 sum of its content is {found}, it should be {content}"
        )
    ndim = raw[3]
    shape = np.frombuffer(raw, ">i4", ndim, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def find_fashion_mnist(folder, site):
    """The folder that holds Fashion-MNIST; None, and why, where it is not to be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "disttorch" / "fashion-mnist"
    for place in [folder] if folder else [DEBIAN, cache]:
        if all((place / name).is_file() for name in FILES):
            return place, None
    if folder:
        sys.exit(f"{folder} has no {', '.join(n for n in FILES if not (folder / n).is_file())}")
    cache.mkdir(parents=True, exist_ok=True)
    for name, (published, _) in FILES.items():
        try:
            with urllib.request.urlopen(site + name, timeout=20) as answer:
                packed = answer.read()
        except (urllib.error.URLError, OSError) as error:
            return None, f"{site} does not answer ({getattr(error, 'reason', error)})"
        found = hashlib.md5(packed).hexdigest()
        if found != published:
            sys.exit(f"{site}{name} has the MD5 sum {found}, it should be {published}: not used")
        beside = cache / f"{name}.{os.getpid()}"
        beside.write_bytes(packed)
        beside.rename(cache / name)
    return cache, None


def load_data(args):
    """Images as (n, 1, height, width) uint8 tensors and labels as int64: to learn from, and to be tested on."""
    found = [None, None]
    if dist.get_rank() == 0:  # one rank looks, and downloads, for all
        found = list(find_fashion_mnist(args.data, args.site))
    dist.broadcast_object_list(found)
    folder, reason = found
    if folder is None:
        say(f"Fashion-MNIST cannot be had here, as {reason}, so this trains on the UCI handwritten digits instead.")
        rows = np.loadtxt(Path(__file__).parent / "data" / "digits.csv.gz", delimiter=",", dtype=np.uint8)
        images, labels = rows[:, :64].reshape(-1, 1, 8, 8) * 15, rows[:, 64].astype(np.int64)
        names = [str(i) for i in range(10)]
        train, test = slice(0, 1437), slice(1437, None)
        arrays = images[train], labels[train], images[test], labels[test]
    else:
        say(f"Fashion-MNIST from {folder}")
        arrays = [read_idx(folder / name) for name in FILES]
        arrays = [a[:, None] if a.ndim == 3 else a.astype(np.int64) for a in arrays]
        names = CLASSES
    return [torch.from_numpy(np.ascontiguousarray(a[: args.images])) for a in arrays], names


# ---------------------------------------------------------------------------------------------------------------------
# The model


class ConvNet(nn.Module):
    """Two convolutions with pooling, and two linear layers."""

    def __init__(self, size, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, 128), nn.ReLU(), nn.Dropout(0.4), nn.Linear(128, classes)
        )

    def forward(self, x):
        return self.classifier(self.features(x))


# ---------------------------------------------------------------------------------------------------------------------
# Training


def learning_rate(step, steps, highest):
    """Up in a straight line for the first tenth of all steps, then down along a cosine."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


asked = []  # the signals that asked this rank to save and to end


def all_should_stop():
    """Whether any rank was asked to: signals do not come to all ranks in the same step, but all must stop in the same."""
    count = torch.tensor(len(asked))
    dist.all_reduce(count)
    return count.item() > 0


def random_streams(device):
    """Where this rank's streams of random numbers are: the CPU's and, on a GPU, that from which units are dropped out there."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def continue_streams(streams, device):
    """Go to where `random_streams` was called."""
    torch.set_rng_state(streams[0])
    if device.type == "cuda" and len(streams) > 1:  # else the checkpoint is a CPU's
        torch.cuda.set_rng_state(streams[1], device)


def save(args, model, optimizer, epoch, device, loader=None):
    """Save what a run needs to go on after `epoch` whole ones, and after the batches of the next that `loader` has given."""
    streams = [None] * dist.get_world_size()
    dist.all_gather_object(streams, random_streams(device))  # each rank drops out units of its own
    if dist.get_rank() == 0:
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": model.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "loader": loader.state_dict() if loader else None,
            "random": streams,
        }
        torch.save(state, args.checkpoint)


def normalise(images, device):
    return (images.to(device).float() - 72.9) / 90.0  # the mean and standard deviation of Fashion-MNIST's pixels


def train_epoch(model, optimizer, loader, epoch, args, device):
    """Train for an epoch, or the rest of one. Returns the images a second; None where the run is to stop."""
    model.train()
    steps = args.epochs * len(loader)
    done = loader.state_dict()["given"]  # batches of this epoch, before a checkpoint
    bar = tqdm(
        total=len(loader.dataset), initial=done * args.batch_size, desc=f"epoch {epoch}/{args.epochs}", unit=" images",
        disable=dist.get_rank() != 0,
    )  # fmt: skip
    start, before = time.perf_counter(), bar.n
    for i, (images, labels) in enumerate(loader, done):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate((epoch - 1) * len(loader) + i, steps, args.lr)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(normalise(images, device)), labels.to(device))
        loss.backward()
        optimizer.step()
        bar.update(min(args.batch_size, bar.total - bar.n))
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if i % 10 == 9 and all_should_stop():
            bar.close()
            save(args, model, optimizer, epoch - 1, device, loader)
            say(f"asked to stop: saved {i + 1} of {len(loader)} steps of epoch {epoch} in {args.checkpoint}")
            return None
    bar.close()
    return (len(loader.dataset) - before) / (time.perf_counter() - start)


@torch.no_grad()
def evaluate(model, images, labels, device):
    """How often each class (row) was taken for each (column), counted over the ranks' shares of the test images."""
    model.eval()
    counts = torch.zeros(10, 10, dtype=torch.int64)
    mine = slice(dist.get_rank(), None, dist.get_world_size())
    for x, y in zip(images[mine].split(500), labels[mine].split(500)):
        guess = model(normalise(x, device)).argmax(1).cpu()
        counts += torch.bincount(y * 10 + guess, minlength=100).reshape(10, 10)
    dist.all_reduce(counts)
    return counts


def report(counts, names):
    say(f"{'class':<14}{'precision':>10}{'recall':>10}{'images':>10}")
    right = counts.diagonal().double()
    precision, recall = right / counts.sum(0).clamp(min=1), right / counts.sum(1).clamp(min=1)
    for i, name in enumerate(names):
        say(f"{name:<14}{precision[i].item():>10.3f}{recall[i].item():>10.3f}{counts[i].sum().item():>10}")


def say(text):
    if dist.get_rank() == 0:
        tqdm.write(text)
        sys.stdout.flush()


def device_of_rank(kind):
    """The device on which this rank trains: a GPU for each rank of a node, and where there are fewer, ranks share them."""
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda", dist.get_node_local_rank(0) % max(1, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=128, help="of all ranks together (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=2e-3, help="the highest learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--images", type=int, help="learn from so many and test on so many, for a quick try (default: all)"
    )
    parser.add_argument("--data", type=Path, help="a folder with the four files of Fashion-MNIST")
    parser.add_argument("--site", default=SITE, help="where to download them from")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/fashion_mnist.safetensors"))
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint, if there is one yet")
    args = parser.parse_args()
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked.append(number))

    dist.init_process_group()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if args.batch_size % ranks:
        sys.exit(f"--batch-size {args.batch_size} cannot be shared evenly by {ranks} ranks")
    device = device_of_rank(args.device)

    (train_x, train_y, test_x, test_y), names = load_data(args)
    dataset = TensorDataset(train_x, train_y)
    sampler = DistributedSampler(dataset, seed=args.seed)
    loader = DataLoader(dataset, batch_size=args.batch_size // ranks, sampler=sampler)

    torch.manual_seed(args.seed)
    model = ConvNet(train_x.shape[-1]).to(device)
    torch.manual_seed(args.seed + rank)  # from here on each rank drops out different units
    model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.02)
    say(f"{ranks} rank(s) on {device.type}, {sum(p.numel() for p in model.parameters()):,} parameters")

    first = 1
    if args.resume and not args.checkpoint.exists():
        say(f"there is no {args.checkpoint} yet: begins with epoch 1")
    elif args.resume:
        state = torch.load(args.checkpoint, map_location="cpu")  # from where each rank takes it to its own device
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
        if rank < len(state["random"]):  # more ranks than before: the new ones begin their streams
            continue_streams(state["random"][rank], device)
        if state["loader"] is not None:
            loader.load_state_dict(state["loader"])
        begun = f" and {state['loader']['given']} steps" if state["loader"] else ""
        say(f"continues after epoch {state['epoch']}{begun} of {args.checkpoint}")

    counts = evaluate(model, test_x, test_y, device) if first > args.epochs else None
    for epoch in range(first, args.epochs + 1):
        sampler.set_epoch(epoch)
        speed = train_epoch(model, optimizer, loader, epoch, args, device)
        if speed is None:
            dist.destroy_process_group()
            return
        counts = evaluate(model, test_x, test_y, device)
        accuracy = counts.diagonal().sum().item() / counts.sum().item()
        say(f"epoch {epoch}: test accuracy {accuracy:.4f}, {speed:,.0f} images/s")
        save(args, model, optimizer, epoch, device)
    report(counts, names)
    say(f"test accuracy {counts.diagonal().sum().item() / counts.sum().item():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
