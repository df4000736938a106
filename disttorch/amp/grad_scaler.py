"""`GradScaler`: losses are scaled up so that float16 gradients do not vanish, and steps with infinities in them are skipped.

The scale, the count of good steps and what was found in the gradients are arrays where the gradients are. Optimizers whose steps look
at these themselves (``_step_supports_amp_scaling``, as those on a GPU that have a formula) let a whole iteration go by without the host
waiting for the device; for others it is asked whether to step, once for each optimizer.
"""

from __future__ import annotations

import warnings
from collections import abc
from typing import Any

from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import as_device, cuda_is_available, for_device, namespace
from ..backend.device import device as device_type
from ..backend.dtypes import float16, float32, float64, int32

__all__ = ["GradScaler"]

_READY, _UNSCALED, _STEPPED = range(3)


class _State:
    """Of one optimizer since the last update: how far it is, and what was found in its gradients, on each device."""

    __slots__ = ("found", "stage")

    def __init__(self) -> None:
        self.stage = _READY
        self.found: dict[device_type, Any] = {}


class GradScaler:
    """Scales the loss, undoes it in the gradients, and finds the largest scale without overflow; as ``torch.amp.GradScaler``.

    Parameters
    ----------
    device : str
        The type of device of the gradients, "cuda" or "cpu".
    init_scale : float
    growth_factor : float
        What the scale is multiplied by after `growth_interval` steps in a row without infinities; above 1.
    backoff_factor : float
        What it is multiplied by after a step with infinities; below 1.
    growth_interval : int
    enabled : bool
        If False, `step` only calls the optimizer's, and the other methods do nothing.

    Examples
    --------
    >>> import disttorch
    >>> w = disttorch.nn.Parameter(disttorch.ones(1))
    >>> optimizer, scaler = disttorch.optim.SGD([w], lr=0.5), disttorch.amp.GradScaler("cpu")
    >>> scaler.scale((w * 2).sum()).backward()
    >>> scaler.step(optimizer)
    >>> scaler.update()
    >>> w.item()
    0.0
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ):
        self._device = as_device(device).type
        self._enabled = bool(enabled)
        if self._enabled and self._device == "cuda" and not cuda_is_available():
            warnings.warn("GradScaler is enabled, but CUDA is not available.  Disabling.", UserWarning, stacklevel=2)
            self._enabled = False
        if self._enabled:
            if growth_factor <= 1.0:
                raise AssertionError(f"the growth factor must be above 1.0, got {growth_factor}")
            if backoff_factor >= 1.0:
                raise AssertionError(f"the backoff factor must be below 1.0, got {backoff_factor}")
        self._init_scale, self._init_growth_tracker = float(init_scale), 0
        self._growth_factor, self._backoff_factor, self._growth_interval = growth_factor, backoff_factor, growth_interval
        #: arrays without dimensions, made where the first loss or gradient is
        self._scale: Any = None
        self._growth_tracker: Any = None
        self._where: device_type | None = None
        self._states: dict[int, _State] = {}

    def _begin(self, where: device_type) -> None:
        """Make the scale and the count of good steps on a device, if they are not yet."""
        if self._scale is not None:
            return
        xp, where = for_device(where)
        if where.type == "cuda" and xp.is_capturing():
            raise RuntimeError(
                "the first call of GradScaler.scale is made while a CUDA graph is captured, and every replay would begin with the initial "
                "scale again: run an iteration before the capture"
            )
        self._where = where
        with xp.on(where):
            self._scale = xp.full((), self._init_scale, float32.numpy)
            self._growth_tracker = xp.full((), self._init_growth_tracker, int32.numpy)

    def scale(self, outputs: Any) -> Any:
        """The loss, or nested lists and tuples of losses, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            self._begin(outputs.device)
            # a copy, since the graph keeps what it multiplies by, and `update` writes in place
            xp = namespace(self._scale)
            return outputs * wrap(self._on(xp.array(self._scale), outputs.device))
        if isinstance(outputs, abc.Iterable) and not isinstance(outputs, (str, bytes)):  # a letter has letters, too
            scaled = [self.scale(o) for o in outputs]
            return scaled if isinstance(outputs, list) else tuple(scaled)
        raise ValueError(f"outputs must be a Tensor or an iterable of Tensors, got {type(outputs).__name__}")

    def _check_begun(self, name: str) -> None:
        """Gradients of a loss that was never scaled would be divided all the same, and be lost."""
        if self._scale is None:
            raise AssertionError(
                f"Attempted {name} but no loss was scaled yet: call scaler.scale(loss).backward() in place of loss.backward()"
            )

    def _on(self, array: Any, where: device_type) -> Any:
        """An array on a device."""
        xp = namespace(array)
        return array if xp.device_of(array) == where else xp.move(array, where)

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, so that they can be clipped before `step`.

        Raises
        ------
        RuntimeError
            If it was called for this optimizer since the last `update`, or after `step`.
        AssertionError
            If no loss was scaled yet.
        ValueError
            If the gradients are float16.
        """
        if not self._enabled:
            return
        self._check_begun("unscale_")
        state = self._states.setdefault(id(optimizer), _State())
        if state.stage == _UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if state.stage == _STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        alike: dict[tuple[device_type, Any], list[Any]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is None:
                    continue
                if grad._array.dtype == float16.numpy:
                    raise ValueError("Attempting to unscale FP16 gradients.")
                alike.setdefault((grad.device, grad._array.dtype), []).append(grad._array)
                bump_version(grad)
        xp = namespace(self._scale)
        with xp.on(self._where):
            inverse = xp.asarray(1.0 / xp.asarray(self._scale, dtype=float64.numpy), dtype=float32.numpy)
        for (where, _), arrays in alike.items():
            there, _ = for_device(where)
            if where not in state.found:
                with there.on(where):
                    state.found[where] = there.zeros((), float32.numpy)
            with there.on(where):
                there.unscale_(arrays, self._on(inverse, where), state.found[where])
        state.stage = _UNSCALED

    def step(self, optimizer: Any, *args: Any, **options: Any) -> Any:
        """Call the optimizer's step unless a gradient is infinite or NaN; the gradients are unscaled first if they are not yet.

        Returns
        -------
        What the optimizer's step returned; None where it was skipped.

        Raises
        ------
        RuntimeError
            If it was called for this optimizer since the last `update`, or with a closure.
        AssertionError
            If no loss was scaled yet, or none of the optimizer's parameters has a gradient.

        Notes
        -----
        An optimizer with a true ``_step_supports_amp_scaling`` is called in any case, and finds `found_inf` and `grad_scale` as its
        attributes: where the first is not 0 it must change nothing. The second is None here, for the gradients are unscaled already.
        """
        if not self._enabled:
            return optimizer.step(*args, **options)
        if "closure" in options or args:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._check_begun("step")
        state = self._states.setdefault(id(optimizer), _State())
        if state.stage == _STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if state.stage == _READY:
            self.unscale_(optimizer)
        if not state.found:
            raise AssertionError("No inf checks were recorded for this optimizer: none of its parameters has a gradient")
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale, optimizer.found_inf = getattr(optimizer, "grad_scale", None), wrap(self._together([state]))
            try:
                result = optimizer.step(**options)
            finally:
                del optimizer.grad_scale, optimizer.found_inf
        else:
            found = [namespace(f).to_host(f) for f in state.found.values()]
            result = None if any(map(bool, found)) else optimizer.step(**options)
        state.stage = _STEPPED
        return result

    def _together(self, states: Any) -> Any:
        """Not 0 if something was found on any device, on the scale's device."""
        found = [self._on(f, self._where) for state in states for f in state.found.values()]  # type: ignore[arg-type]
        total, xp = found[0], namespace(found[0])
        with xp.on(xp.device_of(total)):
            for other in found[1:]:
                total = total + other
        return total

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Change the scale after the steps of all optimizers: less after infinities, more after many steps without.

        Parameters
        ----------
        new_scale : float or Tensor, optional
            Set it to this instead.

        Raises
        ------
        AssertionError
            If no step was taken yet.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._set(new_scale)
        else:
            self._check_begun("update")
            if not any(state.found for state in self._states.values()):
                raise AssertionError("No inf checks were recorded prior to update.")
            xp = namespace(self._scale)
            with xp.on(self._where):
                xp.update_scale_(
                    self._scale, self._growth_tracker, self._together(self._states.values()), self._growth_factor, self._backoff_factor,
                    self._growth_interval,
                )  # fmt: skip
        self._states.clear()

    def _set(self, new_scale: float | Tensor) -> None:
        if isinstance(new_scale, Tensor) and new_scale._array.size != 1:
            raise ValueError(f"new_scale must be a number or a tensor of one element, not of shape {list(new_scale.shape)}")
        if self._scale is None:
            self._init_scale = float(new_scale)
        elif isinstance(new_scale, Tensor):
            self._scale[...] = self._on(new_scale._array.reshape(()), self._where).astype(float32.numpy)  # type: ignore[arg-type]
        else:
            self._scale[...] = new_scale

    def get_scale(self) -> float:
        """The scale; 1.0 if scaling is disabled. Waits for the device."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else float(namespace(self._scale).to_host(self._scale))

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        tracker = self._growth_tracker
        return self._init_growth_tracker if tracker is None else int(namespace(tracker).to_host(tracker))

    def get_growth_factor(self) -> float:
        """The growth factor."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the growth factor."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """The backoff factor."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the backoff factor."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """The growth interval."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set the growth interval."""
        self._growth_interval = new_interval

    def is_enabled(self) -> bool:
        """Whether it scales."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors and the count of steps without infinities; empty if scaling is disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises
        ------
        RuntimeError
            If it is empty, and scaling is enabled.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler.")
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_scale, self._init_growth_tracker = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        if self._scale is not None:  # in place: a captured graph goes on with it
            self._scale[...] = self._init_scale
            self._growth_tracker[...] = self._init_growth_tracker

    def __getstate__(self) -> dict[str, Any]:
        if self._enabled and self._states:
            raise AssertionError(
                "A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after update()."
            )
        state = self.__dict__.copy()
        if self._enabled:
            state.update(_init_scale=self.get_scale(), _init_growth_tracker=self._get_growth_tracker())
            state.update(_scale=None, _growth_tracker=None, _where=None)
        return state
