"""``cupy.cuda.nccl``: NCCL whose ranks are threads of this process, each with a device, which meet in a hub.

An operation is carried out on its stream, and not before all ranks have come to it: until then the stream keeps what comes behind it. Ranks
that call different things are told so. A graph that captured an operation carries it out with every launch.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from . import devices
from .order import Region, lock, region_at
from .streams import Line, let_go_on, line_of, submit

__all__ = ["Hub", "NcclCommunicator", "NcclError", "contents", "hub"]

PATIENCE = 30.0
"""Seconds that ranks wait for each other where communicators are made."""
SHARES_GPUS = 23000

DTYPES: dict[str, Any] = {
    "NCCL_INT8": np.int8, "NCCL_UINT8": np.uint8, "NCCL_INT32": np.int32, "NCCL_UINT32": np.uint32, "NCCL_INT64": np.int64,
    "NCCL_UINT64": np.uint64, "NCCL_FLOAT16": np.float16, "NCCL_FLOAT32": np.float32, "NCCL_FLOAT64": np.float64,
    "NCCL_BFLOAT16": ml_dtypes.bfloat16,
}  # fmt: skip
OPS: dict[str, Any] = {
    "NCCL_SUM": np.add, "NCCL_PROD": np.multiply, "NCCL_MAX": np.maximum, "NCCL_MIN": np.minimum, "NCCL_AVG": np.add,
}  # fmt: skip
_ALIASES = {
    "NCCL_CHAR": "NCCL_INT8", "NCCL_INT": "NCCL_INT32", "NCCL_HALF": "NCCL_FLOAT16", "NCCL_FLOAT": "NCCL_FLOAT32",
    "NCCL_DOUBLE": "NCCL_FLOAT64",
}  # fmt: skip
_STATUS = {2: "NCCL_ERROR_SYSTEM_ERROR", 4: "NCCL_ERROR_INVALID_ARGUMENT", 5: "NCCL_ERROR_INVALID_USAGE", 6: "NCCL_ERROR_REMOTE_ERROR"}
_local = threading.local()
_numbers = itertools.count(1)


class NcclError(RuntimeError):
    """As CuPy's: a status and NCCL's text for it."""

    def __init__(self, status: int, text: str = ""):
        self.status = status
        super().__init__(f"{_STATUS.get(status, 'NCCL_ERROR_INTERNAL_ERROR')}: {text}")


class Hub:
    """Where the ranks of communicators meet.

    Attributes
    ----------
    error : NcclError or None
        What ``check_async_error`` raises on every rank.
    ended : list of (str, int)
        "destroy" or "abort", and of which rank, in the order of the calls.
    version : int
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.reset()

    def reset(self) -> None:
        """Begin afresh."""
        self.given: dict[Any, dict[int, Any]] = defaultdict(dict)
        self.mail: dict[Any, list[Any]] = defaultdict(list)
        self.error: NcclError | None = None
        self.ended: list[tuple[str, int]] = []
        self.version = 22703

    def exchange(self, key: Any, rank: int, size: int, value: Any) -> list[Any]:
        """What all ranks give, as soon as all have come; the host waits."""
        with self.changed:
            self.given[key][rank] = value
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: len(self.given[key]) == size, PATIENCE):
                raise NcclError(2, f"rank {rank} waits alone in {key}")
            return [self.given[key][other] for other in range(size)]


hub = Hub()
Uses = list[tuple[Region, int, int, bool]]


class Part:
    """One operation of one rank: what it gives to the others, and what it does with theirs.

    `give` is called when the stream comes to it, `take` until it says that it is done.
    """

    def __init__(self, name: str, uses: Uses, give: Callable[[], None], take: Callable[[], bool]):
        self.name, self.uses, self.give, self.take = name, uses, give, take


def _launch(line: Line, parts: list[Part]) -> None:
    """Launch operations as one."""
    with lock:
        line.advance()
        gave: list[bool] = []
        waiting: list[Part] = []

        def act() -> bool:
            if not gave:
                for part in parts:
                    part.give()
                gave.append(True)
                waiting[:] = parts
            waiting[:] = [part for part in waiting if not part.take()]
            if not waiting:
                gave.clear()  # a graph may do it again
            return not waiting

        submit(line, "nccl " + " ".join(part.name for part in parts), act, [use for part in parts for use in part.uses])
    let_go_on()  # ranks that have waited for this one


class NcclConfig:
    """``cupy.cuda.nccl.NcclConfig``."""

    def __init__(self, split_share: int = 0):
        self.split_share = split_share


class NcclCommunicator:
    """``cupy.cuda.nccl.NcclCommunicator``."""

    def __init__(self, ndev: int, commId: bytes, rank: int, config: Any = None) -> None:
        if type(commId) is not bytes:
            raise TypeError(f"Argument 'commId' has incorrect type (expected bytes, got {type(commId).__name__})")
        everybody = hub.exchange((commId, "init"), rank, ndev, devices.bus_of(devices.current()))
        shared = hub.version >= SHARES_GPUS and os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
        if len(set(everybody)) < ndev and not shared:
            raise NcclError(5, "Duplicate GPU detected")
        self._become(commId, ndev, rank)

    def _become(self, identity: Any, size: int, rank: int) -> None:
        self._id, self._size, self._rank, self._device = identity, size, rank, devices.current()
        self._splits = 0
        self._done: dict[str, int] = defaultdict(int)
        self._alive = True
        self.graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        """Those that have a part of it."""

    def size(self) -> int:
        return self._size

    def rank_id(self) -> int:
        return self._rank

    def device_id(self) -> int:
        return self._device

    def commSplit(self, color: int, key: int, config: Any = None) -> NcclCommunicator | None:
        self._splits += 1
        everybody = hub.exchange((self._id, "split", self._splits), self._rank, self._size, (color, key))
        if color < 0:
            return None
        members = sorted((its_key, rank) for rank, (its_color, its_key) in enumerate(everybody) if its_color == color)
        other = NcclCommunicator.__new__(NcclCommunicator)
        other._become((self._id, self._splits, color), len(members), members.index((key, self._rank)))
        return other

    # Collectives -----------------------------------------------------------------------------------------------------

    def _collective(
        self, name: str, stream: int, reads: tuple[int, int], writes: tuple[int, int], given: Callable[[], Any],
        finish: Callable[[list[Any]], None], told: Any = None,
    ) -> None:  # fmt: skip
        current: list[Any] = []

        def give() -> None:
            self._done["collectives"] += 1
            current.append((self._id, self._done["collectives"]))
            hub.given[current[0]][self._rank] = (name, told, given())

        def take() -> bool:
            everybody = hub.given[current[0]]
            if self._alive and len(everybody) < self._size:
                return False
            current.clear()
            if self._alive:
                if len({each[:2] for each in everybody.values()}) > 1:
                    raise NcclError(4, f"ranks call different things: { {rank: each[:2] for rank, each in everybody.items()} }")
                finish([everybody[rank][2] for rank in range(self._size)])
            return True

        self._submit(name, stream, [(*reads, False), (*writes, True)], give, take)

    def _submit(
        self, name: str, stream: int, memory: list[tuple[int, int, bool]], give: Callable[[], None], take: Callable[[], bool]
    ) -> None:
        if not self._alive:
            raise NcclError(4, f"{name}: the communicator is destroyed")
        line = line_of(stream)
        if line.device != self._device:
            raise NcclError(5, f"{name}: the stream is of device {line.device}, the communicator of {self._device}")
        uses: Uses = []
        for pointer, nbytes, writes in memory:
            if nbytes:
                region = region_at(pointer, name)
                if region.device != self._device:
                    raise NcclError(5, f"{name}: memory of device {region.device}, the communicator is of {self._device}")
                uses.append((region, pointer, pointer + nbytes, writes))
        if line.capture is not None:
            line.capture.comms.add(self)
        part = Part(name, uses, give, take)
        if getattr(_local, "depth", 0):
            _local.group.append((line, part))
        else:
            _launch(line, [part])

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        n = count * _size(datatype)

        def finish(everybody: list[Any]) -> None:
            _memory(recvbuf, count, datatype)[:] = _reduced(everybody, op)

        given = _reader(sendbuf, count, datatype)
        self._collective("allReduce", stream, (sendbuf, n), (recvbuf, n), given, finish, (count, datatype, op))

    def reduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, root: int, stream: int) -> None:
        n, mine = count * _size(datatype), self._rank == root

        def finish(everybody: list[Any]) -> None:
            if mine:
                _memory(recvbuf, count, datatype)[:] = _reduced(everybody, op)

        given = _reader(sendbuf, count, datatype)
        self._collective("reduce", stream, (sendbuf, n), (recvbuf, n if mine else 0), given, finish, (count, datatype, op, root))

    def reduceScatter(self, sendbuf: int, recvbuf: int, recvcount: int, datatype: int, op: int, stream: int) -> None:
        n, whole = recvcount * _size(datatype), recvcount * self._size

        def finish(everybody: list[Any]) -> None:
            mine = slice(self._rank * recvcount, (self._rank + 1) * recvcount)
            _memory(recvbuf, recvcount, datatype)[:] = _reduced(everybody, op)[mine]

        given = _reader(sendbuf, whole, datatype)
        told = recvcount, datatype, op
        self._collective("reduceScatter", stream, (sendbuf, n * self._size), (recvbuf, n), given, finish, told)

    def allGather(self, sendbuf: int, recvbuf: int, count: int, datatype: int, stream: int) -> None:
        n = count * _size(datatype)

        def finish(everybody: list[Any]) -> None:
            _memory(recvbuf, count * self._size, datatype)[:] = np.concatenate(everybody)

        given = _reader(sendbuf, count, datatype)
        self._collective("allGather", stream, (sendbuf, n), (recvbuf, n * self._size), given, finish, (count, datatype))

    def broadcast(self, sendbuff: int, recvbuff: int, count: int, datatype: int, root: int, stream: int) -> None:
        n, mine = count * _size(datatype), self._rank == root

        def finish(everybody: list[Any]) -> None:
            _memory(recvbuff, count, datatype)[:] = everybody[root]

        given = _reader(sendbuff, count, datatype) if mine else lambda: None
        self._collective("broadcast", stream, (sendbuff, n if mine else 0), (recvbuff, n), given, finish, (count, datatype, root))

    def bcast(self, buff: int, count: int, datatype: int, root: int, stream: int) -> None:
        self.broadcast(buff, buff, count, datatype, root, stream)

    # Messages --------------------------------------------------------------------------------------------------------

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        key = (self._id, self._rank, peer)
        letters: list[dict[str, Any]] = []

        def give() -> None:
            letters.append({"data": _memory(sendbuf, count, datatype).copy(), "taken": False})
            hub.mail[key].append(letters[0])

        def take() -> bool:
            done = letters[0]["taken"] or not self._alive
            if done:
                letters.clear()
            return done

        self._submit("send", stream, [(sendbuf, count * _size(datatype), False)], give, take)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        key = (self._id, peer, self._rank)
        received: list[bool] = []

        def take() -> bool:
            if not received and self._alive:
                if not hub.mail[key]:
                    return False
                letter = hub.mail[key].pop(0)
                if letter["data"].shape != (count,) or letter["data"].dtype != _dtype(datatype):
                    raise NcclError(4, f"recv: {count} of {_dtype(datatype)} awaited, {letter['data'].shape} sent")
                _memory(recvbuf, count, datatype)[:] = letter["data"]
                letter["taken"] = True
                received.append(True)
            return True

        self._submit("recv", stream, [(recvbuf, count * _size(datatype), True)], received.clear, take)

    # The end ---------------------------------------------------------------------------------------------------------

    def check_async_error(self) -> None:
        if not self._alive:
            raise NcclError(4, "the communicator is destroyed")
        if hub.error is not None:
            raise hub.error

    def abort(self) -> None:
        self._alive = False
        hub.ended.append(("abort", self._rank))
        let_go_on()
        self._wait_for_graphs("abort")

    def destroy(self) -> None:
        self._wait_for_graphs("destroy")
        self._alive = False
        hub.ended.append(("destroy", self._rank))

    def _wait_for_graphs(self, name: str) -> None:
        """As NCCL's commDestroySync, which has no end while there is a graph; here the main thread is told so."""
        while self.graphs:
            if threading.current_thread().daemon is False:
                raise RuntimeError(f"NcclCommunicator.{name} waits for ever: a CUDA graph that has a part of it is still there")
            time.sleep(0.01)


def _dtype(number: int) -> Any:
    return list(DTYPES.values())[number]


def _size(number: int) -> int:
    return np.dtype(_dtype(number)).itemsize


def _memory(pointer: int, count: int, datatype: int) -> Any:
    if not count:
        return np.empty(0, _dtype(datatype))
    region = region_at(pointer, "nccl")
    begin = pointer - region.pointer
    return region.bytes[begin : begin + count * _size(datatype)].view(_dtype(datatype))


def _reader(pointer: int, count: int, datatype: int) -> Callable[[], Any]:
    return lambda: _memory(pointer, count, datatype).copy()


def _reduced(everybody: list[Any], op: int) -> Any:
    name, dtype = list(OPS)[op], everybody[0].dtype
    wide = np.float32 if dtype.itemsize == 2 and dtype.kind not in "iu" else dtype
    total = everybody[0].astype(wide)
    with np.errstate(all="ignore"):
        for each in everybody[1:]:
            total = OPS[name](total, each.astype(wide))
        if name == "NCCL_AVG":
            total = total / len(everybody) if total.dtype.kind not in "iu" else total // len(everybody)
        return total.astype(dtype)


def groupStart() -> None:
    if not getattr(_local, "depth", 0):
        _local.depth, _local.group = 0, []
    _local.depth += 1


def groupEnd() -> None:
    _local.depth -= 1
    if _local.depth:
        return
    by_line: dict[int, tuple[Line, list[Part]]] = {}
    for line, part in _local.group:
        by_line.setdefault(line.uid, (line, []))[1].append(part)
    for line, parts in by_line.values():
        _launch(line, parts)


def get_unique_id() -> bytes:
    return next(_numbers).to_bytes(8, "little") + b"\x80" * 120


def get_version() -> int:
    return hub.version


def contents() -> dict[str, Any]:
    """The module's names."""
    numbers = {name: number for table in (DTYPES, OPS) for number, name in enumerate(table)}
    return {
        "NcclCommunicator": NcclCommunicator, "NcclConfig": NcclConfig, "NcclError": NcclError, "available": True,
        "get_build_version": get_version, "get_unique_id": get_unique_id, "get_version": get_version, "groupEnd": groupEnd,
        "groupStart": groupStart, **numbers, **{alias: numbers[name] for alias, name in _ALIASES.items()},
    }  # fmt: skip
