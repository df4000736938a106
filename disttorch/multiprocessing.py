"""As ``torch.multiprocessing``: Python's multiprocessing, whose processes take tensors as they are, and `spawn`.

A tensor is copied to the process that it is sent to, unless it has been put into memory that both see (`Tensor.share_memory_`,
`Module.share_memory`).

Processes that `spawn` starts become the ranks of a job by ``init_process_group(rank=..., world_size=...)``, and meet over TCP.
``dlaunch``, mpiexec and srun start ranks on several hosts, watch over them, and give them MPI.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import *  # noqa: F403 - its names are this module's
from multiprocessing import connection
from typing import Any

from .utils.data.starting import context_for

__all__ = [*multiprocessing.__all__]  # noqa: PLE0604 - they are strings
__all__ += [
    "ProcessContext", "ProcessException", "ProcessExitedException", "ProcessRaisedException", "get_all_sharing_strategies",
    "get_sharing_strategy", "set_sharing_strategy", "spawn", "start_processes",
]  # fmt: skip


def get_all_sharing_strategies() -> set[str]:
    """By what processes find shared memory."""
    return {"file_system", "file_descriptor"}


def get_sharing_strategy() -> str:
    """Accepted as in PyTorch."""
    return "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepted as in PyTorch: shared memory is always found by its descriptor."""
    if new_strategy not in get_all_sharing_strategies():
        raise ValueError(f"there is no sharing strategy {new_strategy!r}")


class ProcessException(Exception):
    """A process that `spawn` started has failed."""

    def __init__(self, msg: str, error_index: int, pid: int | None):
        super().__init__(msg)
        self.msg, self.error_index, self.pid = msg, error_index, pid


class ProcessRaisedException(ProcessException):
    """It has raised an exception, whose traceback is in the message."""


class ProcessExitedException(ProcessException):
    """It has ended without one: by a signal, or with an exit code."""

    def __init__(self, msg: str, error_index: int, error_pid: int | None, exit_code: int | None, signal_name: str | None = None):
        super().__init__(msg, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name


class ProcessContext:
    """The processes that `spawn` has started.

    Attributes
    ----------
    processes : list of Process
    """

    def __init__(self, processes: list[Any], said: list[Any]):
        self.processes = processes
        self._said = said

    def pids(self) -> list[int | None]:
        """Their numbers."""
        return [p.pid for p in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Wait until one fails or all have ended; True if all have.

        Raises
        ------
        ProcessRaisedException, ProcessExitedException
            If one failed. The others have been ended.
        """
        running = {p.sentinel: i for i, p in enumerate(self.processes) if p.exitcode is None}
        ready = connection.wait(running, timeout) if running else []
        done = [running[s] for s in ready] + [i for i, p in enumerate(self.processes) if p.exitcode is not None]
        for i in done:
            self.processes[i].join()
        failed = next((i for i in done if self.processes[i].exitcode != 0), None)
        if failed is None:
            return all(p.exitcode == 0 for p in self.processes)
        for process in self.processes:
            if process.is_alive():
                process.terminate()
                process.join(grace_period)
                if process.is_alive():
                    process.kill()
                    process.join()
        self._explain(failed)
        return False

    def _explain(self, index: int) -> None:
        process, said = self.processes[index], self._said[index]
        try:
            words = said.recv() if said.poll() else None
        except EOFError:  # it said nothing
            words = None
        if words is not None:
            raise ProcessRaisedException(f"\n\n-- Process {index} terminated with the following error:\n{words}", index, process.pid)
        code = process.exitcode
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise ProcessExitedException(f"process {index} terminated {how}", index, process.pid, code)


def start_processes(
    fn: Callable, args: Sequence[Any] = (), nprocs: int = 1, join: bool = True, daemon: bool = False, start_method: str = "spawn"
) -> ProcessContext | None:
    """`spawn` with another way of starting processes."""
    context = context_for(start_method)
    processes, said = [], []
    for i in range(nprocs):
        hears, says = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(fn, i, tuple(args), says), daemon=daemon)
        process.start()
        says.close()
        processes.append(process)
        said.append(hears)
    started = ProcessContext(processes, said)
    if not join:
        return started
    while not started.join():
        pass
    return None


def spawn(
    fn: Callable, args: Sequence[Any] = (), nprocs: int = 1, join: bool = True, daemon: bool = False, start_method: str = "spawn"
) -> ProcessContext | None:
    """Run ``fn(i, *args)`` in `nprocs` processes; as ``torch.multiprocessing.spawn``.

    Parameters
    ----------
    fn : callable
        A function of a module, which the processes can import.
    args : tuple
        Its arguments after the first, which is the process's number.
    nprocs : int
    join : bool
        Whether to wait for them; else a `ProcessContext` is returned.
    daemon : bool
        Whether they end with this process.

    Raises
    ------
    ProcessRaisedException, ProcessExitedException
        If one fails; the others are ended.
    """
    return start_processes(fn, args, nprocs, join, daemon, start_method)


def _run(fn: Callable, index: int, args: tuple, says: Any) -> None:
    try:
        fn(index, *args)
    except KeyboardInterrupt:
        pass  # the parent has it too, and speaks
    except Exception:
        says.send(traceback.format_exc())
        raise SystemExit(1) from None
