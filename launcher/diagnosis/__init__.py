"""What flight records say of a job that is stuck or failed: `diagnose` compares the ranks' calls and says who is to blame.

It reads files alone and needs neither the job's machine nor its libraries. ``dlaunch doctor DIR`` is its command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from launcher.diagnosis.case import study
from launcher.diagnosis.evidence import Finding, findings
from launcher.diagnosis.flight import Flight, FlightError, Record, read_directory, record_of
from launcher.diagnosis.verdict import Verdict, verdict

__all__ = ["Diagnosis", "Finding", "Flight", "FlightError", "Record", "Verdict", "diagnose", "read_directory", "record_of"]


class Diagnosis(NamedTuple):
    """What happened to a job.

    Attributes
    ----------
    world_size : int
        How many ranks the job had.
    ranks : tuple of int
        Those whose records were read.
    verdict : Verdict
        The story: its kind ("error", "mismatch", "behind", "no record", "damaged", "deadlock", "messages", "transport",
        "under way", "communication", "straggler" or "nothing"), the ranks that it is about, one to three sentences, and
        what to look at next.
    findings : tuple of Finding
        The evidence, what matters most first.
    """

    world_size: int
    ranks: tuple[int, ...]
    verdict: Verdict
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        """The whole text, as ``dlaunch doctor`` prints it."""
        lines = [" ".join(self.verdict.sentences), ""]
        for finding in self.findings:
            lines += [finding.title, *("    " + line for line in finding.lines), ""]
        if self.verdict.advice:
            lines += ["What to look at next:", *("  - " + advice for advice in self.verdict.advice), ""]
        return "\n".join(lines[:-1])

    def as_dict(self) -> dict[str, Any]:
        """The same for programs: strings, numbers, lists and dictionaries only."""
        return {
            "world_size": self.world_size,
            "ranks": list(self.ranks),
            "verdict": {
                "kind": self.verdict.kind,
                "ranks": list(self.verdict.ranks),
                "sentences": list(self.verdict.sentences),
                "advice": list(self.verdict.advice),
            },
            "findings": [
                {"kind": found.kind, "ranks": list(found.ranks), "title": found.title, "lines": list(found.lines)}
                for found in self.findings
            ],
        }


def diagnose(records: Sequence[Record | Mapping[str, Any]], damaged: Iterable[int] = ()) -> Diagnosis:
    """Says what happened to a job, from the flight records of its ranks.

    Calls of different ranks are compared by their number in the group, never by the clocks of their hosts.

    Parameters
    ----------
    records : sequence of Record or mapping
        One for each rank that has one, of one attempt; mappings are read by `record_of`.
    damaged : iterable of int
        Ranks that wrote a record which cannot be read.

    Raises
    ------
    ValueError
        There are no records, two of one rank, or (`FlightError`) one that is not of the format.

    Examples
    --------
    >>> def record(rank, calls, stack):
    ...     entries = [
    ...         {"group": "world", "seq": seq, "operation": "barrier", "started": 10.0 * seq, "where": "train.py:41",
    ...          "ended": 10.0 * seq + 1 if done else None, "state": "complete" if done else "under way"}
    ...         for seq, done in calls
    ...     ]
    ...     return {
    ...         "format": "disttorch flight record 1", "rank": rank, "world_size": 3, "host": "n1", "pid": 40 + rank,
    ...         "attempt": 0, "written": 60.0, "reason": "timeout", "error": None, "program": ["train.py"],
    ...         "groups": {"world": {"ranks": [0, 1, 2], "transport": "mpi"}}, "stack": stack, "entries": entries,
    ...     }
    >>> waiting = [(1, True), (2, False)]
    >>> job = [record(0, waiting, []), record(1, [(1, True)], ["train.py:80 in save"]), record(2, waiting, [])]
    >>> for sentence in diagnose(job).verdict.sentences:
    ...     print(sentence)
    Rank 1 has not made call 2 of world (barrier at train.py:41), in which ranks 0 and 2 have waited 40.0 s.
    Its last call there is 1 (barrier at train.py:41, complete); it was at train.py:80 in save.
    """
    read = [record if isinstance(record, Record) else record_of(record) for record in records]
    case = study(read, damaged)
    return Diagnosis(case.world_size, tuple(case.records), verdict(case), tuple(findings(case)))
