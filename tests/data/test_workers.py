"""Workers in trouble: errors, deaths, parents that die, exits; nothing may hang and nothing may be left.

What must happen "at once" is waited for with a limit far above what it takes; no test waits for time to pass.
"""

import faulthandler
import gc
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import disttorch as torch
from disttorch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info, pool
from disttorch.utils.data.shared import Segment

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def little_patience(monkeypatch):
    """Workers that are stuck need not be waited for long; but one that dies has closed its pipe some time before it is dead."""
    monkeypatch.setattr(pool, "_GRACE", 1.0)


class Acting(Dataset):
    """Twelve numbers; at one of them something is done."""

    def __init__(self, act, at=5):
        self.act, self.at = act, at

    def __len__(self):
        return 12

    def __getitem__(self, i):
        if i == self.at:
            self.act()
        return i


def fail_with(error):
    def act():
        raise error

    return act


class Local(Exception):
    """Cannot be made from its args, so it does not survive pickling."""

    def __init__(self, a, b):
        super().__init__(f"{a} {b}")


ERRORS = [
    (KeyError("key"), KeyError, "'key'"),
    (FileNotFoundError(2, "no such", "name"), FileNotFoundError, "name"),
    (Local(1, 2), RuntimeError, "Local: 1 2"),
    (SystemExit(3), RuntimeError, "SystemExit: 3"),
    (ValueError("two\nlines"), ValueError, "two\nlines"),
]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(("error", "kind", "message"), ERRORS)
def test_an_error_comes_back_with_its_traceback(error, kind, message, persistent):
    loader = DataLoader(Acting(fail_with(error)), 2, num_workers=2, persistent_workers=persistent)
    seen = []
    with pytest.raises(kind, match=message) as caught:
        for batch in loader:
            seen.append(batch.tolist())
    assert seen == [[0, 1], [2, 3]]
    (note,) = caught.value.__notes__
    assert note.startswith("in DataLoader worker 0 (pid ")
    assert "in __getitem__" in note
    assert "self.act()" in note
    if kind is FileNotFoundError:
        assert caught.value.errno == 2


def test_the_next_batch_can_be_asked_for_after_an_error():
    batches, seen = iter(DataLoader(Acting(fail_with(KeyError())), 2, num_workers=2)), []
    while True:
        try:
            seen.append(next(batches).tolist())
        except KeyError:
            seen.append("error")
        except StopIteration:
            break
    assert seen == [[0, 1], [2, 3], "error", [6, 7], [8, 9], [10, 11]]


def stop_in_iteration():
    class Broken(IterableDataset):
        def __iter__(self):
            raise KeyError("iter")

    return DataLoader(Broken(), num_workers=2)


def init_that_fails(number):
    raise KeyError(f"init {number}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (stop_in_iteration, "iter"),
        (lambda: DataLoader(range(4), num_workers=2, worker_init_fn=init_that_fails), "init 0"),
    ],
)
def test_an_error_before_the_first_batch(make, message):
    with pytest.raises(KeyError, match=message) as caught:
        list(make())
    assert "worker 0" in caught.value.__notes__[0]


def test_a_batch_that_cannot_be_sent():
    with pytest.raises(Exception, match=r"[Pp]ickle") as caught:
        list(DataLoader(range(2), num_workers=1, collate_fn=lambda samples: lambda: samples))
    assert "worker 0" in caught.value.__notes__[0]


def kill(number):
    def act():
        faulthandler.disable()  # pytest's would print the stack of every thread
        os.kill(os.getpid(), number)

    return act


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (kill(signal.SIGKILL), r"worker 0 \(pid \d+\) was killed by signal 9 \(SIGKILL\).*memory runs out"),
        (kill(signal.SIGTERM), r"worker 0 \(pid \d+\) was killed by signal 15 \(SIGTERM\)"),
        (kill(signal.SIGSEGV), r"worker 0 \(pid \d+\) was killed by signal 11 \(SIGSEGV\)"),
        (lambda: os._exit(7), r"worker 0 \(pid \d+\) ended with exit code 7"),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_that_dies_is_named(act, message, persistent):
    loader = DataLoader(Acting(act), 2, num_workers=3, persistent_workers=persistent)
    loader.dataset.at = 7  # in the fourth batch, which is the first worker's
    batches = iter(loader)
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=message):
        list(batches)
    assert time.monotonic() - begin < 30
    with pytest.raises(RuntimeError, match="have ended"):
        next(batches)
    loader.dataset.at = None
    assert len(list(loader)) == 6


@pytest.mark.usefixtures("little_patience")
def test_a_worker_that_dies_is_noticed_while_another_is_waited_for():
    """Worker 0 never answers; worker 1, whose batch is not wanted yet, is killed."""
    reading, writing = os.pipe()

    class Blocking(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            if i == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            select.select([reading], [], [])
            return i

    with pytest.raises(RuntimeError, match=r"worker 1 \(pid \d+\) was killed by signal 9"):
        list(DataLoader(Blocking(), num_workers=2))
    os.close(reading)
    os.close(writing)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.usefixtures("little_patience")
def test_a_worker_whose_children_have_its_pipes_is_missed_all_the_same():
    """A process that the dataset started keeps the worker's end of the pipes open when the worker is gone."""
    reading, writing = os.pipe()

    def act():
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="killed by signal 9"):
        list(DataLoader(Acting(act), num_workers=1))
    os.close(writing)
    os.close(reading)


@pytest.mark.usefixtures("little_patience")
def test_a_worker_that_loses_its_pipe_is_named():
    def act():
        os.closerange(3, 100)
        select.select([], [], [], 60)  # alive, and not to be heard of again

    with pytest.raises(RuntimeError, match=r"worker 0 \(pid \d+\) closed its pipe, and was ended"):
        list(DataLoader(Acting(act), num_workers=1))


def test_timeout():
    reading, writing = os.pipe()
    loader = DataLoader(Acting(lambda: os.read(reading, 1), at=1), num_workers=2, timeout=60)
    batches = iter(loader)
    assert next(batches).tolist() == [0]  # the workers have begun, however long it took
    batches._pool.timeout = 0.3
    with pytest.raises(RuntimeError, match=r"timed out after 0.3 seconds: worker 1 \(pid \d+\)"):
        next(batches)
    os.write(writing, b"go on")
    batches._pool.timeout = 60
    assert [b.item() for b in batches] == list(range(1, 12))
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("leave", ["break", "exception", "drop", "never asked"])
def test_workers_end_when_the_loop_is_left(leave):
    loader = DataLoader(range(100), num_workers=2)
    if leave == "exception":
        with pytest.raises(ZeroDivisionError):
            for _ in loader:
                1 / 0  # noqa: B018
    elif leave == "break":
        for _ in loader:
            break
    else:
        batches = iter(loader)
        if leave == "drop":
            next(batches)
        del batches
    gc.collect()


@pytest.mark.usefixtures("little_patience")
def test_a_busy_worker_is_ended_too():
    reading, writing = os.pipe()
    batches = iter(DataLoader(Acting(lambda: os.read(reading, 1), at=1), num_workers=2))
    next(batches)
    begin = time.monotonic()
    del batches
    assert time.monotonic() - begin < 30
    os.close(reading)
    os.close(writing)


def test_persistent_workers_end_with_the_loader():
    loader = DataLoader(range(4), num_workers=2, persistent_workers=True)
    list(loader)
    del loader


@pytest.mark.usefixtures("little_patience")
def test_workers_end_by_themselves_while_those_of_another_loader_live():
    # those of the second loader were forked with the first one's pipes
    first, second = (DataLoader(range(4), num_workers=2, persistent_workers=True) for _ in range(2))
    list(first), list(second)
    processes = first._pool.processes
    del first
    assert [process.exitcode for process in processes] == [0, 0]  # not ended by signals
    assert [batch.item() for batch in second] == [0, 1, 2, 3]


def test_shared_memory_is_given_back_when_the_last_batch_is():
    loader = DataLoader([torch.ones(1000)] * 8, num_workers=2)
    kept = list(loader)[-2:]
    assert [b.sum().item() for b in kept] == [1000, 1000]
    del kept


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_the_parent_does_not_end_its_workers():
    loader = DataLoader(range(6), 2, num_workers=1, persistent_workers=True)
    batches = iter(loader)
    next(batches)
    pid = os.fork()
    if pid == 0:
        del batches, loader
        gc.collect()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [b.tolist() for b in batches] == [[2, 3], [4, 5]]


PRELUDE = """
import os, signal, sys
import disttorch as torch
from disttorch.utils.data import DataLoader, Dataset
class Numbers(Dataset):
    def __len__(self): return 1000
    def __getitem__(self, i): return torch.full((1000,), os.getpid())
"""


def is_gone(pid, seconds=60.0):
    """Wait for the end of a process that is no child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    "busy", ["os.getpid()", "signal.pause()", "all(not x for x in iter(int, 1))"], ids=["idle", "waiting", "computing"]
)
def test_workers_end_when_the_parent_is_killed(start, busy):
    """Also those that the dataset keeps busy, and those whose pipes another loader's workers have inherited."""
    parent = start(
        PRELUDE
        + f"""
class Busy(Numbers):
    def __getitem__(self, i):
        if i > 1: {busy}
        return super().__getitem__(i)
loaders = [iter(DataLoader(Busy(), num_workers=2)) for _ in range(2)]
pids = [str(int(next(l)[0, 0])) for l in loaders for _ in range(2)]
print(*pids, flush=True)
signal.pause()
"""
    )
    pids = [int(p) for p in parent.stdout.readline().split()]
    assert len(set(pids)) == 4
    parent.kill()
    assert all(is_gone(pid) for pid in pids)
    parent.wait()
    assert parent.communicate() == ("", "")


EXITS = {
    "end of the program": ("", 0, ""),
    "exit code": ("sys.exit(3)", 3, ""),
    "uncaught exception": ("1 / 0", 1, "ZeroDivisionError: division by zero"),
    "Ctrl-C": ("os.killpg(0, signal.SIGINT); signal.pause()", -2, "KeyboardInterrupt"),
}


@pytest.mark.parametrize("how", EXITS)
@pytest.mark.parametrize("persistent", [False, True])
def test_a_program_ends_in_the_middle_of_an_epoch(start, how, persistent):
    """The workers end with it, and say nothing."""
    statement, code, last = EXITS[how]
    process = start(
        PRELUDE
        + f"""
loader = DataLoader(Numbers(), num_workers=2, persistent_workers={persistent})
batches = iter(loader)
print(*[int(next(batches)[0, 0]) for _ in range(2)], flush=True)
{statement}
""",
        "setsid",
        "-w",
    )
    out, err = process.communicate(timeout=120)
    assert all(is_gone(int(pid)) for pid in out.split())
    assert len(out.split()) == 2
    lines = err.strip().splitlines()
    assert (process.returncode in (code, 128 - code)) and (lines[-1] if lines else "") == last
    assert err.count("Traceback") == (last != "")


def test_signals_that_come_while_a_worker_begins_are_not_for_it(start):
    process = start(
        PRELUDE
        + """
import time
from disttorch.utils.data import worker
begun, begin = os.pipe()
part = worker._part_from_parent
def slowly(setup):
    os.write(begin, b"1")
    time.sleep(0.5)
    part(setup)
worker._part_from_parent = slowly
signal.signal(signal.SIGUSR1, lambda *_: print("checkpoint of", "the program" if os.getpid() == parent else "a worker", flush=True))
parent = os.getpid()
batches = iter(DataLoader(range(2), num_workers=1))
os.read(begun, 1)
os.killpg(0, signal.SIGUSR1)
print(*[b.item() for b in batches], flush=True)
batches = iter(DataLoader(range(2), num_workers=1))
os.read(begun, 1)
os.killpg(0, signal.SIGINT)
time.sleep(60)
""",
        "setsid",
        "-w",
    )
    out, err = process.communicate(timeout=120)
    assert (out, err.count("Traceback"), err.splitlines()[-1]) == ("checkpoint of the program\n0 1\n", 1, "KeyboardInterrupt"), err


def test_what_workers_print_is_not_lost(start):
    process = start(
        PRELUDE
        + """
print("before", end=" ")
for _ in DataLoader(range(2), num_workers=1, worker_init_fn=lambda i: print("from worker", i)): pass
print("after")
"""
    )
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("before from worker 0\nafter\n", "")


def test_what_a_worker_has_printed_is_not_lost_when_it_is_ended_by_force(start):
    process = start(
        PRELUDE
        + """
from disttorch.utils.data import pool
pool._GRACE = 0.2
class Stuck(Numbers):
    def __getitem__(self, i):
        while i: signal.pause()
        print("the first")
        return i
batches = iter(DataLoader(Stuck(), num_workers=1))
next(batches)
del batches
"""
    )
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("the first\n", "")


def test_handlers_of_the_parent_are_not_the_workers(start):
    process = start(
        PRELUDE
        + """
import atexit, threading
atexit.register(print, "exit handler")
signal.signal(signal.SIGUSR1, lambda *_: print("checkpoint", os.getpid() == parent))
sys.excepthook = threading.excepthook = lambda *_: print("hook")
parent = os.getpid()
class Signalled(Numbers):
    def __getitem__(self, i):
        os.kill(os.getpid(), signal.SIGUSR1)
        thread = threading.Thread(target=lambda: None)
        thread.start(); thread.join()
        return i, int(threading.excepthook is threading.__excepthook__)
batches = DataLoader(Signalled(), num_workers=2)
print([b[1].item() for b, _ in zip(batches, range(3))])
os.kill(parent, signal.SIGUSR1)
"""
    )
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("[1, 1, 1]\ncheckpoint True\nexit handler\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked(start, method):
    process = start(
        PRELUDE
        + f"""
import numpy as np
def environment(number):
    assert not [name for name in os.environ if name.startswith(("PMI_", "OMPI_"))], os.environ
    assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["RANK"] == "0"
class Squares(Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return np.full(2, i * i)
if __name__ == "__main__":
    os.environ.update(PMI_RANK="0", OMPI_COMM_WORLD_RANK="0", RANK="0")
    loader = DataLoader(Squares(), 2, num_workers=2, multiprocessing_context="{method}", worker_init_fn=environment)
    print([b.tolist() for b in loader])
    print(os.environ["PMI_RANK"], os.environ.get("OMP_NUM_THREADS"))
""",
        "env",
        "--unset=OMP_NUM_THREADS",
    )
    out, err = process.communicate(timeout=120)
    assert (out, err) == ("[[[0, 0], [1, 1]], [[4, 4], [9, 9]], [[16, 16], [25, 25]]]\n0 None\n", "")


@pytest.mark.parametrize(
    ("variable", "told", "expected"),
    [("", "", "fork"), ("spawn", "", "spawn"), ("", "forkserver", "forkserver"), ("spawn", "forkserver", "spawn")],
)
def test_start_method(variable, told, expected):
    program = f"""
import multiprocessing
if {told!r}: multiprocessing.set_start_method({told!r})
from disttorch.utils.data.starting import context_for
print(context_for(None).get_start_method())
"""
    environment = {k: v for k, v in os.environ.items() if k != "DISTTORCH_WORKER_START_METHOD"}
    environment |= {"DISTTORCH_WORKER_START_METHOD": variable} if variable else {}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.strip() == expected


def test_workers_use_one_thread_for_matrix_products():
    """Seen by the kernel: a product of two large matrices starts no thread."""

    class Product(Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, i):
            before = len(os.listdir("/proc/self/task"))
            a = np.ones((700, 700), np.float32)
            assert (a @ a)[0, 0] == 700
            return len(os.listdir("/proc/self/task")) - before

    a = np.ones((700, 700), np.float32)
    a @ a  # the parent's threads are there
    assert [b.item() for b in DataLoader(Product(), num_workers=2)] == [0, 0]


def test_no_memory_left_for_a_batch():
    """An error, where a mapping would end in a bus error."""
    import resource

    def limit(number):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with pytest.raises(OSError, match="File too large") as caught:
        list(DataLoader([torch.ones(1 << 18)], num_workers=1, worker_init_fn=limit))
    assert "worker 0" in caught.value.__notes__[0]


def test_a_worker_has_no_loader_with_workers():
    def nested():
        list(DataLoader(range(2), num_workers=1))

    with pytest.raises(AssertionError, match="daemonic processes are not allowed to have children"):
        list(DataLoader(Acting(nested, at=0), num_workers=1))
    assert get_worker_info() is None


OBJECTS = [
    None,
    "text",
    [torch.ones(3), {"a": np.zeros((0, 2))}],
    torch.ones(2, 3, dtype=torch.bfloat16),
    (torch.arange(5)[::2], np.arange(12).reshape(3, 4)[:, 1:3]),
]


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("value", OBJECTS)
def test_a_segment_gives_what_it_was_given(value, copy):
    segment = Segment()
    result = segment.read(*segment.write(value), copy=copy)
    assert repr(result) == repr(value)
    has_arrays = not isinstance(value, (str, type(None)))
    assert segment.held == (has_arrays and not copy)
    del result
    assert not segment.held
    segment.close()
