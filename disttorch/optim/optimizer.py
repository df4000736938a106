"""Optimizer: the walk over parameters, gradients and state that all optimizers share.

An optimizer is its options, the state that a parameter starts with, the numbers of a step, and its formula: a pure,
elementwise function of the parameter, the gradient and the state, written in the array namespace. So one formula runs
over blocks of NumPy arrays, on CuPy arrays, and on tensors where the step itself is to be differentiated.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.grad_mode import enable_grad
from ..autograd.graph import RemovableHandle
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import NAMESPACES, cpu, namespace
from ..backend.dtypes import float32
from ..backend.kernels.optimization import prepared

__all__ = ["Optimizer"]


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class Optimizer:
    """Base class of all optimizers; as ``torch.optim.Optimizer``.

    Subclasses define `moments`, `init_state`, `numbers` and `formula`; or, where a step is not elementwise, `update`.

    Parameters
    ----------
    params : iterable of Tensor, of (name, Tensor), or of dict
        What to optimize. A dict is a group with the key "params" and options of its own.
    defaults : dict
        Options of groups that do not give them.

    Attributes
    ----------
    param_groups : list of dict
        Each with "params" and every option.
    state : dict of Tensor to dict
        What the optimizer remembers of a parameter.

    Raises
    ------
    TypeError
        If `params` is a tensor, or holds anything else than tensors.
    ValueError
        If it is empty, a parameter is no leaf, stands in two groups, or an option is missing.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError(
                f"params argument given to the optimizer should be an iterable of Tensors or dicts, but got {type(params).__name__}"
            )
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self.counted_steps = 0
        self._pre_hooks: OrderedDict[int, Callable] = OrderedDict()
        self._post_hooks: OrderedDict[int, Callable] = OrderedDict()
        self._saving: dict[str, OrderedDict[int, Callable]] = {
            k: OrderedDict() for k in ("before saving", "after saving", "before loading", "after loading")
        }
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # What an optimizer defines

    #: The names of the state tensors that the formula reads and writes, in its order.
    moments: tuple[str, ...] = ()

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first step; a "step" in it is counted by the base class."""
        return {}

    def numbers(self, state: dict[str, Any], group: dict[str, Any]) -> dict[str, Any]:
        """The formula's keyword arguments for this step; "step" in the state has been counted."""
        return {}

    @staticmethod
    def formula(xp: Any, p: Any, g: Any, *moments: Any, **numbers: Any) -> tuple:
        """The new parameter and the new moments. Decay and the sign of the gradient are settled before."""
        raise NotImplementedError

    def apply(self, xp: Any, p: Any, g: Any, moments: tuple, numbers: dict[str, Any], group: dict[str, Any]) -> None:
        """Apply the formula to arrays in place."""
        xp.step_(self.formula, p, g, moments, numbers, group.get("maximize", False), *decay(group))

    def update(self, xp: Any, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change a parameter and its state in place."""
        moments = tuple([None if state.get(n) is None else state[n]._array for n in self.moments])
        numbers = self.numbers(state, group)
        p, g = param._array, grad._array
        if p.dtype.kind == "c":  # as PyTorch steps: real and imaginary parts by themselves
            for part in ("real", "imag"):
                own = tuple([None if m is None else getattr(m, part) for m in moments])
                self.apply(xp, getattr(p, part), getattr(g, part), own, numbers, group)
        else:
            self.apply(xp, p, g, moments, numbers, group)

    def update_differentiably(self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """The step as operations that the graph records."""
        moments = [state.get(n) for n in self.moments]
        numbers = self.numbers(state, group)
        # a copy of the parameter: its memory is overwritten, and the graph may need what was there
        new, *new_moments = prepared(
            NAMESPACES[Tensor], self.formula, param.clone(), grad, moments, numbers, group.get("maximize", False), *decay(group)
        )
        param.copy_(new)
        state.update({n: m for n, old, m in zip(self.moments, moments, new_moments) if old is not None})

    # What users call

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change all parameters that have a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients again, and returns the loss.

        Returns
        -------
        What the closure returned, or None.
        """
        arguments = () if closure is None else (closure,)
        for hook in (*GLOBAL_PRE_HOOKS.values(), *self._pre_hooks.values()):
            changed = hook(self, arguments, {})
            if changed is not None:
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        f"{type(self).__name__}.step pre-hook must return None or a tuple of (new_args, new_kwargs), not {changed}"
                    )
                arguments, options = changed
                closure = arguments[0] if arguments else options.get("closure")
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self.counted_steps += 1
        self._step()
        for hook in (*self._post_hooks.values(), *GLOBAL_POST_HOOKS.values()):
            hook(self, arguments, {})
        return loss

    def _step(self) -> None:
        for group in self.param_groups:
            differentiable = group.get("differentiable", False)
            options = group if differentiable else _as_numbers(group)
            for param in group["params"]:
                grad = param._grad
                if grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state.update(self.init_state(param, group))
                if "step" in state and isinstance(state["step"], Tensor):
                    state["step"]._array += 1
                if differentiable:
                    self.update_differentiably(param, grad, state, options)
                else:
                    self.update(namespace(param._array), param, grad, state, options)
                    bump_version(param)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to zero."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param._grad = None
                elif param._grad is not None:
                    param._grad = param._grad.detach()
                    param._grad.zero_()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimize more parameters, with options of their own."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group).__name__}")
        group = dict(param_group)
        given = group["params"]
        if isinstance(given, Tensor):
            given = [given]
        if isinstance(given, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the ordering of tensors in sets "
                "will change between runs. Please use a list instead."
            )
        params, names = [], []
        for entry in given:
            if isinstance(entry, tuple):
                names.append(entry[0])
                entry = entry[1]
            params.append(entry)
        if names:
            if len(names) != len(params):
                raise ValueError("all optimizer params should be with/without names. Some param names are missing")
            group["param_names"] = names
        if any(("param_names" in g) != bool(names) for g in self.param_groups):
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                + ("with names to the optimizer" if names else "without names to the optimizer")
            )
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
            if not (self.defaults.get("differentiable") or param.is_leaf or param.retains_grad):
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(param) in known:
                raise ValueError("some parameters appear in more than one parameter group")
        if len({id(p) for p in params}) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters: they are stepped as often as they stand there",
                UserWarning,
                stacklevel=3,
            )
        group["params"] = params
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        self.param_groups.append(group)

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """State and options with parameters as numbers, in the form that PyTorch's optimizers have."""
        for hook in self._saving["before saving"].values():
            hook(self)
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for param in group["params"]:
                numbers.setdefault(id(param), len(numbers))
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)]: dict(s) for p, s in self.state.items() if s}
        saved: dict[str, Any] = {"state": state, "param_groups": groups}
        for hook in self._saving["after saving"].values():
            changed = hook(self, saved)
            saved = saved if changed is None else changed
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`; its tensors are copied, in the dtype and on the device of their parameter.

        Raises
        ------
        ValueError
            If the numbers of groups, or of parameters in a group, differ, or a state has another shape; nothing is changed then.
        """
        for hook in self._saving["before loading"].values():
            changed = hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has {len(groups)} parameter groups, the optimizer {len(self.param_groups)}"
            )
        for i, (saved, ours) in enumerate(zip(groups, self.param_groups)):
            if len(saved["params"]) != len(ours["params"]):
                raise ValueError(
                    f"loaded state dict contains a parameter group that doesn't match the size of optimizer's group: group {i} has "
                    f"{len(saved['params'])} parameters there, {len(ours['params'])} here"
                )
        params = {
            n: p for saved, ours in zip(groups, self.param_groups) for n, p in zip(saved["params"], ours["params"])
        }
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for number, values in state_dict["state"].items():
            if number in params:
                state[params[number]] = {k: self._fitted(number, k, v, params[number]) for k, v in values.items()}
        for saved, ours in zip(groups, self.param_groups):
            names = ours.get("param_names")
            ours.update({k: v for k, v in saved.items() if k != "params"})
            if names is not None:
                ours["param_names"] = names
        self.state = state
        for hook in self._saving["after loading"].values():
            hook(self)

    def _fitted(self, number: int, key: str, value: Any, param: Tensor) -> Any:
        if not isinstance(value, Tensor):
            return value
        if key == "step":  # counts in float32 whatever the parameter is
            return value.detach().clone()
        if key in self.moments and value._array.shape != param._array.shape:
            raise ValueError(
                f"loaded state dict: {key} of parameter {number} has shape {list(value.shape)}, the parameter {list(param.shape)}"
            )
        dtype = param.dtype if value.is_floating_point() and key not in self.numbers_in_float32 else None
        return value.detach().to(device=param.device if value.ndim else None, dtype=dtype, copy=True)

    #: State tensors that hold a number in float32 whatever the parameter is.
    numbers_in_float32: tuple[str, ...] = ()

    # Hooks and looks

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step."""
        return RemovableHandle.of(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return RemovableHandle.of(self._post_hooks, hook)

    def register_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` before its state is saved."""
        return RemovableHandle.of(self._saving["before saving"], hook, prepend)

    def register_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` on what is saved; what it returns, if not None, is saved instead."""
        return RemovableHandle.of(self._saving["after saving"], hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before loading; what it returns, if not None, is loaded instead."""
        return RemovableHandle.of(self._saving["before loading"], hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Callable, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(optimizer)`` after loading."""
        return RemovableHandle.of(self._saving["after loading"], hook, prepend)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])


#: Hooks of every optimizer.
GLOBAL_PRE_HOOKS: OrderedDict[int, Callable] = OrderedDict()
GLOBAL_POST_HOOKS: OrderedDict[int, Callable] = OrderedDict()


def register_optimizer_step_pre_hook(hook: Callable) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before each step of any optimizer."""
    return RemovableHandle.of(GLOBAL_PRE_HOOKS, hook)


def register_optimizer_step_post_hook(hook: Callable) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after each step of any optimizer."""
    return RemovableHandle.of(GLOBAL_POST_HOOKS, hook)


def _as_numbers(group: dict[str, Any]) -> dict[str, Any]:
    """A group's options with Python numbers for tensors, such as a learning rate that is one."""
    found = {}
    for name, value in group.items():
        if name == "params":
            continue
        if isinstance(value, Tensor):
            found[name] = value.item()
        elif isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value):
            found[name] = tuple(float(v) for v in value)
    return {**group, **found} if found else group


def decay(group: dict[str, Any]) -> tuple[Any, Any]:
    """How much of the parameter is added to its gradient, and what the parameter is multiplied by: weight decay, one way or the other."""
    amount = group.get("weight_decay", 0.0)
    if group.get("decoupled_weight_decay", False):
        return 0.0, 1 - group["lr"] * amount
    return amount, 1.0


# What optimizers start with


def zeros_like(param: Tensor) -> Tensor:
    """State of a parameter's shape and dtype, in C order."""
    return wrap(namespace(param._array).zeros(param._array.shape, param._array.dtype))


def number(value: float) -> Tensor:
    """State that is one number, in float32 on the CPU."""
    return wrap(cpu.full((), value, float32.numpy))


def computed(
    defaults: dict[str, Any],
    foreach: bool | None = None,
    differentiable: bool | None = None,
    fused: bool | None = None,
    capturable: bool | None = None,
) -> dict[str, Any]:
    """The defaults with the options that say how PyTorch computes a step, in so far as an optimizer has them.

    Raises
    ------
    RuntimeError
        If they exclude each other.
    ValueError
        If the learning rate is a tensor where PyTorch cannot read it.
    """
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if foreach and not capturable:
        for name, value in {"lr": defaults.get("lr"), "betas[0]": (defaults.get("betas") or (None,))[0]}.items():
            if isinstance(value, Tensor):
                raise ValueError(f"{name} as a Tensor is not supported for capturable=False and foreach=True")
    return defaults


def non_negative(name: str, value: Any) -> None:
    """Refuse a negative option, in PyTorch's words."""
    if isinstance(value, Tensor) and value._array.size != 1:
        raise ValueError(f"Invalid {name}: it must be 1-element, but its shape is {list(value.shape)}")
    if not float(value) >= 0.0:
        raise ValueError(f"Invalid {name}: {value}")


def betas_in_range(betas: Any) -> None:
    """Refuse shares of a running average outside [0, 1)."""
    if len({isinstance(beta, Tensor) for beta in betas}) > 1:
        raise ValueError(f"betas must be either both floats or both Tensors, not {tuple(betas)}")
    for i, beta in enumerate(betas):
        if not 0.0 <= float(beta) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


Params = Iterable[Any]
