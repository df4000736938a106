"""A stand-in for CuPy on a machine without a GPU: "device" arrays are NumPy's, but streams, events and NCCL are as asynchronous as there.

Each stream is a thread that carries out what is queued on it, in order. Copies, events and NCCL's operations are queued; NCCL's ranks are
threads of this process that meet in a `Hub`. An operation on arrays waits for the current stream first, which is the order that a
GPU would keep. So a missing wait between streams gives wrong numbers here, as it would there.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import queue
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["BUS", "hub", "install", "lag"]

_local = threading.local()
_numbers = itertools.count(1)
lag = 0.002
"""Seconds that a copy or an operation of NCCL takes at least, so that nobody gets away with not waiting."""
BUS: dict[int, str] = {}
"""The bus identifiers of devices, for tests in which ranks share one."""


class CUDARuntimeError(RuntimeError):
    pass


class NcclError(RuntimeError):
    pass


class TestIsOver(Exception):
    """What a stream still held when its test ended is given up."""


class Stream:
    by_number: dict[int, Stream] = {}  # noqa: RUF012

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = next(_numbers)
        Stream.by_number[self.ptr] = self
        self.waits: list[Event] = []
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (action := self._queue.get()) is not None:
            try:
                action()
            except TestIsOver:
                pass
            except Exception as error:
                hub.failures.append(f"{type(error).__name__}: {error}")
                raise

    def is_capturing(self) -> bool:
        return False

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def enqueue(self, action: Callable[[], None]) -> None:
        self._queue.put(action)

    def end(self) -> None:
        """End the thread, when everything before is done."""
        self._queue.put(None)

    def join(self) -> None:
        self._thread.join(30)
        if self._thread.is_alive():
            raise CUDARuntimeError("a stream still waits for an event that nobody records")

    def wait_event(self, event: Event) -> None:
        self.waits.append(event)
        flag = event.flag
        self.enqueue(lambda: flag.wait() and None)

    def synchronize(self) -> None:
        flag = threading.Event()
        self.enqueue(flag.set)
        if not flag.wait(30):
            raise CUDARuntimeError(f"a stream is stuck: {hub.failures}")

    def __enter__(self) -> Stream:
        _stack().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _stack().pop()


def _stack() -> list[Stream]:
    if not hasattr(_local, "streams"):
        _local.streams = [Stream()]
    stack: list[Stream] = _local.streams
    return stack


def get_current_stream() -> Stream:
    return _stack()[-1]


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.flag = threading.Event()
        self.flag.set()

    def record(self, stream: Stream | None = None) -> None:
        self.flag = threading.Event()
        (stream or get_current_stream()).enqueue(self.flag.set)

    @property
    def done(self) -> bool:
        return self.flag.is_set()


class Device:
    def __init__(self, number: int | None = None) -> None:
        self.id = getattr(_local, "device", 0) if number is None else number

    def use(self) -> None:
        _local.device = self.id

    def __enter__(self) -> None:
        self._before = getattr(_local, "device", 0)
        _local.device = self.id

    def __exit__(self, *_: object) -> None:
        _local.device = self._before


class ndarray(np.ndarray):
    """A device array: every operation on its elements comes after what the current stream holds."""

    number = 0

    def __array_finalize__(self, other: Any) -> None:
        self.number = getattr(other, "number", getattr(_local, "device", 0))

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])

    @property
    def device(self) -> Device:
        return Device(self.number)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **more: Any) -> Any:
        get_current_stream().synchronize()
        plain = [np.asarray(each) if isinstance(each, ndarray) else each for each in inputs]
        if out is not None:
            more["out"] = tuple(np.asarray(each) for each in out)
        result = getattr(ufunc, method)(*plain, **more)
        return out[0] if out is not None else asarray(result)

    def __setitem__(self, where: Any, value: Any) -> None:
        get_current_stream().synchronize()
        np.asarray(self)[where] = np.asarray(value)

    def astype(self, dtype: Any, *arguments: Any, **more: Any) -> Any:
        get_current_stream().synchronize()
        return asarray(np.asarray(self).astype(dtype))

    def copy(self, order: Any = "C") -> Any:
        get_current_stream().synchronize()
        return asarray(np.asarray(self).copy())


def asarray(values: Any, dtype: Any = None) -> ndarray:
    array = np.asarray(values, dtype)
    hub.kept.append(array)
    return array.view(ndarray)


# NCCL ----------------------------------------------------------------------------------------------------------------

_DTYPES = {
    "NCCL_INT8": np.int8, "NCCL_UINT8": np.uint8, "NCCL_INT32": np.int32, "NCCL_UINT32": np.uint32, "NCCL_INT64": np.int64,
    "NCCL_UINT64": np.uint64, "NCCL_FLOAT16": np.float16, "NCCL_FLOAT32": np.float32, "NCCL_FLOAT64": np.float64,
    "NCCL_BFLOAT16": ml_dtypes.bfloat16,
}  # fmt: skip
_OPS: dict[str, Any] = {
    "NCCL_SUM": np.add, "NCCL_PROD": np.multiply, "NCCL_MAX": np.maximum, "NCCL_MIN": np.minimum, "NCCL_AVG": np.add,
}  # fmt: skip


class Hub:
    """Where the ranks of communicators meet."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.over = False
        self.given: dict[Any, dict[int, Any]] = defaultdict(dict)
        self.mail: dict[Any, list[bytes]] = defaultdict(list)
        self.taken: dict[Any, int] = defaultdict(int)
        self.error = ""
        self.ended: list[tuple[str, int]] = []
        self.calls: list[str] = []
        self.failures: list[str] = []
        self.kept: list[np.ndarray] = []
        """CuPy gives freed memory to its own stream only, in order; here it is kept until the test is over."""

    def exchange(self, key: Any, rank: int, size: int, value: Any) -> list[Any]:
        with self.changed:
            self.given[key][rank] = value
            self.changed.notify_all()
            self.wait_for(lambda: len(self.given[key]) == size, f"rank {rank} waits alone in {key}")
            return [self.given[key][other] for other in range(size)]

    def post(self, key: Any, data: bytes) -> int:
        with self.changed:
            self.mail[key].append(data)
            self.changed.notify_all()
            return len(self.mail[key])

    def take(self, key: Any) -> bytes:
        with self.changed:
            number = self.taken[key]
            self.wait_for(lambda: len(self.mail[key]) > number, f"nothing comes for {key}")
            self.taken[key] = number + 1
            self.changed.notify_all()
            return self.mail[key][number]

    def wait_taken(self, key: Any, number: int) -> None:
        with self.changed:
            self.wait_for(lambda: self.taken[key] >= number, f"nobody takes message {number} of {key}")

    def wait_for(self, condition: Callable[[], bool], otherwise: str) -> None:
        if not self.changed.wait_for(lambda: self.over or condition(), 30):
            raise NcclError(otherwise)
        if not condition():
            raise TestIsOver

    def close(self) -> None:
        """A test is over: who waits for a rank that does not come any more is released."""
        with self.changed:
            self.over = True
            self.changed.notify_all()


hub = Hub()


def memory(pointer: int, count: int, dtype: Any) -> np.ndarray:
    if not count:
        return np.empty(0, dtype)
    raw = (ctypes.c_uint8 * (count * np.dtype(dtype).itemsize)).from_address(pointer)
    return np.frombuffer(raw, dtype)


class NcclCommunicator:
    def __init__(self, ndev: int, commId: bytes, rank: int) -> None:
        assert type(commId) is bytes and len(commId) == 128
        self.id: Any = commId[:8]
        self.size_, self.rank = ndev, rank
        self.calls = self.splits = 0
        hub.exchange((self.id, "init"), rank, ndev, None)

    def commSplit(self, color: int, key: int, config: Any = None) -> NcclCommunicator | None:
        self.splits += 1
        everybody = hub.exchange((self.id, "split", self.splits), self.rank, self.size_, (color, key, self.rank))
        if color < 0:
            return None
        members = sorted(each[1:] for each in everybody if each[0] == color)
        other = NcclCommunicator.__new__(NcclCommunicator)
        other.id = (self.id, self.splits, color)
        other.size_, other.rank, other.calls, other.splits = len(members), members.index((key, self.rank)), 0, 0
        return other

    def _collective(self, name: str, stream: int, given: Callable[[], Any], finish: Callable[[list[Any]], None]) -> None:
        self.calls += 1
        key = (self.id, self.calls)
        hub.calls.append(name)

        def act() -> None:
            everybody = hub.exchange(key, self.rank, self.size_, (name, given()))
            assert {each[0] for each in everybody} == {name}, f"ranks call {everybody}"
            finish([each[1] for each in everybody])

        _launch(stream, [(None, act, None)])

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        kind = _dtype(datatype)

        def finish(everybody: list[Any]) -> None:
            memory(recvbuf, count, kind)[:] = _reduced(everybody, op)

        self._collective("allReduce", stream, lambda: memory(sendbuf, count, kind).copy(), finish)

    def reduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int) -> None:
        kind = _dtype(datatype)

        def finish(everybody: list[Any]) -> None:
            if self.rank == root:
                memory(recvbuf, count, kind)[:] = _reduced(everybody, op)

        self._collective("reduce", stream, lambda: memory(sendbuf, count, kind).copy(), finish)

    def reduceScatter(self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int) -> None:
        kind = _dtype(datatype)

        def finish(everybody: list[Any]) -> None:
            mine = slice(self.rank * recvcount, (self.rank + 1) * recvcount)
            memory(recvbuf, recvcount, kind)[:] = _reduced(everybody, op)[mine]

        self._collective("reduceScatter", stream, lambda: memory(sendbuf, recvcount * self.size_, kind).copy(), finish)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        kind = _dtype(datatype)

        def finish(everybody: list[Any]) -> None:
            memory(recvbuf, count * self.size_, kind)[:] = np.concatenate(everybody)

        self._collective("allGather", stream, lambda: memory(sendbuf, count, kind).copy(), finish)

    def broadcast(self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int) -> None:
        kind = _dtype(datatype)

        def finish(everybody: list[Any]) -> None:
            memory(recvbuff, count, kind)[:] = everybody[root]

        self._collective("broadcast", stream, lambda: memory(sendbuff, count, kind).copy() if self.rank == root else None, finish)

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        key = (self.id, self.rank, peer)
        posted: list[int] = []
        hub.calls.append("send")
        _launch(
            stream,
            [(
                lambda: posted.append(hub.post(key, memory(sendbuf, count, _dtype(datatype)).tobytes())), lambda: None,
                lambda: hub.wait_taken(key, posted[0]),
            )],
        )  # fmt: skip

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        def act() -> None:
            memory(recvbuf, count, _dtype(datatype))[:] = np.frombuffer(hub.take((self.id, peer, self.rank)), _dtype(datatype))

        hub.calls.append("recv")
        _launch(stream, [(None, act, None)])

    def check_async_error(self) -> None:
        if hub.error:
            raise NcclError(hub.error)

    def abort(self) -> None:
        hub.ended.append(("abort", self.rank))

    def destroy(self) -> None:
        hub.ended.append(("destroy", self.rank))


def _dtype(number: int) -> Any:
    return list(_DTYPES.values())[number]


def _reduced(everybody: list[Any], op: int) -> Any:
    name = list(_OPS)[op]
    total = everybody[0]
    for each in everybody[1:]:
        total = _OPS[name](total, each)
    return total / np.asarray(len(everybody), total.dtype) if name == "NCCL_AVG" else total


Steps = list[tuple[Callable[[], Any] | None, Callable[[], None], Callable[[], Any] | None]]


def _launch(stream: int, steps: Steps) -> None:
    """Queue what NCCL does: (what is sent first, the rest, what is waited for); one group acts as a whole."""
    if getattr(_local, "depth", 0):
        _local.group.append((stream, steps))
        return
    Stream.by_number[stream].enqueue(lambda: _act(steps))


def _act(steps: Steps) -> None:
    time.sleep(lag)
    for first, _, _ in steps:
        if first is not None:
            first()
    for _, middle, _ in steps:
        middle()
    for _, _, last in steps:
        if last is not None:
            last()


def groupStart() -> None:
    if not getattr(_local, "depth", 0):
        _local.depth, _local.group = 0, []
    _local.depth += 1


def groupEnd() -> None:
    _local.depth -= 1
    if _local.depth:
        return
    by_stream: dict[int, Steps] = defaultdict(list)
    for stream, steps in _local.group:
        by_stream[stream] += steps
    for stream, together in by_stream.items():
        Stream.by_number[stream].enqueue(lambda together=together: _act(together))  # type: ignore[misc]


def get_unique_id() -> bytes:
    return next(_numbers).to_bytes(8, "little") + b"\x80" * 120


# The modules ---------------------------------------------------------------------------------------------------------


def _memcpy(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    def act() -> None:
        time.sleep(lag)
        ctypes.memmove(target, source, nbytes)

    Stream.by_number[stream].enqueue(act)


def _module(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


@contextlib.contextmanager
def install(monkeypatch: Any, **changes: Any) -> Iterator[types.ModuleType]:
    """Put the stand-in where ``import cupy`` finds it; `changes` are names of its ``cuda.nccl``."""
    hub.__init__()  # type: ignore[misc]
    BUS.clear()
    runtime = _module(
        "cupy.cuda.runtime", getDevice=lambda: getattr(_local, "device", 0), memcpyAsync=_memcpy, memcpyHostToDevice=1,
        memcpyDeviceToHost=2, CUDARuntimeError=CUDARuntimeError,
        deviceGetPCIBusId=lambda device: BUS.get(device, f"0000:{device:02x}:00.0"),
    )  # fmt: skip
    nccl = _module(
        "cupy.cuda.nccl", available=True, NcclError=NcclError, NcclCommunicator=NcclCommunicator, get_unique_id=get_unique_id,
        get_version=lambda: 22703, groupStart=groupStart, groupEnd=groupEnd,
        **{name: number for number, name in enumerate(_DTYPES)}, **{name: number for number, name in enumerate(_OPS)},
    )  # fmt: skip
    vars(nccl).update(changes)
    cuda = _module(
        "cupy.cuda", Stream=Stream, Event=Event, Device=Device, get_current_stream=get_current_stream, runtime=runtime, nccl=nccl
    )
    functions = {name: getattr(np, name) for name in dir(np) if isinstance(getattr(np, name), np.ufunc)}
    cupy = _module(
        "cupy", cuda=cuda, ndarray=ndarray, asarray=asarray, **functions,
        empty=lambda shape, dtype: asarray(np.empty(shape, dtype)), ones=lambda shape, dtype: asarray(np.ones(shape, dtype)),
    )  # fmt: skip
    cupyx = _module("cupyx", empty_pinned=np.empty)
    for module in (cupy, cuda, runtime, nccl, cupyx):
        monkeypatch.setitem(__import__("sys").modules, module.__name__, module)
    try:
        yield cupy
    finally:
        # A thread that outlived its test would meet the next one's hub.
        hub.close()
        streams = [*Stream.by_number.values()]
        for stream in streams:
            stream.end()
        for stream in streams:
            stream.join()
        Stream.by_number.clear()
        vars(_local).clear()
