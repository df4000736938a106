"""``python -m disttorch.as_torch``: scripts written for PyTorch, as they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path, text, *arguments, expect=0, command=("-m", "disttorch.as_torch"), name="train.py"):
    """A script's stdout and stderr; the script is in a folder of its own, and run from another."""
    (tmp_path / "job").mkdir(exist_ok=True)
    (tmp_path / "job" / name).write_text(text)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, f"job/{name}", *arguments],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr
    return done.stdout, done.stderr


TRAINING = """
import argparse
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torch.distributed as dist
import torch.cuda.amp
import torch.backends.cudnn as cudnn
import torch.multiprocessing as mp
from torch import Tensor, nn as again
from torch.autograd import Variable
from torch.nn import Module, Linear
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset, random_split
from torch.utils.data.distributed import DistributedSampler
from torch.cuda.amp import GradScaler, autocast
from torch.amp import autocast as autocast2
import helper

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
args = parser.parse_args()
assert args.lr == 0.5 and helper.VALUE == 5 and __name__ == "__main__"
assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 0)
assert torch.version.cuda is None and torch.version.__version__ == torch.__version__
assert again is nn and torch.nn.functional is F and nn.Module is Module
torch.backends.cudnn.benchmark = True
assert cudnn.benchmark
torch.manual_seed(0)
torch.cuda.manual_seed_all(0)
torch.set_float32_matmul_precision("high")
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))

    @torch.jit.export
    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.layers(x), dim=1)

x = torch.randn(32, 4)
y = x[:, :3].argmax(1)
loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
model = torch.compile(Net().to(device))
optimizer = optim.SGD(model.parameters(), lr=args.lr)
scheduler = StepLR(optimizer, 5)
losses = []
for epoch in range(10):
    total = 0.0
    for data, target in loader:
        optimizer.zero_grad()
        with torch.autocast(device_type=device.type, enabled=False):
            loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        total += loss.item()
    scheduler.step()
    losses.append(total)
assert losses[-1] < losses[0] / 2
torch.save(model.state_dict(), "model.pt")
fresh = Net()
fresh.load_state_dict(torch.load("model.pt", map_location=device, weights_only=True))
with torch.no_grad():
    assert torch.equal(fresh(x), model(x))
print("done", type(model).__name__, type(loss).__module__)
"""


def test_a_training_script(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "helper.py").write_text("VALUE = 5\n")
    out, err = run(tmp_path, TRAINING, "--lr", "0.5")
    assert (out, err) == ("done Net disttorch.autograd.variable\n", "")
    assert (tmp_path / "model.pt").read_bytes()[:2] == b"PK"  # PyTorch's format, so that PyTorch reads it


WORKERS = """
import pickle, sys
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        import torch.nn.functional as F
        return F.relu(torch.tensor([float(i)])) ** 2

def job(rank, where):
    import torch.nn
    open(f"{where}/{rank}", "w").write(torch.nn.Linear(1, 1).__module__)

if __name__ == "__main__":
    for context in ("fork", "spawn", "forkserver"):
        batches = list(DataLoader(Squares(), batch_size=3, num_workers=2, multiprocessing_context=context))
        print(context, [b.flatten().tolist() for b in batches])
    torch.multiprocessing.spawn(job, (sys.argv[1],), nprocs=2)
    print(b"disttorch" in pickle.dumps(torch.ones(1)), b"ctorch" in pickle.dumps(torch.nn.ReLU(), 2))
"""


def test_types_are_printed_as_pytorchs(tmp_path):
    text = """
import torch
x = torch.ones(2, 3)
assert str(x.dtype) == "torch.float32" and getattr(torch, str(x.dtype).removeprefix("torch.")) is x.dtype
print(x.dtype, x.shape, x.layout, torch.channels_last, [x.size()], f"{x.dtype}", x.half())
"""
    out, err = run(tmp_path, text)
    printed = "torch.float32 torch.Size([2, 3]) torch.strided torch.channels_last [torch.Size([2, 3])] torch.float32 tensor([[1., 1., 1.],"
    assert (out.splitlines()[0], err) == (printed, "")
    assert "dtype=torch.float16" in out


def test_worker_processes_see_it_too(tmp_path):
    out, _ = run(tmp_path, WORKERS, str(tmp_path))
    values = "[[0.0, 1.0, 4.0], [9.0, 16.0, 25.0]]"
    assert out == f"fork {values}\nspawn {values}\nforkserver {values}\nTrue False\n"
    assert [(tmp_path / str(i)).read_text() for i in range(2)] == ["disttorch.nn.linear"] * 2


SURROUNDINGS = """
import torch, torch._dynamo, torch._inductor.config as config
import torch.utils.hooks as hooks
config.coordinate_descent_tuning = True
torch._dynamo.config.suppress_errors = True
torch._dynamo.reset()
torch._C._log_api_usage_once("train.script")
model = torch.nn.Linear(1, 1)
print(torch._inductor.config.coordinate_descent_tuning, isinstance(model, torch._dynamo.eval_frame.OptimizedModule))
print(torch.xpu.is_available(), torch.xpu.device_count(), torch.mps.device_count(), torch.backends.mps.is_available())
print(isinstance(model.register_forward_hook(print), hooks.RemovableHandle), torch.utils._pytree.tree_leaves([model.in_features]))
torch.testing.assert_close(torch.ones(1), torch.ones(1) + 1e-7)
"""


def test_what_scripts_ask_and_set_besides(tmp_path):
    assert run(tmp_path, SURROUNDINGS) == ("True False\nFalse 0 0 False\nTrue [1]\n", "")


SAFETENSORS = """
import safetensors, torch
import safetensors.torch as st
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
saved = {**model.state_dict(), "half": torch.ones(2, dtype=torch.bfloat16), "empty": torch.zeros(0, 3)}
st.save_file(saved, "f.safetensors", metadata={"a": "b"})
loaded = st.load_file("f.safetensors")
assert saved.keys() == loaded.keys() and all(torch.equal(saved[k], loaded[k]) and saved[k].dtype == loaded[k].dtype for k in saved)
assert torch.equal(st.load(st.save(saved))["0.weight"], model[0].weight)
st.save_model(model, "m.safetensors")
print(st.load_model(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)), "m.safetensors"))
with safetensors.safe_open("f.safetensors", "pt") as f:
    print(f.metadata(), f.get_tensor("0.bias").shape, torch.equal(f.get_slice("0.weight")[1:, :2], model[0].weight[1:, :2]))
"""


def test_safetensors_for_pytorch(tmp_path):
    pytest.importorskip("safetensors.numpy")
    out, err = run(tmp_path, SAFETENSORS)
    assert (out, err) == ("(set(), [])\n{'a': 'b'} torch.Size([4]) True\n", "")


def test_tensorboard_is_tensorboardx(tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "tensorboardX.py").write_text("class SummaryWriter: pass\n")
    text = "from torch.utils.tensorboard import SummaryWriter\nimport torch.utils.tensorboard as tb\n"
    out, err = run(tmp_path, text + "print(SummaryWriter.__module__, tb.SummaryWriter is SummaryWriter, hasattr(tb, 'FileWriter'))")
    assert (out, err) == ("tensorboardX True False\n", "")


ABSENT = [
    ("import torch.hub", "No module named 'torch.hub': disttorch, which stands in for PyTorch here, does not have it"),
    ("from torch.utils.tensorboard import SummaryWriter", "No module named 'tensorboardX'.*pip install tensorboardX"),
    ("import torch.onnx as onnx", "docs/api-coverage.md"),
    ("import torch.nn.no_such", "No module named 'torch.nn.no_such'"),
    ("import torch; torch.no_such_function", "disttorch has no 'no_such_function'.*docs/api-coverage.md"),
    ("from torch import no_such_function", "cannot import name 'no_such_function' from 'torch'.*docs/api-coverage.md"),
    ("from torch.nn import NoSuchLayer", "cannot import name 'NoSuchLayer'.*docs/api-coverage.md"),
]


@pytest.mark.parametrize(("line", "message"), ABSENT)
def test_what_is_absent_is_said_to_be(tmp_path, line, message):
    import re

    _, err = run(tmp_path, f"\n{line}\n", expect=1)
    assert err.startswith("Traceback (most recent call last):\n  File ")
    assert f'{os.path.join("job", "train.py")}", line 2, in <module>' in err.splitlines()[1]
    assert re.search(message, err.replace("\n", " "))


def test_torchvision(tmp_path):
    text = "import importlib.util, sys\ntry:\n    import torchvision\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    if pytest.importorskip("importlib.util").find_spec("torchvision"):
        pytest.skip("torchvision is installed here")
    assert "built for PyTorch itself" in run(tmp_path, text)[0]


ERRORS = [
    "import torch\ndef f(x):\n    raise KeyError(x)\nf(3)\n",
    "import sys\nsys.exit(3)\n",
    "import sys\nsys.exit('words')\n",
    "def f(:\n",
    "import helper_that_is_not_there\n",
    "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error\n",
    "import sys\nsys.excepthook = lambda *a: print('mine', a[0].__name__, file=sys.stderr)\n1 / 0\n",
    "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nimport time\ntime.sleep(5)\n",
]


@pytest.mark.parametrize("text", ERRORS, ids=range(len(ERRORS)))
def test_errors_show_as_python_shows_them(tmp_path, text):
    """The same words on stderr and the same exit code as without us."""
    plain = text.replace("import torch\n", "import math\n")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "train.py").write_text(plain)
    as_python = subprocess.run([sys.executable, "job/train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    _, err = run(tmp_path, text, expect=as_python.returncode)
    assert err == as_python.stderr


def test_modules_and_usage(tmp_path):
    text = "import sys, torch\nprint(__name__, sys.argv[1:], __spec__.name, torch.ones(1).item())\n"
    (tmp_path / "train.py").write_text(text)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "disttorch.as_torch"]
    for arguments, code, said in (
        (["-m", "train", "--lr"], 0, "__main__ ['--lr'] train 1.0"),
        ([], 2, "usage:"),
        (["-m"], 2, "usage:"),
        (["--help"], 0, "usage:"),
        (["not_there.py"], 2, "there is no script not_there.py"),
    ):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code
        assert said in done.stdout + done.stderr


def test_an_installed_pytorch_is_left_alone(tmp_path):
    """Found before it, never imported; and other processes have their own."""
    text = "import sys, subprocess, torch\nprint(torch.nn.Linear.__module__, [m for m in sys.modules if m.startswith('torch._')])\n"
    text += "code = 'import importlib.util as u; s = u.find_spec(\"torch\"); print(s is not None and \"as_torch\" in str(s.origin))'\n"
    text += "print(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip())\n"
    assert run(tmp_path, text)[0] == "disttorch.nn.linear []\nFalse\n"


def test_after_pytorch_it_is_refused():
    pytest.importorskip("torch")
    code = "import torch, disttorch.as_torch as a\ntry:\n    a.install()\nexcept RuntimeError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert "PyTorch itself is imported already" in done.stdout


def test_modules_keep_their_own_specs(tmp_path):
    """The import system writes to the modules that it loads; what disttorch is under its own name must not change by that."""
    text = (
        "import disttorch.nn, json, torch, torch.nn as a, torch.nn.functional as b, importlib\n"
        "print(json.dumps([a.__name__, a.__spec__.name, b.__spec__.name, disttorch.__version__ == torch.__version__,\n"
        "  a is disttorch.nn, torch.nn is disttorch.nn, torch.Tensor is disttorch.Tensor, 'nn' in dir(torch), torch.__name__]))\n"
        "torch.my_own = 5\nprint(disttorch.my_own)\nimportlib.reload(b)\n"
    )
    out = run(tmp_path, text)[0].splitlines()
    assert json.loads(out[0]) == ["disttorch.nn", "disttorch.nn", "disttorch.nn.functional", False, True, True, True, True, "torch"]
    assert out[1] == "5"


RANKS = """
import sys
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
t = torch.ones(1) * dist.get_rank()
dist.all_reduce(t)
if dist.get_rank() == 1:
    raise ValueError(f"sum {t.item()} {sys.argv[1:]}")
dist.barrier()
"""


def test_under_dlaunch(tmp_path):
    _, err = run(tmp_path, RANKS, "--lr", expect=1, command=("-m", "launcher", "-n", "2", "--as-torch"))
    assert "ValueError: sum 1.0 ['--lr']" in err.splitlines()[-1]
    assert "as_torch" not in err.replace("ranks", "")  # the traceback begins in the script
