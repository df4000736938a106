"""On which hosts a job runs and how many ranks each gets: ``--hosts a,b:4``, ``--hostfile F``."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class HostsError(ValueError):
    """A list of hosts cannot be read, or the ranks do not fit on it."""


class Host(NamedTuple):
    """A host of the list, and how many ranks it takes; None where the list does not say."""

    name: str
    slots: int | None


class Share(NamedTuple):
    """The ranks that one host gets: `first` to ``first + ranks - 1``."""

    host: str
    first: int
    ranks: int


# A name, a name of a user at a host, an address; an IPv6 address stands in brackets.
_ENTRY = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[\w.@-]+)(?::(\d+))?")


def parse_hosts(text: str) -> list[Host]:
    """Reads ``a,b:4``.

    Examples
    --------
    >>> parse_hosts("a,b:4")
    [Host(name='a', slots=1), Host(name='b', slots=4)]
    >>> parse_hosts("a,b")
    [Host(name='a', slots=None), Host(name='b', slots=None)]
    """
    return _merged(_entry(part.strip(), None, f"--hosts {text}") for part in text.split(","))


def read_hostfile(path: str) -> list[Host]:
    """Reads a file of one host a line: ``host``, ``host:4`` (MPICH, Intel MPI), ``host slots=4`` (Open MPI), ``# comment``."""
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()  # an editor of Windows' begins a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise HostsError(f"--hostfile {path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"--hostfile {path}, line {number}"
        slots = None
        for word in words[1:]:
            given = re.fullmatch(r"slots=(\d+)", word)
            if given is None:
                raise HostsError(f"{where}: {word!r} is not understood; a line is host, host:4 or host slots=4")
            slots = int(given[1])
        found.append(_entry(words[0], slots, where))
    if not found:
        raise HostsError(f"--hostfile {path} names no host")
    return _merged(found)


def place(hosts: Sequence[Host], ranks: int | None, oversubscribe: bool) -> list[Share]:
    """Gives each host its ranks, in the order of the list, one block after the other.

    Where the list says how many ranks a host takes, hosts are filled one after the other; else all get the same number,
    the first ones one more if it does not come out even.

    Parameters
    ----------
    hosts : sequence of Host
        Each host once.
    ranks : int or None
        How many; None for as many as the list has slots.
    oversubscribe : bool
        Whether there may be more ranks than slots; the surplus is dealt out evenly.

    Raises
    ------
    HostsError
        The ranks do not fit, or nothing says how many there are.

    Examples
    --------
    >>> place(parse_hosts("a:2,b:4"), 3, False)
    [Share(host='a', first=0, ranks=2), Share(host='b', first=2, ranks=1)]
    >>> place(parse_hosts("a,b"), 5, False)
    [Share(host='a', first=0, ranks=3), Share(host='b', first=3, ranks=2)]
    """
    slots = [host.slots or 0 for host in hosts]
    if ranks is None:
        if not sum(slots):
            raise HostsError("-n is missing, and the list of hosts does not say how many ranks each takes (host:4)")
        ranks = sum(slots)
    even = [ranks // len(hosts) + (index < ranks % len(hosts)) for index in range(len(hosts))]
    if not sum(slots):
        counts = even
    elif ranks <= sum(slots):
        counts, left = [], ranks
        for slot in slots:
            counts.append(min(slot, left))
            left -= counts[-1]
    elif oversubscribe:
        surplus = ranks - sum(slots)
        counts = [slot + surplus // len(hosts) + (index < surplus % len(hosts)) for index, slot in enumerate(slots)]
    else:
        raise HostsError(
            f"-n {ranks} does not fit: the hosts take {sum(slots)} rank{'' if sum(slots) == 1 else 's'} "
            f"({', '.join(f'{host.name}:{host.slots}' for host in hosts)}); --oversubscribe starts them all the same"
        )
    shares, first = [], 0
    for host, count in zip(hosts, counts):
        if count:
            shares.append(Share(host.name, first, count))
        first += count
    return shares


def with_slots(hosts: Sequence[Host], shares: Sequence[Share]) -> list[Host]:
    """The hosts, each with the number of slots that it will be held to when others are gone."""
    taken = {share.host: share.ranks for share in shares}
    return [host if host.slots is not None else Host(host.name, taken.get(host.name, 0)) for host in hosts]


def is_here(name: str) -> bool:
    """Whether a name or address of the list is this host's. Nothing is asked of the network.

    Examples
    --------
    >>> is_here("localhost"), is_here("127.0.0.1"), is_here("192.0.2.1")
    (True, True, False)
    """
    name = name.rpartition("@")[2].strip("[]")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        # Upper and lower case are the same to the domain name system, and the dot at the end is its root (RFC 1034, section 3.1).
        name, own = name.lower().rstrip("."), socket.gethostname().lower().rstrip(".")
        # A short name means the host of that name in this domain.
        short = "." not in name or "." not in own
        return name == "localhost" or (name.split(".")[0] == own.split(".")[0] if short else name == own)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((name, 0))  # the system allows this with addresses of its own only
        except OSError:
            return False
    return True


def master_of(shares: Sequence[Share]) -> str:
    """How the ranks reach the host of rank 0: the first host's name, as the list has it."""
    first = shares[0].host.rpartition("@")[2].strip("[]")
    if all(is_here(share.host) for share in shares):
        return "127.0.0.1"
    if first == "localhost" or first.startswith("127."):
        return socket.gethostname()  # what is localhost here is another host there
    return first


def expand(nodes: str) -> list[str]:
    """The hosts of one of Slurm's lists.

    Examples
    --------
    >>> expand("gpu[07-08,11],login")
    ['gpu07', 'gpu08', 'gpu11', 'login']
    """
    names = []
    for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        found = [""]
        for text, ranges in re.findall(r"([^\[]*)(?:\[([^\]]*)\])?", entry):
            found = [name + text for name in found]
            if ranges:
                found = [name + number for name in found for number in _numbers(ranges)]
        names += found
    return names


def _numbers(ranges: str) -> Iterable[str]:
    for part in ranges.split(","):
        low, _, high = part.partition("-")
        for number in range(int(low), int(high or low) + 1):
            yield str(number).zfill(len(low))


def _entry(text: str, slots: int | None, where: str) -> Host:
    found = _ENTRY.fullmatch(text)
    if found is None:
        raise HostsError(f"{where}: {text!r} is no host; it is a name or an address, with :4 for four ranks")
    if found[2] is not None:
        slots = int(found[2])
    if slots == 0:
        raise HostsError(f"{where}: {text!r} has no slots; a host takes at least 1 rank")
    return Host(found[1], slots)


def _merged(hosts: Iterable[Host]) -> list[Host]:
    """Each host once. One that stands there twice takes both numbers; and if any says a number, the others take 1."""
    hosts = list(hosts)
    names = list(dict.fromkeys(host.name for host in hosts))
    if len(names) == len(hosts) and all(host.slots is None for host in hosts):
        return hosts
    return [Host(name, sum(host.slots or 1 for host in hosts if host.name == name)) for name in names]
