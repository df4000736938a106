"""Rendezvous: from a URL to a store in which all ranks meet; as ``torch.distributed.rendezvous``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlparse

from collectives.store import FileStore, Store, TCPStore

from .constants import default_pg_timeout

__all__ = ["register_rendezvous_handler", "rendezvous"]

_handlers: dict[str, Callable[..., Iterator[tuple[Store, int, int]]]] = {}


def register_rendezvous_handler(scheme: str, handler: Callable[..., Iterator[tuple[Store, int, int]]]) -> None:
    """Have URLs of a scheme handled by a function of one's own.

    Parameters
    ----------
    scheme : str
        What stands before ``://``.
    handler : callable
        A generator function that is called with the URL, which has ``rank`` and ``world_size`` in its query where they are
        known, and the keyword arguments of `rendezvous`; it yields (store, rank, world size).

    Raises
    ------
    RuntimeError
        If the scheme has a handler already.
    """
    if scheme in _handlers:
        raise RuntimeError(f"Rendezvous handler for {scheme}:// already registered")
    _handlers[scheme] = handler


def rendezvous(url: str, rank: int = -1, world_size: int = -1, **kwargs: Any) -> Iterator[tuple[Store, int, int]]:
    """Meet the other ranks in a store.

    Parameters
    ----------
    url : str
        ``"env://"`` (MASTER_ADDR and MASTER_PORT say where, RANK and WORLD_SIZE who), ``"tcp://host:port"`` or
        ``"file:///path"``; may end in ``"?rank=0&world_size=2"``.
    rank, world_size : int
        Where the URL does not say them.
    **kwargs
        ``timeout``, a timedelta.

    Returns
    -------
    iterator of (store, rank, world size), with one element

    Raises
    ------
    RuntimeError
        If there is no handler for the URL's scheme.
    ValueError
        If something is missing; raised when the element is asked for.
    AssertionError
        If rank or world size are given twice.

    Examples
    --------
    >>> import disttorch.distributed as dist
    >>> store, rank, size = next(dist.rendezvous("tcp://127.0.0.1:0?rank=0&world_size=1"))
    >>> store.set("ready", "yes")
    >>> rank, size, store.get("ready")
    (0, 1, b'yes')
    """
    if not isinstance(url, str):
        raise RuntimeError(f"`url` must be a string. {type(url)}: {url}")
    parts = urlparse(url)
    query = dict(parse_qsl(parts.query))
    for name, value in (("rank", rank), ("world_size", world_size)):
        if value != -1:
            if name in query:
                raise AssertionError(f"The url: {url} has node-specific arguments(rank, world_size) already: {name} is given twice")
            query[name] = str(value)
    if parts.scheme not in _handlers:
        raise RuntimeError(f"No rendezvous handler for {parts.scheme}://; there are {', '.join(f'{s}://' for s in _handlers)}")
    return _handlers[parts.scheme](parts._replace(query="&".join(f"{k}={v}" for k, v in query.items())).geturl(), **kwargs)


def _who(url: str, environ: bool = False) -> tuple[int, int]:
    """Rank and world size of a URL's query, or of the environment."""
    scheme = urlparse(url).scheme
    query = dict(parse_qsl(urlparse(url).query))
    found = []
    for name, words in (("rank", "rank"), ("world_size", "world size")):
        if name not in query and environ:
            query[name] = _variable(name.upper())
        if name not in query:
            raise _error(scheme, f"{words} parameter missing in {url!r}")
        if not query[name].isdigit():
            raise _error(scheme, f"{words} is {query[name]!r}, not a number")
        found.append(int(query[name]))
    if found[0] >= found[1]:
        raise _error(scheme, f"rank {found[0]} is no rank of {found[1]}")
    return found[0], found[1]


def _error(scheme: str, message: str) -> ValueError:
    return ValueError(f"Error initializing torch.distributed using {scheme}:// rendezvous: {message}")


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise _error("env", f"environment variable {name} expected, but not set")
    return value


def _by_tcp(url: str, timeout: timedelta = default_pg_timeout, **_: Any) -> Iterator[tuple[Store, int, int]]:
    parts = urlparse(url)
    if parts.port is None or parts.hostname is None:
        raise _error("tcp", f"host or port number missing in {url!r}")
    rank, size = _who(url)
    yield TCPStore(parts.hostname, parts.port, size, rank == 0, timeout, multi_tenant=True), rank, size


def _by_environment(url: str, timeout: timedelta = default_pg_timeout, **_: Any) -> Iterator[tuple[Store, int, int]]:
    rank, size = _who(url, environ=True)
    host, port = _variable("MASTER_ADDR"), _variable("MASTER_PORT")
    if not port.isdigit():
        raise _error("env", f"MASTER_PORT is {port!r}, not a number")
    yield TCPStore(host, int(port), size, rank == 0, timeout, multi_tenant=True), rank, size


def _by_file(url: str, timeout: timedelta = default_pg_timeout, **_: Any) -> Iterator[tuple[Store, int, int]]:
    path = urlparse(url).path
    if not path:
        raise _error("file", f"path missing in {url!r}")
    rank, size = _who(url)
    yield FileStore(path, size, timeout), rank, size


register_rendezvous_handler("env", _by_environment)
register_rendezvous_handler("tcp", _by_tcp)
register_rendezvous_handler("file", _by_file)
