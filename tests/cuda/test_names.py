"""Every name and argument that we take from CuPy, cuDNN's frontend and NCCL exists in the installed packages.

They import without a GPU, so a typo, or a name that only NumPy has, is found on any machine with the extra ``cuda-check``.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.cuda.names import Instance, mistakes, names_taken, refused, texts
from tests.cuda.views import VIEWS, facts
from tests.stand_in.record import FILE, recorded

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("disttorch/backend/cuda/**/*.py", "collectives/*.py", "disttorch/cuda/*.py")
#: where sources name the array namespace: kernels' plain implementations, operations and their rules
NAMESPACED = ("disttorch/backend/kernels/*.py", "disttorch/ops/**/*.py", "disttorch/optim/*.py", "disttorch/autograd/*.py")


def real(name: str) -> Any:
    """A package itself; a stand-in does not count."""
    if getattr(sys.modules.get("cupy"), "__name__", "") == "cupy" and not hasattr(sys.modules["cupy"], "__file__"):
        pytest.skip("the stand-in for CuPy is in place")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy says which of CUDA's libraries it does not find
        return pytest.importorskip(name, reason=f"{name} is not installed (extra cuda-check)")


@pytest.fixture(scope="module")
def cupy() -> Any:
    return real("cupy")


@pytest.fixture(scope="module")
def nccl(cupy: Any) -> Any:
    module = real("cupy.cuda.nccl")
    if not module.available:
        pytest.skip("CuPy finds no NCCL library (extra cuda-check)")
    return module


def hints_for(cupy: Any, nccl: Any) -> Any:
    """What the walk cannot find out by itself."""
    stream, event, array = Instance(cupy.cuda.Stream), Instance(cupy.cuda.Event), Instance(cupy.ndarray)
    of_collectives = {
        "self._cupy": cupy, "self._nccl": nccl, "cupy": cupy, "stream": stream, "self._stream": stream, "self._message_stream": stream,
        "caller": stream, "current": stream, "self.finished": event, "self.called": event, "array": array, "buffer": array,
        **{name: Instance(nccl.NcclCommunicator) for name in ("self._comm", "self._messages", "comm")},
    }  # fmt: skip

    def hints(place: str) -> dict[str, Any]:
        file = Path(place).name
        if place.startswith("collectives/"):
            return of_collectives if file in ("nccl.py", "stream_work.py", "device.py", "nccl_reductions.py") else {}
        return {}

    return hints


def report(found: list[Any]) -> str:
    return "\n".join(f"{place}: {text}" for place, text in found)


def test_names_of_cupy_and_nccl(cupy: Any, nccl: Any) -> None:
    files = {place: text for place, text in texts(ROOT, SOURCES).items() if "/cudnn/" not in place}
    found, taken = mistakes(files, ("cupy", "cupyx"), hints_for(cupy, nccl))
    assert not found, report(found)
    assert {"cupy.RawModule", "cupy.cuda.Stream", "cupyx.empty_pinned", "cupy.cuda.runtime.getDevice"} <= taken
    assert any(name.endswith(("memcpyAsync", "copy_to_host_async")) for name in taken)


def test_names_of_cudnn(cupy: Any) -> None:
    cudnn = real("cudnn")
    files = texts(ROOT, ("disttorch/backend/cuda/cudnn/*.py",))

    def hints(place: str) -> dict[str, Any]:
        named = ("found", "module") if place.endswith("library.py") else ("cudnn",)
        return {"graph": Instance(cudnn.pygraph), **dict.fromkeys(named, cudnn)}

    found, taken = mistakes(files, ("cupy", "cupyx", "cudnn"), hints)
    assert not found, report(found)
    assert {"cudnn.pygraph", "module.create_handle", "cudnn.heur_mode"} <= taken


def test_numbers_by_name(cupy: Any, nccl: Any) -> None:
    """Constants that are looked up by a text."""
    for place, text in texts(ROOT, ("collectives/*.py",)).items():
        for name in re.findall(r'"(NCCL_[A-Z0-9]+)"', text):
            assert hasattr(nccl, name), f"{place}: cupy.cuda.nccl has no {name}"
        for name in re.findall(r'"(memcpy[A-Z]\w+)"', text):
            assert hasattr(cupy.cuda.runtime, name), f"{place}: cupy.cuda.runtime has no {name}"


def test_reductions_have_functions(cupy: Any) -> None:
    from collectives.reductions import REDUCTIONS

    for reduction in REDUCTIONS.values():
        assert hasattr(cupy, reduction.function.__name__), reduction


def test_the_namespace(cupy: Any) -> None:
    from disttorch.backend.namespace import ARRAY_FUNCTIONS

    missing = [name for name in ARRAY_FUNCTIONS if not hasattr(cupy, name)]
    assert not missing


def test_what_kernels_and_operations_take_of_the_namespace(cupy: Any) -> None:
    """``xp.name``, by name and arguments, in the CUDA world."""
    world = importlib.import_module("disttorch.backend.cuda").cuda
    # of tensors, of samples, of the numbers of an optimizer, or asked for by name where a world has it
    elsewhere = {
        "single", "value", "level", "world_of", "scalars", "shared", "is_shared", "seed_library", "library_state", "set_library_state",
    }  # fmt: skip
    found = []
    for place, text in texts(ROOT, NAMESPACED).items():
        for line, path, call in names_taken(text, "xp"):
            parts = path.split(".")
            owner: Any = world
            for part in parts:
                if part in elsewhere or owner is None:
                    owner = None
                    break
                if not hasattr(owner, part):
                    found.append(f"{place}:{line}: the CUDA world has no xp.{path}")
                    owner = None
                    break
                owner = getattr(owner, part)
            if owner is None or call is None or not callable(owner):
                continue
            positional = [each for each in call.args if not isinstance(each, ast.Starred)]
            starred = len(positional) != len(call.args) or any(k.arg is None for k in call.keywords)
            problem = refused(owner, [""] * len(positional), [k.arg for k in call.keywords if k.arg], starred)
            if problem:
                found.append(f"{place}:{line}: xp.{path}: {problem}")
    assert not found, "\n".join(found)


def test_the_stand_in_knows_this_cupy(cupy: Any) -> None:
    """What `tests/stand_in/cupy_names.json` says is what CuPy says; ``python -m tests.stand_in.record`` writes it anew."""
    known, now = json.loads(FILE.read_text()), recorded()
    if known["version"] != now["version"]:
        pytest.skip(f"the stand-in is after CuPy {known['version']}, this is {now['version']}")
    for part in now:
        assert known[part] == json.loads(json.dumps(now[part])), part


def test_types_are_chosen_as_the_stand_in_does(cupy: Any) -> None:
    """Of all elementwise functions, for all pairs of dtypes and Python's numbers."""
    import numpy as np

    from tests.stand_in.ufuncs import WEAK, dtype_of, ufunc

    kinds: list[Any] = [dtype_of(c) for c in "?bBhHiIlLeEfdFD"]
    for name in dir(cupy):
        real_one = getattr(cupy, name)
        if not isinstance(real_one, cupy.ufunc):
            continue
        ours = ufunc(name, list(real_one.types), None)
        pairs: dict[int, list[tuple[Any, ...]]] = {1: [(a,) for a in kinds], 2: [(a, b) for a in kinds for b in (*kinds, *WEAK)]}
        for pair in pairs.get(real_one.nin, ()):
            operands = [kind(1) if isinstance(kind, type) else np.empty(1, kind) for kind in pair]
            strong = tuple(np.dtype({int: "l", float: "d", complex: "D"}[k]) if isinstance(k, type) else k for k in pair)
            array, number = pair[0], pair[-1]
            weak = isinstance(number, type) and rank(array.type) >= rank(number)
            theirs = real_one._ops._guess_routine_from_in_types(strong, tuple(isinstance(k, type) and weak and k for k in pair))
            try:
                sources, results = ours._choose(operands, None)
            except TypeError:
                assert theirs is None, (name, pair)
                continue
            assert theirs is not None and tuple(results) == theirs.out_types, (name, pair)
            # comparisons of integers have ways of their own to one result
            assert tuple(sources) == theirs.in_types or theirs.out_types == (np.dtype(bool),), (name, pair)


def rank(kind: type) -> int:
    """CuPy's order of kinds, by which a number beside an array counts as weak."""
    import numpy as np

    ranks = ((np.bool_,), (np.integer, int), (np.inexact, float, complex))
    return next((number for number, kinds in enumerate(ranks) if issubclass(kind, kinds)), len(ranks))


@pytest.mark.parametrize(("function", "shape", "strides", "offset", "base"), VIEWS.values(), ids=VIEWS)
def test_views_are_as_the_stand_in_has_them(cupy: Any, function: Any, shape: Any, strides: Any, offset: int, base: str) -> None:
    """On memory that nobody has: making a view asks no driver."""
    memory = cupy.cuda.UnownedMemory(1 << 40, 4096, None, 0)
    a = cupy.ndarray((4, 6), "f4", memptr=cupy.cuda.MemoryPointer(memory, 0))
    assert facts(cupy, a, function) == (shape, strides, offset, base)


def test_the_stand_in_takes_what_nccl_takes(nccl: Any) -> None:
    from tests.stand_in.nccl import NcclCommunicator
    from tests.stand_in.record import parameters

    for method in ("allReduce", "reduce", "reduceScatter", "allGather", "broadcast", "send", "recv", "commSplit"):
        theirs, ours = parameters(getattr(nccl.NcclCommunicator, method)), parameters(getattr(NcclCommunicator, method))
        assert [name for name, *_ in theirs or ()] == [name for name, *_ in ours or ()], method


WRONG = '''
import cupy
import cupyx
from cupy import cuda
from cupy.cuda import nccl as communication

pool = cupy.get_default_memory_pool()
event = cuda.Event(disable_timing=True)

def f(a, stream=None):
    nccl = cupy.cuda.nccl
    good = cupy.where(a, 1, 2), cuda.runtime.memcpyAsync(1, 2, 3, 4, 5), event.record(stream), pool.used_bytes()
    cupy.divmode(a)                             # no such function
    cupy.concatenate((a, a), axes=0)            # no such argument
    cuda.runtime.memcpyAsinc(1, 2, 3, 4, 5)     # no such function
    cuda.runtime.memcpyAsync(1, 2, 3)           # arguments missing
    event.wait(stream)                          # NumPy and PyTorch have it
    cupy.sum(a, 0, None, None, False, True)     # too many
    with cuda.Stream(nonblocking=True) as own:  # no such argument
        own.syncronize()                        # no such method
    cupyx.empty_pined((1,))                     # no such function
    return nccl.NCCL_SUMM, communication.NcclError, good
'''


def test_mistakes_are_found(cupy: Any, nccl: Any) -> None:
    found, _ = mistakes({"wrong.py": WRONG}, ("cupy", "cupyx"))
    lines = WRONG.split("\n")
    expected = [number for number, line in enumerate(lines, 1) if "#" in line] + [len(lines) - 1]
    assert sorted(int(mistake.place.split(":")[1]) for mistake in found) == expected, report(found)
