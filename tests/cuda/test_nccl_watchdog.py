"""NCCL when ranks are missing or something fails: what the watchdog sees, whom it names, and how communicators end. On the stand-in."""

import json
import threading
import time

import pytest

from collectives import watchdog
from collectives.errors import CollectiveTimeoutError, CommunicationError
from tests import stand_in
from tests.cuda.ranks import begun, on_ranks
from tests.stand_in import host_cuda
from tests.stand_in.nccl import NcclCommunicator, NcclError, hub

pytestmark = [pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available())), pytest.mark.usefixtures("cupy")]


def look(communicator, seconds=0.0):
    """What the watchdog sees after some seconds of waiting."""
    watch, transport = watchdog.Watch(), communicator._device_transports["cuda"]
    now = time.monotonic()
    watch.look(transport, now)
    watch.look(transport, now + seconds)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(watchdog, "GRACE", 0.05)
    monkeypatch.setattr(watchdog, "PAUSE", 0.01)


def test_the_watchdog_names_the_missing_rank(at_once, cupy, tmp_path):
    def program(group, meet):
        communicator = begun(cupy, group, meet)
        if group.rank() == 1:
            meet()
            return
        work = communicator.all_reduce(cupy.ones(1), async_op=True)
        work.wait()
        look(communicator, 19.0)  # not yet
        said = r"rank 0 has waited 21.0 s \(timeout 20 s\). Rank 1 of this group has not come"
        with pytest.raises(CollectiveTimeoutError, match=said) as error:
            look(communicator, 21.0)
        assert "the process ends" in error.value.__notes__[0]
        assert json.loads((tmp_path / "rank-0.flight.json").read_text())["reason"] == "timeout"
        assert not hub.ended, "the program must not go on with what the kernel left behind"
        meet()
        communicator._device_transports["cuda"].abandon()

    on_ranks(2, program, tmp_path)


def test_a_program_that_sees_the_error_lives(at_once, cupy, tmp_path):
    def program(group, meet):
        communicator = begun(cupy, group, meet)
        if group.rank() == 1:
            meet()
            return
        work, later = (communicator.all_reduce(cupy.ones(1), async_op=True) for _ in range(2))
        work.exception()  # the program knows, or will
        look(communicator, 21.0)
        with pytest.raises(CollectiveTimeoutError):
            work.wait()
        with pytest.raises(CommunicationError, match=r"all_reduce: rank 0 of 2: NCCL was aborted: .* has waited 21.0 s"):
            later.wait()  # its kernel has returned, with nothing done
        with pytest.raises(CommunicationError, match="has failed before"):
            communicator.all_reduce(cupy.ones(1))
        assert hub.ended == [("abort", 0), ("abort", 0)]
        cupy.cuda.get_current_stream().synchronize()  # nothing hangs
        meet()

    on_ranks(2, program, tmp_path)


def test_communicators_are_aborted_all_at_once(cupy, monkeypatch, tmp_path):
    """What one gives back may wait for the other's kernels, and for the other ranks."""
    abort, together = NcclCommunicator.abort, threading.Barrier(2)

    def waiting(self):
        together.wait(5)
        abort(self)

    def program(group, meet):
        communicator = begun(cupy, group, meet)
        if group.rank() == 0:
            monkeypatch.setattr(NcclCommunicator, "abort", waiting)
            communicator._device_transports["cuda"].abandon()
            assert hub.ended == [("abort", 0), ("abort", 0)]
            monkeypatch.setattr(NcclCommunicator, "abort", lambda self: time.sleep(60))
            monkeypatch.setattr("collectives.nccl_streams.PATIENCE", 0.1)
        meet()
        if group.rank() == 1:
            communicator._device_transports["cuda"].abandon()  # does not wait for long

    on_ranks(2, program, tmp_path)


def test_one_rank_waits_for_nobody(at_once, cupy, tmp_path):
    """However long its GPU takes."""

    def program(group, meet):
        communicator = begun(cupy, group, meet)
        with stand_in.held(communicator._device_transports["cuda"]._stream):
            work = communicator.all_reduce(cupy.ones(1), async_op=True)
            assert work.called.done
            look(communicator, 1000.0)
            with pytest.raises(TimeoutError, match=r"all_reduce: not complete after 0.2 s"):
                work.complete(0.2)
        work.complete()

    on_ranks(1, program, tmp_path)


def test_the_watchdog_sees_an_operation_that_does_not_start(at_once, cupy, tmp_path):
    """NCCL connects ranks at the first operation of a kind: the host waits inside of the call."""

    def program(group, meet):
        communicator = begun(cupy, group, meet)
        if group.rank() == 1:
            meet()
            return
        transport, called, over, seen = communicator._device_transports["cuda"], threading.Event(), threading.Event(), []
        transport._comm.allReduce = lambda *_: called.set() or over.wait(30)

        def watching():
            called.wait(30)
            for seconds in (19.0, 21.0):
                try:
                    look(communicator, seconds)
                except CollectiveTimeoutError as error:
                    seen.append(error)
            over.set()

        thread = threading.Thread(target=watching)
        thread.start()
        said = r"rank 0 has waited 21\.\d s \(timeout 20 s\). Rank 1 of this group has not come"
        with pytest.raises(CollectiveTimeoutError, match=said):
            communicator.all_reduce(cupy.ones(1))
        thread.join()
        assert len(seen) == 1 and "the process ends" in seen[0].__notes__[0]
        assert json.loads((tmp_path / "rank-0.flight.json").read_text())["reason"] == "timeout"
        meet()
        transport.abandon()

    on_ranks(2, program, tmp_path)


def test_a_failed_device_is_said_by_the_program_or_with_an_operation(at_once, cupy, tmp_path):
    def program(group, meet):
        communicator = begun(cupy, group, meet)
        transport = communicator._device_transports["cuda"]

        def fail():
            raise stand_in.CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")

        transport.use_device = fail
        for works in transport.under_way:
            works.clear()
        look(communicator)  # nothing is under way: the program meets it by itself
        communicator.all_reduce(cupy.ones(1), async_op=True)
        with pytest.raises(CommunicationError, match=r"watch: rank \d of 2, GPU \d: cudaErrorIllegalAddress"):
            look(communicator)
        del transport.use_device
        meet()
        transport.abandon()

    on_ranks(2, program, tmp_path)


def test_what_nccl_refuses_has_failed_for_the_group(cupy, tmp_path):
    def program(group, meet):
        communicator = begun(cupy, group, meet)

        def refuse(*_):
            raise NcclError(6, "remote process exited or there was a network error")

        transport = communicator._device_transports["cuda"]
        transport._comm.allReduce = refuse
        with pytest.raises(CommunicationError, match=r"all_reduce: rank \d of 2, GPU \d: NCCL_ERROR_REMOTE_ERROR"):
            communicator.all_reduce(cupy.ones(1))
        with pytest.raises(CommunicationError, match="has failed before"):
            communicator.all_reduce(cupy.ones(1))
        assert json.loads((tmp_path / f"rank-{group.rank()}.flight.json").read_text())["reason"] == "error"
        meet()
        transport.abandon()

    on_ranks(2, program, tmp_path)


def test_time_counts_from_when_the_gpu_has_come_to_the_collective(at_once, cupy, tmp_path):
    """However long the GPU still computes: that is no lateness of other ranks."""

    def program(group, meet):
        communicator = begun(cupy, group, meet)
        if group.rank() == 1:
            meet()
            communicator.all_reduce(cupy.ones(1))
            communicator.all_reduce(cupy.ones(1))
            meet()
            return
        with stand_in.held(cupy.cuda.get_current_stream()):
            works = [communicator.all_reduce(cupy.ones(1), async_op=True) for _ in range(2)]
            look(communicator, 1000.0)
        assert [work.began for work in works] == [0.0, 0.0]
        look(communicator)
        assert works[0].began and not works[1].began
        meet()
        meet()
        look(communicator)
        assert all(work.done() for work in works), "the thread tells the recorder when it was over"

    on_ranks(2, program, tmp_path)


def test_errors_of_nccl_say_who_is_gone(at_once, cupy, tmp_path):
    def program(group, meet):
        communicator = begun(cupy, group, meet)
        if group.rank() == 1:
            communicator.job.fail("ValueError: no more data")
            meet()
            meet()
            return
        meet()
        communicator.all_reduce(cupy.ones(1), async_op=True)
        hub.error = NcclError(6, "remote process exited or there was a network error")
        with pytest.raises(CommunicationError, match=r"rank 1 .*has failed.*no more data") as error:
            look(communicator)
        assert "all_reduce: rank 0 of 2, GPU 0: NCCL_ERROR_REMOTE_ERROR" in str(error.value.__cause__)
        hub.error = None
        communicator._device_transports["cuda"].abandon()
        meet()

    on_ranks(2, program, tmp_path)


def test_the_thread_looks_by_itself(cupy, monkeypatch, tmp_path):
    seen = []

    class Looking(watchdog.Watch):
        def look(self, transport, now=None):
            seen.append(transport.rank)

    watch = Looking()
    monkeypatch.setattr(watchdog, "PAUSE", 0.01)
    monkeypatch.setattr(watchdog, "watch", watch.add)

    def program(group, meet):
        group.communicator.all_reduce(cupy.ones(1))
        deadline = time.monotonic() + 10
        while group.rank() not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
        watch.remove(group.communicator._device_transports["cuda"])

    on_ranks(2, program, tmp_path)
    assert set(seen) == {0, 1}
