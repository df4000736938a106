"""What goes into one step together: parameters that have the same numbers, or that compute them on their device."""

from __future__ import annotations

from typing import Any

from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import NAMESPACES, cpu
from ..backend.kernels.optimization import decay
from ..backend.layout import turned
from ..backend.tracing import python

__all__ = ["Batch", "is_elsewhere", "on_device", "on_host"]


class Batch:
    """Parameters for one step.

    Parameters
    ----------
    optimizer : Optimizer
        Whose formula, numbers and counters they are.
    xp : namespace
    options : dict
        The optimizer's, as numbers or, where the step is counted on the device, arrays there.
    choices : dict
        The formula's arguments that are no numbers.
    counted : tuple of float or None
        The counters' values, the same for all of the parameters; None where the step is counted on the device.
    grad_scale, found_inf : Tensor, optional
        See the kernel `counted_steps_`.
    """

    def __init__(
        self,
        optimizer: Any,
        xp: Any,
        options: dict[str, Any],
        choices: dict[str, Any],
        counted: tuple[float, ...] | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ):
        self.optimizer, self.xp, self.options, self.choices, self.counted = optimizer, xp, options, choices, counted
        self.grad_scale, self.found_inf = grad_scale, found_inf
        self.tensors: list[Tensor] = []  # that are changed
        self.params: list[Any] = []
        self.grads: list[Any] = []
        self.moments: list[list[Any]] = []
        self.states: list[dict[str, Any]] = []
        self.held: list[dict[str, Any]] = []  # whose counters a row of arrays goes by

    def add(self, param: Tensor, grad: Tensor, moments: list[Any], state: dict[str, Any]) -> None:
        """Put in a parameter with what belongs to it."""
        self.tensors += [param] if self.grad_scale is None else [param, grad]
        self.states.append(state)
        p, g = param._array, grad._array
        if p.dtype.kind != "c":
            self.params.append(p)
            self.grads.append(g)
            self.moments.append(moments)
            self.held.append(state)
            return
        for real_p, real_g, *own in real_parts([p, g, *moments]):  # as PyTorch steps: real and imaginary parts by themselves
            self.params.append(real_p)
            self.grads.append(real_g)
            self.moments.append(own)
            self.held.append(state)

    def step(self) -> None:
        """Take the step."""
        if self.counted is None:
            self._step_counted_on_device()
        else:
            self._step_counted_here(self.counted)
        for tensor in self.tensors:
            bump_version(tensor)

    def _step_counted_here(self, values: tuple[float, ...]) -> None:
        optimizer, options = self.optimizer, self.options
        counters = dict(zip(optimizer.counters, values))
        if "step" in counters:
            counters["step"] += 1
        numbers = {**optimizer.numbers(python, counters, options), **self.choices}
        self.xp.steps_(
            optimizer.formula, self.params, self.grads, self.moments, numbers, options.get("maximize", False), *decay(options)
        )
        for name, value in counters.items():
            for state in self.states:
                held = state[name]
                if isinstance(held, Tensor):
                    held._array[...] = value
                else:  # a number, in the state of an old PyTorch
                    state[name] = value

    def _step_counted_on_device(self) -> None:
        xp = self.xp
        where = xp.device_of(self.params[0])
        with xp.on(where):
            self._step_counted_on(where)

    def _step_counted_on(self, where: Any) -> None:
        optimizer, xp = self.optimizer, self.xp
        for state in self.states:
            for name in optimizer.counters:
                state[name] = _brought(xp, state[name], where)
        counters: dict[str, list[Any]] = {name: [] for name in optimizer.counters}
        before: Any = None
        for state in self.held:
            for name, arrays in counters.items():
                array = state[name]._array
                arrays.append(array.copy() if state is before else array)  # counted once, also where a parameter has two parts
            before = state
        xp.counted_steps_(
            optimizer.formula, optimizer.numbers, self.params, self.grads, self.moments, counters, self.options, self.choices,
            _array_on(xp, self.grad_scale, where), _array_on(xp, self.found_inf, where),
        )  # fmt: skip


def real_parts(arrays: list[Any]) -> list[list[Any]]:
    """Complex arrays as rows of real ones on their memory: one row where all lie without gaps, else the real and the imaginary parts."""
    arrays = turned(arrays)
    if all(a is None or a.flags.c_contiguous for a in arrays):
        dtype = arrays[0].real.dtype
        return [[None if a is None else a.reshape(-1).view(dtype) for a in arrays]]
    return [[None if a is None else getattr(a, part) for a in arrays] for part in ("real", "imag")]


def _brought(xp: Any, held: Any, where: Any) -> Tensor:
    """A counter on a device."""
    if not isinstance(held, Tensor):
        return wrap(xp.from_host(cpu.full((), held, "float32"), where.index))
    array = held._array
    if NAMESPACES[array.__class__] is xp and xp.device_of(array) == where:
        return held
    return wrap(xp.from_host(array, where.index))


def _array_on(xp: Any, tensor: Tensor | None, where: Any) -> Any:
    if tensor is None:
        return None
    array = tensor._array
    return array if NAMESPACES[array.__class__] is xp and xp.device_of(array) == where else xp.from_host(array, where.index)


def _mapped(option: Any, function: Any) -> Any:
    if isinstance(option, (tuple, list)):
        return tuple([_mapped(o, function) for o in option])
    return function(option) if isinstance(option, Tensor) else option


def is_elsewhere(options: dict[str, Any]) -> bool:
    """Whether an option is a tensor that does not lie on the CPU, so that to look at it would mean to wait."""
    found = []
    for option in options.values():
        _mapped(option, lambda t: found.append(NAMESPACES[t._array.__class__] is not cpu))
    return any(found)


def on_host(options: dict[str, Any]) -> dict[str, Any]:
    """Options with Python's numbers for tensors, such as a learning rate that is one."""
    return {k: _mapped(v, lambda t: t.item()) for k, v in options.items() if k != "params"}


def on_device(xp: Any, options: dict[str, Any], where: Any) -> dict[str, Any]:
    """Options with arrays on a device for tensors that lie on one; those of the CPU become numbers."""

    def brought(t: Tensor) -> Any:
        return t.item() if NAMESPACES[t._array.__class__] is cpu else _array_on(xp, t, where)

    return {k: _mapped(v, brought) for k, v in options.items()}
