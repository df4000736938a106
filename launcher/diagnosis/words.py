"""How ranks, calls and times are said: short enough for 10,000 ranks, exact enough to find the line in the script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from launcher.diagnosis.flight import Entry

_Key = TypeVar("_Key")


def runs(ranks: Iterable[int]) -> list[str]:
    """Ranks as numbers and ranges.

    Examples
    --------
    >>> runs([0, 1, 2, 3, 5, 7, 8])
    ['0-3', '5', '7', '8']
    """
    found: list[str] = []
    ordered = sorted(set(ranks))
    begin = 0
    for index, rank in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == rank + 1:
            continue
        whole = ordered[begin : index + 1]
        found += [f"{whole[0]}-{whole[-1]}"] if len(whole) > 2 else [str(one) for one in whole]
        begin = index + 1
    return found


def short(ranks: Iterable[int]) -> str:
    """Ranks for the cell of a table: "0-62, 64"."""
    return ", ".join(runs(ranks))


def named(ranks: Iterable[int], capital: bool = False) -> str:
    """Ranks for a sentence.

    Examples
    --------
    >>> named([3]), named([0, 1, 2, 5, 9]), named(range(63), capital=True)
    ('rank 3', 'ranks 0-2, 5 and 9', 'Ranks 0-62')
    """
    parts = runs(ranks)
    word = "rank" if len(parts) == 1 and "-" not in parts[0] else "ranks"
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{word.capitalize() if capital else word} {text}"


def of(ranks: Iterable[int], one: str, many: str) -> str:
    """The form of a verb for so many ranks."""
    return one if len(set(ranks)) == 1 else many


def have(ranks: Iterable[int]) -> str:
    """Has, or have."""
    return of(ranks, "has", "have")


def call(entry: Entry, members: Sequence[int] = ()) -> str:
    """What was called, in a few words; with the group's `members`, roots and peers are ranks of the world.

    Examples
    --------
    >>> from launcher.diagnosis.flight import Entry
    >>> call(Entry("world", 7, "reduce", "avg", "float32", (4, 2), 0, None, None, 32, 1.0, None, "under way", None))
    'reduce avg float32 (4, 2) root 0'
    >>> call(Entry("world", None, "recv", None, None, None, None, None, 5, 0, 1.0, None, "under way", None))
    'recv from any rank tag 5'
    """

    def rank(place: int) -> int:
        return members[place] if place < len(members) else place

    words = [entry.operation]
    if entry.reduction is not None:
        words.append(entry.reduction)
    if entry.dtype is not None:
        words.append(entry.dtype)
    if entry.shape is not None:
        words.append(str(entry.shape))
    if entry.root is not None:
        words.append(f"root {rank(entry.root)}")
    if entry.seq is None:
        towards = "to" if "send" in entry.operation else "from"
        words.append(f"{towards} {'any rank' if entry.peer is None else f'rank {rank(entry.peer)}'}")
        words.append("any tag" if entry.tag is None else f"tag {entry.tag}")
    return " ".join(words)


def at(where: str | None) -> str:
    """The place in the script, as the end of a phrase."""
    return f" at {where}" if where else ""


def duration(seconds: float) -> str:
    """A length of time.

    Examples
    --------
    >>> duration(0.0042), duration(0.5), duration(31.26), duration(1800)
    ('4.2 ms', '0.50 s', '31.3 s', '1800 s')
    """
    seconds = max(0.0, seconds)
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s" if seconds < 1000 else f"{seconds:.0f} s"


def gathered(values: Mapping[int, _Key]) -> list[tuple[list[int], _Key]]:
    """Ranks that share a value, together; the largest number of ranks first."""
    together: dict[_Key, list[int]] = {}
    for rank, value in sorted(values.items()):
        together.setdefault(value, []).append(rank)
    return sorted(((ranks, value) for value, ranks in together.items()), key=lambda pair: (-len(pair[0]), pair[0]))


def columns(rows: Iterable[Iterable[str]]) -> list[str]:
    """Rows of cells as lines in which the cells stand below each other."""
    table = [list(row) for row in rows]
    if not table:
        return []
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
