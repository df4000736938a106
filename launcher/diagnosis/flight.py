"""Flight records: what each rank wrote of its last calls when it waited too long, failed, or was asked to.

A rank writes one file, ``rank-3.flight.json``, into the job's flight directory (DISTTORCH_FLIGHT_DIR), or into a directory
below it for each attempt of a job that is restarted. `Record` says what stands in it. Ranks are those of the world,
except for `Entry.root` and `Entry.peer`, which count within the entry's group, as the call did.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = "disttorch flight record 1"
REASONS = ("timeout", "error", "mismatch", "signal")
STATES = ("under way", "complete", "failed")

_NAME = re.compile(r"rank-(\d+)\.flight\.json$")
_PARTIAL = re.compile(r"rank-(\d+)\.(?=.*flight).*$")  # what a writer that was killed leaves beside it
OURS = ("collectives/", "disttorch/", "launcher/", "<frozen")  # frames between the user's program and what it waits for
RECORDER = "collectives/flight.py"  # writes the stack, and so stands at the end of it
LONG = 64  # entries; a recorder keeps more than these before it lets go of any
DEPTH = 2  # directories below the one that is asked for: an attempt's, and a host's in it


class FlightError(ValueError):
    """A file is no flight record, or a damaged one."""


class Entry(NamedTuple):
    """One call of a collective, or of send or recv."""

    group: str
    seq: int | None  # per group, from 1; None for send and recv
    operation: str
    reduction: str | None
    dtype: str | None
    shape: tuple[int, ...] | None
    root: int | None  # within the group
    peer: int | None  # within the group; None in a recv from any rank
    tag: int | None
    bytes: int | None
    started: float  # seconds since the epoch, by the clock of the rank's host, as are all times
    ended: float | None
    state: str
    where: str | None  # "train.py:41"

    @property
    def complete(self) -> bool:
        """Whether it has done what it was called for."""
        return self.state == "complete"


class Group(NamedTuple):
    """A group that a rank is a member of."""

    ranks: tuple[int, ...]
    transport: str | None


class Record(NamedTuple):
    """What one rank wrote."""

    rank: int
    world_size: int
    host: str
    pid: int
    attempt: int
    written: float
    reason: str
    error: str | None  # "TimeoutError: ..."
    program: tuple[str, ...]
    groups: dict[str, Group]
    stack: tuple[str, ...]  # "train.py:41 in train", outermost first
    entries: tuple[Entry, ...]  # oldest first; only the last calls of the rank
    dropped: int | None = None  # calls that are older than the oldest entry, where the writer counted them

    @property
    def place(self) -> str:
        """Where the main thread was in the user's program, or where it was at all."""
        if not self.stack:
            return "a place that its record does not name"
        return next((frame for frame in reversed(self.stack) if not frame.startswith(OURS)), self.stack[-1])

    @property
    def begins_at_start(self) -> bool:
        """Whether the entries are all calls that the rank has made, as far as the record tells."""
        if self.dropped is not None:
            return self.dropped == 0
        first: dict[str, int] = {}
        for entry in self.entries:
            if entry.seq is not None:
                first[entry.group] = min(entry.seq, first.get(entry.group, entry.seq))
        # Sends and receives have no number, so of them alone a long record says nothing of what was before.
        return all(seq == 1 for seq in first.values()) and (bool(first) or len(self.entries) < LONG)


class Flight(NamedTuple):
    """What a flight directory holds of one attempt."""

    directory: str
    attempt: int
    attempts: tuple[int, ...]  # all that it holds
    records: tuple[Record, ...]  # by rank
    damaged: dict[str, str]  # file, relative to the directory: what is wrong with it
    damaged_ranks: tuple[int, ...]  # whose only record is damaged
    notes: tuple[str, ...]  # what was left out, and why


def record_of(fields: Mapping[str, Any]) -> Record:
    """Reads a record's JSON object.

    Raises
    ------
    FlightError
        It has another format, lacks something, or holds something of another type.

    Examples
    --------
    >>> record_of({"format": "disttorch flight record 2"})
    Traceback (most recent call last):
    launcher.diagnosis.flight.FlightError: its format is 'disttorch flight record 2', and this reads 'disttorch flight record 1'
    """
    if fields.get("format") != FORMAT:
        raise FlightError(f"its format is {fields.get('format')!r}, and this reads {FORMAT!r}")
    rank, size = _whole(fields, "rank"), _whole(fields, "world_size")
    if rank >= size:
        raise FlightError(f"rank {rank} is not one of a world of {size}")
    groups = {name: _group(name, value, size) for name, value in _typed(fields, "groups", Mapping).items()}
    return Record(
        rank=rank,
        world_size=size,
        host=_typed(fields, "host", str),
        pid=_whole(fields, "pid"),
        attempt=_whole(fields, "attempt"),
        written=_time(fields, "written"),
        reason=_one_of(fields, "reason", REASONS),
        error=_typed(fields, "error", str, optional=True),
        program=_texts(fields, "program"),
        groups=groups,
        stack=_texts(fields, "stack"),
        entries=tuple(_entry(index, value) for index, value in enumerate(_typed(fields, "entries", Sequence))),
        dropped=_whole(fields, "dropped", optional=True),
    )


def read_directory(directory: str | os.PathLike[str], attempt: int | None = None) -> Flight:
    """Reads the records of one attempt of a job; damaged files do not stop it.

    Parameters
    ----------
    directory : path
        The flight directory; the files may also lie up to two directories deeper.
    attempt : int, optional
        Which start of the job, from 0; default the last one that wrote a record.

    Raises
    ------
    FlightError
        No record can be read: there is no directory, none in it, or none of that attempt.
    """
    top = Path(directory)
    if not top.exists():
        raise FlightError(f"there is no directory {top}: no rank has written a record into it")
    if not top.is_dir():
        raise FlightError(f"{top} is a file; the directory that it lies in is wanted")
    records: list[tuple[str, Record]] = []
    damaged: dict[str, str] = {}
    for path in _files(top):
        name = str(path.relative_to(top))
        try:
            records.append((name, _read(path)))
        except FlightError as error:
            damaged[name] = str(error)
    if not records:
        what = "; ".join(f"{name}: {why}" for name, why in damaged.items())
        raise FlightError(f"no flight record can be read in {top}{f' ({what})' if what else ': it holds none'}")
    attempts = tuple(sorted({record.attempt for _, record in records}))
    chosen = _last_attempt([record for _, record in records]) if attempt is None else attempt
    if chosen not in attempts:
        raise FlightError(f"{top} holds no record of attempt {chosen}, only of {', '.join(map(str, attempts))}")
    kept, notes = _one_job([(name, record) for name, record in records if record.attempt == chosen])
    have = {record.rank for record in kept}
    names = {name: found for name in damaged if (found := _PARTIAL.match(Path(name).name) or _NAME.match(Path(name).name))}
    ranks = sorted({int(found[1]) for found in names.values()} - have)
    return Flight(str(top), chosen, attempts, kept, damaged, tuple(rank for rank in ranks if rank < kept[0].world_size), notes)


def _last_attempt(records: Sequence[Record]) -> int:
    """The last start of the job: an earlier job may have been started more often, and written on the same hosts before."""
    latest = {record.host: record.attempt for record in sorted(records, key=lambda record: (record.written, record.attempt))}
    return max(latest.values())


def _files(top: Path) -> list[Path]:
    found = []
    for directory, below, names in os.walk(top):
        if len(Path(directory).relative_to(top).parts) == DEPTH:
            below.clear()
        below.sort()
        found += [Path(directory, name) for name in names if _NAME.match(name) or _PARTIAL.match(name)]
    return sorted(found, key=lambda path: (str(path.parent), int(re.findall(r"\d+", path.name)[0]), path.name))


def _read(path: Path) -> Record:
    """One file's record."""
    named = _NAME.match(path.name)
    if named is None:
        raise FlightError("the rank began to write it and did not come to its end: it was killed, or the disk is full")
    if not path.is_file():  # a pipe would be waited for, a link may lead nowhere
        raise FlightError("it is no file that can be read")
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise FlightError(f"it cannot be read: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no text at all
        what = "it is empty" if path.stat().st_size == 0 else f"it is no whole JSON text: {error}"
        raise FlightError(what) from error
    if not isinstance(fields, dict):
        raise FlightError(f"it holds no record but {type(fields).__name__}")
    record = record_of(fields)
    if record.rank != int(named[1]):
        raise FlightError(f"it is named for rank {int(named[1])} and holds the record of rank {record.rank}")
    return record


def _one_job(found: Sequence[tuple[str, Record]]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The records of the job that wrote last, one a rank; and what was left out."""
    latest = max((record for _, record in found), key=lambda record: record.written)
    kept: dict[int, tuple[str, Record]] = {}
    notes = []
    for name, record in found:
        if record.world_size != latest.world_size:
            notes.append(
                f"{name} is left out: it is of a job of {record.world_size} ranks, the latest record of one of {latest.world_size}"
            )
            continue
        if _before(record, [other for _, other in found]):
            notes.append(f"{name} is left out: it was written before the job of the latest record began")
            continue
        other = kept.get(record.rank)
        if other is not None:
            older = name if record.written <= other[1].written else other[0]
            notes.append(f"{older} is left out: there is a later record of rank {record.rank}")
        if other is None or record.written > other[1].written:
            kept[record.rank] = (name, record)
    return tuple(record for _, (_, record) in sorted(kept.items())), tuple(notes)


def _before(record: Record, others: Sequence[Record]) -> bool:
    """Whether a record is of an earlier job: the latest one of its host holds all calls of its rank, and they are younger."""
    latest = max((other for other in others if other.host == record.host), key=lambda other: other.written)
    counted = [entry.started for entry in latest.entries if entry.seq is not None]
    return latest.begins_at_start and bool(counted) and record.written < min(counted)


def _group(name: str, value: Any, size: int) -> Group:
    if not isinstance(value, Mapping):
        raise FlightError(f"groups[{name!r}] is {value!r} and no object")
    ranks = _typed(value, "ranks", Sequence)
    if not all(isinstance(rank, int) and 0 <= rank < size for rank in ranks) or len(set(ranks)) != len(ranks):
        raise FlightError(f"groups[{name!r}] has the ranks {ranks!r} in a world of {size}")
    return Group(tuple(ranks), _typed(value, "transport", str, optional=True))


def _entry(index: int, value: Any) -> Entry:
    if not isinstance(value, Mapping):
        raise FlightError(f"entries[{index}] is {value!r} and no object")
    try:
        shape = _typed(value, "shape", Sequence, optional=True)
        if shape is not None and not all(isinstance(length, int) and length >= 0 for length in shape):
            raise FlightError(f"its shape is {shape!r}")
        return Entry(
            group=_typed(value, "group", str),
            seq=_whole(value, "seq", optional=True),
            operation=_typed(value, "operation", str),
            reduction=_typed(value, "reduction", str, optional=True),
            dtype=_typed(value, "dtype", str, optional=True),
            shape=None if shape is None else tuple(shape),
            root=_whole(value, "root", optional=True),
            peer=_or_any(value, "peer"),
            tag=_or_any(value, "tag"),
            bytes=_whole(value, "bytes", optional=True),
            started=_time(value, "started"),
            ended=_time(value, "ended", optional=True),
            state=_one_of(value, "state", STATES),
            where=_typed(value, "where", str, optional=True),
        )
    except FlightError as error:
        raise FlightError(f"entries[{index}]: {error}") from error


def _typed(fields: Mapping[str, Any], name: str, kind: type, optional: bool = False) -> Any:
    value = fields.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (kind is Sequence and isinstance(value, str)):
        raise FlightError(f"{name} is {value!r}" if name in fields else f"{name} is missing")
    return value


def _whole(fields: Mapping[str, Any], name: str, optional: bool = False) -> Any:
    value = _typed(fields, name, int, optional)
    if value is not None and (isinstance(value, bool) or value < 0):
        raise FlightError(f"{name} is {value!r}")
    return value


def _or_any(fields: Mapping[str, Any], name: str) -> Any:
    """A number; None for "any", which MPI and its relatives write as a negative one."""
    value = _typed(fields, name, int, optional=True)
    return None if value is None or value < 0 else value


def _time(fields: Mapping[str, Any], name: str, optional: bool = False) -> Any:
    value = fields.get(name)
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise FlightError(f"{name} is {value!r}" if name in fields else f"{name} is missing")
    return float(value)


def _texts(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = _typed(fields, name, Sequence)
    if not all(isinstance(value, str) for value in values):
        raise FlightError(f"{name} is {values!r}")
    return tuple(values)


def _one_of(fields: Mapping[str, Any], name: str, values: Sequence[str]) -> str:
    value = _typed(fields, name, str)
    if value not in values:
        raise FlightError(f"{name} is {value!r}, none of {', '.join(values)}")
    return value
