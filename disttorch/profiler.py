"""The profiler for training loops: some steps of many are recorded; as ``torch.profiler``.

How operations are measured stands in ``disttorch/autograd/profiler.py``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from .autograd import profiler as _profiler
from .autograd.profiler import EventList, record_function

__all__ = [
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]


class ProfilerAction(Enum):
    """What is done with a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


class ProfilerActivity(Enum):
    """What is recorded: with CUDA, each operation waits for the GPU, so that times are those of the kernels."""

    CPU = 0
    CUDA = 2


def supported_activities() -> set[ProfilerActivity]:
    """What can be recorded here."""
    return set(ProfilerActivity)


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """Which steps are recorded: after `skip_first` of them, rounds of `wait`, `warmup` and `active` steps.

    Parameters
    ----------
    wait, warmup, active : int
        Steps of each kind in a round; the last of `active` ends a recording.
    repeat : int
        How many rounds; 0 for no end.
    skip_first : int
    skip_first_wait : int
        Whether the first round has no `wait`.

    Examples
    --------
    >>> from disttorch.profiler import schedule
    >>> plan = schedule(wait=1, warmup=1, active=2, repeat=1)
    >>> [plan(step).name for step in range(5)]
    ['NONE', 'WARMUP', 'RECORD', 'RECORD_AND_SAVE', 'NONE']
    """
    if wait < 0 or warmup < 0 or active <= 0 or repeat < 0 or skip_first < 0:
        raise AssertionError("Invalid profiler schedule arguments")

    def action(step: int) -> ProfilerAction:
        if step < 0:
            raise AssertionError("Step must be non-negative. Got " + str(step))
        if step < skip_first:
            return ProfilerAction.NONE
        step -= skip_first
        if skip_first_wait:
            step += wait
        length = wait + warmup + active
        if repeat > 0 and step // length >= repeat:
            return ProfilerAction.NONE
        place = step % length
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if place < length - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For ``on_trace_ready``: writes each recording into a directory, as TensorBoard's plugin reads it."""

    def handle(prof: profile) -> None:
        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        path = os.path.join(dir_name, f"{worker}.{time.time_ns()}.pt.trace.json")
        prof.export_chrome_trace(path + (".gz" if use_gzip else ""))

    return handle


class profile:
    """Record operations of some steps of a program; as ``torch.profiler.profile``.

    Parameters
    ----------
    activities : iterable of ProfilerActivity, optional
    schedule : callable, optional
        What to do with each step, as `schedule` says; without it all is recorded.
    on_trace_ready : callable, optional
        Called with the profile when a recording is complete.
    record_shapes, profile_memory, with_stack, with_flops : bool
        As in `disttorch.autograd.profiler.profile`.

    Examples
    --------
    >>> import disttorch
    >>> from disttorch.profiler import profile, schedule
    >>> recorded = []
    >>> plan = schedule(wait=1, warmup=0, active=1, repeat=1)
    >>> with profile(schedule=plan, on_trace_ready=lambda p: recorded.append(len(p.events()))) as prof:
    ...     for step in range(4):
    ...         y = disttorch.ones(2) * 3
    ...         prof.step()
    >>> recorded
    [3]
    """

    def __init__(
        self, *, activities: Iterable[ProfilerActivity] | None = None, schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[[profile], Any] | None = None, record_shapes: bool = False, profile_memory: bool = False,
        with_stack: bool = False, with_flops: bool = False, with_modules: bool = False, acc_events: bool = False,
        use_cuda: bool | None = None, **options: Any,
    ):  # fmt: skip
        wanted = set(activities) if activities is not None else {ProfilerActivity.CPU}
        self._options: dict[str, Any] = {
            "record_shapes": record_shapes, "profile_memory": profile_memory, "with_stack": with_stack, "with_flops": with_flops,
            "use_device": "cuda" if use_cuda or ProfilerActivity.CUDA in wanted else None,
        }  # fmt: skip
        self._schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self.on_trace_ready = on_trace_ready
        self.step_num = 0
        self.current_action = self._schedule(0)
        self._measuring: _profiler.profile | None = None
        self._last: _profiler.profile | None = None
        self._block: record_function | None = None
        self._by_step = schedule is not None
        self._metadata: dict[str, str] = {}

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stop()

    def start(self) -> None:
        """Begin."""
        self._begin_step()

    def stop(self) -> None:
        """End; a recording that is running is complete."""
        self._end_block()
        if self._measuring is not None:
            self._complete()

    def step(self) -> None:
        """Say that a step has ended."""
        self._end_block()
        ends = self.current_action is ProfilerAction.RECORD_AND_SAVE
        self.step_num += 1
        following = self._schedule(self.step_num)
        if self._measuring is not None and (ends or following in (ProfilerAction.NONE, ProfilerAction.WARMUP)):
            self._complete()
        self.current_action = following
        self._begin_step()

    def _begin_step(self) -> None:
        if self.current_action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE):
            if self._measuring is None:
                self._measuring = _profiler.profile(**self._options)
                self._measuring.__enter__()
            if self._by_step and self.step_num:
                self._block = record_function(f"ProfilerStep#{self.step_num}")
                self._block.__enter__()

    def _end_block(self) -> None:
        if self._block is not None:
            self._block.__exit__(None, None, None)
            self._block = None

    def _complete(self) -> None:
        assert self._measuring is not None
        if self._measuring in _profiler._running:
            self._measuring.__exit__()
        self._last, self._measuring = self._measuring, None
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    @property
    def profiler(self) -> _profiler.profile | None:
        """The last recording."""
        return self._measuring or self._last

    def _recording(self) -> _profiler.profile:
        if self.profiler is None:
            raise AssertionError("Profiler must be initialized before getting its events: no step has been recorded")
        return self.profiler

    def events(self) -> EventList:
        """All events of the last recording."""
        return self._recording().function_events

    def key_averages(self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, **options: Any) -> EventList:
        """Its events by name; see `EventList.key_averages`."""
        return self._recording().key_averages(group_by_input_shape, group_by_stack_n)

    def export_chrome_trace(self, path: str) -> None:
        """Write them for chrome://tracing and others that read its JSON; compressed if the name ends with .gz."""
        self.events().export_chrome_trace(path, self._metadata)

    def export_stacks(self, path: str, metric: str = "self_cpu_time_total") -> None:
        """Write call stacks with their times; needs ``with_stack=True``."""
        self._recording().export_stacks(path, metric)

    def toggle_collection_dynamic(self, enable: bool, activities: Iterable[ProfilerActivity]) -> None:
        """Stop and go on recording in the middle of a step."""
        if self._measuring is not None:
            if enable and self._measuring not in _profiler._running:
                self._measuring.__enter__()
            elif not enable and self._measuring in _profiler._running:
                self._measuring.__exit__()

    def add_metadata(self, key: str, value: str) -> None:
        """Keep a text with the profile."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """Keep a text in JSON with the profile."""
        self._metadata[key] = value

    def preset_metadata_json(self, key: str, value: str) -> None:
        """Keep a text in JSON with the profile, before it starts."""
        self._metadata[key] = value
