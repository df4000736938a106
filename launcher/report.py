"""What `dlaunch` says at the end of a job, and the exit code it ends with."""

import re
import signal
from collections.abc import Sequence
from typing import NamedTuple

from launcher.record import ABORTED, End, Start

TRACEBACK_LINES = 12

_ADVICE = {
    signal.SIGKILL: "Out of memory is the usual reason for a SIGKILL that nobody sent: see `dmesg` or Slurm's `sacct`.",
    signal.SIGBUS: "A full /dev/shm or a truncated file under a memory map is the usual reason.",
    signal.SIGUSR1: "A script that saves its work on this signal does not get it before it has said so (signal.signal).",
    signal.SIGILL: "Code for another processor is the usual reason; is OPENBLAS_CORETYPE or a -march set?",
}


class Outcome(NamedTuple):
    """How a job ended."""

    world_size: int
    starts: dict[int, Start]
    ends: dict[int, End]
    stopped_by: signal.Signals | None  # the signal to `dlaunch` that ended the job, if one did before a rank failed
    forced: Sequence[int]  # ranks that had to be killed after the grace period
    mpiexec_status: int | None  # exit code of mpiexec where it ended by itself; negative for a signal
    command: Sequence[str]
    elapsed: float  # seconds
    manager: str = "mpiexec"  # what that is to be called
    elsewhere: bool = False  # whether ranks need not have seen the run directory: those on other hosts, or as it is gone
    orphaned: bool = False  # whether a signal ended that program while no rank had failed
    interrupted: bool = False  # whether `dlaunch` got an ending signal at any time, also after a rank had failed

    @property
    def first_failure(self) -> End | None:
        """The rank that failed first, by the clocks of the hosts.

        Ranks that were asked to end, by MPI or by dlaunch, come last. One that says itself that it failed because of another
        comes after that other, though it may have seen its connection break before anybody had taken note of the death. One that
        called MPI_Abort comes first: MPI asks all for their end then, this one too.
        """
        failures = [end for end in self.ends.values() if end.failed]
        return min(
            failures,
            key=lambda end: (not end.aborted, end.told, end.asked, end.follows, end.time, end.rank),
            default=None,
        )

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than with all ranks having ended well."""
        return exit_code(self) != 0


def exit_code(outcome: Outcome) -> int:
    """The exit code of `dlaunch`: 128 + number for a signal, else the first failing rank's, else mpiexec's.

    Examples
    --------
    >>> exit_code(Outcome(1, {}, {}, signal.SIGINT, [], 0, [], 1.0))
    130
    """
    if outcome.stopped_by is not None:
        return 128 + outcome.stopped_by
    failure = outcome.first_failure
    if outcome.orphaned and outcome.mpiexec_status is not None:
        return 128 - outcome.mpiexec_status
    if failure is not None and _lost_its_guard(failure, outcome):
        return 128 + signal.SIGKILL
    if failure is not None and (failure.aborted or not (failure.told and outcome.mpiexec_status)):
        return failure.status
    if _finished(outcome):
        return 0
    status = outcome.mpiexec_status
    if status is None or status == 0:
        return 1  # ranks are missing and nobody admits to it
    return status if status > 0 else 128 - status


def lines(outcome: Outcome) -> list[str]:
    """The lines for stderr; none where all ranks ended well."""
    if outcome.stopped_by is not None:
        said = f"dlaunch: stopped by {outcome.stopped_by.name} after {outcome.elapsed:.1f} s; "
        if not outcome.forced:
            return [said + f"all {_ranks(outcome.world_size)} have ended"]
        return [said + f"{_name(outcome.forced)} had not ended within the grace period and got SIGKILL"]
    if outcome.orphaned and outcome.mpiexec_status is not None:
        number = -outcome.mpiexec_status
        return [
            f"dlaunch: {outcome.manager} was killed by {_signal_name(number)} (signal {number}) after "
            f"{outcome.elapsed:.1f} s, so all {_ranks(outcome.world_size)} were ended"
        ]
    failure = outcome.first_failure
    if failure is not None and failure.aborted:
        return [
            *_words(failure),
            f"dlaunch: rank {failure.rank} (pid {failure.pid} on {failure.host}) called MPI_Abort after {failure.elapsed:.1f} s, "
            f"which ended the job with exit code {failure.aborted}"
        ]
    if failure is not None and not (failure.told and outcome.mpiexec_status):
        why = f"{_advice(failure)}{_without_finalize(failure, outcome)}"
        return [*_words(failure), f"dlaunch: {describe(failure)}{_others(failure, outcome)}{why}"]
    if _finished(outcome):
        return []
    status = outcome.mpiexec_status
    how = (
        f"exit code {status}" if status is None or status >= 0 else f"{_signal_name(-status)} (signal {-status})"
    )
    if not outcome.starts:
        what = f"{outcome.manager} ended with {how} before any rank had started; its own message is above. The command was:"
        return [f"dlaunch: {what}", "  " + " ".join(outcome.command)]
    if failure is not None and _lost_its_guard(failure, outcome):
        return [
            f"dlaunch: rank {failure.rank}: its guard (pid {failure.guard} on {failure.host}) was killed by SIGKILL (signal 9) after "
            f"{failure.elapsed:.1f} s, so MPI ended the job: {outcome.manager}'s own message is above"
        ]
    if failure is not None:
        return [
            f"dlaunch: MPI ended the job with {how} after {outcome.elapsed:.1f} s: {outcome.manager}'s own message is above. "
            f"The first end that was seen is that of rank {failure.rank} (pid {failure.pid} on {failure.host})"
            f"{_without_finalize(failure, outcome)}"
        ]
    lost = sorted(set(range(outcome.world_size)) - set(outcome.ends))
    return [
        f"dlaunch: {outcome.manager} ended with {how} after {outcome.elapsed:.1f} s; "
        f"{_name(lost)} did not say how {'it' if len(lost) == 1 else 'they'} ended"
    ]


def describe(end: End) -> str:
    """One rank's end in a sentence.

    Examples
    --------
    >>> describe(End(1, "n2", 42, None, 9, 0.0, 12.34, False, False, []))
    'rank 1 (pid 42 on n2) was killed by SIGKILL (signal 9) after 12.3 s'
    >>> describe(End(0, "n1", 41, 3, None, 0.0, 0.5, False, False, []))
    'rank 0 (pid 41 on n1) ended with exit code 3 after 0.5 s'
    """
    if end.lost is not None:
        return f"rank {end.rank}: its host {end.host} was lost after {end.elapsed:.1f} s: {end.lost}"
    subject = f"rank {end.rank} (pid {end.pid} on {end.host})"
    if end.supervisor:
        subject = f"rank {end.rank}: its supervisor (pid {end.pid} on {end.host})"
    if end.signal is not None:
        return f"{subject} was killed by {_signal_name(end.signal)} (signal {end.signal}) after {end.elapsed:.1f} s"
    exception = _exception(end)
    if exception is not None:
        return f"{subject} ended with exit code {end.code} after {end.elapsed:.1f} s by {exception}"
    return f"{subject} ended with exit code {end.code} after {end.elapsed:.1f} s"


def _traceback(end: End) -> list[str]:
    """The last Python traceback on the rank's stderr with all that follows it by the rank itself; empty where there is none."""
    words = end.words
    if end.aborted:  # what MPI says from there on is of no use
        words = words[: next(index for index, line in enumerate(words) if ABORTED.search(line))]
    for index in range(len(words) - 1, -1, -1):
        if re.search(r"Traceback \(most recent call last\):$|^Fatal Python error: ", words[index].rstrip()):
            return words[index:]
    return []


def _exception(end: End) -> str | None:
    """The line "ValueError: ..." of the traceback that ended the rank."""
    if end.code != 1:
        return None
    for line in _traceback(end)[1:]:
        if match := re.match(r"(?:  \| )?([A-Za-z_][\w.]*(?:: .*)?)$", line):
            return match[1].rstrip(": ") if len(match[1]) <= 200 else match[1][:197] + "..."
    return None


def _words(end: End) -> list[str]:
    """The rank's last words, where they say more than its exit does."""
    traceback = _traceback(end)
    if traceback and (end.signal is not None or end.code == 1 or end.aborted):
        what, shown = "its traceback ends with", traceback
    elif end.words and end.code is not None and not end.aborted:
        what, shown = "its last words on stderr are", end.words[-3:]
    else:
        return []
    return [f"dlaunch: rank {end.rank} failed first; {what}:", *("    " + line for line in shown[-TRACEBACK_LINES:])]


def _others(failure: End, outcome: Outcome) -> str:
    others = outcome.world_size - 1
    finished = sum(not end.failed for end in outcome.ends.values())
    if others == 0:
        return ""
    the_others = "the other rank" if others == 1 else f"the other {others} ranks"
    if finished == others:
        return f"; {the_others} had ended well"
    if finished:
        return f"; of {the_others}, {finished} had ended well and {others - finished} had to be ended"
    return f"; {the_others} {'was' if others == 1 else 'were'} ended"


def _advice(end: End) -> str:
    advice = _ADVICE.get(signal.Signals(end.signal)) if end.signal in set(signal.Signals) else None
    return f". {advice}" if advice and not end.supervisor else ""


def _without_finalize(failure: End, outcome: Outcome) -> str:
    """What may be the reason where MPI's process manager ended a rank that had not failed, and others were done already."""
    before = sorted(end.rank for end in outcome.ends.values() if not end.failed and end.time <= failure.time)
    if not failure.told or not before:
        return ""
    return (
        f". {_name(before).capitalize()} had ended with exit code 0 before: if that was without MPI_Finalize, as by os._exit, "
        f"{outcome.manager} took it for a failure"
    )


def _lost_its_guard(failure: End, outcome: Outcome) -> bool:
    """Whether somebody has killed the process that MPI takes for this rank, upon which MPI killed those of the others.

    MPICH gives the number of the signal as its exit code, Open MPI adds 128. But so it is, too, where MPI itself has killed them all
    because of a rank that was done.
    """
    by_force = outcome.mpiexec_status in (signal.SIGKILL, 128 + signal.SIGKILL)
    return failure.told and failure.guard is not None and by_force and not _without_finalize(failure, outcome)


def _finished(outcome: Outcome) -> bool:
    if any(end.failed for end in outcome.ends.values()):
        return False
    # Ranks whose host does not see the run directory, or finds it full, say it by their exit code alone.
    by_exit_code = outcome.mpiexec_status == 0 and (bool(outcome.starts) or outcome.elsewhere)
    return len(outcome.ends) == outcome.world_size or by_exit_code


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _name(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) <= 8:
        return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks[:8]))} and {len(ranks) - 8} more"


def _ranks(number: int) -> str:
    return f"{number} rank" if number == 1 else f"{number} ranks"
