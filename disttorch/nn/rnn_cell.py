"""Single steps of recurrent layers: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

import math
from typing import Any

from ..autograd.variable import Tensor
from ..ops.creation import empty, zeros
from ..ops.nn import recurrent
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase", "draw"]


class RNNCellBase(Module):
    """What RNNCell, LSTMCell and GRUCell have in common; as ``torch.nn.RNNCellBase``.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
        Whether there are bias_ih and bias_hh.
    num_chunks : int
        How many gates there are.
    device, dtype : optional
    """

    mode: str

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None):
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size), "bias_ih": (rows,), "bias_hh": (rows,)}
        for name, shape in shapes.items():
            made = bias or name.startswith("weight")
            self.register_parameter(name, Parameter(empty(shape, device=device, dtype=dtype)) if made else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters again, uniform within 1 / sqrt(hidden_size)."""
        draw(self)

    def _step(self, input: Tensor, states: Any) -> list[Tensor]:
        """One step of (batch, input_size) or (input_size,); the new states."""
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        is_batched = input.ndim == 2
        x = input if is_batched else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        given = []
        for state in states or [zeros(x.shape[0], self.hidden_size, dtype=x.dtype, device=x.device)] * (1 + (self.mode == "LSTM")):
            if state.ndim not in (1, 2):
                raise ValueError(f"{name}: Expected hidden to be 1D or 2D, got {state.ndim}D instead")
            h = state if state.ndim == 2 else state.unsqueeze(0)
            if h.shape[0] != x.shape[0] or h.shape[1] != self.hidden_size:
                raise RuntimeError(
                    f"{name}: hidden of shape {list(state.shape)} does not fit an input of shape {list(input.shape)} and "
                    f"hidden_size {self.hidden_size}"
                )
            given.append(h)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None)
        _, *last = recurrent.layer(self.mode, x, given[0], given[1] if len(given) > 1 else None, weights, x.shape[:1])
        return last if is_batched else [h.squeeze(0) for h in last]

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            shown += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            shown += f", nonlinearity={self.nonlinearity}"
        return shown


class RNNCell(RNNCellBase):
    """One step of an `RNN`; as ``torch.nn.RNNCell``.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    nonlinearity : {"tanh", "relu"}
    device, dtype : optional
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None, dtype: Any = None
    ):
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    @property
    def mode(self) -> str:  # type: ignore[override]
        """PyTorch's name of the recurrence; the nonlinearity may be changed at any time."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return f"RNN_{self.nonlinearity.upper()}"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state, of (batch, input_size) and (batch, hidden_size), or both without batch."""
        return self._step(input, None if hx is None else (hx,))[0]


class LSTMCell(RNNCellBase):
    """One step of an `LSTM`; as ``torch.nn.LSTMCell``.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    device, dtype : optional
    """

    mode = "LSTM"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The next (h, c)."""
        h, c = self._step(input, hx)
        return h, c


class GRUCell(RNNCellBase):
    """One step of a `GRU`; as ``torch.nn.GRUCell``.

    Parameters
    ----------
    input_size, hidden_size : int
    bias : bool
    device, dtype : optional
    """

    mode = "GRU"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        return self._step(input, None if hx is None else (hx,))[0]


def draw(module: Any) -> None:
    """All parameters anew, uniform within 1 / sqrt(hidden_size)."""
    bound = 1.0 / math.sqrt(module.hidden_size) if module.hidden_size > 0 else 0.0
    for weight in module.parameters():
        init.uniform_(weight, -bound, bound)
