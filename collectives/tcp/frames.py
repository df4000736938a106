"""What two ranks say to each other on their connection.

Every frame begins with a header of fixed size, lowest byte first; some have bytes after it.

=========  ========================================================================  ==============================
kind       meaning                                                                   bytes after the header
=========  ========================================================================  ==============================
MESSAGE    a short message, sent without asking                                      `length` of them
OFFER      a long message of `length` bytes could be sent; `transfer` names it       none
READY      the receiver has a place for `transfer`                                   none
DATA       the next part of `transfer`                                               `length` of them
FAILED     the sender's call `number` of the group has failed                        `length`, the reason as text
HERE       the sender has come to call `number` of the group; `slot` 1 asks back     none
BYE        the sender has closed its transport; nothing more comes                   none
ABORT      the sender ends the job with the exit code `number`                       none
=========  ========================================================================  ==============================

A message belongs to a call of a group: `group` names the group, `number` counts its collectives, `code` says which operation the
sender has called there, `arguments` is a hash of what has to be the same on all ranks, and `slot` says which of that operation's
messages it is. For a `send`, `code` is that of send and `number` its tag.
A long message waits for READY, so that nobody ever has to keep what another rank sends early.
"""

from __future__ import annotations

import struct
from enum import IntEnum

__all__ = ["CODES", "HEADER", "LARGEST_TAG", "OPERATIONS", "SEND", "Kind", "pack"]

HEADER = struct.Struct("<BBxxIIIQqQ")
"""kind, code, slot, transfer, arguments, group, number, length."""

LARGEST_TAG = 2**63 - 1

OPERATIONS = (
    "barrier", "all_reduce", "reduce", "reduce_scatter", "broadcast", "all_gather", "gather", "scatter", "all_to_all", "split",
    "send", "recv",
)  # fmt: skip
CODES = {name: code for code, name in enumerate(OPERATIONS)}
SEND = CODES["send"]


class Kind(IntEnum):
    """The kinds of frames."""

    MESSAGE = 1
    OFFER = 2
    READY = 3
    DATA = 4
    FAILED = 5
    HERE = 6
    BYE = 7
    ABORT = 8


def pack(
    kind: Kind, *, code: int = 0, slot: int = 0, transfer: int = 0, arguments: int = 0, group: int = 0, number: int = 0,
    length: int = 0,
) -> bytes:  # fmt: skip
    """A header.

    Examples
    --------
    >>> HEADER.unpack(pack(Kind.READY, transfer=7))
    (3, 0, 0, 7, 0, 0, 0, 0)
    """
    return HEADER.pack(kind, code, slot, transfer, arguments, group, number, length)
