"""Recurrent layers over whole sequences: RNN, LSTM, GRU. Their single steps stand in rnn_cell.py."""

from __future__ import annotations

import warnings
from typing import Any

from ..autograd.variable import Tensor
from ..ops import autocast
from ..ops.creation import empty, zeros
from ..ops.indexing import index_select
from ..ops.nn import recurrent
from ..ops.shape import stack
from .module import Module
from .parameter import Parameter
from .rnn_cell import draw
from .utils.rnn import PackedSequence

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]

#: rows of the weights, as multiples of the hidden size
GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}


class RNNBase(Module):
    """What RNN, LSTM and GRU have in common; as ``torch.nn.RNNBase``.

    Parameters
    ----------
    mode : {"RNN_TANH", "RNN_RELU", "LSTM", "GRU"}
    input_size, hidden_size : int
        Features of the input and of the state.
    num_layers : int
        Layers on top of each other.
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether input and output are (batch, steps, features), not (steps, batch, features); states are not concerned.
    dropout : float
        The probability of dropout on what each layer but the last one gives out, in training.
    bidirectional : bool
        Whether each layer also runs from the last step to the first.
    proj_size : int
        If not 0, what an LSTM's state is projected to.
    device, dtype : optional
        Of the parameters.

    Raises
    ------
    ValueError
        For sizes that are not positive, a dropout that is no probability, or a projection that does not make the state smaller.
    """

    _version = 1

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        if mode not in GATES:
            raise ValueError(f"Unrecognized RNN mode: {mode}; there are {', '.join(GATES)}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if not isinstance(size, int):
                raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        for name, flag in (("bias", bias), ("batch_first", batch_first)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size <= 0:
                raise ValueError(f"{name} must be greater than zero, got {size}")
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed, "
                f"got {dropout!r}"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers greater "
                f"than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        if proj_size < 0 or proj_size >= hidden_size:
            raise ValueError(f"proj_size must be 0 to disable projections, or a positive integer below hidden_size, got {proj_size}")
        if proj_size and mode != "LSTM":
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        rows, width = GATES[mode] * hidden_size, proj_size or hidden_size
        self._all_weights: list[list[str]] = []  # names, as in PyTorch
        for layer in range(num_layers):
            for suffix in ("", "_reverse") if bidirectional else ("",):
                read = width * (2 if bidirectional else 1) if layer else input_size
                shapes: list[tuple[str, tuple[int, ...]]] = [("weight_ih", (rows, read)), ("weight_hh", (rows, width))]
                if bias:
                    shapes += [("bias_ih", (rows,)), ("bias_hh", (rows,))]
                if proj_size:
                    shapes += [("weight_hr", (proj_size, hidden_size))]
                self._all_weights.append([f"{kind}_l{layer}{suffix}" for kind, _ in shapes])
                for name, (_, shape) in zip(self._all_weights[-1], shapes):
                    self.register_parameter(name, Parameter(empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters again, uniform within 1 / sqrt(hidden_size)."""
        draw(self)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Parameter]:
        return [getattr(self, name) for name in self._flat_weights_names]

    def flatten_parameters(self) -> None:
        """Accepted for PyTorch's sake, which gives cuDNN the weights in one block; here they may lie where they are."""

    def _weights(self) -> list[list[Tensor | None]]:
        """w_ih, w_hh, b_ih, b_hh, w_hr of each layer and direction."""
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [[getattr(self, kind + name.removeprefix("weight_ih"), None) for kind in kinds] for name, *_ in self._all_weights]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Run over sequences.

        Parameters
        ----------
        input : Tensor or PackedSequence
            (steps, batch, input_size), or (batch, steps, input_size) if `batch_first`; without batch (steps, input_size).
        hx : Tensor, or for an LSTM a tuple of two, optional
            The first states, (layers * directions, batch, ...); zeros unless given.

        Returns
        -------
        output : Tensor or PackedSequence
            The last layer's states after each step.
        hx : Tensor, or for an LSTM a tuple of two
            The states after the last step.

        Raises
        ------
        RuntimeError, ValueError
            If shapes or dtypes do not fit.
        """
        packed = input if isinstance(input, PackedSequence) else None
        if packed is not None:
            x, sizes, is_batched = packed.data, packed.batch_sizes.tolist(), True
        else:
            x, is_batched = input, self._is_batched(input)
            if not is_batched:
                x = x.unsqueeze(1)
            elif self.batch_first:
                x = x.transpose(0, 1)
            steps, batch = x.shape[:2]
            if not steps:
                raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
            sizes = [batch] * steps
        self._check_features(x)
        h, c = self._states(hx, x, sizes[0], is_batched)
        if packed is not None and packed.sorted_indices is not None:
            h, c = _permuted(h, packed.sorted_indices), _permuted(c, packed.sorted_indices)
        rows = x if packed is not None else x.reshape(-1, x.shape[-1])
        y, last_h, last_c = recurrent.stack(
            self.mode, rows, h, c, self._weights(), sizes, self.bidirectional, self.dropout if self.training else 0.0, self.training
        )
        h, c = stack(last_h), stack(last_c) if last_c else None
        output: Any
        if packed is not None:
            output = type(packed)(y, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
            h, c = _permuted(h, packed.unsorted_indices), _permuted(c, packed.unsorted_indices)
        else:
            output = y.reshape(len(sizes), sizes[0], y.shape[-1])
            if not is_batched:
                output, h, c = output.squeeze(1), h.squeeze(1), None if c is None else c.squeeze(1)
            elif self.batch_first:
                output = output.transpose(0, 1)
        return output, h if c is None else (h, c)

    def _is_batched(self, input: Tensor) -> bool:
        if input.ndim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.ndim}D instead")
        return input.ndim == 3

    def _check_features(self, x: Tensor) -> None:
        dtype = self.weight_ih_l0.dtype
        if x.dtype != dtype and autocast.mode.get() is None:
            raise ValueError(
                f"RNN input dtype ({x.dtype}) does not match weight dtype ({dtype}). Convert input: input.to({dtype}), or the module"
            )
        if x.shape[-1] != self.input_size:
            raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {x.shape[-1]}")

    def _states(self, hx: Any, x: Tensor, batch: int, is_batched: bool) -> tuple[Tensor, Tensor | None]:
        """The first states with a dimension for the batch."""
        count = self.num_layers * (2 if self.bidirectional else 1)
        sizes = [self.proj_size or self.hidden_size] + [self.hidden_size] * (self.mode == "LSTM")
        if hx is None:
            states = [zeros(count, batch, size, dtype=x.dtype, device=x.device) for size in sizes]
            return states[0], states[1] if len(states) > 1 else None
        if self.mode == "LSTM" and not (isinstance(hx, (tuple, list)) and len(hx) == 2):
            raise RuntimeError("LSTM: expected hx to be a tuple (h_0, c_0)")
        given = hx if self.mode == "LSTM" else (hx,)
        for state, name, size in zip(given, ("h_0", "c_0"), sizes):
            if state.ndim != (3 if is_batched else 2):
                raise RuntimeError(
                    f"For {'batched 3-D' if is_batched else 'unbatched 2-D'} input, {name} should also be "
                    f"{'3-D' if is_batched else '2-D'} but got {state.ndim}-D tensor"
                )
            expected = (count, batch, size) if is_batched else (count, size)
            if tuple(state.shape) != expected:
                raise RuntimeError(f"Expected hidden size {expected}, got {list(state.shape)} for {name}")
        states = [state if is_batched else state.unsqueeze(1) for state in given]
        return states[0], states[1] if len(states) > 1 else None

    def extra_repr(self) -> str:
        shown = [f"{self.input_size}, {self.hidden_size}"]
        usual = {"proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False}
        shown += [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join(shown)


def _permuted(state: Any, order: Tensor | None) -> Any:
    """States with the sequences in another order."""
    return state if state is None or order is None else index_select(state, 1, order)


class RNN(RNNBase):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu of that; as ``torch.nn.RNN``.

    Parameters
    ----------
    input_size, hidden_size, num_layers
        As for `RNNBase`.
    nonlinearity : {"tanh", "relu"}
    bias, batch_first, dropout, bidirectional, device, dtype
        As for `RNNBase`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity {nonlinearity!r}. Select from 'tanh' or 'relu'.")
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber, Neural Computation 9, 1997); as ``torch.nn.LSTM``.

    With i, f, o sigmoids and g a hyperbolic tangent of affine maps of x and h: c = f c + i g, h = o tanh(c).

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        As for `RNNBase`.

    Examples
    --------
    >>> import disttorch
    >>> lstm = disttorch.nn.LSTM(10, 20, num_layers=2)
    >>> output, (h, c) = lstm(disttorch.randn(5, 3, 10))
    >>> output.shape, h.shape
    (disttorch.Size([5, 3, 20]), disttorch.Size([2, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        )


class GRU(RNNBase):
    """Gated recurrent unit (Cho et al., EMNLP 2014); as ``torch.nn.GRU``.

    With r, z sigmoids of affine maps of x and h: n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h = (1 - z) n + z h.

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        As for `RNNBase`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
    ):
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype)
