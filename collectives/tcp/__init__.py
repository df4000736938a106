"""Collectives over TCP sockets, for ranks that no MPI has started.

From the ground up: `frames` (what is on the wire), `requests` (one message's way into or out of an array), `mailboxes` (what is
expected and what has come), `connection` (one socket), `calls` (groups and their operations), `delivery` (which message is for
whom), `engine` (what makes it all go on), `algorithms` (each operation as messages), `transport` (the operations as callers see
them); `mesh` and `rendezvous` for how the ranks find each other.
"""

from .rendezvous import rendezvous
from .transport import TCPTransport

__all__ = ["TCPTransport", "rendezvous"]
