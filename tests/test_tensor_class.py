"""The Tensor class as users meet it: old type names, constructors, subclasses, elements as Python's, storage."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import disttorch


class Marked(disttorch.Tensor):
    """A user's subclass with something of its own."""

    def __new__(cls, data, label=""):
        made = super().__new__(cls, data)
        made.label = label
        return made

    def shout(self):
        return self.label.upper()


def test_constructors():
    assert disttorch.Tensor([1, 2]).dtype is disttorch.float32 and disttorch.Tensor(2, 3).shape == (2, 3)
    assert disttorch.Tensor().shape == (0,) and disttorch.Tensor(disttorch.Size([4])).shape == (4,)
    assert disttorch.LongTensor([1.9]).tolist() == [1] and disttorch.BoolTensor(2).dtype is disttorch.bool
    x = disttorch.ones(2)
    alias = disttorch.FloatTensor(x)
    alias[0] = 5
    assert x[0].item() == 5
    with pytest.raises(TypeError, match="float64"):
        disttorch.FloatTensor(disttorch.ones(2, dtype=disttorch.float64))
    with pytest.raises(TypeError, match="float"):
        disttorch.Tensor(3.5)
    assert x.new([1, 2]).dtype is disttorch.float32 and x.new(3).shape == (3,)


def test_type_names():
    x = disttorch.ones(2)
    assert x.type() == "torch.FloatTensor" and x.to(disttorch.bfloat16).type() == "torch.BFloat16Tensor"
    for wanted in ("torch.LongTensor", "disttorch.LongTensor", disttorch.LongTensor, disttorch.int64, int):
        assert x.type(wanted).dtype is disttorch.int64
    assert isinstance(x, disttorch.FloatTensor) and not isinstance(x, disttorch.LongTensor)
    with pytest.raises(ValueError, match="'FooTensor'"):
        x.type("FooTensor")


def test_subclasses():
    x = Marked([1.0, 2.0], label="loud")
    assert isinstance(x, Marked) and x.shout() == "LOUD" and x.tolist() == [1.0, 2.0]
    for result in (x + 1, 1 - x, -x, x.sum(), x[0], x.reshape(2, 1), x.max(0).values, x.split(1)[0], x.clone(), x.detach(), x @ x):
        assert type(result) is Marked
    assert type(x == x) is Marked and type(x.size()) is disttorch.Size and isinstance(x[0].item(), float)
    assert x.add_(1) is x
    plain = disttorch.ones(3, requires_grad=True) * 2
    cast = plain.as_subclass(Marked)
    assert type(cast) is Marked and cast.data_ptr() == plain.data_ptr()
    cast.sum().backward()
    with pytest.raises(TypeError, match="int"):
        plain.as_subclass(int)
    made = disttorch.Tensor._make_subclass(Marked, disttorch.zeros(2), True)
    assert type(made) is Marked and made.requires_grad and made.is_leaf
    parameter = disttorch.nn.Parameter(disttorch.ones(2))
    assert type(parameter * 2) is disttorch.Tensor


def test_gradients_through_subclasses():
    x = disttorch.Tensor._make_subclass(Marked, disttorch.tensor([1.0, 2.0]), True)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


def test_python_functions_elementwise():
    x = disttorch.arange(3.0)
    assert x.apply_(lambda v: v * v) is x and x.tolist() == [0.0, 1.0, 4.0]
    assert x.map_(disttorch.ones(3), lambda a, b: a - b).tolist() == [-1.0, 0.0, 3.0]
    assert x.map2_(disttorch.ones(3), disttorch.tensor(2.0), lambda a, b, c: a + b * c).tolist() == [1.0, 2.0, 5.0]
    y = disttorch.zeros(2, 3).t().apply_(lambda v: 1)
    assert y.sum().item() == 6
    with pytest.raises(RuntimeError, match="requires grad"):
        disttorch.zeros(2, requires_grad=True).apply_(lambda v: v)


def test_numpy_functions_give_tensors():
    x = disttorch.tensor([0.0, 4.0])
    assert isinstance(np.sqrt(x), disttorch.Tensor) and np.sqrt(x).tolist() == [0.0, 2.0]


def test_formats():
    assert f"{disttorch.tensor(1.5)} {disttorch.tensor(2):03d}" == "1.5 002" and f"{disttorch.tensor([1])}" == "tensor([1])"
    with pytest.raises(TypeError):
        format(disttorch.tensor([1.5]), ".2f")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_memory_shared_with_processes():

    x = disttorch.zeros(3).share_memory_()
    assert x.is_shared() and not disttorch.zeros(3).is_shared()
    child = os.fork()
    if not child:
        x[1] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert x.tolist() == [0.0, 7.0, 0.0]
    assert not x.is_pinned() and x.pin_memory().tolist() == x.tolist()


SHARING = """
import torch
import torch.multiprocessing as mp


def work(model, views, there, back):
    assert model.first.weight is model.second.weight and isinstance(model.first.weight, torch.nn.Parameter)
    mine = torch.zeros(2).share_memory_()
    back.put(mine)
    views = [*views, there.get()]
    with torch.no_grad():
        model.first.weight.add_(5)
        model.norm.running_mean.fill_(2)
        for view in views:
            view.add_(1)
    mine[0] = 7
    back.put(None)
    there.get()


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = torch.nn.Linear(2, 2, False), torch.nn.Linear(2, 2, False), torch.nn.BatchNorm1d(2)
        self.second.weight = self.first.weight


if __name__ == "__main__":
    context = mp.get_context("METHOD")
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    torch.nn.init.zeros_(model.first.weight)
    model.share_memory()
    matrix = torch.zeros(3, 4, dtype=torch.bfloat16).share_memory_()
    number, later = torch.tensor(1.5).share_memory_(), torch.zeros(3).share_memory_()
    there, back = context.Queue(), context.Queue()
    process = context.Process(target=work, args=(model, [matrix.t()[1:3, ::2], number], there, back))
    process.start()
    there.put(later[1:])
    theirs = back.get()
    back.get()
    print(theirs.tolist(), theirs.is_shared(), model.second.weight.tolist(), model.norm.running_mean.tolist(), number.item())
    print(matrix.tolist(), later.tolist(), model.first.weight.untyped_storage().nbytes())
    model.first.weight.grad = torch.ones(2, 2)
    optimizer.step()
    print(model.second.weight.tolist())
    there.put(None)
    process.join()
    print(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("library", ["disttorch", "torch"])
def test_tensors_in_shared_memory_are_not_copied_to_processes(library, method, tmp_path):
    if library == "torch":
        pytest.importorskip("torch")
    script = tmp_path / "script.py"
    script.write_text(SHARING.replace("METHOD", method))
    command = [sys.executable, *([] if library == "torch" else ["-m", "disttorch.as_torch"]), script]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "[7.0, 0.0] True [[5.0, 5.0], [5.0, 5.0]] [2.0, 2.0] 2.5",
        "[[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]] [0.0, 1.0, 1.0] 16",
        "[[4.0, 4.0], [4.0, 4.0]]",
        "0",
    ]


@pytest.mark.parametrize("copied", [lambda t: pickle.loads(pickle.dumps(t)), copy.copy, copy.deepcopy])
def test_copies_of_tensors_in_shared_memory(copied):
    shared = disttorch.arange(6.0).reshape(2, 3).share_memory_()
    result = copied(shared.t())
    assert result.tolist() == [[0, 3], [1, 4], [2, 5]] and result.is_shared() == (copied is copy.copy)


def test_storage():
    x = disttorch.tensor([1, 2], dtype=disttorch.int16)
    storage = x[1:].untyped_storage()
    assert storage.tolist() == [1, 0, 2, 0] and len(storage) == 4 and storage == x.untyped_storage()
    assert storage != disttorch.zeros(2).untyped_storage() and hash(storage) == hash(x.untyped_storage())


def test_storage_of_a_file(tmp_path):
    path = tmp_path / "bytes"
    path.write_bytes(b"abcdef")
    private = disttorch.UntypedStorage.from_file(path, False, 4)
    assert (len(private), private[0], private[1:3].tolist(), private.untyped() is private) == (4, 97, [98, 99], True)
    private[:2].fill_(0)
    assert private.tolist() == [0, 0, 99, 100] and path.read_bytes() == b"abcdef"
    shared = disttorch.UntypedStorage.from_file(str(path), shared=True, nbytes=8)
    shared[5:7].fill_(120)
    assert path.read_bytes() == b"abcdexx\0"
    assert disttorch.UntypedStorage.from_file(path).nbytes() == 0
    with pytest.raises(RuntimeError, match="it has 8 bytes, and 9 are asked for"):
        disttorch.UntypedStorage.from_file(path, nbytes=9)


@pytest.mark.parametrize("name", ["meta", "mps", "xpu"])
def test_devices_that_can_be_named(name):
    where = disttorch.device(name, 0)
    assert (str(where), where.type, disttorch.ones(1).device == disttorch.device(name)) == (f"{name}:0", name, False)
    for make in (lambda: disttorch.ones(1, device=where), lambda: disttorch.ones(1).to(name), lambda: disttorch.set_default_device(name)):
        with pytest.raises(RuntimeError, match=f"device '{name}.*': no tensor can be there; there are cpu and cuda"):
            make()


def test_the_cpu_as_an_accelerator():
    cpu = disttorch.cpu
    assert cpu.is_initialized() and cpu.set_device(0) is None and isinstance(cpu.current_stream(), cpu.Stream)
    with cpu.stream(cpu.Stream()) as nothing:
        cpu.current_stream().wait_stream(cpu.Stream())
    assert nothing is None and cpu.Stream().wait_event(cpu.Stream().record_event()) is None


def test_dtypes_of_mixed_data():
    assert disttorch.tensor([disttorch.tensor(1), 2.5]).dtype is disttorch.float32
    small = [disttorch.tensor(1, dtype=disttorch.int8), disttorch.tensor(2, dtype=disttorch.int16)]
    assert disttorch.tensor(small).dtype is disttorch.int16
    assert disttorch.tensor(-1, dtype=disttorch.uint8).item() == 255
    for wrong in (300, [300]):
        with pytest.raises(RuntimeError, match="overflow"):
            disttorch.tensor(wrong, dtype=disttorch.uint8)
    with pytest.raises(ValueError, match="64 bits"):
        disttorch.tensor(2**64)


def test_asarray_and_frombuffer():
    a = np.arange(3.0)
    assert disttorch.asarray(a).data_ptr() == a.__array_interface__["data"][0]
    assert disttorch.asarray(a, copy=True).data_ptr() != a.__array_interface__["data"][0]
    with pytest.raises(ValueError, match="alias"):
        disttorch.asarray(a, dtype=disttorch.float32, copy=False)
    with pytest.raises(ValueError, match="alias"):
        disttorch.asarray([1, 2], copy=False)
    block = bytearray(np.arange(4, dtype=np.int32).tobytes())
    x = disttorch.frombuffer(block, dtype=disttorch.int32, count=2, offset=4)
    assert x.tolist() == [1, 2]
    x[0] = 9
    assert np.frombuffer(block, np.int32).tolist() == [0, 9, 2, 3]
    for options in ({"offset": 3}, {"count": 5}, {"offset": 16}):
        with pytest.raises(ValueError, match="buffer length"):
            disttorch.frombuffer(block, dtype=disttorch.int32, **options)


def test_pickled_subclasses():
    assert pickle.loads(pickle.dumps(disttorch.nn.Parameter(disttorch.ones(2)))).requires_grad
