"""What `dlaunch doctor` says of jobs whose story is known, since the test wrote their flight records."""

import copy
import json
import os
import subprocess
import sys
import time

import pytest

from launcher import doctor
from launcher.diagnosis import diagnose, record_of

NOW = 1_764_370_000.0
WAITING = ["disttorch/distributed/collective.py:77 in all_reduce", "collectives/work.py:88 in wait", "collectives/flight.py:206 in _stack"]
STEP = 1.0  # seconds from one training step to the next


class Job:
    """Writes the records of a job: `step` is a collective that all of its ranks make and leave together."""

    def __init__(self, size, hosts=("n1",), transport="mpi"):
        self.size = size
        self.records = {
            rank: {
                "format": "disttorch flight record 1", "rank": rank, "world_size": size,
                "host": hosts[rank * len(hosts) // size], "pid": 4000 + rank, "attempt": 0, "written": NOW,
                "reason": "timeout", "error": "CollectiveTimeoutError: waited too long", "program": ["train.py"],
                "groups": {}, "stack": ["train.py:9 in main", "train.py:41 in train", *WAITING], "entries": [],
            }
            for rank in range(size)
        }  # fmt: skip
        self.group("world", range(size), transport)

    def group(self, name, ranks, transport="mpi"):
        for rank in ranks:
            self.records[rank]["groups"][name] = {"ranks": list(ranks), "transport": transport}

    def call(self, ranks, seq, started=NOW - 1800, ended=None, state="under way", group="world", **what):
        """Adds a call of some ranks; an all-reduce of 1024 float32 if nothing else is said."""
        entry = {
            "group": group, "seq": seq, "operation": "all_reduce", "reduction": "avg", "dtype": "float32", "shape": [1024],
            "root": None, "peer": None, "tag": None, "bytes": 4096, "where": "train.py:41", **what,
        }  # fmt: skip
        for rank in ranks:
            times = {"started": started, "ended": ended, "state": state}
            self.records[rank]["entries"].append({**entry, **times})
        return self

    def steps(self, seqs, ranks=None, group="world", late=(), **what):
        """Adds calls that all went well; the last ended a step before the ones that `call` adds. `late`: (rank, seconds)."""
        seqs = list(seqs)
        for seq in seqs:
            end = NOW - 1800 - STEP * (seqs[-1] - seq + 1)
            for rank in range(self.size) if ranks is None else ranks:
                begin = end - 0.4 + dict(late).get(rank, 0.0)
                self.call([rank], seq, begin, end, "complete", group, **what)
        return self

    def message(self, rank, operation, peer, tag, state="under way", where="train.py:50"):
        ended = NOW - 1799 if state == "complete" else None
        return self.call(
            [rank], None, NOW - 1800, ended, state, operation=operation, peer=peer, tag=tag, reduction=None, where=where
        )

    def set(self, ranks, **fields):
        for rank in ranks:
            self.records[rank].update(fields)
        return self

    def without(self, *ranks):
        for rank in ranks:
            del self.records[rank]
        return self

    def gave_up(self):
        """The same job, in whose records the calls that timed out are failed and no longer under way."""
        for record in self.records.values():
            for entry in record["entries"]:
                if entry["state"] == "under way" and record["reason"] == "timeout":
                    entry.update(state="failed", ended=record["written"])
        return list(self.records.values())

    def skewed(self):
        """The same job on hosts whose clocks are hours apart."""
        records = copy.deepcopy(self.records)
        hosts = sorted({record["host"] for record in records.values()})
        for record in records.values():
            shift = 7200.0 * (len(hosts) - hosts.index(record["host"]))
            record["written"] += shift
            for entry in record["entries"]:
                entry["started"] += shift
                if entry["ended"] is not None:
                    entry["ended"] += shift
        return list(records.values())


def killed():
    return Job(64).steps(range(100, 117)).call(range(64), 117).without(63)


def never_started():
    return Job(4).call(range(4), 1, operation="barrier", reduction=None, dtype=None, shape=None).without(2, 3)


def behind():
    job = Job(4, ("n1", "n2")).steps(range(1, 17)).call([0, 1, 3], 17)
    return job.set([2], reason="signal", error=None, stack=["train.py:9 in main", "train.py:80 in save"])


def behind_and_rings_begin_elsewhere():
    job = behind()
    job.records[2]["entries"] = job.records[2]["entries"][3:]
    job.records[3]["entries"] = job.records[3]["entries"][-2:]
    return job


def called_nothing():
    return Job(3).call([0, 1], 1).set([2], reason="signal", error=None, stack=["data.py:12 in load"])


def raised():
    job = Job(4, ("n1", "n2")).steps(range(1, 17)).call([0, 1, 2], 17)
    return job.set([3], reason="error", error="KeyError: 'lr'", written=NOW - 1800, stack=["train.py:33 in schedule"])


def raised_on_both_hosts():
    """Rank 3 was first, by the time since the step that both left; rank 0's clock would say otherwise."""
    job = raised().set([0], reason="error", error="ValueError: no batch", written=NOW - 1700)
    job.records[0]["entries"].pop()
    return job


def raised_on_strange_hosts():
    """No collective that both have left tells how their clocks go."""
    job = Job(2, ("n1", "n2")).set([0, 1], reason="error")
    job.set([0], error="KeyError: 'a'")
    return job.set([1], error="KeyError: 'b'")


def all_raised():
    return Job(8).steps([1]).set(range(8), reason="error", error="FileNotFoundError: /data/train.npy")


def alone():
    return Job(1).steps(range(1, 4)).set([0], reason="error", error="ZeroDivisionError: division by zero")


def alone_and_well():
    return Job(1).steps(range(1, 4)).set([0], reason="signal", error=None)


def another_operation():
    job = Job(4).steps(range(30, 35)).call([0, 1, 3], 35)
    return job.call([2], 35, operation="barrier", reduction=None, dtype=None, shape=None, where="train.py:57")


def another_shape():
    return Job(2).steps(range(1, 5)).call([0], 5).call([1], 5, shape=[512], state="failed", ended=NOW - 1799)


def another_root():
    job = Job(3).call([0], 1, operation="broadcast", reduction=None, root=0)
    return job.call([1, 2], 1, operation="broadcast", reduction=None, root=1)


def another_dtype_and_reduction():
    return Job(3).call([0, 2], 1).call([1], 1, reduction="sum", dtype="float16", where="train.py:44")


def left_out():
    """Rank 1 skips the clipping of step 11; nothing notices, and every later call meets the wrong one."""
    job = Job(3)
    job.steps(range(1, 11))
    for step, seq in enumerate(range(11, 19)):
        clip, loss = {"shape": [1], "where": "train.py:44"}, {"shape": [8], "where": "train.py:48"}
        job.call([0, 2], seq, NOW - 1800 + seq, NOW - 1799 + seq, "complete", **(loss if step % 2 else clip))
        job.call([1], seq, NOW - 1800 + seq, NOW - 1799 + seq, "complete", **(clip if step % 2 else loss))
    return job.set(range(3), reason="error", error="CommunicationError: message truncated")


def deadlock():
    job = Job(2).steps(range(1, 3))
    job.group("world/1", [0, 1])
    return job.call([0], 3).call([1], 1, group="world/1", where="train.py:60")


def deadlock_of_three():
    job = Job(4)
    for name, ranks in (("a", [0, 1]), ("b", [1, 2]), ("c", [2, 0])):
        job.group(name, ranks)
        job.call(ranks[:1], 1, group=name)
    return job.call([3], 1, operation="barrier", reduction=None, dtype=None, shape=None)


def chain():
    """Rank 3 is what all wait for, most of them through rank 2, which waits for it in a smaller group."""
    job = Job(4).steps(range(1, 6))
    job.group("world/1", [2, 3])
    job.call([0, 1], 6).call([2], 1, group="world/1", where="train.py:70")
    return job.set([3], reason="signal", error=None, stack=["data.py:5 in read"])


def split_groups():
    """Two groups of one name: ranks 0 and 1 wait in theirs for nobody else's rank."""
    job = Job(4).steps(range(1, 3))
    job.group("world/1", [0, 1])
    job.group("world/1", [2, 3])
    job.steps(range(1, 9), [2, 3], "world/1").steps(range(1, 5), [0, 1], "world/1")
    job.call([0], 5, group="world/1")
    return job.set([1], reason="signal", error=None, stack=["train.py:99 in log"]).set([2, 3], reason="signal", error=None)


def not_yet_a_member():
    job = Job(3).steps(range(1, 3))
    job.group("world/1", [0, 1])
    job.call([0], 1, group="world/1")
    del job.records[1]["groups"]["world/1"]
    return job.set([1, 2], reason="signal", error=None, stack=["train.py:12 in setup"])


def transport_trouble():
    job = Job(4, ("n1", "n2"), "tcp").steps(range(1, 4)).call(range(4), 4)
    return job.set(range(4), error="CollectiveTimeoutError: nothing came")


def half_through():
    job = Job(4, ("n1", "n2"), "tcp").call([0], 1, ended=NOW - 1799, state="complete", operation="broadcast", reduction=None, root=0)
    return job.call([1, 2, 3], 1, operation="broadcast", reduction=None, root=0).set([0], reason="signal", error=None)


def different_transports():
    job = Job(4).call(range(4), 1)
    for rank in (2, 3):
        job.records[rank]["groups"]["world"]["transport"] = "tcp"
    return job


def nothing_sent():
    job = Job(2).steps(range(1, 3)).message(1, "recv", 0, 5)
    return job.set([0], reason="signal", error=None, stack=["train.py:80 in save"])


def another_tag():
    return Job(2).message(0, "send", 1, 3, where="train.py:51").message(1, "recv", 0, 5)


def another_tag_of_a_buffered_message():
    job = Job(2).message(0, "send", 1, 3, "complete", where="train.py:51").message(1, "recv", 0, 5)
    return job.call([0], 1)


def both_receive():
    return Job(2).message(0, "recv", 1, 0).message(1, "recv", 0, 0)


def both_send_in_a_subgroup():
    """Peers are counted within the group, whose ranks are 1 and 3."""
    job = Job(4)
    job.group("pair", [1, 3])
    for rank, peer in ((1, 1), (3, 0)):
        job.call([rank], None, operation="send", peer=peer, tag=0, group="pair", reduction=None)
    return job.set([0, 2], reason="signal", error=None)


def from_any():
    return Job(2).message(0, "recv", -1, 7).set([1], reason="signal", error=None)


def from_any_who_waits():
    """Rank 0 would receive from any, but all others wait for it."""
    job = Job(3).steps([1]).call([1, 2], 2, operation="barrier", reduction=None, dtype=None, shape=None)
    return job.message(0, "recv", None, 7)


def message_under_way():
    return Job(2, ("n1", "n2")).message(0, "send", 1, 5).message(1, "recv", 0, 5)


def transport_error():
    return Job(2).steps([1]).set([0, 1], reason="error", error="CommunicationError: MPI_ERR_OTHER")


def running():
    job = Job(4).steps(range(1, 20)).call([0, 1, 3], 20, started=NOW - 0.3)
    return job.set(range(4), reason="signal", error=None)


def slow():
    job = Job(4, ("n1", "n2")).steps(range(1, 20), late=[(2, 0.3)])
    return job.set(range(4), reason="signal", error=None)


def gone_and_seen():
    """The rank failed by itself and wrote nothing; what another one could see of it stands in that one's error."""
    job = Job(2).steps([1]).call([0], 2, state="failed", ended=NOW - 1799).without(1)
    return job.set([0], reason="error", error="CommunicationError: rank 0 waits for a rank that is gone. rank 1: has failed with KeyError")


def cut_short():
    return Job(3).steps(range(1, 5)).call([0, 1], 5).without(2)


STORIES = [
    # job, kind, ranks of the verdict, what its sentences say in this order, what they must not say
    (killed, "no record", [63], [
        "Rank 63 wrote no record, and ranks 0-62 have waited 1800 s for it in call 117 of world "
        "(all_reduce avg float32 (1024,) at train.py:41).", "It took part in call 116 of world (all_reduce at train.py:41)",
        "killed"], ["never have started"]),
    (never_started, "no record", [2, 3], [
        "Ranks 2 and 3 wrote no record, and ranks 0 and 1 have waited 1800 s for them in call 1 of world (barrier at train.py:41)",
        "never have started"], ["took part"]),
    (behind, "behind", [2], [
        "Rank 2 has not made call 17 of world (all_reduce avg float32 (1024,) at train.py:41), in which ranks 0, 1 and 3 have "
        "waited 1800 s.", "Its last call there is 16 (all_reduce avg float32 (1024,) at train.py:41, complete)",
        "it was at train.py:80 in save."], ["before the latest"]),
    (behind_and_rings_begin_elsewhere, "behind", [2], ["Rank 2 has not made call 17", "last call there is 16"], []),
    (called_nothing, "behind", [2], [
        "Rank 2 has called nothing at all; ranks 0 and 1 have waited 1800 s for it in call 1 of world", "data.py:12 in load"], []),
    (raised, "error", [3], [
        "Rank 3 (pid 4003 on n2) raised KeyError: 'lr', at train.py:33 in schedule.",
        "Ranks 0-2 have waited 1800 s for it in call 17"], ["first"]),
    (raised_on_both_hosts, "error", [3, 0], [
        "Rank 3 (pid 4003 on n2) raised KeyError: 'lr' first", "Rank 0 raised later, and not because of it"], []),
    (raised_on_strange_hosts, "error", [0, 1], ["Ranks 0 and 1 raised exceptions of their own", "not known"], ["raised later"]),
    (all_raised, "error", range(8), ["All 8 ranks raised FileNotFoundError: /data/train.npy"], ["first"]),
    (alone, "error", [0], ["The only rank (pid 4000 on n1) raised ZeroDivisionError: division by zero"], ["wait"]),
    (alone_and_well, "nothing", [], ["No rank was stuck"], ["slow", "wrote no record"]),
    (another_operation, "mismatch", [2], [
        "The ranks of world did not agree on call 35 (operation): ranks 0, 1 and 3 called all_reduce avg float32 (1024,) at "
        "train.py:41; rank 2 called barrier at train.py:57."], ["From there on", "parted earlier"]),
    (another_shape, "mismatch", [0, 1], [
        "call 5 (shape): rank 0 called all_reduce avg float32 (1024,) at train.py:41; rank 1 called all_reduce avg float32 (512,)"],
        ["wrote no"]),
    (another_root, "mismatch", [0], ["call 1 (root): ranks 1 and 2 called broadcast float32 (1024,) root 1", "root 0"], []),
    (another_dtype_and_reduction, "mismatch", [1], [
        "call 1 (reduction and dtype)", "rank 1 called all_reduce sum float16 (1024,) at train.py:44"], []),
    (left_out, "mismatch", [1], [
        "did not agree on call 11 (shape)", "From there on rank 1's calls are the other ranks' next ones, as if it had left out "
        "all_reduce avg float32 (1,) at train.py:44."], []),
    (deadlock, "deadlock", [0, 1], [
        "Ranks 0 and 1 wait for each other, for ever: rank 0 waits for rank 1 in call 3 of world (all_reduce avg float32 (1024,) at "
        "train.py:41); rank 1 waits for rank 0 in call 1 of world/1 (all_reduce avg float32 (1024,) at train.py:60)."], []),
    (deadlock_of_three, "deadlock", [0, 1, 2], ["Ranks 0-2 wait for each other", "Rank 3 waits for them."], []),
    (chain, "behind", [3], [
        "Rank 3 has not made call", "it was at data.py:5 in read"], ["for ever"]),
    (split_groups, "behind", [1], [
        "Rank 1 has not made call 5 of world/1 of ranks 0, 1", "in which rank 0 has waited", "last call there is 4",
        "train.py:99 in log"], ["rank 2", "rank 3"]),
    (not_yet_a_member, "behind", [1], ["Rank 1 has not made call 1 of world/1", "called nothing there", "train.py:12 in setup"],
        ["rank 2"]),
    (transport_trouble, "under way", range(4), [
        "All 4 ranks of world have made call 4 (all_reduce avg float32 (1024,) at train.py:41), and nobody has finished it after "
        "1800 s.", "by tcp, between 2 hosts (n1, n2)"], ["has not made"]),
    (half_through, "under way", [1, 2, 3], ["ranks 1-3 have not finished it after 1800 s, rank 0 has.", "by tcp"], []),
    (different_transports, "transport", range(4), ["different transports", "ranks 0 and 1 use mpi; ranks 2 and 3 use tcp"], []),
    (nothing_sent, "behind", [0], [
        "Rank 0 has not sent the message for which rank 1 has waited 1800 s (recv float32 (1024,) from rank 0 tag 5 at train.py:50).",
        "It was at train.py:80 in save."], []),
    (another_tag, "messages", [0, 1], [
        "Rank 1 waits for a message from rank 0 with tag 5 at train.py:50, and what rank 0 has sent it has tag 3 at train.py:51."], []),
    (another_tag_of_a_buffered_message, "messages", [0, 1], ["with tag 5 at train.py:50", "has tag 3 at train.py:51"], []),
    (both_receive, "deadlock", [0, 1], ["rank 0 waits for rank 1 in recv float32 (1024,) from rank 1 tag 0"], []),
    (both_send_in_a_subgroup, "deadlock", [1, 3], [
        "Ranks 1 and 3 wait for each other", "rank 1 waits for rank 3 in send float32 (1024,) to rank 3 tag 0 of pair"], []),
    (from_any, "messages", [0], ["Rank 0 waits for a message that nobody has sent (recv float32 (1024,) from any rank tag 7"], []),
    (from_any_who_waits, "behind", [0], [
        "Rank 0 has not made call 2 of world (barrier at train.py:41), in which ranks 1 and 2 have waited 1800 s.",
        "Rank 0 waits for a message that nobody has sent (recv float32 (1024,) from any rank tag 7 at train.py:50)."], []),
    (message_under_way, "under way", [0, 1], ["and it has not reached rank 1, which has waited 1800 s", "between 2 hosts (n1, n2)"], []),
    (transport_error, "communication", [0, 1], ["All 2 ranks raised CommunicationError: MPI_ERR_OTHER"], []),
    (running, "nothing", [], ["No rank was stuck", "0.30 s"], ["slow", "has not made"]),
    (slow, "straggler", [2], ["No rank was stuck", "Rank 2 is slow: it makes its calls in world 0.30 s later than the others, of 1.00 s "
        "from call to call (medians of 19 calls)."], []),
    (gone_and_seen, "no record", [1], [
        "Rank 1 wrote no record, and rank 0 has waited 1.00 s for it in call 2 of world", "took part in call 1",
        "Rank 0 saw: CommunicationError: rank 0 waits for a rank that is gone. rank 1: has failed with KeyError."], []),
    (cut_short, "no record", [2], ["Rank 2 wrote no record", "took part in call 4"], []),
]  # fmt: skip


VARIANTS = {"plain": lambda job: list(job.records.values()), "skewed clocks": Job.skewed, "failed calls": Job.gave_up}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("story", "kind", "ranks", "said", "unsaid"), STORIES, ids=[story[0].__name__ for story in STORIES])
def test_stories(story, kind, ranks, said, unsaid, variant):
    diagnosis = diagnose(VARIANTS[variant](story()))
    text = " ".join(diagnosis.verdict.sentences)
    assert (diagnosis.verdict.kind, list(diagnosis.verdict.ranks)) == (kind, list(ranks)), str(diagnosis)
    assert 1 <= len(diagnosis.verdict.sentences) <= 3
    at = 0
    for words in said:
        assert words in text[at:], f"{words!r} is not in {text[at:]!r}"
        at = text.index(words, at) + len(words)
    for words in unsaid:
        assert words not in text
    assert str(diagnosis).startswith(text)


EVIDENCE = [
    # job, kind of a finding, lines that stand in it (columns joined by one space)
    (killed, "no record", ["Rank 63 wrote no record"]),
    (killed, "group", ["0-62 117 all_reduce avg float32 (1024,) under way 1800 s train.py:41", "63 (no record)"]),
    (killed, "errors", ["0-62 timeout CollectiveTimeoutError: waited too long"]),
    (behind, "stacks", ["0, 1, 3 train.py:9 in main > train.py:41 in train > (collectives/work.py:88 in wait)",
        "2 train.py:9 in main > train.py:80 in save"]),
    (another_operation, "mismatch", [
        "Call 35 of world: the ranks differ in operation", "0, 1, 3 all_reduce avg float32 (1024,) under way train.py:41",
        "2 barrier under way train.py:57"]),
    (left_out, "mismatch", ["Call 11 of world: the ranks differ in shape; so they do in 7 later calls"]),
    (chain, "group", ["0, 1 6 all_reduce avg float32 (1024,) under way 1800 s train.py:41"]),
    (split_groups, "groups", ["world (4 ranks, mpi): call 2", "world/1 of ranks 2, 3 (2 ranks, mpi): call 8"]),
    (not_yet_a_member, "group", ["1 (has not made this group)"]),
    (called_nothing, "group", ["2 (none)"]),
    (another_tag, "messages", ["Receives for which nothing was sent", "1 world recv 0 5 train.py:50"]),
    (another_tag_of_a_buffered_message, "messages", ["Receives for which nothing was sent"]),
    (both_send_in_a_subgroup, "messages", ["Sends that wait, and that nobody receives", "1 pair send 3 0 train.py:41"]),
    (different_transports, "transport", ["0, 1 mpi", "2, 3 tcp"]),
    (slow, "stragglers", ["2 n2 world 0.30 s 1.00 s 19"]),
]  # fmt: skip


@pytest.mark.parametrize(("story", "kind", "lines"), EVIDENCE, ids=[f"{row[0].__name__}-{row[1]}" for row in EVIDENCE])
def test_evidence(story, kind, lines):
    found = [finding for finding in diagnose(list(story().records.values())).findings if finding.kind == kind]
    assert found
    shown = [" ".join(line.split()) for line in (found[0].title, *found[0].lines)]
    assert not [line for line in lines if line not in shown], shown


def test_lost_messages_are_counted_only_where_both_records_tell_all():
    job = Job(2).steps([1]).message(0, "send", 1, 3, "complete").message(0, "send", 1, 3, "complete")
    job.message(1, "recv", 0, 3, "complete").set([0, 1], reason="signal", error=None)

    def lost():
        return [finding for finding in diagnose(list(job.records.values())).findings if finding.title == "Sends that were never received"]

    assert [" ".join(line.split()) for line in lost()[0].lines][1:] == ["0 world send 1 3 train.py:50"]
    job.records[1]["dropped"] = 7
    assert lost() == []


def test_a_record_that_a_signal_asked_for_long_ago_is_not_taken_for_the_present():
    job = behind()
    job.records[2]["written"] = NOW - 1500
    for records in (list(job.records.values()), job.skewed()):  # aligned by the last step, on the other hosts too
        diagnosis = diagnose(records)
        assert diagnosis.verdict.sentences[1].endswith("at train.py:80 in save, 1500 s before the latest record was written.")
        assert "old" in [finding.kind for finding in diagnosis.findings]


def test_a_running_job_of_which_one_rank_was_asked():
    job = Job(4).steps(range(1, 5)).set(range(4), reason="signal", error=None).without(1, 2, 3)
    diagnosis = diagnose(list(job.records.values()))
    assert diagnosis.verdict.kind == "nothing"
    assert "Ranks 1-3 wrote no record: only a rank that waits too long, fails or gets SIGUSR1 writes one." in diagnosis.verdict.sentences


def test_a_long_wait_of_a_running_job_is_said():
    job = running().set(range(4), written=NOW + 60)
    assert diagnose(list(job.records.values())).verdict.kind == "behind"


def test_two_ranks_that_are_slow_by_turns_are_not_blamed():
    job = Job(2)
    for seq in range(1, 21):
        job.steps([seq], late=[(seq % 2, 0.3)])
    assert diagnose(list(job.set([0, 1], reason="signal", error=None).records.values())).verdict.kind == "nothing"


@pytest.mark.parametrize(
    ("operation", "shapes", "state", "differ"),
    [
        # lengths of the first dimension may differ where counts say so; a record does not show counts
        ("all_gather", ([4, 2], [6, 2]), "complete", False),
        ("all_gather", ([4, 2], [4, 3]), "complete", True),
        ("all_gather", ([4, 2], [6, 2]), "under way", True),
        ("all_reduce", ([4, 2], [6, 2]), "complete", True),
        ("all_gather_object", ([40], [60]), "under way", False),
        ("barrier", (None, None), "under way", False),
        ("all_reduce", ([4, 2], None), "under way", False),  # what a record leaves empty agrees with everything
    ],
)
def test_shapes_that_may_differ(operation, shapes, state, differ):
    job = Job(2)
    for rank, shape in enumerate(shapes):
        ended = NOW - 1799 if state == "complete" else None
        job.call([rank], 1, NOW - 1800, ended, state, operation=operation, shape=shape)
    findings = diagnose(list(job.records.values())).findings
    assert ("mismatch" in [finding.kind for finding in findings]) == differ


def test_a_call_left_out_before_the_records_begin_is_not_named():
    job = left_out()
    for record in job.records.values():
        record["entries"] = record["entries"][12:]
    sentences = diagnose(list(job.records.values())).verdict.sentences
    assert sentences[0].startswith("The ranks of world did not agree on call 13 (shape)")
    assert sentences[1:] == (
        "From there on rank 1's calls are the other ranks' next ones, as if it had left out one.",
        "The records do not reach further back, so the ranks may have parted before.",
    )


def test_one_call_more_is_told_from_one_left_out():
    job = Job(3)
    sequence = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)]
    for seq, (line, length) in enumerate(sequence, 1):
        job.call([0, 1], seq, NOW - 60, NOW - 59, "complete", shape=[length], where=line)
    for seq, (line, length) in enumerate([*sequence[:2], ("x", 9), *sequence[2:]], 1):
        job.call([2], seq, NOW - 60, NOW - 59, "complete", shape=[length], where=line)
    [_, said] = diagnose(list(job.records.values())).verdict.sentences
    assert said == (
        "From there on rank 2's calls are the other ranks' one call late, as if it had made one more: all_reduce avg float32 (9,) at x."
    )


def test_a_thousand_ranks_take_seconds():
    job = Job(1000, [f"n{i}" for i in range(20)]).steps(range(500, 520)).call(range(1000), 520).without(*range(300, 310))
    begun = time.process_time()
    diagnosis = diagnose(list(job.records.values()))
    assert time.process_time() - begun < 20
    said = "Ranks 300-309 wrote no record, and ranks 0-299 and 310-999 have waited 1800 s for them in call 520 of world"
    assert diagnosis.verdict.sentences[0].startswith(said)
    assert max(map(len, str(diagnosis).splitlines())) < 400


def write(directory, record, name=None):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / (name or f"rank-{record['rank']}.flight.json")).write_text(json.dumps(record))


def test_the_latest_attempt_is_taken(tmp_path, capsys):
    first, second = raised(), killed()
    for record in first.records.values():
        write(tmp_path / "attempt-0", record)
    for record in second.records.values():
        write(tmp_path / "attempt-1", {**record, "attempt": 1})
    assert doctor.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{tmp_path}: records of 63 of 64 ranks, attempt 1 (others: 0; --attempt N)\n\nRank 63 wrote no record")
    assert doctor.main([str(tmp_path), "--attempt", "0", "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["attempt"], out["attempts"], out["ranks"], out["verdict"]["kind"]) == (0, [0, 1], [0, 1, 2, 3], "error")
    assert out["verdict"]["sentences"] == list(diagnose(list(first.records.values())).verdict.sentences)
    assert {tuple(finding) for finding in out["findings"]} == {("kind", "ranks", "title", "lines")}


@pytest.mark.parametrize("earlier", ["attempt-1", "earlier-1/attempt-1"])
def test_an_earlier_job_that_was_started_more_often_is_not_taken(tmp_path, capsys, earlier):
    for record in killed().records.values():
        write(tmp_path / earlier, {**record, "attempt": 1, "written": record["written"] - 1000})
    for record in all_raised().records.values():
        write(tmp_path, record)
    assert doctor.main([str(tmp_path)]) == 0
    said = f"{tmp_path}: records of 8 of 8 ranks, attempt 0 (others: 1; --attempt N)\n\nAll 8 ranks raised"
    assert capsys.readouterr().out.startswith(said)


GOOD = Job(4).steps([1]).records[0]
DAMAGED = [
    # what stands in rank-0.flight.json, what is said of it
    ("", "it is empty"),
    ('{"format": "disttorch flight rec', "it is no whole JSON text"),
    (b"\xff\xfe\x00", "it is no whole JSON text"),
    ("[1, 2]", "it holds no record but list"),
    ({"format": "disttorch flight record 9"}, "its format is 'disttorch flight record 9', and this reads 'disttorch flight record 1'"),
    ({"rank": 1}, "it is named for rank 0 and holds the record of rank 1"),
    ({"rank": 4}, "rank 4 is not one of a world of 4"),
    ({"rank": "0"}, "rank is '0'"),
    ({"written": "today"}, "written is 'today'"),
    ({"written": float("nan")}, "written is nan"),
    ({"reason": "mood"}, "reason is 'mood', none of timeout, error, mismatch, signal"),
    ({"groups": {"world": {"ranks": [0, 9]}}}, "groups['world'] has the ranks [0, 9] in a world of 4"),
    ({"entries": None}, "entries is None"),
    ({"entries": [7]}, "entries[0] is 7 and no object"),
    ({"entries": [{**GOOD["entries"][0], "state": "odd"}]}, "entries[0]: state is 'odd'"),
    ({"entries": [{**GOOD["entries"][0], "shape": [-1]}]}, "entries[0]: its shape is [-1]"),
    ({"entries": [{**GOOD["entries"][0], "started": None}]}, "entries[0]: started is None"),
]


@pytest.mark.parametrize(("content", "said"), DAMAGED)
def test_damaged_records_are_named_and_stop_nothing(tmp_path, capsys, content, said):
    job = Job(4).steps([1]).call([1, 2, 3], 2)
    for rank in (1, 2, 3):
        write(tmp_path, job.records[rank])
    if isinstance(content, dict):
        content = json.dumps({**GOOD, **content})
    (tmp_path / "rank-0.flight.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert doctor.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "The record of rank 0 cannot be read, and ranks 1-3 have waited 1800 s for it in call 2 of world" in out
    assert f"    rank-0.flight.json: {said}" in out
    (tmp_path / "rank-1.flight.json").unlink()
    (tmp_path / "rank-2.flight.json").unlink()
    (tmp_path / "rank-3.flight.json").unlink()
    assert doctor.main([str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"dlaunch doctor: no flight record can be read in {tmp_path} (rank-0.flight.json: {said}")


def test_a_record_that_was_begun_and_not_ended(tmp_path, capsys):
    job = Job(2).steps([1]).call([0], 2)
    write(tmp_path, job.records[0])
    write(tmp_path, {}, "rank-1.flight.json.4001.partial")
    assert doctor.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "rank-1.flight.json.4001.partial: the rank began to write it and did not come to its end" in out
    assert "The record of rank 1 cannot be read" in out


def test_records_of_another_job_in_the_directory_are_left_out(tmp_path, capsys):
    for record in raised().records.values():
        write(tmp_path, record)
    for record in Job(8).steps([1]).set(range(8), written=NOW - 86400).records.values():
        write(tmp_path / "old", record)
    write(tmp_path / "older", {**raised().records[2], "written": NOW - 99})
    assert doctor.main([str(tmp_path), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert (out["world_size"], out["ranks"]) == (4, [0, 1, 2, 3])
    assert "old/rank-7.flight.json is left out: it is of a job of 8 ranks, the latest record of one of 4" in out["notes"]
    assert "older/rank-2.flight.json is left out: there is a later record of rank 2" in out["notes"]


def test_a_record_that_an_earlier_job_left_is_not_mixed_in(tmp_path, capsys):
    job = Job(3).steps(range(1, 5)).call([0, 1], 5).without(2)
    for record in job.records.values():
        write(tmp_path, record)
    earlier = Job(3).steps(range(1, 5)).set([2], written=NOW - 86400).records[2]
    write(tmp_path, earlier)
    assert doctor.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "Rank 2 wrote no record" in out
    assert "rank-2.flight.json is left out: it was written before the job of the latest record began" in out
    # Where the latest record does not reach back to the beginning, an old one may be of the same job.
    for rank in (0, 1):
        write(tmp_path, {**job.records[rank], "entries": job.records[rank]["entries"][1:]})
    assert doctor.main([str(tmp_path)]) == 0
    assert "left out" not in capsys.readouterr().out


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path, plain_environ):
    write(tmp_path, Job(1).steps(range(1, 4)).records[0])
    program = "import time; from launcher import doctor; time.sleep(0.5); doctor.main(['.'])"  # when the reader has gone
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" | true', sys.executable, program],
        cwd=tmp_path, env=plain_environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


CALLS = [
    # arguments, exit code, what is said
    (["{tmp}/nowhere"], 1, "there is no directory {tmp}/nowhere: no rank has written a record into it"),
    (["{tmp}/empty"], 1, "no flight record can be read in {tmp}/empty: it holds none"),
    (["{tmp}/one/rank-0.flight.json"], 1, "is a file; the directory that it lies in is wanted"),
    (["{tmp}/one", "--attempt", "3"], 1, "{tmp}/one holds no record of attempt 3, only of 0"),
    (["{tmp}/one", "--attempt", "-1"], 2, "--attempt"),
    (["{tmp}/one", "--attempt", "one"], 2, "must be a whole number from 0; got 'one'"),
    (["{tmp}/one", "--jsn"], 2, "--jsn"),
    ([], 2, "DIR"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), CALLS)
def test_calls_that_cannot_be_answered(tmp_path, capsys, arguments, code, said):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "one", GOOD)
    assert doctor.main([argument.format(tmp=tmp_path) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dlaunch doctor: ") and len(err.splitlines()) == 1
    assert said.format(tmp=tmp_path) in err


def test_what_is_no_file_is_not_waited_for(tmp_path, capsys):
    write(tmp_path, Job(3).steps([1]).records[0])
    os.mkfifo(tmp_path / "rank-1.flight.json")
    (tmp_path / "rank-2.flight.json").symlink_to(tmp_path / "gone")
    assert doctor.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "rank-1.flight.json: it is no file that can be read" in out
    assert "rank-2.flight.json: it is no file that can be read" in out


@pytest.mark.parametrize("ranks", [[0, 0], []])
def test_one_record_a_rank_is_wanted(ranks):
    records = [record_of(Job(2).records[rank]) for rank in ranks]
    with pytest.raises(ValueError, match="one record for each rank"):
        diagnose(records)


MEET = """
import os, signal, sys
import numpy as np
import collectives
world = collectives.connect()
x = np.ones(1024, np.float32)
for _ in range(3):
    world.all_reduce(x, "avg")
"""
REAL = [
    # what the ranks go on to do, kind of the verdict, words of its first sentence
    ("""
try:
    world.barrier() if world.rank else world.all_reduce(x, "avg")  # line 11
except collectives.CommunicationError:
    pass  # the other rank is to say it, too
""", "mismatch", "rank 0 called all_reduce avg float32 (1024,) at script.py:11; rank 1 called barrier at script.py:11."),
    ("os.kill(os.getpid(), signal.SIGUSR1)\n", "nothing", "No rank was stuck when the records were written."),
    ("""
if world.rank == 0:
    try:
        world.recv(x, 1, tag=4)  # line 12
    except collectives.CollectiveTimeoutError:
        pass
else:
    record = os.path.join(os.environ["DISTTORCH_FLIGHT_DIR"], "rank-0.flight.json")
    while not os.path.exists(record):
        signal.sigtimedwait([], 0.05)
    os.kill(os.getpid(), signal.SIGUSR1)
""", "behind", "Rank 1 has not sent the message for which rank 0 has waited "),
]  # fmt: skip


@pytest.mark.parametrize(("script", "kind", "said"), REAL, ids=[row[1] for row in REAL])
def test_records_of_real_ranks(session, capsys, script, kind, said):
    job = session.run("-n", 2, "--timeout", 2, session.script(MEET + script), DISTTORCH_FLIGHT_DIR=str(session.directory / "flight"))
    assert job.returncode == 0, job.stderr
    assert doctor.main([str(session.directory / "flight"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"]["kind"], found["ranks"], found["damaged"]) == (kind, [0, 1], {})
    assert said in found["verdict"]["sentences"][0]
