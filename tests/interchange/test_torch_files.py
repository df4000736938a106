"""Files of PyTorch's ``torch.save``: what is made of them, what is refused, and that PyTorch reads ours.

The files beside this one were written by PyTorch 2.13 with `write`: python -c "from tests.interchange.test_torch_files import *; write()"
"""

import io
import os
import pickle
import struct
import zipfile
import zlib
from argparse import Namespace
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import disttorch as torch

FILES = Path(__file__).parent / "files"
KINDS = ["zip", "legacy"]


def contents(torch):
    """The object in the files, made with either package."""
    w = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(6, dtype=torch.float32).reshape(3, 2))
    return {
        "w": w, "transposed": w.t(), "row": w[1], "last": w[:, -1], "expanded": torch.ones(1).expand(3),
        "model": model.state_dict(), "parameter": model[0].weight, "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "leaf": torch.ones(2, requires_grad=True), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16), "complex": torch.tensor([1 + 2j, 3 - 1j]),
        "bools": torch.tensor([True, False]), "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "size": torch.Size([2, 3]), "dtype": torch.float64, "device": torch.device("cpu"),
        "plain": [1, -(2**40), 2**70, 1.5, None, True, "text \u00e9", b"\x00\xff", (1, (2,)), {3}, 1 + 2j],
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "again": w,
    }  # fmt: skip


def write():
    import torch

    torch.save(contents(torch), FILES / "zip.pt")
    torch.save(contents(torch), FILES / "legacy.pt", _use_new_zipfile_serialization=False)


def same(a, b):
    if isinstance(b, torch.Tensor) or hasattr(b, "detach"):
        assert (tuple(a.shape), a.requires_grad) == (tuple(b.shape), b.requires_grad)
        assert not b.numel() or tuple(a.stride()) == tuple(b.stride())
        assert str(a.dtype).split(".")[1] == str(b.dtype).split(".")[1]
        assert type(a).__name__ == type(b).__name__
        assert a.tolist() == b.tolist()
    elif isinstance(b, dict):
        assert list(a) == list(b)
        assert isinstance(b, type(a))  # a module's state_dict is an OrderedDict of its own
        for key in b:
            same(a[key], b[key])
    elif type(b) in (list, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same(x, y)
    else:
        assert str(a).split(".")[-1] == str(b).split(".")[-1]
        assert type(a).__name__ == type(b).__name__


def sharing(x):
    """What was one memory, or one object, still is."""
    assert x["again"] is x["w"]
    with torch.no_grad():
        x["row"].fill_(-1)
        x["parameter"].fill_(7)
    assert x["w"][1].tolist() == [-1] * 4
    assert x["transposed"][:, 1].tolist() == [-1] * 4
    assert x["last"].tolist() == [3, -1, 11]
    assert x["model"]["0.weight"].tolist() == [[7, 7]] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"weights_only": True}, {"weights_only": False}, {"map_location": "cpu"}, {"mmap": True}])
def test_load(kind, options):
    if kind == "legacy" and "mmap" in options:
        with pytest.raises(ValueError, match=r"mmap=True needs a file of PyTorch 1\.6"):
            torch.load(FILES / "legacy.pt", mmap=True)
        return
    x = torch.load(FILES / f"{kind}.pt", **options)
    same(x, contents(torch))
    assert x["model"]._metadata["1"] == {"version": 2}
    sharing(x)


@pytest.mark.parametrize("kind", KINDS)
def test_from_file_objects(kind):
    raw = (FILES / f"{kind}.pt").read_bytes()
    same(torch.load(io.BytesIO(raw)), contents(torch))

    class Stream:  # one that cannot go back
        def __init__(self):
            self.file = io.BytesIO(raw)

        def read(self, n=-1):
            return self.file.read(n)

    same(torch.load(Stream()), contents(torch))
    behind = io.BytesIO(b"before" + raw)
    behind.seek(6)
    same(torch.load(behind), contents(torch))


@pytest.mark.parametrize("kind", KINDS)
def test_map_location(kind):
    asked = []

    def where(storage, location):
        asked.append((storage.dtype, location))

    same(torch.load(FILES / f"{kind}.pt", map_location=where), contents(torch))
    assert (torch.bfloat16, "cpu") in asked
    moved = torch.load(FILES / f"{kind}.pt", map_location=lambda storage, location: storage.clone())
    sharing(moved)


def test_modules_and_optimizers_take_it():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.BatchNorm1d(3))
    model.load_state_dict(torch.load(FILES / "zip.pt")["model"])
    assert model[0].weight.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_what_pytorch_reads(tmp_path):
    theirs = pytest.importorskip("torch")
    torch.save(contents(torch), tmp_path / "f.pt", format="torch")
    for options in ({}, {"mmap": True}):  # weights_only is true unless said otherwise
        found = theirs.load(tmp_path / "f.pt", **options)
        same(found, contents(theirs))
        assert found["row"].data_ptr() == found["w"][1].data_ptr()
        assert found["model"]._metadata["1"] == {"version": 2}
    more = {"u16": torch.ones(2, dtype=torch.uint16), "flipped": torch.arange(3).flip(0), "int32": torch.ones(4).view(torch.int32)}
    both = torch.ones(4)
    more["both"] = [both, both.view(torch.int32)]  # one memory, two types
    torch.save(more, tmp_path / "f.pt", format="torch")
    found = theirs.load(tmp_path / "f.pt")
    assert [str(found[k].dtype) for k in ("u16", "flipped", "int32")] == ["torch.uint16", "torch.int64", "torch.int32"]
    assert found["flipped"].tolist() == [2, 1, 0]
    assert found["both"][1].tolist() == both.view(torch.int32).tolist()
    assert found["both"][0].data_ptr() == found["both"][1].data_ptr()


def test_live_files_of_pytorch(tmp_path):
    theirs = pytest.importorskip("torch")
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        theirs.save(contents(theirs), tmp_path / "f.pt", **options)
        same(torch.load(tmp_path / "f.pt"), contents(theirs))
    x = theirs.ones(2, dtype=theirs.complex64)
    buffer = theirs.nn.Buffer(theirs.ones(2), persistent=False)
    theirs.save([x.conj(), x.imag.neg(), theirs.ones(2).untyped_storage(), buffer], tmp_path / "f.pt")
    conj, negative, storage, buffer = torch.load(tmp_path / "f.pt")
    assert conj.tolist() == [1 - 0j, 1 - 0j]
    assert negative.tolist() == [0, 0]
    assert storage.view(torch.float32).tolist() == [1, 1]
    assert type(buffer) is torch.nn.Buffer
    assert not buffer.persistent


@pytest.mark.parametrize("target", ["path", "file", "stream"])
def test_our_own_round_trip(tmp_path, target):
    x = contents(torch) | {"array": np.arange(3), "number": np.float64(2.5), "f": np.ones((2, 3), order="F")}

    if target == "path":
        torch.save(x, tmp_path / "f", format="torch")
        found = torch.load(tmp_path / "f")
    elif target == "file":
        file = io.BytesIO()
        torch.save(x, file, format="torch")
        file.seek(0)
        found = torch.load(file)
    else:
        parts = []

        class Stream:
            def write(self, data):
                parts.append(bytes(data))
                return len(data)

            def flush(self):
                pass

        torch.save(x, Stream(), format="torch")
        found = torch.load(io.BytesIO(b"".join(parts)))
    for name in ("array", "number", "f"):
        np.testing.assert_array_equal(found.pop(name), x[name])
        assert type(x.pop(name)) is not float
    same(found, x)
    sharing(found)


def test_storages_lie_where_they_can_be_mapped(tmp_path):
    torch.save(contents(torch), tmp_path / "f", format="torch")
    raw = (tmp_path / "f").read_bytes()
    for info in zipfile.ZipFile(tmp_path / "f").infolist():
        if "/data/" in info.filename:
            name, extra = struct.unpack("<HH", raw[info.header_offset + 26 : info.header_offset + 30])
            assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_the_default_format_can_be_set(tmp_path):
    from disttorch.serialization import set_default_format

    set_default_format("torch")
    try:
        torch.save(torch.ones(1), tmp_path / "f")
    finally:
        set_default_format("safetensors")
    assert (tmp_path / "f").read_bytes()[:2] == b"PK"
    for call in (lambda: set_default_format("json"), lambda: torch.save(1, tmp_path / "f", format="json")):
        with pytest.raises(ValueError, match="no format 'json'"):
            call()


# --- plain objects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """What scripts keep beside the weights."""

    width: int = 8
    start: object = None


def arguments(library):
    config = Config(4, library.arange(3))
    return {"args": Namespace(lr=0.1, betas=(0.9, 0.99), config=config), "config": config, "weight": library.ones(2)}


def as_before(state):
    args, config = state["args"], state["config"]
    assert (type(args), args.lr, args.betas, type(config), config.width) == (Namespace, 0.1, (0.9, 0.99), Config, 4)
    return args.config is config and config.start.tolist() == [0, 1, 2] and state["weight"].tolist() == [1, 1]


def test_plain_objects_in_checkpoints(tmp_path):
    torch.save(arguments(torch), tmp_path / "f", format="torch")
    assert as_before(torch.load(tmp_path / "f", weights_only=False))
    for options in ({}, {"weights_only": True}):
        with pytest.raises(RuntimeError, match=r"argparse\.Namespace.*weights_only=False.*add_safe_globals"):
            torch.load(tmp_path / "f", **options)
        with torch.serialization.safe_globals([Namespace, (Config, f"{__name__}.Config")]):
            assert as_before(torch.load(tmp_path / "f", **options))
            assert len(torch.serialization.get_safe_globals()) == 2
    torch.serialization.add_safe_globals([Namespace, np.dtype])
    with pytest.raises(RuntimeError, match=r"Config', which load does not make"):
        torch.load(tmp_path / "f")
    torch.serialization.clear_safe_globals()
    assert torch.serialization.get_safe_globals() == []
    with pytest.raises(TypeError, match=r"obj\['a'\] is of type Acting"):
        torch.save({"a": Acting()}, tmp_path / "f", format="torch")
    with pytest.raises(TypeError, match=r"obj\['a'\]\.start is a function"):
        torch.save({"a": Config(start=len)}, tmp_path / "f", format="torch")
    with pytest.raises(TypeError, match=r"obj\['args'\] is of type Namespace"):
        torch.save(arguments(torch), tmp_path / "f", format="safetensors")


def test_plain_objects_to_and_from_pytorch(tmp_path):
    theirs = pytest.importorskip("torch")
    torch.save(arguments(torch), tmp_path / "ours", format="torch")
    assert as_before(theirs.load(tmp_path / "ours", weights_only=False))
    with theirs.serialization.safe_globals([Namespace, Config]):
        assert as_before(theirs.load(tmp_path / "ours"))
    for zipped in (True, False):
        theirs.save({**arguments(theirs), "counts": defaultdict(int, a=1)}, tmp_path / "theirs", _use_new_zipfile_serialization=zipped)
        state = torch.load(tmp_path / "theirs", weights_only=False)
        assert as_before(state) and state["counts"].default_factory is int


# --- what is refused ---------------------------------------------------------------------------------------------------


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        for name, data in {"data.pkl": b"N.", "version": b"3\n", **members}.items():
            z.writestr(f"archive/{name}", data)
    return file.getvalue()


class Calls:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Acting:
    """Does something when it is made again."""

    def __setstate__(self, state):
        Path(MARKER).touch()


class Dying:
    """Does something when it goes."""

    def __del__(self):
        Path(MARKER).touch()


def plain(name, state=b"}", module=__name__):
    """The pickle of an object without a call of its class."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")\x81" + state + b"b."


MARKER = "/tmp/disttorch-test-code-was-run"
HOSTILE = [
    (pickle.dumps(Calls(os.system, f"touch {MARKER}"), 2), "posix.system"),
    (pickle.dumps(Calls(eval, f"open({MARKER!r}, 'w')"), 4), "eval"),
    (pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"), 2), "getattr|__import__"),
    (pickle.dumps({"args": Path("x")}, 2), "pathlib.PosixPath"),
    (plain("Acting"), "Acting', which load does not make"),
    (plain("Dying"), "Dying', which load does not make"),
    (plain("Path"), "Path', which load does not make"),
    (plain("Popen", module="subprocess"), "subprocess.Popen"),  # has a __del__
    (plain("Module", module="disttorch.nn.module"), "disttorch.nn.module.Module"),
    (plain("this_module_is_not_there", module="antigravity"), "antigravity"),
    (b"\x80\x02}" + plain("Config")[2:-1] + b"Ns.", "Config|key of a dict"),
    (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__Nsb.", "sets attributes"),
    (b"\x80\x02ctorch\nSize\n(I1\nI2\ntR.", "is damaged"),
    (b"(S'touch'\nios\nsystem\n.", "instruction INST"),
    (b"\x80\x02ccollections\nOrderedDict\n\x94h\x00\x81.", "is damaged"),
    (b"\x80\x02cbuiltins\nlist\n)R.", ""),  # harmless, and made
    (b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsNsb.", ""),  # attributes of a dict, other than _metadata, are left
    (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    (b"\x82\x01.", "instruction EXT1"),
    (b"\x80\x02ctorch\nfloat32\n)R.", "calls"),
    (b"\x80\x02ctorch\nTensor\n)R.", "calls 'torch.Tensor'"),
    (b"\x80\x02X\x00\x00\x00\x00Q.", "storage|damaged"),
]


@pytest.mark.parametrize(("raw", "message"), HOSTILE)
@pytest.mark.parametrize("weights_only", [True, False])
def test_no_code_is_run(tmp_path, raw, message, weights_only):
    Path(MARKER).unlink(missing_ok=True)
    (tmp_path / "f").write_bytes(archive(**{"data.pkl": raw}))
    if message:
        with pytest.raises(RuntimeError, match=message) as error:
            torch.load(tmp_path / "f", weights_only=weights_only)
        assert str(error.value).startswith(f"load: {tmp_path / 'f'} ")
    else:
        assert not torch.load(tmp_path / "f", weights_only=weights_only)
    assert not Path(MARKER).exists()


def test_attributes_must_have_names(tmp_path):
    (tmp_path / "f").write_bytes(archive(**{"data.pkl": plain("Config", b"}J\x01\x00\x00\x00Ns")}))
    with pytest.raises(RuntimeError, match=r"is damaged.*attributes of a Config"):
        torch.load(tmp_path / "f", weights_only=False)


def test_legacy_files_run_no_code_either(tmp_path):
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "f").write_bytes(head + HOSTILE[0][0] + pickle.dumps([], 2))
    with pytest.raises(RuntimeError, match=r"posix\.system"):
        torch.load(tmp_path / "f")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"data.pkl": b"\x80\x02"}, "archive/data.pkl"),
        ({"data.pkl": b"\x80\x02X\x10\x00"}, "archive/data.pkl"),
        ({"constants.pkl": b"N."}, "TorchScript"),
    ],
)
def test_damaged_archives(tmp_path, members, message):
    (tmp_path / "f").write_bytes(archive(**members))
    with pytest.raises(RuntimeError, match=message):
        torch.load(tmp_path / "f")


def test_archives_of_others(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w") as z:
        z.writestr("a.npy", b"x" * 100)
    with pytest.raises(RuntimeError, match=r"torch\.save did not write it"):
        torch.load(tmp_path / "f")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_ends_anywhere(tmp_path, kind, mmap):
    if kind == "legacy" and mmap:
        return
    raw = (FILES / f"{kind}.pt").read_bytes()
    for end in range(8, len(raw) - 1, 97):
        (tmp_path / "f").write_bytes(raw[:end])
        with pytest.raises(RuntimeError, match=r"truncated|damaged"):
            torch.load(tmp_path / "f", mmap=mmap)


def test_the_damaged_member_is_named(tmp_path):
    raw = bytearray((FILES / "zip.pt").read_bytes())
    (info,) = [i for i in zipfile.ZipFile(io.BytesIO(raw)).infolist() if i.filename == "zip/data/0"]
    raw[info.header_offset + 120] ^= 1
    raw[info.header_offset + 64] ^= 0
    begin = info.header_offset + 30 + sum(struct.unpack("<HH", raw[info.header_offset + 26 : info.header_offset + 30]))
    damaged = bytearray((FILES / "zip.pt").read_bytes())
    damaged[begin + 5] ^= 1
    (tmp_path / "f").write_bytes(damaged)
    with pytest.raises(RuntimeError, match="check sum of member zip/data/0 is wrong"):
        torch.load(tmp_path / "f")


def test_any_changed_byte_gives_an_error_or_an_object():
    rng = np.random.default_rng(0)
    for kind in KINDS:
        whole = (FILES / f"{kind}.pt").read_bytes()
        for _ in range(300):
            raw = bytearray(whole)
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
            try:
                torch.load(io.BytesIO(raw))
            except RuntimeError as error:
                assert str(error).startswith("load: ")


def test_a_tensor_beyond_its_storage(tmp_path):
    theirs = (FILES / "zip.pt").read_bytes()
    source = zipfile.ZipFile(io.BytesIO(theirs))
    structure = source.read("zip/data.pkl").replace(b"K\x03K\x04\x86", b"K\x03K\x05\x86", 1)
    with zipfile.ZipFile(tmp_path / "f", "w") as z:
        for info in source.infolist():
            z.writestr(info.filename, structure if info.filename.endswith("data.pkl") else source.read(info))
    with pytest.raises(RuntimeError, match=r"size \[3, 5\] .* does not fit into its storage"):
        torch.load(tmp_path / "f")


def test_files_without_check_sums():
    raw = bytearray((FILES / "zip.pt").read_bytes())
    for info in zipfile.ZipFile(io.BytesIO(raw)).infolist():
        if info.CRC:  # as torch.serialization.set_crc32_options(False) leaves them
            raw = raw.replace(struct.pack("<I", info.CRC), bytes(4))
    same(torch.load(io.BytesIO(raw)), contents(torch))
    assert zlib.crc32(b"") == 0


def test_the_other_byte_order(tmp_path):
    source = zipfile.ZipFile(FILES / "zip.pt")
    with zipfile.ZipFile(tmp_path / "f", "w") as z:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == "zip/byteorder":
                data = b"big"
            elif info.filename == "zip/data/0":  # the first storage is of float32
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            z.writestr(info.filename, data)
    assert torch.load(tmp_path / "f")["w"].tolist() == contents(torch)["w"].tolist()


def test_an_ordered_dict_keeps_its_order_and_type():
    found = torch.load(FILES / "zip.pt")["model"]
    assert type(found) is OrderedDict
    assert list(found) == ["0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
