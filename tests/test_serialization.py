"""Saving and loading: what comes back, what other programs read, what damage is told, what a failure leaves behind."""

import errno
import gzip
import io
import json
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import disttorch as torch
from disttorch.backend.dtypes import DTYPES
from disttorch.serialization import container

NAMES = [d.name for d in DTYPES.values()]
RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    """What is asked of the system at the end of a save, in order; a disk would take 10 ms for each file."""
    log, replace = [], os.replace

    def fsync(descriptor):
        log.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def recorded(source, target):
        log.append(("replace", source, target, os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(container.os, "fsync", fsync)
    monkeypatch.setattr(container.os, "replace", recorded)
    return log


def values(dtype, shape):
    """Random bits that are elements of a dtype, without NaN."""
    numbers = RNG.integers(0, 2 if dtype == "bool" else 100, shape)
    if dtype.startswith("complex"):
        numbers = numbers + 1j * RNG.integers(0, 100, shape)
    return numbers.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def tensor(dtype, shape):
    return torch.as_tensor(values(dtype, shape))


def round_trip(obj, path, **options):
    torch.save(obj, path)
    return torch.load(path, **options)


def same(a, b):
    """Equal in types, shapes, bits, structure and order."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad)
        same(a.detach().numpy(), b.detach().numpy())
    elif isinstance(a, (np.ndarray, np.generic)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    elif isinstance(a, dict):
        assert len(a) == len(b)
        for (ka, va), (kb, vb) in zip(a.items(), b.items()):
            same(ka, kb)
            same(va, vb)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for va, vb in zip(a, b):
            same(va, vb)
    elif isinstance(a, (float, complex)):
        assert repr(a) == repr(b)
    else:
        assert a == b
    return True


# --- what comes back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (4, 3, 2)])
@pytest.mark.parametrize("dtype", NAMES)
def test_every_dtype_and_shape(tmp_path, dtype, shape, mmap):
    t = tensor(dtype, shape)
    same(round_trip(t, tmp_path / "f", mmap=mmap), t)
    same(round_trip({"t": t}, tmp_path / "f", mmap=mmap), {"t": t})


OBJECTS = [
    None, True, 0, -1, 2**200, 0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"), 1 / 3,
    3j, complex(float("nan"), -0.0), "", "text", "\u20ac \U0001f600 \0 \ud800", b"", bytes(range(256)),
    [], (), {}, set(), frozenset(), [[], [()], {}], (1, (2, [3])), {1, 2, 3}, frozenset({(1, "a"), None}),
    OrderedDict(b=1, a=2), OrderedDict(), {"z": 1, "a": {"y": [None]}},
    {1: "int", "1": "str", 1.5: "float", None: "None", (1, "a"): "tuple", b"k": "bytes", False: "bool"},
    torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda", 3), torch.Size([2, 3]), torch.Size([]),
    np.float64(0.1), np.float32(0.1), np.int8(-3), np.bool_(True), np.complex128(1j),
    np.arange(6).reshape(2, 3), np.zeros(0, np.float32), np.array(3), np.arange(3, dtype=">i4").astype("<i4"),
    torch.ones(2, requires_grad=True), [torch.ones(1)] * 0,
    {"tensor": 1, "view": 2, "__metadata__": 3}, {"dict": []}, {"version": 1},
]  # fmt: skip


# The order of a set's elements, and so its repr, changes from one process to the next.
@pytest.mark.parametrize("obj", OBJECTS, ids=lambda obj: None if isinstance(obj, frozenset) else repr(obj))
def test_objects(tmp_path, obj):
    same(round_trip(obj, tmp_path / "f"), obj)
    same(round_trip({"x": [obj]}, tmp_path / "f"), {"x": [obj]})


def checkpoint():
    weight = torch.randn(4, 3)
    return {
        "epoch": 3,
        "model": OrderedDict([("layer.weight", weight), ("layer.bias", torch.zeros(4)), ("tied", weight)]),
        "optimizer": {
            "state": {0: {"step": torch.tensor(5.0), "exp_avg": torch.randn(4, 3)}, 1: {"step": torch.tensor(5.0)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "foreach": None}],
        },
        "rng": torch.get_rng_state(),
        "history": [(0, 2.5), (1, float("nan"))],
    }


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint(tmp_path, mmap):
    saved = checkpoint()
    loaded = round_trip(saved, tmp_path / "f", mmap=mmap)
    same(loaded, saved)
    assert loaded["model"]["tied"] is loaded["model"]["layer.weight"]


def test_what_is_loaded_is_ones_own(tmp_path):
    for mmap in (False, True):
        loaded = round_trip({"w": torch.ones(3)}, tmp_path / "f", mmap=mmap)
        loaded["w"].mul_(5)
        assert torch.load(tmp_path / "f")["w"].tolist() == [1, 1, 1]


def test_a_tensor_that_was_computed_is_saved_without_its_graph(tmp_path):
    x = torch.ones(2, requires_grad=True)
    loaded = round_trip(x * 2, tmp_path / "f")
    assert loaded.is_leaf
    assert loaded.requires_grad
    assert loaded.tolist() == [2, 2]


@pytest.mark.parametrize("make", [lambda x: x.t(), lambda x: x[:, 1], lambda x: x[::2], lambda x: x[1:2].expand(3, 4)])
def test_tensors_that_are_not_contiguous(tmp_path, make):
    t = make(torch.randn(4, 4))
    same(round_trip(t, tmp_path / "f"), t)


def test_other_byte_orders(tmp_path):
    loaded = round_trip(np.arange(3, dtype=">i4"), tmp_path / "f")
    assert loaded.dtype == np.dtype("int32")
    assert loaded.tolist() == [0, 1, 2]


# --- memory that is shared ------------------------------------------------------------------------------------------

SHARED = {
    "the same tensor": lambda x: [x, x],
    "the same memory": lambda x: [x, x.detach()],
    "a part first": lambda x: [x[2:4], x],
    "other shape": lambda x: [x, x.view(2, 6), x.view(12)],
    "transposed": lambda x: [x.view(3, 4).t(), x.view(3, 4)],
    "overlapping": lambda x: [x[0:7], x[5:12]],
    "interleaved": lambda x: [x[0::2], x[1::2]],
    "repeated": lambda x: [x, x[:1].expand(5)],
    "backwards": lambda x: [torch.from_numpy(x.numpy()[::-1]), x],
    "array and tensor": lambda x: [x.numpy(), x],
    "nested": lambda x: {"a": {"b": x}, "c": (x[1:],)},
}


def leaves(obj):
    if isinstance(obj, dict):
        obj = list(obj.values())
    return [leaf for o in obj for leaf in leaves(o)] if isinstance(obj, (list, tuple)) else [obj]


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "complex128", "bool", "bfloat16"])
@pytest.mark.parametrize("name", SHARED)
def test_memory_is_saved_once_and_shared_again(tmp_path, name, dtype, mmap):
    x = tensor(dtype, (12,))
    saved = SHARED[name](x)
    torch.save(saved, tmp_path / "f")
    _, data = parts((tmp_path / "f").read_bytes())
    assert len(data) == x.nbytes
    loaded = torch.load(tmp_path / "f", mmap=mmap)
    same(loaded, saved)
    # Whatever is written to one is seen in all as it would have been in those that were saved.
    new = values(dtype, ())
    for some in (saved, loaded):
        first = leaves(some)[0]
        first[0] = torch.as_tensor(new) if isinstance(first, torch.Tensor) else new
    same(loaded, saved)


def test_views_of_other_dtypes_share_too(tmp_path):
    x = np.arange(4, dtype=np.float32)
    words, wide = round_trip([x.view(np.int16)[1:], x], tmp_path / "f")
    wide[1] = 9.0
    assert words.tolist() == np.array([0, 9, 2, 3], np.float32).view(np.int16)[1:].tolist()


def test_parts_of_a_flat_buffer_are_saved_each_for_itself(tmp_path):
    flat = torch.arange(10.0)
    state = {"w": flat[2:6].view(2, 2), "b": flat[6:8]}
    same(round_trip(state, tmp_path / "f"), state)
    assert set(safetensors.numpy.load_file(tmp_path / "f")) == {"w", "b"}
    assert (tmp_path / "f").stat().st_size < 300


# --- other programs -------------------------------------------------------------------------------------------------


def parts(raw):
    """Header and data of a file, by the format's definition."""
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def test_a_dict_of_tensors_is_a_plain_file(tmp_path):
    state = {f"layer.{name}": tensor(name, (3, 2)) for name in NAMES if name not in ("complex128", "bfloat16")}
    torch.save(state, tmp_path / "f")
    header, _ = parts((tmp_path / "f").read_bytes())
    assert header.pop("__metadata__") == {"format": "pt"}
    assert list(header) == list(state)
    elsewhere = safetensors.numpy.load_file(tmp_path / "f")
    assert set(elsewhere) == set(state)
    for name, array in elsewhere.items():
        same(array, state[name].numpy())


def test_pytorch_reads_our_files(tmp_path):
    theirs = pytest.importorskip("safetensors.torch")
    state = {"half": tensor("bfloat16", (3,)), "word": tensor("uint16", (2, 2)), "flag": tensor("bool", (3,))}
    torch.save(state, tmp_path / "f")
    for name, t in theirs.load_file(tmp_path / "f").items():
        assert str(t.dtype).split(".")[1] == state[name].dtype.name
        assert t.tolist() == state[name].tolist()


def test_names_in_structured_files(tmp_path):
    torch.save({"a": {"b": [torch.ones(1), torch.ones(2)]}, "a.b": torch.ones(4), "a.b.0": torch.ones(3)}, tmp_path / "f")
    elsewhere = safetensors.numpy.load_file(tmp_path / "f")
    assert {name: a.size for name, a in elsewhere.items()} == {"a.b.0": 1, "a.b.1": 2, "a.b": 4, "a.b.0#2": 3}


def test_a_name_that_the_format_keeps_for_itself(tmp_path):
    state = {"__metadata__": torch.ones(2), "": torch.zeros(1), "\ud800": torch.zeros(3)}
    same(round_trip(state, tmp_path / "f"), state)
    assert len(safetensors.numpy.load_file(tmp_path / "f")) == 3


@pytest.mark.parametrize("mmap", [False, True])
def test_files_of_others_are_dicts_of_tensors(tmp_path, mmap):
    arrays = {name: values(name, (3, 5)) for name in NAMES if name not in ("bfloat16", "complex128")}
    arrays["scalar"], arrays["empty"] = np.array(2.5), np.zeros((0, 3), np.float32)
    safetensors.numpy.save_file(arrays, tmp_path / "f", metadata={"author": "somebody"})
    loaded = torch.load(tmp_path / "f", mmap=mmap)
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        same(loaded[name].numpy(), array)


@pytest.mark.parametrize("mmap", [False, True])
def test_data_that_is_not_aligned(tmp_path, mmap):
    numbers = np.arange(3.0)
    header = {
        "b": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "d": {"dtype": "F64", "shape": [3], "data_offsets": [3, 27]},
    }
    (tmp_path / "f").write_bytes(assemble(header, b"abc" + numbers.tobytes()))
    loaded = torch.load(tmp_path / "f", mmap=mmap)
    assert loaded["d"].tolist() == [0, 1, 2]
    loaded["d"].add_(1)


def test_bytes_that_are_no_bools_become_bools(tmp_path):
    header = {"b": {"dtype": "BOOL", "shape": [3], "data_offsets": [0, 3]}}
    (tmp_path / "f").write_bytes(assemble(header, b"\0\1\xff"))
    assert torch.load(tmp_path / "f")["b"].numpy().view(np.uint8).tolist() == [0, 1, 1]


# --- file objects and places -----------------------------------------------------------------------------------------


class InPieces(io.RawIOBase):
    """A file that takes and gives a few bytes at a time, and cannot seek."""

    def __init__(self, inner):
        self.inner = inner

    def readable(self):
        return True

    def writable(self):
        return True

    def readinto(self, buffer):
        return self.inner.readinto(memoryview(buffer)[:5])

    def write(self, data):
        return self.inner.write(memoryview(data)[:7])


class OnlyRead:
    def __init__(self, raw):
        self.inner = io.BytesIO(raw)

    def read(self, n):
        return self.inner.read(min(n, 3))


def test_file_objects(tmp_path):
    saved = checkpoint()
    memory = io.BytesIO(b"before")
    memory.seek(6)
    torch.save(saved, memory)
    torch.save([1], memory)
    memory.seek(6)
    same(torch.load(memory), saved)
    same(torch.load(memory), [1])
    pieces = io.BytesIO()
    torch.save(saved, InPieces(pieces))
    assert pieces.getvalue() == memory.getvalue()[6 : 6 + len(pieces.getvalue())]
    pieces.seek(0)
    same(torch.load(InPieces(pieces)), saved)
    same(torch.load(OnlyRead(pieces.getvalue())), saved)
    with gzip.open(tmp_path / "f.gz", "wb") as file:
        torch.save(saved, file)
    with gzip.open(tmp_path / "f.gz") as file:
        same(torch.load(file), saved)


def test_through_a_socket():
    saved = {"w": torch.randn(100_000)}
    one, other = socket.socketpair()
    writer = threading.Thread(target=lambda: (torch.save(saved, one.makefile("wb", 0)), one.close()))
    writer.start()
    same(torch.load(other.makefile("rb")), saved)
    writer.join()
    other.close()


def test_mmap_needs_a_path():
    with pytest.raises(ValueError, match="mmap=True needs a path"):
        torch.load(io.BytesIO(), mmap=True)


@pytest.mark.parametrize(
    "where",
    [
        "cpu",
        torch.device("cpu"),
        {"cpu": "cpu"},
        {"cuda:0": "cpu"},
        lambda t, location: None,
        lambda t, location: t,
    ],
)
def test_map_location(tmp_path, where):
    same(round_trip([torch.ones(2)], tmp_path / "f", map_location=where), [torch.ones(2)])


def test_map_location_may_compute(tmp_path):
    seen = []

    def ask(t, location):
        seen.append(location)
        return t.double()

    x = torch.ones(3)
    a, _ = round_trip([x, x[1:]], tmp_path / "f", map_location=ask)
    assert (a.dtype, a.tolist()) == (torch.float64, [1, 1, 1])
    assert seen == ["cpu"]


def saved_from_gpu(tmp_path):
    raw = assemble(
        {
            "w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
            "__metadata__": {
                "disttorch": json.dumps(
                    {
                        "version": 1,
                        "structure": [
                            {"tensor": "w", "device": "cuda:5"},
                            {"tensor": "w", "device": "cuda:5", "view": ["float32", [2], [4], 4]},
                        ],
                    }
                )
            },
        },
        np.array([1, 2, 3], np.float32).tobytes(),
    )
    (tmp_path / "f").write_bytes(raw)
    return tmp_path / "f"


def test_a_device_that_is_not_here(tmp_path):
    with pytest.raises(RuntimeError, match=r"saved from 'cuda:5', which is not here.*map_location='cpu'"):
        torch.load(saved_from_gpu(tmp_path))


@pytest.mark.parametrize("where", ["cpu", {"cuda:5": "cpu"}, lambda t, location: t if location == "cuda:5" else None])
def test_a_tensor_of_a_device_that_is_not_here_goes_elsewhere(tmp_path, where):
    whole, part = torch.load(saved_from_gpu(tmp_path), map_location=where)
    whole[2] = 9.0
    assert part.tolist() == [2.0, 9.0]


# --- what cannot be saved -------------------------------------------------------------------------------------------


class Module:
    def state_dict(self):
        return {}


REFUSED = [
    ({"optimizer": {"hook": lambda: None}}, r"obj\['optimizer'\]\['hook'\] is a function, which cannot be saved"),
    ({"a": [1, (2, object())]}, r"obj\['a'\]\[1\]\[1\] is of type object"),
    (Module(), r"obj is of type Module, .*save its state_dict\(\) instead"),
    ({(1, object): 2}, r"\(the key\)\[1\] is of type type"),
    ([defaultdict(list)], r"obj\[0\] is of type defaultdict.*convert it to a plain dict"),
    (Counter("a"), "Counter.*convert it to a plain dict"),
    ([np.array(["a"])], r"obj\[0\] is an array of <U1"),
    ([np.datetime64(0, "s")], r"obj\[0\] is of type datetime64"),
    ({"x": io.BytesIO()}, r"obj\['x'\] is of type BytesIO"),
]


@pytest.mark.parametrize(("obj", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path, obj, message):
    (tmp_path / "f").write_bytes(b"before")
    with pytest.raises(TypeError, match=message):
        torch.save(obj, tmp_path / "f")
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_bytes() == b"before"


def test_what_contains_itself(tmp_path):
    obj = {"a": []}
    obj["a"].append(obj)
    with pytest.raises(TypeError, match=r"obj\['a'\]\[0\] contains itself"):
        torch.save(obj, tmp_path / "f")


# --- damage ---------------------------------------------------------------------------------------------------------


def assemble(header, data):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_ends_anywhere_is_truncated(tmp_path, mmap):
    torch.save({"w": torch.arange(5.0), "n": 3}, tmp_path / "f")
    raw = (tmp_path / "f").read_bytes()
    for length in range(len(raw)):
        (tmp_path / "g").write_bytes(raw[:length])
        with pytest.raises(RuntimeError, match="is truncated" if length else "is empty") as error:
            torch.load(tmp_path / "g", mmap=mmap)
        assert str(tmp_path / "g") in str(error.value)
        with pytest.raises(RuntimeError, match="is truncated" if length else "is empty"):
            torch.load(io.BytesIO(raw[:length]))


def test_where_a_stream_ends_is_told():
    file = io.BytesIO()
    torch.save({"w": torch.arange(5.0)}, file)
    with pytest.raises(RuntimeError, match=r"it ends in tensor 'w', 8 bytes before that tensor's 20 are over"):
        torch.load(io.BytesIO(file.getvalue()[:-8]))


def test_something_appended(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "f")
    with open(tmp_path / "f", "ab") as file:
        file.write(b"x")
    with pytest.raises(RuntimeError, match="something was appended"):
        torch.load(tmp_path / "f")


def test_any_changed_byte_gives_an_error_or_an_object(tmp_path):
    """Never a crash, and never another exception than that of a bad file."""
    x = torch.arange(4.0)
    torch.save({"a": x, "b": x[1:3], "c": (1, b"x", 2j, torch.Size([1]), torch.float32)}, tmp_path / "f")
    raw = (tmp_path / "f").read_bytes()
    refused = 0
    for position in range(len(raw) - x.nbytes):
        for bit in (0, 1, 4, 6, 7):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            (tmp_path / "g").write_bytes(changed)
            try:
                repr(torch.load(tmp_path / "g"))
            except RuntimeError as error:
                refused += str(error).startswith("load: ")
    assert refused > len(raw)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def structured(structure, version=1):
    return {"__metadata__": {"disttorch": json.dumps({"version": version, "structure": structure})}, "w": ENTRY}


DAMAGED = [
    (assemble(b"{not json", b""), "header is not JSON"),
    (assemble(b"[" * 100_000, b""), "header is not JSON"),
    (assemble(b"[]", b""), "no JSON object"),
    (assemble({"w": 3}, b""), "tensor 'w' has the fields 3"),
    (assemble({"w": ENTRY | {"shape": [2, -1]}}, b"x" * 8), "tensor 'w' has the fields"),
    (assemble({"w": ENTRY | {"shape": [2.0]}}, b"x" * 8), "tensor 'w' has the fields"),
    (assemble({"w": ENTRY | {"shape": "2"}}, b"x" * 8), "tensor 'w' has the fields"),
    (assemble({"w": ENTRY | {"shape": [1 << 62, 4]}}, b"x" * 8), "tensor 'w' of shape"),
    (assemble({"w": ENTRY | {"shape": [3]}}, b"x" * 8), r"tensor 'w' of shape \[3\] and disttorch.float32 has 8 bytes"),
    (assemble({"w": ENTRY | {"data_offsets": [8, 0]}}, b"x" * 8), "tensor 'w'"),
    (assemble({"w": ENTRY | {"data_offsets": [4, 12]}}, b"x" * 12), "begins at byte 4 of the data, not at 0"),
    (assemble({"w": ENTRY, "v": ENTRY}, b"x" * 8), "begins at byte 0 of the data, not at 8"),
    (assemble({"w": ENTRY | {"dtype": "F8_E4M3"}}, b"x" * 8), "of type F8_E4M3"),
    (assemble({"w": ENTRY | {"shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, b"x"), "is truncated"),
    (assemble({"__metadata__": {"a": 1}}, b""), "metadata are not texts"),
    (assemble({"__metadata__": [1]}, b""), "metadata are not texts"),
    (assemble({"__metadata__": {"disttorch": "{"}}, b""), "structure around its tensors cannot be read"),
    (assemble(structured(1, version=2), b"x" * 8), "structure of format 2"),
    (assemble(structured({"lambda": 1}), b"x" * 8), "kind 'lambda'"),
    (assemble(structured({"tensor": "v"}), b"x" * 8), "no tensor 'v'"),
    (assemble(structured({"tuple": 3}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"dict": [[1]]}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"dict": [[[], 1]]}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"bytes": "!"}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"tensor": "w", "view": ["float32", [3], [4], 0]}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"tensor": "w", "view": ["float32", [2], [4], 4]}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"tensor": "w", "view": ["float32", [2], [-4], 0]}), b"x" * 8), "structure around its tensors"),
    (assemble(structured({"tensor": "w", "view": ["float32", [2], [1 << 62], 0]}), b"x" * 8), "structure around its"),
    (assemble(structured({"tensor": "w", "view": ["float32", [2], [1 << 90], 0]}), b"x" * 8), "structure around its"),
    (assemble(structured({"tensor": "w", "view": ["float9", [1], [4], 0]}), b"x" * 8), "structure around its tensors"),
]


@pytest.mark.parametrize(("raw", "message"), DAMAGED)
def test_damage_is_described(tmp_path, raw, message):
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(RuntimeError, match=message) as error:
        torch.load(tmp_path / "f")
    assert str(error.value).startswith(f"load: {tmp_path / 'f'} ")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (pickle.dumps({"w": [1.0] * 1000}, 2), "Python pickle"),
        (pickle.dumps({"w": [1.0] * 1000}), "Python pickle"),
        (gzip.compress(b"x" * 100_000), "gzip"),
        (gzip.compress(np.random.default_rng(0).bytes(1 << 20), mtime=0), "gzip"),
        (b"\x93NUMPY\x01\x00v\x00" + b" " * 200, "numpy.load"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 200, "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"GGUF\x03\0\0\0" + b"\0" * 100, "GGUF"),
        (b"\0" * 4096, "header is not JSON"),
        (b"<!DOCTYPE html><html></html>", "is no safetensors file"),
    ],
)
def test_files_of_another_format_are_named(tmp_path, raw, message):
    (tmp_path / "f").write_bytes(raw)
    with pytest.raises(RuntimeError, match=message):
        torch.load(tmp_path / "f")


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        torch.load(tmp_path / "nothing-here")


# --- failures while writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, b"before"])
@pytest.mark.parametrize("step", ["header", "data", "fsync", "replace", "interrupt"])
def test_a_failure_leaves_everything_as_it_was(tmp_path, monkeypatch, step, before):
    target = tmp_path / "f"
    if before is not None:
        target.write_bytes(before)
    error = KeyboardInterrupt() if step == "interrupt" else OSError(errno.ENOSPC, "No space left on device")

    def fail(*_):
        raise error

    if step in ("fsync", "replace"):
        monkeypatch.setattr(container.os, step, fail)
    else:
        whole, left = container.write_all, {"header": 0, "data": 1, "interrupt": 1}[step]

        def write_some(file, data):
            nonlocal left
            if not left:
                file.write(bytes(data)[: len(data) // 2])
                file.flush()
                fail()
            left -= 1
            whole(file, data)

        monkeypatch.setattr(container, "write_all", write_some)
    with pytest.raises(type(error), match=None if step == "interrupt" else f"No space left on device.*{target}"):
        torch.save({"w": torch.ones(1000)}, target)
    assert os.listdir(tmp_path) == ([] if before is None else ["f"])
    assert before is None or target.read_bytes() == before


def test_a_file_takes_its_place_when_it_is_whole_and_on_the_disk(tmp_path, calls):
    torch.save({"w": torch.ones(1000)}, tmp_path / "f")
    (synced, written), (replaced, source, target, size), (last, folder) = calls
    assert (synced, replaced, last) == ("fsync", "replace", "fsync")
    assert (target, folder) == (str(tmp_path / "f"), str(tmp_path))
    # Where the filesystem can, the file has no name before it is whole; Linux calls it by its number.
    assert written == source or re.fullmatch(rf"{tmp_path}/#\d+ \(deleted\)", written)
    assert os.path.dirname(source) == str(tmp_path)
    assert size == (tmp_path / "f").stat().st_size > 4000


def test_a_process_that_is_killed_while_it_saves_leaves_nothing(tmp_path):
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError as error:
        pytest.skip(f"this filesystem has no files without names: {error}")
    torch.save({"w": torch.zeros(2)}, tmp_path / "f")
    program = (
        "import os, sys, disttorch as torch\nfrom disttorch.serialization import container\n"
        "whole = container.write_all\n"
        "container.write_all = lambda file, data: (whole(file, data), file.flush(), os.kill(os.getpid(), 9))\n"
        "torch.save({'w': torch.ones(1000)}, sys.argv[1])\n"
    )
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "f"], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert done.returncode == -9
    assert os.listdir(tmp_path) == ["f"]
    assert torch.load(tmp_path / "f")["w"].tolist() == [0, 0]


def test_a_full_disk(tmp_path):
    """The system's own error: no file may be larger than a limit."""
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    torch.save({"w": torch.zeros(2)}, tmp_path / "f")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match=f"File too large.*{tmp_path}"):
            torch.save({"w": torch.ones(1 << 16)}, tmp_path / "f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["f"]
    assert torch.load(tmp_path / "f")["w"].tolist() == [0, 0]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"save: .*absent/f"):
        torch.save([1], tmp_path / "absent" / "f")


def test_a_folder_in_the_files_place(tmp_path):
    with pytest.raises(IsADirectoryError):
        torch.save([1], tmp_path)
    assert os.listdir(tmp_path) == []


def test_permissions_and_links_are_those_of_open(tmp_path):
    plain, ours, link = tmp_path / "plain", tmp_path / "ours", tmp_path / "link"
    plain.write_bytes(b"")
    torch.save([1], ours)
    assert stat.S_IMODE(ours.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    ours.chmod(0o640)
    link.symlink_to("ours")
    torch.save([2], link)
    assert link.is_symlink()
    assert torch.load(ours) == [2]
    assert stat.S_IMODE(ours.stat().st_mode) == 0o640


def test_pipes_are_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    loaded = []
    reader = threading.Thread(target=lambda: loaded.append(torch.load(tmp_path / "pipe")))
    reader.start()
    torch.save({"w": torch.arange(3)}, tmp_path / "pipe")
    reader.join()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert loaded[0]["w"].tolist() == [0, 1, 2]


def test_a_path_may_be_text_or_bytes(tmp_path):
    for path in (str(tmp_path / "f"), os.fsencode(tmp_path / "g")):
        assert round_trip([1], path) == [1]


def test_loading_does_not_read_twice(tmp_path, monkeypatch):
    """All bytes of the file go through read and readinto once."""
    torch.save(checkpoint(), tmp_path / "f")
    count = 0

    class Counting(io.FileIO):
        def read(self, n=-1):
            nonlocal count
            data = super().read(n)
            count += len(data)
            return data

        def readinto(self, buffer):
            nonlocal count
            n = super().readinto(buffer)
            count += n
            return n

    with Counting(tmp_path / "f") as file:
        torch.load(file)
    assert count == (tmp_path / "f").stat().st_size
