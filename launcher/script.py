"""Runs a script as ``python script.py`` and ``python -m module`` do, except that a rank that fails ends at once.

    python launcher/script.py train.py --lr 3
    python launcher/script.py -m package.module --lr 3

MPI_Finalize waits for all ranks (MPI 4.1, section 11.2.2), and mpi4py calls it when Python ends. After an exception in
one rank that rank would wait there for the others, and they in their next collective for it: the job would hang, with
the traceback on the screen. So a failing rank runs its exit functions and leaves without MPI_Finalize.
"""

import os
import sys
import time
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

# Exit functions of a failing rank may themselves wait for the other ranks.
EXIT_SECONDS = 5.0

# Nothing else refers to this file's module while the script is __main__.
_kept: list[ModuleType] = []
_own_pid = os.getpid()


def main() -> None:
    """Runs the script or module that the arguments name, in the module ``__main__``."""
    del sys.argv[0]
    is_module = sys.argv[0] == "-m"
    if is_module:
        del sys.argv[0]
    # Python has put this file's directory there; the script must find what it would find without us.
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.realpath(sys.argv[0]))
    sys.meta_path.insert(0, _TellsOfMpi())
    try:
        if is_module:
            _run_module(sys.argv[0])
        else:
            _run_file(sys.argv[0])
    except SystemExit as error:
        if error.code in (None, 0):
            raise
        code = error.code & 0xFF if isinstance(error.code, int) else 1
        _note_failure(code, error)
        if not _others_wait():
            raise
        if not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        _leave(code)
    except BaseException as error:
        _note_failure(1, error)
        error.__traceback__ = _without_us(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            _leave_by_interrupt()
        if _others_wait():
            _leave(1)
        sys.exit(1)


def _run_file(path: str) -> None:
    import io
    from importlib.machinery import SourceFileLoader

    path = os.path.abspath(path)
    with io.open_code(path) as file:
        code = compile(file.read(), path, "exec")
    module = _fresh_main()
    # What `python script.py` puts into __main__.
    module.__dict__.update(
        __file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path), __annotations__={}
    )
    exec(code, module.__dict__)


def _run_module(name: str) -> None:
    import runpy

    _fresh_main()
    # The function behind `python -m`: unlike run_module it leaves the module in place for exit functions and pickles.
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _fresh_main() -> ModuleType:
    """Makes an empty __main__, so that nothing of this file is in the script's namespace."""
    module = ModuleType("__main__")
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = module
    return module


class _TellsOfMpi:
    """Finds mpi4py.MPI, which starts MPI when it is imported, as others find it, and tells the supervisor when that has been done.

    The supervisor looks then which memory MPI shares: nobody else could remove that if all ranks were killed the next moment.
    """

    def find_spec(self, name: str, path: object, target: ModuleType | None = None) -> "ModuleSpec | None":
        if name != "mpi4py.MPI":
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            import signal

            execute = spec.loader.exec_module
            supervisor = os.getppid()

            def execute_and_tell(module: ModuleType) -> None:
                execute(module)
                if os.getpid() == _own_pid and os.getppid() == supervisor and module.Is_initialized():
                    os.kill(supervisor, signal.SIGCHLD)

            spec.loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec


def _without_us(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the script's first line on."""
    ours = (__file__, "<frozen runpy>", "<frozen importlib._bootstrap>")
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename in ours:
        start = start.tb_next
    return start


def _note_failure(code: int, error: BaseException) -> None:
    """Notes when the script failed, with which exit code it will end, and whether because of another rank.

    Other ranks may fail because of it, and be dead before this one has ended; or dlaunch may end it on its way out.
    """
    os.environ["DISTTORCH_FAILED"] = "1"
    directory, rank = os.environ.get("DISTTORCH_RUN_DIR"), os.environ.get("RANK")
    if not directory or not rank or os.getpid() != _own_pid:  # a process that the script forked is not the rank
        return
    path = os.path.join(directory, f"rank-{rank}.failed")
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "w") as file:
            file.write(f"{time.time()} {code} {int(_follows(error))}")
        os.rename(partial, path)
    except OSError:  # another host's directory, or a full disk: what the script failed with is what matters
        return


def _follows(error: BaseException | None) -> bool:
    """Whether an error says that something went wrong between ranks, as it does where another one has died."""
    while error is not None:
        # By its name, since launcher imports nothing of collectives.
        if any((kind.__module__, kind.__name__) == ("collectives.errors", "CommunicationError") for kind in type(error).__mro__):
            return True
        error = error.__cause__
    return False


def _others_wait() -> bool:
    """Whether the end of this process would wait in MPI_Finalize for other ranks."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.size > 1


def _leave(code: int) -> NoReturn:
    """Ends this process with its exit functions run and its output written, but without MPI_Finalize."""
    _wind_up()
    _unlink_segments()
    os._exit(code)


def _unlink_segments() -> None:
    """Gives back MPI's memory in /dev/shm, as MPI_Finalize would have: where all ranks fail at once, nobody else can."""
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    # By its path: the script's own paths need not lead to launcher.
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "process.py")
    spec = spec_from_loader("launcher.process", SourceFileLoader("launcher.process", path))
    assert spec is not None and spec.loader is not None
    process = module_from_spec(spec)
    spec.loader.exec_module(process)
    process.unlink_segments(process.shared_segments(os.getpid()))


def _leave_by_interrupt() -> NoReturn:
    """Ends as Python does after a KeyboardInterrupt: by SIGINT, so that the parent sees what it was."""
    import signal

    _wind_up()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    os._exit(128 + signal.SIGINT)


def _wind_up() -> None:
    import atexit
    import faulthandler

    # Past the limit it says on stderr in which line the process hung, and ends it with exit code 1.
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


if __name__ == "__main__":
    main()
