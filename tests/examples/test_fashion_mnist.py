"""The example as a user runs it: on real data where they are installed, on the digits it carries where they are not."""

import gzip
import hashlib
import http.server
import importlib.util
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.stand_in import session

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist.py"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NOWHERE = ["--site", "http://127.0.0.1:9/"]  # nothing listens on the discard port


def environment(home):
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(ROOT)}


def run(tmp_path, *args, ranks=1, launcher=("-m", "launcher"), **options):
    start = [sys.executable, *launcher, "-n", str(ranks)] if ranks > 1 else [sys.executable]
    return subprocess.run(
        [*start, str(EXAMPLE), *map(str, args)],
        cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=900, check=False, **options,
    )  # fmt: skip


@pytest.fixture
def no_debian(tmp_path):
    """The example without the Debian package: a copy that looks for it elsewhere."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "examples" / "data", copy / "data")
    (copy / "fashion_mnist.py").write_text(EXAMPLE.read_text().replace(str(DEBIAN), str(tmp_path / "not-installed")))
    return copy / "fashion_mnist.py"


def held(text, epoch):
    """The example as a script that, where there is a file `hold`, does not begin an epoch before it is asked to stop.

    A signal that is to come in the middle of a training then does, however long it takes.
    """
    begins = "    model.train()\n"
    assert text.count(begins) == 1
    waits = f"    while epoch == {epoch} and not asked and Path('hold').exists():\n        time.sleep(0.01)\n"
    return text.replace(begins, waits + begins)


def accuracy(output):
    return float(re.findall(r"test accuracy ([0-9.]+)", output)[-1])


def test_trains_on_the_digits_where_there_is_nothing_else_and_resumes(tmp_path, no_debian, monkeypatch):
    monkeypatch.setitem(globals(), "EXAMPLE", no_debian)
    whole = run(tmp_path, "--epochs", 4, *NOWHERE, ranks=2)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("so this trains on the UCI handwritten digits instead.") == 1
    assert "2 rank(s) on cpu" in whole.stdout
    assert len(re.findall(r"epoch \d: test accuracy [0-9.]+, [0-9,]+ images/s", whole.stdout)) == 4
    assert re.search(r"precision\s+recall", whole.stdout)
    assert accuracy(whole.stdout) > 0.85
    assert "images/s" in whole.stderr or "images" in whole.stderr  # the progress bar

    again = run(tmp_path, "--epochs", 6, "--resume", *NOWHERE, ranks=2)
    assert again.returncode == 0, again.stderr
    assert "continues after epoch 4 of checkpoints/fashion_mnist.safetensors" in again.stdout
    assert "epoch 5:" in again.stdout
    assert "epoch 4:" not in again.stdout
    assert accuracy(again.stdout) > 0.85

    done = run(tmp_path, "--epochs", 6, "--resume", *NOWHERE)
    assert accuracy(done.stdout) == accuracy(again.stdout)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_stopped_and_resumed_it_comes_to_the_same_network(tmp_path, no_debian, monkeypatch, number):
    """Where no signal came the files are the same to the byte: parameters, optimizer, random streams."""
    monkeypatch.setitem(globals(), "EXAMPLE", no_debian)
    no_debian.write_text(held(no_debian.read_text(), epoch=3))
    assert run(tmp_path, "--epochs", 8, "--checkpoint", "whole", *NOWHERE, ranks=2).returncode == 0
    (tmp_path / "hold").touch()
    arguments = ["--epochs", "8", "--checkpoint", "parts", "--resume", *NOWHERE]
    with subprocess.Popen(
        [sys.executable, "-m", "launcher", "-n", "2", str(no_debian), *arguments], cwd=tmp_path, text=True,
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as job:  # fmt: skip
        seen = ""
        while "epoch 2: " not in seen:
            line = job.stdout.readline()
            assert line, seen
            seen += line
        job.send_signal(number)
        seen += job.stdout.read()
    assert job.returncode == (0 if number == signal.SIGUSR1 else 128 + number)
    assert "there is no parts yet: begins with epoch 1\n" in seen
    assert "asked to stop: saved 10 of 12 steps of epoch 3 in parts\n" in seen
    assert "epoch 3: " not in seen
    (tmp_path / "hold").unlink()
    again = run(tmp_path, *arguments, ranks=2)
    assert again.returncode == 0, again.stderr
    assert "continues after epoch 2 and 10 steps of parts\n" in again.stdout
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_learns_from_so_many_images(tmp_path, no_debian, monkeypatch):
    monkeypatch.setitem(globals(), "EXAMPLE", no_debian)
    ended = run(tmp_path, "--images", 300, "--epochs", 1, *NOWHERE)
    assert ended.returncode == 0, ended.stderr
    assert "300/300" in ended.stderr
    assert sum(int(n) for n in re.findall(r"^\d .* (\d+)$", ended.stdout, re.MULTILINE)) == 300


def test_a_damaged_checkpoint_is_refused(tmp_path, no_debian, monkeypatch):
    monkeypatch.setitem(globals(), "EXAMPLE", no_debian)
    checkpoint = tmp_path / "c.safetensors"
    assert run(tmp_path, "--epochs", 1, "--checkpoint", checkpoint, *NOWHERE).returncode == 0
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    ended = run(tmp_path, "--epochs", 2, "--checkpoint", checkpoint, "--resume", *NOWHERE)
    assert ended.returncode == 1
    assert "c.safetensors" in ended.stderr.splitlines()[-1]


def test_bad_arguments(tmp_path):
    ended = run(tmp_path, "--batch-size", 5, *NOWHERE, ranks=2)
    assert ended.returncode == 1
    assert "--batch-size 5 cannot be shared evenly by 2 ranks" in ended.stderr
    ended = run(tmp_path, "--data", tmp_path)
    assert ended.returncode == 1
    assert f"{tmp_path} has no train-images-idx3-ubyte.gz, " in ended.stderr


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_a_wrong_checksum_is_refused(tmp_path):
    for path in DEBIAN.glob("*.gz"):
        shutil.copy(path, tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    raw = bytearray(gzip.decompress(labels.read_bytes()))
    raw[100] ^= 1
    labels.write_bytes(gzip.compress(bytes(raw)))
    ended = run(tmp_path, "--data", tmp_path, "--epochs", 1)
    assert ended.returncode == 1
    assert f"{labels} is not the file of Fashion-MNIST: the MD5 sum of its content is" in ended.stderr


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_learns_clothing_in_one_epoch(tmp_path):
    ended = run(tmp_path, "--epochs", 1, "--checkpoint", tmp_path / "c.safetensors", ranks=2)
    assert ended.returncode == 0, ended.stderr
    assert f"Fashion-MNIST from {DEBIAN}" in ended.stdout
    assert "Ankle boot" in ended.stdout
    assert accuracy(ended.stdout) > 0.85


# --- downloading, from a server of our own ---------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example as a module, with small files in place of the real ones."""
    spec = importlib.util.spec_from_file_location("fashion_mnist", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    served = tmp_path / "served"
    served.mkdir()
    files = {}
    for name in module.FILES:
        shape = (5, 2, 2) if "images" in name else (5,)
        values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        raw = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}i", *shape) + values.tobytes()
        packed = gzip.compress(raw)
        (served / name).write_bytes(packed)
        files[name] = (hashlib.md5(packed).hexdigest(), hashlib.md5(raw).hexdigest())
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(module, "DEBIAN", tmp_path / "not-installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return module


@pytest.fixture
def site(tmp_path):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_downloads_once_and_checks(example, site, tmp_path):
    folder, reason = example.find_fashion_mnist(None, site)
    assert reason is None
    assert sorted(p.name for p in folder.iterdir()) == sorted(example.FILES)
    images = example.read_idx(folder / "train-images-idx3-ubyte.gz")
    np.testing.assert_array_equal(images, np.arange(20).reshape(5, 2, 2))
    assert example.find_fashion_mnist(None, "http://127.0.0.1:9/") == (folder, None)  # from the cache


def test_a_wrong_download_is_not_kept(example, site, tmp_path):
    (tmp_path / "served" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"t10k-labels-idx1-ubyte\.gz has the MD5 sum .*, it should be .*: not used"):
        example.find_fashion_mnist(None, site)
    assert "t10k-labels-idx1-ubyte.gz" not in {
        p.name for p in (tmp_path / "cache" / "disttorch" / "fashion-mnist").iterdir()
    }


def test_says_why_there_are_no_data(example, tmp_path):
    folder, reason = example.find_fashion_mnist(None, "http://127.0.0.1:9/")
    assert folder is None
    assert "http://127.0.0.1:9/ does not answer" in reason


def test_a_truncated_file_is_said_to_be_damaged(example, site):
    folder, _ = example.find_fashion_mnist(None, site)
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SystemExit, match=r"train-images-idx3-ubyte\.gz is damaged"):
        example.read_idx(path)


# --- on GPUs, for which there is a stand-in --------------------------------------------------------------------------


def test_each_rank_takes_a_gpu_and_ranks_share_where_there_are_fewer(example, monkeypatch):
    with session.tensors(2) as torch:
        for rank, index in ((0, 0), (1, 1), (2, 0)):
            monkeypatch.setattr(example.dist, "get_node_local_rank", lambda fallback, rank=rank: rank)
            assert example.device_of_rank("auto") == example.device_of_rank("cuda") == torch.device("cuda", index)
            assert torch.cuda.current_device() == index
            assert example.device_of_rank("cpu") == torch.device("cpu")


def test_the_random_numbers_of_a_gpu_go_on_too(example):
    """What is dropped out there after a checkpoint is what would have been without it."""
    with session.tensors() as torch:
        for device in (torch.device("cuda", 0), torch.device("cpu")):
            torch.manual_seed(3)
            torch.rand(5, device=device)
            kept = example.random_streams(device)
            assert [s.device.type for s in kept] == ["cpu"] * len(kept)
            drawn = [torch.rand(4, device=d).cpu().numpy() for d in (device, "cpu")]
            torch.manual_seed(4)
            example.continue_streams(kept, device)
            for d, before in zip((device, "cpu"), drawn):
                np.testing.assert_array_equal(torch.rand(4, device=d).cpu().numpy(), before)
