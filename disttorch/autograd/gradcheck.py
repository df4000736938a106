"""gradcheck and gradgradcheck: derivatives against finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from ..backend import cpu, namespace
from ..backend.dtypes import DTYPES
from .differentiate import grad
from .forward_ad import leaf_on, push_forward
from .grad_mode import enable_grad
from .variable import Tensor, wrap

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """A derivative that does not agree with finite differences."""


class _Options(NamedTuple):
    eps: float
    atol: float
    rtol: float
    nondet_tol: float
    undefined: bool
    dtypes: bool
    batched: bool
    batched_forward: bool
    forward: bool
    backward: bool
    fast: bool


def _as_tuple(value: Any) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _asking(values: Sequence[Any]) -> list[Tensor]:
    return [v for v in values if isinstance(v, Tensor) and v._node is not None]


def _differentiable(values: Sequence[Any]) -> list[Tensor]:
    return [v for v in values if isinstance(v, Tensor) and v._array.dtype.kind not in "biu"]


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare the derivatives of a function with central finite differences; as ``torch.autograd.gradcheck``.

    Parameters
    ----------
    func : callable
        Takes tensors, returns a tensor or a tuple of tensors.
    inputs : Tensor or tuple
        Those that ask for a gradient should be float64 or complex128: with less precision the differences are mostly
        rounding.
    eps : float
        Half the distance of the points between which the slope is taken.
    atol, rtol : float
        Tolerances: ``|analytical - numerical| <= atol + rtol * |numerical|``.
    raise_exception : bool
        Raise instead of returning False.
    nondet_tol : float
        How much the gradient may change between two backward passes.
    check_undefined_grad : bool
        Whether results that no gradient reaches must count as if a zero did.
    check_grad_dtypes : bool
        Whether a gradient must have its input's dtype.
    check_batched_grad, check_batched_forward_grad : bool
        Whether many derivatives at once, as `func.vmap` has them, must be those computed one by one.
    check_forward_ad, check_backward_ad : bool
        Which modes to compare.
    fast_mode : bool
        Compare one random combination of all derivatives instead of each.
    masked : bool, optional
        Accepted as in PyTorch, where it is about sparse tensors.

    Returns
    -------
    bool

    Raises
    ------
    GradcheckError
        With the input, the output and both Jacobians. A complex number counts as two real ones there.
    ValueError
        If no input asks for a gradient.

    Examples
    --------
    >>> import disttorch
    >>> x = disttorch.randn(3, dtype=disttorch.float64, requires_grad=True)
    >>> disttorch.autograd.gradcheck(lambda x: x.exp(), x)
    True
    """
    if not (check_forward_ad or check_backward_ad):
        raise AssertionError("Expected at least one of check_forward_ad or check_backward_ad to be True")
    if check_batched_grad and not check_backward_ad:
        raise AssertionError("Setting check_batched_grad=True requires check_backward_ad to be True")
    if check_batched_forward_grad and not check_forward_ad:
        raise AssertionError("Setting check_batched_forward_grad=True requires check_forward_ad to be True")
    options = _Options(
        eps, atol, rtol, nondet_tol, check_undefined_grad, check_grad_dtypes, check_batched_grad, check_batched_forward_grad,
        check_forward_ad, check_backward_ad, fast_mode,
    )  # fmt: skip
    try:
        _check(func, _as_tuple(inputs), options)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check(func: Callable, inputs: tuple, options: _Options) -> None:
    sources = _asking(inputs)
    if not sources:
        raise ValueError("gradcheck expects at least one input tensor to require gradient, but none of them have requires_grad=True.")
    for i, s in enumerate(sources):
        if DTYPES[s._array.dtype].to_real().itemsize < 8:
            warnings.warn(
                f"Input #{i} requires gradient and is not a double precision floating point or complex. This check will likely fail if all "
                "the inputs are not of double precision floating point or complex.",
                stacklevel=3,
            )
        if s._array.size > 1 and 0 in [st for st, n in zip(s._array.strides, s._array.shape) if n > 1]:
            raise RuntimeError(f"The {i}th input has a dimension with stride 0. gradcheck only supports inputs that are non-overlapping")
    with enable_grad():
        all_outputs = _differentiable(_as_tuple(func(*inputs)))
    outputs = _asking(all_outputs)
    if len(outputs) < len(all_outputs):
        _expect_constant(func, inputs, sources, all_outputs, options)
    if not outputs:
        return
    numbers = [i for i, o in enumerate(all_outputs) if o._node is not None]
    if options.fast:
        _compare_combination(func, inputs, sources, outputs, numbers, options)
    else:
        _compare_all(func, inputs, sources, outputs, numbers, options)
    if options.backward:
        if options.dtypes:
            _check_dtypes(outputs, sources)
        if options.undefined and len(outputs) > 1:
            _check_undefined(outputs, sources)
        if options.batched:
            _check_batched(outputs, sources)
    if options.batched_forward:
        _check_batched_forward(outputs, sources)


# --- Jacobians as real matrices: (numbers in the input, numbers in the output), complex ones counting twice ------------------


def _numbers(a: Any) -> Any:
    """The real numbers of an array, one after the other."""
    host = namespace(a).to_host(a).reshape(-1)
    if host.dtype.kind == "c":
        return cpu.stack((host.real, host.imag), axis=1).reshape(-1).astype(float)
    return host.astype(float)


def _units(x: Tensor) -> Iterator[Tensor]:
    """1 (and i) at each place."""
    xp = namespace(x._array)
    for place in product(*(range(n) for n in x._array.shape)):
        for value in (1, 1j) if x._array.dtype.kind == "c" else (1,):
            unit = xp.zeros(x._array.shape, x._array.dtype)
            unit[place] = value
            yield wrap(unit)


def _count(x: Tensor) -> int:
    return x._array.size * (2 if x._array.dtype.kind == "c" else 1)


def _by_backward(output: Tensor, sources: list[Tensor]) -> list[Any]:
    columns: list[list[Any]] = [[] for _ in sources]
    for unit in _units(output):
        for column, g, s in zip(columns, _gradients(output, sources, unit), sources):
            column.append(cpu.zeros(_count(s)) if g is None else _numbers(g._array))
    return [cpu.stack(c, axis=1) if c else cpu.zeros((_count(s), 0)) for c, s in zip(columns, sources)]


def _gradients(output: Any, sources: list[Tensor], start: Any, **options: Any) -> tuple:
    return grad(output, sources, start, retain_graph=True, allow_unused=True, **options)


def _by_forward(outputs: list[Tensor], sources: list[Tensor]) -> list[list[Any]]:
    """For each output and source."""
    push = push_forward(outputs, sources, ())
    rows: list[list[list[Any]]] = [[[] for _ in sources] for _ in outputs]
    for i, s in enumerate(sources):
        for unit in _units(s):
            tangents = push([unit if k == i else None for k in range(len(sources))], False)
            for o, (output, t) in enumerate(zip(outputs, tangents)):
                rows[o][i].append(cpu.zeros(_count(output)) if t is None else _numbers(t._array))
    return [
        [cpu.stack(r, axis=0) if r else cpu.zeros((0, _count(o))) for r in per_source] for o, per_source in zip(outputs, rows)
    ]


def _outputs_at(func: Callable, inputs: tuple) -> list[Any]:
    with enable_grad():  # the function may itself ask for gradients
        return [_numbers(o._array) for o in _differentiable(_as_tuple(func(*inputs)))]


def _slopes(func: Callable, inputs: tuple, source: Tensor, eps: float) -> list[Any]:
    """By central differences, for each output."""
    a = source._array
    rows: list[list[Any]] = []
    for place in product(*(range(n) for n in a.shape)):
        before = a[place].item()
        for step in (eps, eps * 1j) if a.dtype.kind == "c" else (eps,):
            ends = []
            for end in (before + step, before - step):
                a[place] = end
                ends.append(_outputs_at(func, inputs))
            a[place] = before
            rows.append([(one - other) / (2 * eps) for one, other in zip(*ends)])
    if not rows:
        return [cpu.zeros((0, len(o))) for o in _outputs_at(func, inputs)]
    return [cpu.stack(list(column), axis=0) for column in zip(*rows)]


# --- the comparisons ------------------------------------------------------------------------------------------------------


def _close(one: Any, numerical: Any, options: _Options) -> bool:
    return bool(cpu.all(abs(one - numerical) <= options.atol + options.rtol * abs(numerical)))


def _compare_all(
    func: Callable, inputs: tuple, sources: list[Tensor], outputs: list[Tensor], numbers: list[int], options: _Options
) -> None:
    pulled = []
    if options.backward:
        for o, output in enumerate(outputs):
            once, again = _by_backward(output, sources), _by_backward(output, sources)
            for i in range(len(sources)):
                if float(abs(once[i] - again[i]).max(initial=0)) > options.nondet_tol:
                    raise GradcheckError(
                        "gradcheck: Backward is not reentrant, i.e., running backward with same input and grad_output multiple times gives "
                        f"different values, for output {o} and input {i}"
                    )
            pulled.append(once)
    pushed = _by_forward(outputs, sources) if options.forward else []
    for i, source in enumerate(sources):
        slopes = _slopes(func, inputs, source, options.eps)
        for o, number in enumerate(numbers):
            numerical = slopes[number]
            for mode, found in (("", pulled), (" computed with forward mode", pushed)):
                if found and not _close(found[o][i], numerical, options):
                    raise GradcheckError(
                        f"Jacobian{mode} mismatch for output {o} with respect to input {i},\nnumerical:\n{numerical}\n"
                        f"analytical:\n{found[o][i]}\n"
                    )


def _random_like(x: Tensor, source: Any) -> Tensor:
    xp = namespace(x._array)
    values = source.standard_normal(x._array.shape)
    if x._array.dtype.kind == "c":
        values = values + 1j * source.standard_normal(x._array.shape)
    return wrap(xp.array(xp.from_host(cpu.asarray(values).astype(x._array.dtype))))


def _compare_combination(
    func: Callable, inputs: tuple, sources: list[Tensor], outputs: list[Tensor], numbers: list[int], options: _Options
) -> None:
    """One number a pair of output and input: a random combination of the outputs, along a random direction."""
    random = cpu.random(0)
    directions = [_random_like(s, random) for s in sources]
    starts = [_random_like(o, random) for o in outputs]
    for i, (source, direction) in enumerate(zip(sources, directions)):
        slopes = _slope_along(func, inputs, source, direction, options.eps)
        for o, (output, start, number) in enumerate(zip(outputs, starts, numbers)):
            weights, along = _numbers(start._array), _numbers(direction._array)
            numerical = float((slopes[number] * weights).sum())
            scale = 1 + float(abs(weights).sum() * abs(along).sum())
            found = {}
            if options.backward:
                (g,) = _gradients(output, [source], start)
                found[""] = 0.0 if g is None else float((_numbers(g._array) * along).sum())
            if options.forward:
                (t,) = push_forward([output], [source], ())([direction], False)
                found[" computed with forward mode"] = 0.0 if t is None else float((_numbers(t._array) * weights).sum())
            for mode, value in found.items():
                if not abs(value - numerical) <= options.atol * scale + options.rtol * abs(numerical):
                    raise GradcheckError(
                        f"Jacobian{mode} mismatch for output {o} with respect to input {i},\nnumerical:{numerical}\nanalytical:{value}\n"
                        "The above quantities relating the numerical and analytical jacobians are computed in fast mode: along a random "
                        "direction. Run with fast_mode=False for the whole Jacobians."
                    )


def _slope_along(func: Callable, inputs: tuple, source: Tensor, direction: Tensor, eps: float) -> list[Any]:
    a = source._array
    xp = namespace(a)
    before = xp.array(a)
    ends = []
    for step in (eps, -eps):
        a[...] = before + direction._array * step
        ends.append(_outputs_at(func, inputs))
    a[...] = before
    return [(one - other) / (2 * eps) for one, other in zip(*ends)]


def _expect_constant(func: Callable, inputs: tuple, sources: list[Tensor], outputs: list[Tensor], options: _Options) -> None:
    """Results without a gradient must not depend on the inputs."""
    for i, source in enumerate(sources):
        slopes = _slopes(func, inputs, source, options.eps)
        for o, output in enumerate(outputs):
            if output._node is None and not _close(slopes[o], 0 * slopes[o], options):
                raise GradcheckError(
                    f"Numerical gradient for function expected to be zero: result {o} requires no gradient, though it depends on input "
                    f"{i}:\n{slopes[o]}"
                )


def _check_dtypes(outputs: list[Tensor], sources: list[Tensor]) -> None:
    starts = [_random_like(o, cpu.random(0)) for o in outputs]
    for i, (g, s) in enumerate(zip(_gradients(outputs, sources, starts), sources)):
        if g is not None and g._array.dtype != s._array.dtype:
            raise GradcheckError(f"Gradient {i} has incorrect dtype: expected {s.dtype}, got {g.dtype}")


def _check_undefined(outputs: list[Tensor], sources: list[Tensor]) -> None:
    random = cpu.random(0)
    for k, output in enumerate(outputs):
        start = _random_like(output, random)
        zeros = [start if i == k else wrap(namespace(o._array).zeros_like(o._array)) for i, o in enumerate(outputs)]
        for i, (one, other) in enumerate(zip(_gradients(output, sources, start), _gradients(outputs, sources, zeros))):
            difference = _difference(one, other)
            if difference > 1e-12:
                raise GradcheckError(
                    "Expected backward function to handle undefined output grads: with a gradient at result "
                    f"{k} alone, the gradient of input {i} is another than with zeros at the others"
                )


def _difference(one: Tensor | None, other: Tensor | None) -> float:
    if one is None and other is None:
        return 0.0
    a = 0 if one is None else _numbers(one._array)
    b = 0 if other is None else _numbers(other._array)
    return float(abs(a - b).max(initial=0))


def _check_batched(outputs: list[Tensor], sources: list[Tensor]) -> None:
    random = cpu.random(0)
    for o, output in enumerate(outputs):
        starts = [_random_like(output, random) for _ in range(2)]
        xp = namespace(output._array)
        both = _gradients(output, sources, wrap(xp.stack([s._array for s in starts])), is_grads_batched=True)
        for k, start in enumerate(starts):
            for i, (one, many) in enumerate(zip(_gradients(output, sources, start), both)):
                one_of_many = None if many is None else wrap(many._array[k])
                if _difference(one, one_of_many) > 1e-8:
                    raise GradcheckError(f"Batched gradients of output {o} by input {i} differ from those computed one by one")


def _check_batched_forward(outputs: list[Tensor], sources: list[Tensor]) -> None:
    random = cpu.random(0)
    probes = [leaf_on(namespace(o._array).zeros_like(o._array)) for o in outputs]
    pulled = grad(outputs, sources, probes, create_graph=True, allow_unused=True)
    for i, (s, g) in enumerate(zip(sources, pulled)):
        if g is None or g._node is None:
            continue
        tangents = [_random_like(s, random) for _ in range(2)]
        both = _gradients(g, probes, wrap(namespace(s._array).stack([t._array for t in tangents])), is_grads_batched=True)
        for k, tangent in enumerate(tangents):
            for o, (one, many) in enumerate(zip(_gradients(g, probes, tangent), both)):
                if _difference(one, None if many is None else wrap(many._array[k])) > 1e-8:
                    raise GradcheckError(f"Batched tangents of output {o} by input {i} differ from those computed one by one")


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Compare second derivatives with finite differences of the first; as ``torch.autograd.gradgradcheck``.

    Parameters
    ----------
    func, inputs, eps, atol, rtol, raise_exception, nondet_tol, check_undefined_grad, check_grad_dtypes, check_batched_grad, \
fast_mode, masked
        As in `gradcheck`.
    grad_outputs : Tensor or tuple, optional
        Gradients of the results; random unless given.
    gen_non_contig_grad_outputs : bool
        Whether random ones shall not lie in one piece of memory.
    check_fwd_over_rev, check_rev_over_rev : bool
        Which modes to compare.
    """
    given = _as_tuple(inputs)
    with enable_grad():
        outputs = _asking(_as_tuple(func(*given)))
    if grad_outputs is None:
        source = cpu.random(0)
        starts = []
        for o in outputs:
            array = _random_like(o, source)._array
            if gen_non_contig_grad_outputs:
                xp = namespace(array)
                array = xp.stack((array, array), axis=-1)[..., 0]
            starts.append(leaf_on(array))
    else:
        starts = list(_as_tuple(grad_outputs))
    count = len(given)

    def first_derivative(*arguments: Any) -> tuple:
        inner, gradients = arguments[:count], arguments[count:]
        with enable_grad():
            sources = _asking(inner)
            results = _asking(_as_tuple(func(*inner)))
            # inputs that the function is linear in have no second derivative
            found = grad(results, sources, gradients, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        first_derivative,
        (*given, *starts),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
        masked=masked,
    )
