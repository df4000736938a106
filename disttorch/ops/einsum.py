"""Einstein's sums: each pair of operands becomes one matrix product, in an order that keeps intermediate results small.

What is to be done for an equation and shapes is planned once and kept, so that a call in a loop costs its products.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import prod
from typing import Any, NamedTuple

from ..autograd.variable import Tensor
from ..backend.dtypes import INTEGRAL, int64
from .linear import matmul

__all__ = ["einsum"]

# What users find of this family, and where: see ops/public.py.
FUNCTIONS = "einsum"

Labels = tuple[int, ...]
#: labels of the dimensions that an ellipsis stands for begin here, beyond those of letters and of the sublist format
ELLIPSIS = 1000
#: up to so many operands every order is compared
EXHAUSTIVE = 6


def einsum(*args: Any) -> Tensor:
    """Products summed over the dimensions that the output does not name; as ``torch.einsum``.

    Parameters
    ----------
    equation : str
        A letter for each dimension of each operand, operands separated by commas, then optionally ``->`` and the output's letters;
        without it, the letters that occur once, in alphabetical order. A letter twice in one operand takes the diagonal;
        ``...`` stands for further dimensions, which broadcast.
    *operands : Tensor
        Also as one list. Or, without an equation, operands each followed by a list of numbers (and ``Ellipsis``) in the place of
        letters, and at the end optionally the output's list.

    Raises
    ------
    RuntimeError
        If the equation is malformed or does not fit the operands.

    Examples
    --------
    >>> import disttorch
    >>> a, b = disttorch.ones(2, 3), disttorch.ones(3, 4)
    >>> disttorch.einsum("ij,jk->ik", a, b)
    tensor([[3., 3., 3., 3.],
            [3., 3., 3., 3.]])
    >>> disttorch.einsum(a, [0, 1], [0])
    tensor([3., 3.])
    """
    if not args:
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, or at least one operand and its subscripts list"
        )
    if isinstance(args[0], str):
        operands = args[1:]
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        equation: Any = args[0]
    else:
        pairs = len(args) // 2
        operands = args[: 2 * pairs : 2]
        equation = tuple(_sublist(labels) for labels in args[1 : 2 * pairs : 2])
        equation = (equation, _sublist(args[-1]) if len(args) % 2 else None)
    if not operands:
        raise RuntimeError("einsum(): must provide at least one operand")
    for operand in operands:
        if not isinstance(operand, Tensor):
            raise TypeError(f"einsum(): operands must be Tensors, not {type(operand).__name__}")
    return _run(_plan(equation, tuple([operand._array.shape for operand in operands])), list(operands))


# --- what a plan says, and doing it --------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two operands, by their place among those that are left, as one product; the result goes to the end."""

    first: int
    second: int
    is_product: bool  # of matrices; else elementwise
    is_swapped: bool  # whether the second operand stands to the left
    orders: tuple[Labels | None, Labels | None]
    shapes: tuple[Any, Any]
    shape: Any


class Plan(NamedTuple):
    """What is done to each operand (diagonals, then sums over and removal of dimensions), then with pairs, then at the end."""

    alone: tuple[tuple[tuple[tuple[int, int], ...], Labels, Any], ...]
    pairs: tuple[Pair, ...]
    order: Labels | None
    sums_integers: bool  # whether a sum, which PyTorch computes of integers in int64, is among them


def _run(plan: Plan, operands: list[Tensor]) -> Tensor:
    for i, (diagonals, sums, shape) in enumerate(plan.alone):
        x = operands[i]
        if plan.sums_integers and x._array.dtype in INTEGRAL:
            x = x.to(dtype=int64)
        for first, second in diagonals:
            x = x.diagonal(0, first, second)
        if sums:
            x = x.sum() if len(sums) == x._array.ndim else x.sum(sums)
        operands[i] = x if shape is None else x.reshape(shape)
    for pair in plan.pairs:
        right, left = operands.pop(pair.second), operands.pop(pair.first)
        both = (right, left) if pair.is_swapped else (left, right)
        a, b = (_arranged(x, order, shape) for x, order, shape in zip(both, pair.orders, pair.shapes))
        result = matmul(a, b) if pair.is_product else a * b
        operands.append(result if pair.shape is None else result.reshape(pair.shape))
    (result,) = operands
    return result if plan.order is None else result.permute(plan.order)


def _arranged(x: Tensor, order: Labels | None, shape: Any) -> Tensor:
    if order is not None:
        x = x.permute(order)
    return x if shape is None else x.reshape(shape)


# --- reading an equation -------------------------------------------------------------------------------------------


def _sublist(labels: Any) -> tuple:
    if not isinstance(labels, (list, tuple)):
        raise TypeError(f"einsum(): expected a subscripts list, got {type(labels).__name__}")
    for label in labels:
        if label is not Ellipsis and not (isinstance(label, int) and 0 <= label < 52):
            raise RuntimeError(f"einsum(): expected subscripts to be within range [0, 52), but got {label!r}")
    return tuple(labels)


def _letters(term: str, equation: str) -> tuple:
    """A term's labels: letters by their code, Ellipsis for three dots."""
    labels: list[Any] = []
    i = 0
    while i < len(term):
        if term.startswith("...", i):
            labels.append(Ellipsis)
            i += 3
            continue
        if term[i] == ".":
            raise RuntimeError(f"einsum(): found '.' that is not part of any ellipsis in {equation!r}")
        if not (term[i].isascii() and term[i].isalpha()):
            raise RuntimeError(
                f"einsum(): invalid subscript given: {term[i]!r} in {equation!r}, subscripts must be in [a-zA-Z]"
            )
        labels.append(ord(term[i]))
        i += 1
    return tuple(labels)


def _parse(equation: Any, ranks: list[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the output, each dimension one."""
    if isinstance(equation, str):
        left, arrow, right = equation.replace(" ", "").partition("->")
        terms = [_letters(term, equation) for term in left.split(",")]
        output = _letters(right, equation) if arrow else None
    else:
        terms, output = list(equation[0]), equation[1]
    if len(terms) != len(ranks):
        more = "fewer" if len(terms) > len(ranks) else "more"
        raise RuntimeError(
            f"einsum(): {more} operands were provided than specified in the equation: {len(ranks)} for {len(terms)}"
        )
    width = 0
    for i, (term, rank) in enumerate(zip(terms, ranks)):
        if term.count(Ellipsis) > 1:
            raise RuntimeError(f"einsum(): found '...' for operand {i} for which an ellipsis was already found")
        named = len(term) - term.count(Ellipsis)
        if (Ellipsis in term and named > rank) or (Ellipsis not in term and named != rank):
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({named}) does not match the number of dimensions ({rank}) for "
                f"operand {i}{'' if Ellipsis in term else ' and no ellipsis was given'}"
            )
        if Ellipsis in term:
            width = max(width, rank - named)

    def spelled(term: tuple, count: int) -> Labels:
        return tuple(
            label
            for item in term
            for label in (range(ELLIPSIS + width - count, ELLIPSIS + width) if item is Ellipsis else (item,))
        )

    inputs = [spelled(term, rank - len(term) + 1) for term, rank in zip(terms, ranks)]
    if output is None:
        everything = [label for labels in inputs for label in labels]
        once = sorted(label for label in set(everything) if label < ELLIPSIS and everything.count(label) == 1)
        return inputs, (*range(ELLIPSIS, ELLIPSIS + width), *once)
    if output.count(Ellipsis) > 1:
        raise RuntimeError("einsum(): found '...' for output but an ellipsis was already found")
    result = spelled(output, width)
    known = {label for labels in inputs for label in labels}
    for label in result:
        if result.count(label) > 1:
            raise RuntimeError(f"einsum(): output subscript {_name(label)} appears more than once in the output")
        if label not in known:
            raise RuntimeError(
                f"einsum(): output subscript {_name(label)} does not appear in the equation for any input operand"
            )
    return inputs, result


def _name(label: int) -> str:
    return "..." if label >= ELLIPSIS else chr(label) if label >= 65 else str(label)


# --- planning ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _plan(equation: Any, shapes: tuple[tuple[int, ...], ...]) -> Plan:
    inputs, output = _parse(equation, [len(shape) for shape in shapes])
    sizes = _sizes(inputs, shapes)
    # where a dimension of size 1 stands for a longer one, the operand does not have that label
    own = [{label for label, n in zip(labels, shape) if n == sizes[label]} for labels, shape in zip(inputs, shapes)]
    alone, terms = [], []
    for i, (labels, shape) in enumerate(zip(inputs, shapes)):
        elsewhere = set(output).union(*(other for j, other in enumerate(own) if j != i))
        step, left = _alone(labels, shape, sizes, elsewhere)
        alone.append(step)
        terms.append(left)
    pairs = []
    for first, second in _order(tuple(terms), frozenset(output), sizes):
        b, a = terms.pop(second), terms.pop(first)
        needed = set(output).union(*terms)
        pair, labels = _pair(first, second, a, b, needed, sizes, output)
        pairs.append(pair)
        terms.append(labels)
    (last,) = terms
    order = tuple(last.index(label) for label in output)
    has_sums = any(sums for _, sums, _ in alone)
    return Plan(tuple(alone), tuple(pairs), None if order == tuple(range(len(order))) else order, has_sums)


def _sizes(inputs: list[Labels], shapes: tuple[tuple[int, ...], ...]) -> dict[int, int]:
    """The size of each label; 1 broadcasts."""
    sizes: dict[int, int] = {}
    for i, (labels, shape) in enumerate(zip(inputs, shapes)):
        own: dict[int, int] = {}
        for label, n in zip(labels, shape):
            if own.setdefault(label, n) != n:
                raise RuntimeError(
                    f"einsum(): subscript {_name(label)} is repeated for operand {i} but the sizes don't match, {n} != {own[label]}"
                )
            known = sizes.get(label, 1)
            if n != known and 1 not in (n, known):
                raise RuntimeError(
                    f"einsum(): operands do not broadcast with remapped shapes: {_name(label)} has size {known} and, in operand {i}, {n}"
                )
            sizes[label] = n if known == 1 else known
    return sizes


def _alone(labels: Labels, shape: tuple[int, ...], sizes: dict[int, int], elsewhere: set[int]) -> tuple[Any, Labels]:
    """What is done to an operand before it meets another: repeated labels become diagonals, labels that nobody else has are
    summed over, and dimensions of size 1 that stand for longer ones go.
    """
    left, extents = list(labels), list(shape)
    diagonals = []
    for label in dict.fromkeys(labels):
        while left.count(label) > 1:
            first = left.index(label)
            second = left.index(label, first + 1)
            diagonals.append((first, second))
            n = extents[first]
            for at in (second, first):
                del left[at], extents[at]
            left.append(label)
            extents.append(n)
    sums = tuple(d for d, label in enumerate(left) if label not in elsewhere)
    kept = [(label, n) for d, (label, n) in enumerate(zip(left, extents)) if d not in sums]
    after = [(label, n) for label, n in kept if not (n == 1 and sizes[label] != 1)]
    reshaped = None if len(after) == len(kept) else tuple(n for _, n in after)
    return (tuple(diagonals), sums, reshaped), tuple(label for label, _ in after)


def _order(terms: tuple[Labels, ...], output: frozenset[int], sizes: dict[int, int]) -> list[tuple[int, int]]:
    """Which operands to multiply, pair by pair, each as places among those that are left: the cheapest order of all, or for
    many operands always the cheapest next.
    """
    if len(terms) == 1:
        return []
    if len(terms) == 2:
        return [(0, 1)]

    def left_after(rest: tuple[Labels, ...], i: int, j: int) -> tuple[int, tuple[Labels, ...]]:
        others = tuple(term for k, term in enumerate(rest) if k not in (i, j))
        both = set(rest[i]) | set(rest[j])
        needed = output.union(*others)
        return prod(sizes[label] for label in both), (*others, tuple(sorted(both & needed)))

    def cheapest(rest: tuple[Labels, ...], bound: int | None) -> tuple[int, list[tuple[int, int]]] | None:
        if len(rest) == 1:
            return 0, []
        best: tuple[int, list[tuple[int, int]]] | None = None
        for i, j in combinations(range(len(rest)), 2):
            cost, after = left_after(rest, i, j)
            limit = bound if best is None else best[0] if bound is None else min(best[0], bound)
            if limit is not None and cost >= limit:
                continue
            found = cheapest(after, None if limit is None else limit - cost)
            if found is not None:
                best = (cost + found[0], [(i, j), *found[1]])
        return best

    pairs = []
    rest = terms
    while len(rest) > EXHAUSTIVE:
        i, j = min(combinations(range(len(rest)), 2), key=lambda pair: left_after(rest, *pair)[0])
        pairs.append((i, j))
        rest = left_after(rest, i, j)[1]
    found = cheapest(rest, None)
    assert found is not None
    return pairs + found[1]


def _pair(
    first: int, second: int, a: Labels, b: Labels, needed: set[int], sizes: dict[int, int], output: Labels
) -> tuple[Pair, Labels]:
    """Two operands as one product: labels of both that are needed later are a batch, those that are not are summed over."""
    place = {label: d for d, label in enumerate(output)}

    def in_output_order(labels: Any) -> list[int]:
        return sorted(labels, key=lambda label: place.get(label, -1))

    batch = in_output_order(label for label in a if label in b and label in needed)
    summed = [label for label in a if label in b and label not in needed]
    rows = in_output_order(label for label in a if label not in b)
    columns = in_output_order(label for label in b if label not in a)

    def extents(labels: list[int]) -> tuple[int, ...]:
        return tuple(sizes[label] for label in labels)

    def order(of: Labels, wanted: list[int]) -> Labels | None:
        places = tuple(of.index(label) for label in wanted)
        return None if places == tuple(range(len(places))) else places

    if not summed:  # elementwise, in the order of the output
        whole = in_output_order({*a, *b})
        shapes, orders = [], []
        for labels in (a, b):
            orders.append(order(labels, [label for label in whole if label in labels]))
            at = next((d for d, label in enumerate(whole) if label in labels), len(whole))
            spread = tuple(sizes[label] if label in labels else 1 for label in whole[at:])
            shapes.append(None if len(spread) == len(labels) else spread)
        return Pair(first, second, False, False, (orders[0], orders[1]), (shapes[0], shapes[1]), None), tuple(whole)

    swapped = bool(rows and columns) and place.get(columns[0], -1) < place.get(rows[0], -1)
    if swapped:
        a, b, rows, columns = b, a, columns, rows
    n, k, m = (prod(extents(labels)) for labels in (rows, summed, columns))
    # a group of one dimension is taken as it lies, so nothing is copied for it
    shape_a = None if len(rows) == 1 and len(summed) == 1 else (*extents(batch), n, k)
    shape_b = None if len(columns) == 1 and len(summed) == 1 else (*extents(batch), k, m)
    whole = batch + rows + columns
    shape = None if len(rows) == 1 and len(columns) == 1 else extents(whole)
    both_orders = order(a, batch + rows + summed), order(b, batch + summed + columns)
    return Pair(first, second, True, swapped, both_orders, (shape_a, shape_b), shape), tuple(whole)
