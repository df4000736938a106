"""What a profile consists of: events, their averages, and how they are shown."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "Interval", "RawEvent"]


class RawEvent(NamedTuple):
    """What is noted while the program runs."""

    name: str
    start: int  # nanoseconds
    end: int
    thread: int
    shapes: list | None
    memory: int
    stack: list[str] | None
    flops: int | None
    is_annotation: bool


class Interval(NamedTuple):
    """From when to when, in microseconds."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """How long."""
        return self.end - self.start


def _time(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def _bytes(n: float) -> str:
    for unit, size in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if abs(n) >= size:
            return f"{n / size:.2f} {unit}"
    return f"{n:.0f} b"


class _Times:
    """The figures that events and their averages have alike, in microseconds and bytes."""

    count: int
    cpu_time_total: float
    self_cpu_time_total: float

    @property
    def cpu_time(self) -> float:
        """The mean of a call."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def cpu_time_str(self) -> str:
        """`cpu_time` in words."""
        return _time(self.cpu_time)

    @property
    def cpu_time_total_str(self) -> str:
        """`cpu_time_total` in words."""
        return _time(self.cpu_time_total)

    @property
    def self_cpu_time_total_str(self) -> str:
        """`self_cpu_time_total` in words."""
        return _time(self.self_cpu_time_total)


class FunctionEvent(_Times):
    """One call of an operation, of a node's rules in backward, or of a `record_function` block.

    Attributes
    ----------
    name, thread, time_range, input_shapes, stack, flops
    cpu_time_total, self_cpu_time_total : float
        Microseconds with and without the events inside.
    cpu_parent, cpu_children
    cpu_memory_usage, self_cpu_memory_usage : int
        Bytes of the results, with ``profile_memory=True``.
    """

    count = 1

    def __init__(self, raw: RawEvent, number: int):
        self.id = number
        self.name = self.key = raw.name
        self.thread = raw.thread
        self.time_range = Interval(raw.start / 1e3, raw.end / 1e3)
        self.input_shapes = raw.shapes or []
        self.stack = raw.stack or []
        self.flops = raw.flops
        self.is_user_annotation = raw.is_annotation
        self.cpu_parent: FunctionEvent | None = None
        self.cpu_children: list[FunctionEvent] = []
        self.self_cpu_memory_usage = raw.memory

    @property
    def cpu_time_total(self) -> float:  # type: ignore[override]
        return self.time_range.elapsed_us()

    @property
    def self_cpu_time_total(self) -> float:  # type: ignore[override]
        return self.cpu_time_total - sum(c.cpu_time_total for c in self.cpu_children)

    @property
    def cpu_memory_usage(self) -> int:
        return self.self_cpu_memory_usage + sum(c.cpu_memory_usage for c in self.cpu_children)

    def __repr__(self) -> str:
        return f"<FunctionEvent {self.name} cpu_time={self.cpu_time_str} self_cpu_time={self.self_cpu_time_total_str} thread={self.thread}>"


class FunctionEventAvg(_Times):
    """All events of one name (and shapes, and place in the program, where that was asked for)."""

    def __init__(self, first: FunctionEvent):
        self.key = first.name
        self.input_shapes = first.input_shapes
        self.stack = first.stack
        self.is_user_annotation = first.is_user_annotation
        self.count = 0
        self.cpu_time_total = self.self_cpu_time_total = 0.0
        self.cpu_memory_usage = self.self_cpu_memory_usage = 0
        self.flops = 0

    def add(self, event: FunctionEvent) -> FunctionEventAvg:
        """Count an event in."""
        self.count += 1
        parent = event.cpu_parent
        while parent is not None and parent.name != event.name:
            parent = parent.cpu_parent
        if parent is None:  # inside of one of the same name it has been counted
            self.cpu_time_total += event.cpu_time_total
            self.cpu_memory_usage += event.cpu_memory_usage
        self.self_cpu_time_total += event.self_cpu_time_total
        self.self_cpu_memory_usage += event.self_cpu_memory_usage
        self.flops += event.flops or 0
        return self

    def __repr__(self) -> str:
        return (
            f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total_str} cpu_time={self.cpu_time_str} "
            f"calls={self.count}>"
        )


class EventList(list):
    """Events or averages, with what shows them."""

    def __init__(self, events: Iterable[Any] = (), profile_memory: bool = False, with_flops: bool = False):
        super().__init__(events)
        self._profile_memory, self._with_flops = profile_memory, with_flops

    @classmethod
    def of(cls, raw: list[RawEvent], profile_memory: bool = False, with_flops: bool = False) -> EventList:
        """Events in the order of their beginnings, each knowing in which other it lies."""
        events = []
        inside: dict[int, list[FunctionEvent]] = {}
        for number, r in enumerate(sorted(raw, key=lambda r: (r.start, -r.end))):
            event = FunctionEvent(r, number)
            stack = inside.setdefault(event.thread, [])
            while stack and stack[-1].time_range.end < event.time_range.end:
                stack.pop()
            while stack and stack[-1].time_range.end <= event.time_range.start:
                stack.pop()
            if stack:
                event.cpu_parent = stack[-1]
                stack[-1].cpu_children.append(event)
            stack.append(event)
            events.append(event)
        return cls(events, profile_memory, with_flops)

    @property
    def self_cpu_time_total(self) -> float:
        """The sum over all events, in microseconds."""
        return sum(e.self_cpu_time_total for e in self)

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, **options: Any) -> EventList:
        """Events of one name taken together, of one name and the same shapes, or called from the same lines."""
        averages: dict[tuple, FunctionEventAvg] = {}
        for event in self:
            key = (
                event.name,
                str(event.input_shapes) if group_by_input_shape else "",
                tuple(event.stack[:group_by_stack_n]) if group_by_stack_n else (),
            )
            if key not in averages:
                averages[key] = FunctionEventAvg(event)
                if not group_by_input_shape:
                    averages[key].input_shapes = []
                averages[key].stack = event.stack[:group_by_stack_n]
            averages[key].add(event)
        return EventList(averages.values(), self._profile_memory, self._with_flops)

    def total_average(self) -> FunctionEventAvg | None:
        """All events together."""
        if not self:
            return None
        total = FunctionEventAvg(self[0])
        total.key = "Total"
        for event in self:
            total.add(event)
        return total

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_src_column_width: int = 75,
        max_name_column_width: int = 55,
        max_shapes_column_width: int = 80,
        header: str | None = None,
        top_level_events_only: bool = False,
        **options: Any,
    ) -> str:
        """A table of the events.

        Parameters
        ----------
        sort_by : str, optional
            ``cpu_time``, ``cpu_time_total``, ``self_cpu_time_total``, ``cpu_memory_usage``, ``self_cpu_memory_usage`` or
            ``count``, the greatest first.
        row_limit : int
            How many rows; -1 for all.
        header : str, optional
        top_level_events_only : bool
            Whether events inside others are left out.
        """
        rows = list(self)
        if top_level_events_only:
            rows = [e for e in rows if getattr(e, "cpu_parent", None) is None]
        if sort_by is not None:
            rows.sort(key=lambda e: getattr(e, sort_by), reverse=True)
        total_self = sum(e.self_cpu_time_total for e in self)
        columns: list[tuple[str, Any]] = [
            ("Name", lambda e: _cut(e.key, max_name_column_width)),
            ("Self CPU %", lambda e: _share(e.self_cpu_time_total, total_self)),
            ("Self CPU", lambda e: _time(e.self_cpu_time_total)),
            ("CPU total %", lambda e: _share(e.cpu_time_total, total_self)),
            ("CPU total", lambda e: _time(e.cpu_time_total)),
            ("CPU time avg", lambda e: _time(e.cpu_time)),
        ]
        if self._profile_memory:
            columns += [
                ("CPU Mem", lambda e: _bytes(e.cpu_memory_usage)),
                ("Self CPU Mem", lambda e: _bytes(e.self_cpu_memory_usage)),
            ]
        columns.append(("# of Calls", lambda e: str(e.count)))
        if any(e.input_shapes for e in rows):
            columns.append(("Input Shapes", lambda e: _cut(str(e.input_shapes), max_shapes_column_width)))
        if any(e.stack for e in rows):
            columns.append(("Source Location", lambda e: _cut(e.stack[0] if e.stack else "", max_src_column_width)))
        if self._with_flops:
            columns.append(("Total FLOPs", lambda e: str(e.flops or "--")))
        lines = [[title for title, _ in columns]]
        lines += [[show(e) for _, show in columns] for e in (rows if row_limit < 0 else rows[:row_limit])]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        rule = "  ".join("-" * w for w in widths)
        text = ["  ".join(cell.rjust(w) for cell, w in zip(line, widths)) for line in lines]
        parts = [*([header] if header else []), rule, text[0], rule, *text[1:], rule, f"Self CPU time total: {_time(total_self)}"]
        return "\n".join(parts) + "\n"

    def __str__(self) -> str:
        return self.table()

    def export_chrome_trace(self, path: Any, metadata: dict[str, Any] | None = None) -> None:
        """Write the events for chrome://tracing, Perfetto and others that read its JSON; compressed if the name ends with .gz."""
        trace = [
            {
                "name": e.name, "ph": "X", "ts": e.time_range.start, "dur": e.time_range.elapsed_us(), "tid": e.thread, "pid": os.getpid(),
                "cat": "user_annotation" if e.is_user_annotation else "cpu_op",
                "args": {"Input Dims": e.input_shapes, **({"Call stack": ";".join(e.stack)} if e.stack else {})},
            }
            for e in self
        ]  # fmt: skip
        opener: Any = gzip.open if str(path).endswith(".gz") else open
        with opener(path, "wt", encoding="utf-8") as file:
            json.dump({"schemaVersion": 1, **(metadata or {}), "traceEvents": trace}, file)

    def export_stacks(self, path: Any, metric: str = "self_cpu_time_total") -> None:
        """Write one line a call stack with its time, as flame graph programs read them; needs ``with_stack=True``.

        Raises
        ------
        ValueError
            For another metric than ``self_cpu_time_total``.
        """
        if metric != "self_cpu_time_total":
            raise ValueError(f"export_stacks: metric should be self_cpu_time_total, got {metric}")
        times: dict[str, float] = {}
        for e in self:
            if e.stack:
                key = ";".join([*reversed(e.stack), e.name])
                times[key] = times.get(key, 0) + e.self_cpu_time_total
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{stack} {int(us)}\n" for stack, us in times.items() if int(us) > 0)


def _cut(text: str, width: int) -> str:
    return text if width is None or len(text) <= width else text[: width - 3] + "..."


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0.00%"
