"""`GradScaler`: losses are scaled up so that float16 gradients do not vanish, and steps with infinities in them are skipped."""

from __future__ import annotations

import warnings
from collections import abc
from typing import Any

from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import as_device, cuda_is_available, namespace
from ..backend.dtypes import float16, float32

__all__ = ["GradScaler"]

_READY, _UNSCALED, _STEPPED = range(3)


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
                raise ValueError(f"the growth factor must be above 1.0, got {growth_factor}")
            if backoff_factor >= 1.0:
                raise ValueError(f"the backoff factor must be below 1.0, got {backoff_factor}")
        self._init_scale = self._scale = float(init_scale)
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval, self._growth_tracker = growth_interval, 0
        self._stages: dict[int, int] = {}
        self._found_inf: dict[int, bool] = {}

    def scale(self, outputs: Any) -> Any:
        """The loss, or nested lists and tuples of losses, times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * wrap(namespace(outputs._array).asarray(self._scale, dtype=float32.numpy))
        if isinstance(outputs, abc.Iterable):
            scaled = [self.scale(o) for o in outputs]
            return scaled if isinstance(outputs, list) else tuple(scaled)
        raise ValueError(f"outputs must be a Tensor or an iterable of Tensors, got {type(outputs).__name__}")

    def unscale_(self, optimizer: Any) -> None:
        """Divide the gradients of an optimizer's parameters by the scale, so that they can be clipped before `step`.

        Raises
        ------
        RuntimeError
            If it was called for this optimizer since the last `update`, or after `step`.
        ValueError
            If the gradients are float16.
        """
        if not self._enabled:
            return
        stage = self._stages.get(id(optimizer), _READY)
        if stage == _UNSCALED:
            raise RuntimeError("unscale_() has already been called on this optimizer since the last update().")
        if stage == _STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        finite, inverse = [], 1.0 / self._scale
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is None:
                    continue
                if grad._array.dtype == float16.numpy:
                    raise ValueError("Attempting to unscale FP16 gradients.")
                array, xp = grad._array, namespace(grad._array)
                finite.append(xp.isfinite(array).all())
                array *= xp.scalar(inverse, array.dtype)
                bump_version(grad)
        self._found_inf[id(optimizer)] = not all(map(bool, finite))  # asked at the end: a GPU goes on meanwhile
        self._stages[id(optimizer)] = _UNSCALED

    def step(self, optimizer: Any, *args: Any, **options: Any) -> Any:
        """Call the optimizer's step unless a gradient is infinite or NaN; the gradients are unscaled first if they are not yet.

        Returns
        -------
        What the optimizer's step returned; None where it was skipped.

        Raises
        ------
        RuntimeError
            If it was called for this optimizer since the last `update`, or with a closure.
        """
        if not self._enabled:
            return optimizer.step(*args, **options)
        if "closure" in options or args:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        if self._stages.get(id(optimizer), _READY) == _STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if id(optimizer) not in self._found_inf:
            self.unscale_(optimizer)
        self._stages[id(optimizer)] = _STEPPED
        return None if self._found_inf[id(optimizer)] else optimizer.step(*args, **options)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Change the scale after the steps of all optimizers: less after infinities, more after many steps without.

        Parameters
        ----------
        new_scale : float or Tensor, optional
            Set it to this instead.
        """
        if not self._enabled:
            return
        if new_scale is not None:
            self._scale = float(new_scale)
        else:
            if not self._found_inf:
                raise AssertionError("No inf checks were recorded prior to update.")
            if any(self._found_inf.values()):
                self._scale *= self._backoff_factor
                self._growth_tracker = 0
            else:
                self._growth_tracker += 1
                if self._growth_tracker == self._growth_interval:
                    if self._scale * self._growth_factor <= _LARGEST:
                        self._scale *= self._growth_factor
                    self._growth_tracker = 0
        self._stages.clear()
        self._found_inf.clear()

    def get_scale(self) -> float:
        """The scale; 1.0 if scaling is disabled."""
        return self._scale if self._enabled else 1.0

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
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._growth_tracker,
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
        self._init_scale = self._scale = float(state_dict["scale"])
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._growth_tracker = int(state_dict["_growth_tracker"])

    def __getstate__(self) -> dict[str, Any]:
        if self._enabled and self._stages:
            raise RuntimeError("A GradScaler instance may only be pickled at the beginning of an iteration, or at the end after update().")
        return self.__dict__.copy()


_LARGEST = 3.4028234663852886e38  # of float32: a larger scale would be infinite
