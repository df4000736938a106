"""Tensors among other libraries' arrays: NumPy's functions, DLPack, array interfaces, SciPy, pickles, copies, processes."""

import copy
import io
import multiprocessing
import pickle

import ml_dtypes
import numpy as np
import pytest
import scipy.linalg
import scipy.stats

import disttorch as torch
from disttorch.backend.dtypes import DTYPES

NAMES = [d.name for d in DTYPES.values()]


def tensor(name, shape=(2, 3)):
    return torch.arange(6).reshape(shape).to(getattr(torch, name))


# --- NumPy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_as_a_numpy_array_on_the_same_memory(name):
    x = tensor(name)
    for array in (np.asarray(x), x.numpy(), x.__array__(), np.array(x, copy=False)):
        assert array.dtype == x.dtype.numpy
        assert np.shares_memory(array, x.numpy())
    assert not np.shares_memory(np.array(x), x.numpy())
    back = torch.from_numpy(np.asarray(x))
    assert back.dtype is x.dtype
    assert back.data_ptr() == x.data_ptr()
    assert torch.as_tensor(np.asarray(x)).data_ptr() == x.data_ptr()


def test_numpy_functions_take_tensors():
    x = torch.tensor([[1.0, 4.0], [9.0, 16.0]])
    root = np.sqrt(x)
    assert type(root) is torch.Tensor
    assert root.tolist() == [[1, 2], [3, 4]]
    assert float(np.mean(x)) == 7.5
    assert np.concatenate([x, x]).shape == (4, 2)
    np.testing.assert_array_equal(np.linalg.inv(x).numpy(), np.linalg.inv(x.numpy()))
    mixed = np.ones((2, 2), "f") + x
    assert type(mixed) is torch.Tensor  # ours decides
    assert mixed.tolist() == [[2, 5], [10, 17]]
    array = np.arange(4.0)
    array[torch.tensor([1, 2])] = 7
    assert array.tolist() == [0, 7, 7, 3]
    assert np.arange(5)[torch.tensor(3)] == 3


def test_what_must_not_become_an_array():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"Use tensor.detach\(\).numpy\(\)"):
        np.asarray(x)
    assert np.asarray(x.detach()).tolist() == [1, 1]
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(torch.ones(2), dtype="i4", copy=False)
    assert np.asarray(torch.ones(2), dtype="i4").dtype == np.int32
    assert x.numpy(force=True).tolist() == [1, 1]


# --- DLPack ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda x: x, lambda x: x.mT, lambda x: x[:, 1], lambda x: x[0, 0], lambda x: x[:0]])
def test_through_dlpack_and_back(name, change):
    x = change(tensor(name))
    back = torch.from_dlpack(x)
    assert (back.dtype, back.shape) == (x.dtype, x.shape)
    assert x.numel() == 0 or (back.stride(), back.data_ptr()) == (x.stride(), x.data_ptr())
    assert back.tolist() == x.tolist()
    if name != "bfloat16":  # which NumPy does not know
        assert np.from_dlpack(x).tolist() == x.tolist()
        assert torch.from_dlpack(x.numpy()).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("name", NAMES)
def test_with_pytorch(name):
    theirs = pytest.importorskip("torch")
    x = tensor(name).mT
    y = theirs.from_dlpack(x)
    assert (str(y.dtype)[6:], tuple(y.shape), y.stride(), y.data_ptr()) == (name, (3, 2), (1, 3), x.data_ptr())
    z = torch.from_dlpack(y)
    assert (z.dtype, z.data_ptr(), z.tolist()) == (x.dtype, x.data_ptr(), x.tolist())
    z.fill_(1)
    assert y.double().sum().item() == 6 if not y.is_complex() else True
    assert torch.from_dlpack(theirs.ones(2, dtype=getattr(theirs, name))).dtype is x.dtype
    assert torch.utils.dlpack.from_dlpack(theirs.utils.dlpack.to_dlpack(y)).data_ptr() == x.data_ptr()
    assert theirs.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x)).data_ptr() == x.data_ptr()


def test_the_options_of_the_protocol():
    x = torch.arange(3.0)
    assert x.__dlpack_device__() == (1, 0)
    assert torch.from_dlpack(x, copy=True).data_ptr() != x.data_ptr()
    assert torch.from_dlpack(x, copy=False).data_ptr() == x.data_ptr()
    assert torch.from_dlpack(x, device="cpu").data_ptr() == x.data_ptr()
    for options in ({}, {"max_version": (1, 0)}, {"stream": None, "max_version": (1, 1), "dl_device": (1, 0), "copy": None}):
        for y in (x, x.bfloat16()):
            assert torch.utils.dlpack.from_dlpack(y.__dlpack__(**options)).tolist() == [0, 1, 2]
    copied = torch.utils.dlpack.from_dlpack(x.__dlpack__(copy=True, max_version=(1, 0)))
    assert copied.data_ptr() != x.data_ptr()
    with pytest.raises(BufferError, match="no streams on the CPU"):
        x.__dlpack__(stream=3)
    with pytest.raises(BufferError, match="require gradient"):
        torch.ones(1, requires_grad=True).__dlpack__()


def test_a_capsule_is_used_once():
    capsule = torch.ones(2).__dlpack__()
    torch.from_dlpack(capsule)
    with pytest.raises(RuntimeError, match="can be used once"):
        torch.from_dlpack(capsule)
    with pytest.raises(TypeError, match="expected an object with __dlpack__"):
        torch.from_dlpack([1, 2])


def test_memory_lives_as_long_as_someone_needs_it():
    back = [torch.from_dlpack(torch.full((1000,), float(i)).bfloat16()) for i in range(20)]
    junk = [torch.full((1000,), -1.0).bfloat16() for _ in range(20)]
    assert [b[500].item() for b in back] == list(range(20))
    assert len(junk) == 20


def test_memory_that_must_not_be_written():
    array = np.arange(3.0)
    array.flags.writeable = False
    x = torch.from_dlpack(array)
    with pytest.raises(RuntimeError, match="read-only"):
        x.add_(1)
    assert torch.from_dlpack(torch.ones(1).expand(3)).tolist() == [1, 1, 1]


class Older:
    """A library that knows the protocol of before version 1."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Elsewhere(Older):
    def __dlpack_device__(self):
        return 8, 0


def test_other_libraries():
    assert torch.from_dlpack(Older(np.arange(3))).tolist() == [0, 1, 2]
    with pytest.raises(RuntimeError, match="no backend has arrays on DLPack device type 8"):
        torch.from_dlpack(Elsewhere(np.arange(3)))


# --- by other protocols ------------------------------------------------------------------------------------------------


def test_cuda_array_interface_is_for_gpus():
    with pytest.raises(AttributeError, match="for tensors on a GPU"):
        torch.ones(1).__cuda_array_interface__  # noqa: B018
    assert not hasattr(torch.ones(1), "__cuda_array_interface__")


def test_whoever_has_an_array_interface():
    class Has:
        def __init__(self, array):
            self.__array_interface__ = array.__array_interface__
            self.kept = array

    array = np.arange(4.0)
    x = torch.as_tensor(Has(array))
    array[0] = 9
    assert x.tolist() == [9, 1, 2, 3]


def test_buffers():
    assert torch.frombuffer(bytearray(b"\x01\x02"), dtype=torch.uint8).tolist() == [1, 2]
    assert torch.tensor(memoryview(b"\x01\x02")).tolist() == [1, 2]


# --- SciPy, pandas, scikit-learn ---------------------------------------------------------------------------------------


def test_scipy():
    x = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    np.testing.assert_allclose(scipy.linalg.expm(x), torch.matrix_exp(x).numpy(), rtol=1e-10)
    assert scipy.stats.describe(torch.arange(10)).mean == 4.5
    from scipy.optimize import minimize

    found = minimize(lambda v: float(((torch.as_tensor(v) - 3) ** 2).sum()), torch.zeros(2).double())
    np.testing.assert_allclose(found.x, 3, atol=1e-4)


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": torch.arange(3), "b": torch.ones(3)})
    assert list(frame.dtypes) == [np.int64, np.float32]
    assert frame["a"].tolist() == [0, 1, 2]
    series = pandas.Series(torch.arange(3.0))
    assert series.sum() == 3
    assert torch.tensor(series.values).tolist() == [0, 1, 2]
    assert torch.as_tensor(frame["b"].to_numpy()).dtype is torch.float32
    assert torch.tensor(frame["a"]).tolist() == [0, 1, 2]


def test_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = torch.arange(20.0).reshape(10, 2)
    fitted = linear_model.LinearRegression().fit(x, x.sum(1))
    np.testing.assert_allclose(fitted.predict(x), x.sum(1).numpy(), rtol=1e-4)


# --- pickles, copies, processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickles(name, protocol):
    for x in (tensor(name), tensor(name).mT, torch.zeros(0, 2), torch.tensor(3.0, requires_grad=True)):
        y = pickle.loads(pickle.dumps(x, protocol))
        assert (y.dtype, y.shape, y.requires_grad) == (x.dtype, x.shape, x.requires_grad)
        assert y.tolist() == x.tolist()
    both = pickle.loads(pickle.dumps([torch.nn.Parameter(torch.ones(2)), torch.float32, torch.device("cpu"), torch.Size([1, 2])], protocol))
    assert type(both[0]) is torch.nn.Parameter
    assert both[1:] == [torch.float32, torch.device("cpu"), torch.Size([1, 2])]
    assert both[1] is torch.float32


def test_copies():
    x = torch.ones(2)
    shallow, deep = copy.copy(x), copy.deepcopy([x, x])
    shallow.add_(1)
    assert x.tolist() == [2, 2]
    assert deep[0] is deep[1]
    deep[0].add_(1)
    assert x.tolist() == [2, 2]


def _double(connection):
    x = connection.recv()
    connection.send((x * 2, torch.nn.Linear(2, 2).state_dict()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(method):
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_double, args=(theirs,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        process.start()
    ours.send(tensor("bfloat16"))
    doubled, state = ours.recv()
    process.join()
    assert doubled.tolist() == (tensor("bfloat16") * 2).tolist()
    assert state["weight"].shape == (2, 2)


def test_saving_numpy_and_ml_dtypes_arrays():
    file = io.BytesIO()
    torch.save({"a": np.arange(3).astype(ml_dtypes.bfloat16)}, file)
    file.seek(0)
    assert torch.load(file)["a"].dtype == ml_dtypes.bfloat16
