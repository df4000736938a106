"""L-BFGS (Nocedal & Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 7.5), with a line search for the strong
Wolfe conditions (algorithms 3.5 and 3.6) by cubic interpolation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import enable_grad
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import namespace
from .optimizer import Optimizer
from .options import Params, computed, non_negative

__all__ = ["LBFGS"]


class LBFGS(Optimizer):
    """L-BFGS; as ``torch.optim.LBFGS``. All parameters are one group and lie on one device.

    Parameters
    ----------
    params : iterable
        See `Optimizer`.
    lr : float
        A step's length in units of the direction; with a line search, the first one tried.
    max_iter : int
        Iterations in one `step`.
    max_eval : int, optional
        Calls of the closure in one `step`; 1.25 times `max_iter` if absent.
    tolerance_grad : float
        The step ends where no element of the gradient is larger.
    tolerance_change : float
        The step ends where parameters or loss change less.
    history_size : int
        How many pairs of changes are kept.
    line_search_fn : {"strong_wolfe"}, optional

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = disttorch.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((w - 1) ** 2).sum()
    ...     loss.backward()
    ...     return loss
    >>> first = optimizer.step(closure)
    >>> w.detach().round(decimals=3)
    tensor([1., 1.])
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ):
        non_negative("learning rate", lr)
        defaults = {
            "lr": lr, "max_iter": max_iter, "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change, "history_size": history_size,
            "line_search_fn": line_search_fn,
        }  # fmt: skip
        super().__init__(params, computed(defaults, capturable=True))
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    # The parameters as one vector

    def _parameters(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def _vector(self, arrays: list[Any]) -> Any:
        """Arrays end to end, complex numbers as pairs."""
        xp = namespace(arrays[0])
        parts = [xp.reshape(a, (-1,)) for a in arrays]
        parts = [xp.reshape(xp.stack((a.real, a.imag), -1), (-1,)) if a.dtype.kind == "c" else a for a in parts]
        return xp.concatenate(parts)

    def _gradient(self) -> Any:
        params = self._parameters()
        return self._vector([namespace(p._array).zeros_like(p._array) if p._grad is None else p._grad._array for p in params])

    def _put(self, vector: Any) -> None:
        start = 0
        for p in self._parameters():
            a = p._array
            is_complex = a.dtype.kind == "c"
            part = vector[start : (start := start + a.size * (2 if is_complex else 1))]
            if is_complex:
                part = part[0::2] + 1j * part[1::2]
            a[...] = part.reshape(a.shape)
            bump_version(p)

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[float, Any]:
        with enable_grad():
            loss = float(closure())
        return loss, self._gradient()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to `max_iter` iterations.

        Parameters
        ----------
        closure : callable
            Computes the loss and its gradients again, and returns the loss.

        Returns
        -------
        The loss at the beginning.

        Raises
        ------
        TypeError
            Without a closure.
        RuntimeError
            For a line search that is not known.
        """
        if closure is None:
            raise TypeError("LBFGS.step() needs a closure that computes the loss again and returns it")
        self._closure, self._first = closure, None
        array = self._parameters()[0]._array
        xp = namespace(array)
        with xp.on(xp.device_of(array)):
            super().step()
        first, self._first, self._closure = self._first, None, None  # type: ignore[assignment]
        return first

    def _step(self) -> None:
        group, closure = self.param_groups[0], self._closure
        with enable_grad():
            self._first = closure()
        loss, g = float(self._first), self._gradient()  # type: ignore[arg-type]
        xp = namespace(g)
        state = self.state[self._parameters()[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        state["func_evals"] += 1
        evaluations = 1
        if _largest(xp, g) <= group["tolerance_grad"]:
            return

        def of(name: str) -> Any:
            value = state.get(name)
            return value._array if isinstance(value, Tensor) else value

        direction, length, scale = of("d"), of("t"), of("H_diag")
        changes_of_g = [y._array for y in state.get("old_dirs") or []]
        changes_of_x = [s._array for s in state.get("old_stps") or []]
        inverses = [float(r) for r in state.get("ro") or []]
        before, loss_before = of("prev_flat_grad"), state.get("prev_loss")
        lr = float(group["lr"])
        iteration = 0
        while iteration < group["max_iter"]:
            iteration += 1
            state["n_iter"] += 1
            if state["n_iter"] == 1:
                direction, scale = -g, 1.0
            else:
                y, s = g - before, direction * length
                curvature = float(y @ s)
                if curvature > 1e-10:
                    if len(changes_of_g) == group["history_size"]:
                        for history in (changes_of_g, changes_of_x, inverses):
                            history.pop(0)
                    changes_of_g.append(y)
                    changes_of_x.append(s)
                    inverses.append(1.0 / curvature)
                    scale = curvature / float(y @ y)
                direction = _two_loops(g, changes_of_g, changes_of_x, inverses, scale)
            before, loss_before = g, loss
            length = min(1.0, 1.0 / float(xp.sum(xp.abs(g)))) * lr if state["n_iter"] == 1 else lr
            slope = float(g @ direction)
            if slope > -group["tolerance_change"]:
                break
            used = 0
            if group["line_search_fn"] is None:
                self._put(self._vector([p._array for p in self._parameters()]) + direction * length)
                if iteration != group["max_iter"]:
                    loss, g = self._evaluate(closure)
                    used = 1
            elif group["line_search_fn"] == "strong_wolfe":
                start = self._vector([p._array for p in self._parameters()])

                def along(t: float, start: Any = start, direction: Any = direction) -> tuple[float, Any]:
                    self._put(start + direction * t)
                    return self._evaluate(closure)

                loss, g, length, used = strong_wolfe(along, length, direction, loss, g, slope)
                self._put(start + direction * length)
            else:
                raise RuntimeError(f"only 'strong_wolfe' is supported as line_search_fn, not {group['line_search_fn']!r}")
            evaluations += used
            state["func_evals"] += used
            if (
                iteration == group["max_iter"]
                or evaluations >= group["max_eval"]
                or _largest(xp, g) <= group["tolerance_grad"]
                or _largest(xp, direction * length) <= group["tolerance_change"]
                or abs(loss - loss_before) < group["tolerance_change"]
            ):
                break
        state["d"], state["t"] = wrap(direction), length
        state["old_dirs"], state["old_stps"] = [wrap(y) for y in changes_of_g], [wrap(s) for s in changes_of_x]
        state["ro"], state["H_diag"] = inverses, scale
        state["prev_flat_grad"], state["prev_loss"] = wrap(before), loss_before


def _largest(xp: Any, a: Any) -> float:
    return float(xp.max(xp.abs(a)))


def _two_loops(g: Any, changes_of_g: list[Any], changes_of_x: list[Any], inverses: list[float], scale: float) -> Any:
    """Minus the estimated inverse Hessian times the gradient: algorithm 7.4."""
    q = -g
    shares = []
    for y, s, inverse in zip(reversed(changes_of_g), reversed(changes_of_x), reversed(inverses)):
        shares.append(float(s @ q) * inverse)
        q = q - y * shares[-1]
    r = q * scale
    for y, s, inverse, share in zip(changes_of_g, changes_of_x, inverses, reversed(shares)):
        r = r + s * (share - float(y @ r) * inverse)
    return r


def cubic_minimum(x1: float, f1: float, g1: float, x2: float, f2: float, g2: float, bounds: tuple[float, float] | None = None) -> float:
    """Where the cubic through two points with these slopes is least (equation 3.59), within bounds; their middle if nowhere."""
    low, high = bounds if bounds is not None else (min(x1, x2), max(x1, x2))
    d1 = g1 + g2 - 3 * (f1 - f2) / (x1 - x2)
    square = d1 * d1 - g1 * g2
    if not square >= 0:
        return (low + high) / 2.0
    d2 = square**0.5
    if x1 <= x2:
        at = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2 * d2))
    else:
        at = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2 * d2))
    return min(max(at, low), high)


def strong_wolfe(
    along: Callable[[float], tuple[float, Any]],
    t: float,
    direction: Any,
    f: float,
    g: Any,
    slope: float,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance_change: float = 1e-9,
    max_ls: int = 25,
) -> tuple[float, Any, float, int]:
    """A step length at which the loss has fallen enough and its slope is small enough.

    Parameters
    ----------
    along : callable
        The loss and its gradient at a step length.
    t : float
        The first length to try.
    direction, g : array
        The direction, and the gradient at length 0.
    f, slope : float
        The loss there, and its slope along the direction.
    c1, c2 : float
        The conditions' constants.
    tolerance_change : float
        The bracket's least size.
    max_ls : int
        The most lengths to try.

    Returns
    -------
    loss, gradient, length, number of evaluations
    """
    size = float(abs(direction).max())
    before = (0.0, f, g, slope)  # length, loss, gradient, slope

    def at(length: float) -> tuple[float, float, Any, float]:
        loss, gradient = along(length)
        return length, loss, gradient, float(gradient @ direction)

    here = at(t)
    evaluations, tries = 1, 0
    bracket = None
    done = False
    while tries < max_ls:
        t, loss, _, inclination = here
        if loss > f + c1 * t * slope or (tries > 1 and loss >= before[1]):
            bracket = [before, here]
            break
        if abs(inclination) <= -c2 * slope:
            bracket, done = [here], True
            break
        if inclination >= 0:
            bracket = [before, here]
            break
        least, most = t + 0.01 * (t - before[0]), t * 10
        next_t = cubic_minimum(*_point(before), *_point(here), bounds=(least, most))
        before, here = here, at(next_t)
        evaluations += 1
        tries += 1
    if bracket is None:  # the whole way downhill
        bracket = [(0.0, f, g, slope), here]
    # between the two ends of the bracket, the first of which is to be the lower
    stalled = False
    if len(bracket) == 2 and bracket[0][1] > bracket[1][1]:
        bracket.reverse()
    while not done and tries < max_ls:
        low, high = bracket
        if abs(high[0] - low[0]) * size < tolerance_change:
            break
        first, last = min(low[0], high[0]), max(low[0], high[0])
        # the cubic takes the ends in the order in which they came into the bracket
        t = cubic_minimum(*_point(low), *_point(high))
        margin = 0.1 * (last - first)
        if min(last - t, t - first) < margin:
            # too near to an end: once is let pass, unless it is beyond it
            if stalled or t >= last or t <= first:
                t = last - margin if abs(t - last) < abs(t - first) else first + margin
                stalled = False
            else:
                stalled = True
        else:
            stalled = False
        here = at(t)
        evaluations += 1
        tries += 1
        if here[1] > f + c1 * t * slope or here[1] >= low[1]:
            bracket = [low, here] if low[1] <= here[1] else [here, low]
        else:
            if abs(here[3]) <= -c2 * slope:
                done = True
            elif here[3] * (high[0] - low[0]) >= 0:
                high = low
            bracket = [here, high]
    t, loss, gradient, _ = bracket[0]
    return loss, gradient, t, evaluations


def _point(at: tuple[float, float, Any, float]) -> tuple[float, float, float]:
    return at[0], at[1], at[3]
