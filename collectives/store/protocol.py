"""What a TCPStore's clients and its server say to each other.

A client begins with the 8 bytes `HELLO`, the server answers with the 8 bytes `WELCOME`; who says anything else is no client
of ours and is cut off. Then the client sends requests and reads one answer to each. Both are frames::

    length of what follows (4 bytes) | kind (1) | any number of fields: length (4) | bytes

Numbers have the lowest byte first. The kind is an `Operation` in a request and a `Status` in an answer. Keys are UTF-8. Nothing
in a frame is ever evaluated.

========================  =============================================  ==============================================
operation                 fields                                         answer
========================  =============================================  ==============================================
SET                       key, value, key, value, ...
GET                       seconds to wait as text, keys                  their values; or TIMEOUT, the missing keys
WAIT                      seconds to wait as text, keys                  or TIMEOUT, the missing keys
CHECK                     keys                                           those that are missing
ADD                       key, amount as text                            the new number as text; or VALUE_ERROR, text
APPEND                    key, value
COMPARE_SET               key, expected, desired                         the value
DELETE                    key                                            "1" or "0"
LIST                                                                     keys
PUSH                      key, value
POP                       seconds to wait as text, key                   the value; or TIMEOUT, the key
QUEUE_LENGTH              key                                            the number as text
========================  =============================================  ==============================================

A frame that is not so is answered with BAD_REQUEST and a text, and the connection is closed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

__all__ = ["HELLO", "LENGTH", "LONGEST_FRAME", "WELCOME", "Operation", "ProtocolError", "Status", "frame", "parse"]

HELLO = b"dtstore1"
WELCOME = b"dtstoreW"
LENGTH = struct.Struct("<I")
LONGEST_FRAME = 1 << 30
"""Bytes: a larger length is an error, not a reason to wait for more."""


class Operation(IntEnum):
    """What a client asks for."""

    SET = 1
    GET = 2
    WAIT = 3
    CHECK = 4
    ADD = 5
    APPEND = 6
    COMPARE_SET = 7
    DELETE = 8
    LIST = 9
    PUSH = 10
    POP = 11
    QUEUE_LENGTH = 12


class Status(IntEnum):
    """How the server answers."""

    OK = 0
    TIMEOUT = 1
    VALUE_ERROR = 2
    BAD_REQUEST = 3


class ProtocolError(ValueError):
    """What arrived is not of this protocol."""


def frame(kind: int, fields: Iterable[bytes] = ()) -> bytes:
    """A request or an answer as bytes.

    Raises
    ------
    ValueError
        If it is longer than `LONGEST_FRAME`.

    Examples
    --------
    >>> frame(Operation.DELETE, [b"k"])
    b'\\x06\\x00\\x00\\x00\\x08\\x01\\x00\\x00\\x00k'
    """
    body = b"".join(part for field in fields for part in (LENGTH.pack(len(field)), field))
    if len(body) + 1 > LONGEST_FRAME:
        raise ValueError(f"a store carries {LONGEST_FRAME} bytes at once, not {len(body) + 1}")
    return LENGTH.pack(len(body) + 1) + bytes((kind,)) + body


def parse(body: bytes) -> tuple[int, list[bytes]]:
    """Kind and fields of a frame, of which `body` is what follows the length.

    Examples
    --------
    >>> parse(frame(3, [b"ab", b""])[4:])
    (3, [b'ab', b''])
    """
    if not body:
        raise ProtocolError("a frame of no bytes")
    fields = []
    position = 1
    while position < len(body):
        if position + LENGTH.size > len(body):
            raise ProtocolError(f"a field's length is cut off at byte {position} of {len(body)}")
        (length,) = LENGTH.unpack_from(body, position)
        position += LENGTH.size
        if position + length > len(body):
            raise ProtocolError(f"a field of {length} bytes in a frame that has {len(body) - position} left")
        fields.append(body[position : position + length])
        position += length
    return body[0], fields
