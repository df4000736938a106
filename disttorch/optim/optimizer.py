"""Optimizer: the walk over parameters, gradients and state that all optimizers share.

An optimizer is its defaults, the state that a parameter starts with, and its formula on arrays.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.grad_mode import enable_grad
from ..autograd.graph import RemovableHandle
from ..autograd.variable import Tensor, bump_version, wrap
from ..backend import namespace

__all__ = ["Optimizer"]


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


class Optimizer:
    """Base class of all optimizers; as ``torch.optim.Optimizer``.

    Subclasses define `init_state` and `update`.

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
        self._pre_hooks: OrderedDict[int, Callable] = OrderedDict()
        self._post_hooks: OrderedDict[int, Callable] = OrderedDict()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    # What an optimizer defines

    def init_state(self, param: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first step."""
        return {}

    def update(self, xp: Any, p: Any, g: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Change the array `p` in place by its gradient `g`.

        Parameters
        ----------
        xp : Namespace
            Of the arrays.
        p, g : array
        state : dict
            With tensors, which are changed in place.
        group : dict
            The options.
        """
        raise NotImplementedError

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
        for hook in tuple(self._pre_hooks.values()):
            hook(self, (closure,), {})
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                grad = param._grad
                if grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state.update(self.init_state(param, group))
                self.update(namespace(param._array), param._array, grad._array, state, group)
                bump_version(param)
        for hook in tuple(self._post_hooks.values()):
            hook(self, (closure,), {})
        return loss

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
        elif any("param_names" in g for g in self.param_groups):
            raise ValueError(
                "all optimizer params should be with/without names. Cannot add a group without names to one with"
            )
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
            if id(param) in known:
                raise ValueError("some parameters appear in more than one parameter group")
        if len({id(p) for p in params}) != len(params):
            raise ValueError("optimizer contains a parameter group with duplicate parameters")
        group["params"] = params
        for name, default in self.defaults.items():
            if default is required and name not in group:
                raise ValueError(f"parameter group didn't specify a value of required optimization parameter {name}")
            group.setdefault(name, default)
        self.param_groups.append(group)

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """State and options with parameters as numbers, in the form that PyTorch's optimizers have."""
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            packed = {k: v for k, v in group.items() if k != "params"}
            for param in group["params"]:
                numbers.setdefault(id(param), len(numbers))
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {numbers[id(p)]: dict(s) for p, s in self.state.items() if s}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`; its tensors are copied, in the dtype and on the device of their parameter.

        Raises
        ------
        ValueError
            If the numbers of groups, or of parameters in a group, differ, or a state has another shape; nothing is changed then.
        """
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
                state[params[number]] = {k: _fitted(number, k, v, params[number]) for k, v in values.items()}
        for saved, ours in zip(groups, self.param_groups):
            ours.update({k: v for k, v in saved.items() if k != "params"})
        self.state = state

    # Hooks and looks

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step."""
        return _register(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return _register(self._post_hooks, hook)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])


def _register(hooks: OrderedDict[int, Callable], hook: Callable) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _fitted(number: int, key: str, value: Any, param: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    if key == "step":  # counts in float32 whatever the parameter is
        return value.detach().clone()
    if value._array.shape and value._array.shape != param._array.shape:
        raise ValueError(
            f"loaded state dict: {key} of parameter {number} has shape {list(value.shape)}, the parameter {list(param.shape)}"
        )
    dtype = param.dtype if value.is_floating_point() else None
    return value.detach().to(device=param.device, dtype=dtype, copy=True)


def zeros_like(param: Tensor) -> Tensor:
    """State of a parameter's shape and dtype, in C order."""
    return wrap(namespace(param._array).zeros(param._array.shape, param._array.dtype))


def non_negative(name: str, value: Any) -> None:
    """Refuse a negative option, in PyTorch's words."""
    if not float(value) >= 0.0:
        raise ValueError(f"Invalid {name}: {value}")


Params = Iterable[Any]
