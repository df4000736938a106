"""Module: what every layer and every model is. It knows its parameters, its buffers and its parts by name.

The three dictionaries are the only places where they are kept; attributes are looked up there. Methods that stand in
files of their own: walking.py, conversion.py, state.py (saving and loading), hooks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd.grad_mode import no_grad
from ..autograd.variable import Tensor
from . import conversion, hooks, state, walking
from .parameter import Buffer, Parameter

__all__ = ["Module"]

_KINDS = ("_parameters", "_buffers", "_modules")


class Module:
    """Base class of layers and models; as ``torch.nn.Module``.

    Subclasses call ``super().__init__()``, assign parameters, buffers and other modules to attributes, and define
    ``forward``. Calling a module calls its ``forward``.

    Attributes
    ----------
    training : bool
        Whether layers such as dropout behave as in training; see `train`.

    Examples
    --------
    >>> import disttorch
    >>> class Doubled(disttorch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = disttorch.nn.Linear(3, 2)
    ...
    ...     def forward(self, x):
    ...         return self.inner(x) * 2
    >>> [name for name, _ in Doubled().named_parameters()]
    ['inner.weight', 'inner.bias']
    """

    #: of the layout of the state; written into the metadata of state_dict
    _version: int = 1

    #: whether `__init__` passes arguments that it does not know on to the next class, for multiple inheritance
    call_super_init: bool = False
    dump_patches: bool = False

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    # made when the first hook is registered, so that a call without hooks has one attribute to look at
    _hooks: hooks.CallHooks | None = None
    _state_hooks: hooks.StateHooks | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if (args or kwargs) and not self.call_super_init:
            what = f"keyword argument {next(iter(kwargs))!r}" if kwargs else f"{len(args)} positional arguments"
            raise TypeError(f"{type(self).__name__}.__init__() got unexpected {what}")
        fields = self.__dict__
        fields["training"] = True
        fields["_parameters"] = {}
        fields["_buffers"] = {}
        fields["_modules"] = {}
        fields["_non_persistent_buffers_set"] = set()
        if self.call_super_init:
            super().__init__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return hooks.call(self, args, kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')

    # --- attributes -------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__
        for kind in _KINDS:
            if kind in fields and name in fields[kind]:
                return fields[kind][name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        kind = _kind_of(value)
        if kind is not None:
            if "_parameters" not in fields:
                what = {"_parameters": "parameters", "_buffers": "buffer", "_modules": "module"}[kind]
                raise AttributeError(f"cannot assign {what} before Module.__init__() call")
            self._forget(name, kind)
            if kind == "_parameters":
                self.register_parameter(name, value)
            elif kind == "_buffers":
                self.register_buffer(name, value, value.persistent)
            else:
                fields["_modules"][name] = value
            return
        if fields.get("_parameters") and name in fields["_parameters"]:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as parameter '{name}' (torch.nn.Parameter or None expected)")
            fields["_parameters"][name] = None
        elif fields.get("_modules") and name in fields["_modules"]:
            if value is not None:
                raise TypeError(f"cannot assign '{type(value).__name__}' as child module '{name}' (torch.nn.Module or None expected)")
            fields["_modules"][name] = None
        elif fields.get("_buffers") and name in fields["_buffers"]:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{type(value).__name__}' as buffer '{name}' (torch.nn.Buffer, torch.Tensor or None expected)"
                )
            fields["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str, kind: str) -> None:
        """Take a name out of wherever it is, as it is about to become something of another kind."""
        fields = self.__dict__
        fields.pop(name, None)
        for other in _KINDS:
            if other != kind:
                fields[other].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def __delattr__(self, name: str) -> None:
        for kind in _KINDS:
            if name in self.__dict__.get(kind, ()):
                del self.__dict__[kind][name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*dir(type(self)), *self.__dict__, *self._parameters, *self._buffers, *self._modules}
        return sorted(n for n in names if not n[0].isdigit())

    def _check_name(self, what: str, name: Any, kind: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{what} name should be a string. Got {type(name).__name__}")
        if "." in name:
            raise KeyError(f'{what} name can\'t contain ".", got: "{name}"')
        if name == "":
            raise KeyError(f'{what} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[kind]:
            raise KeyError(f"attribute '{name}' already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Give the module a parameter, which is then its attribute of that name.

        Raises
        ------
        KeyError
            If the name is empty, has a dot, or is an attribute already.
        TypeError
            If it is no Parameter.
        ValueError
            If it is the result of a recorded computation.
        """
        self._check_name("parameter", name, "_parameters")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"cannot assign '{type(param).__name__}' object to parameter '{name}' (torch.nn.Parameter or None required)")
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be created explicitly. To express '{name}' "
                "as a function of another Tensor, compute the value in the forward() method."
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Give the module a tensor that is not trained, such as running statistics.

        Parameters
        ----------
        name : str
        tensor : Tensor or None
        persistent : bool
            Whether it is part of `state_dict`.

        Raises
        ------
        KeyError
            If the name is empty, has a dot, or is an attribute already.
        TypeError
            If it is no Tensor.
        """
        self._check_name("buffer", name, "_buffers")
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (torch Tensor or None required)")
        self._buffers[name] = tensor
        (self._non_persistent_buffers_set.discard if persistent else self._non_persistent_buffers_set.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Give the module a part, which is then its attribute of that name.

        Raises
        ------
        KeyError
            If the name is empty, has a dot, or is an attribute already.
        TypeError
            If it is no Module.
        """
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module subclass")
        self._check_name("module", name, "_modules")
        self._modules[name] = module

    register_module = add_module

    # --- finding parts ----------------------------------------------------------------------------------------------

    def get_submodule(self, target: str) -> Module:
        """The part with a dotted name; the module itself for "".

        Raises
        ------
        AttributeError
            If there is none.
        """
        module = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}` (looking for {target!r})")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module (looking for {target!r})")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module in the place of the part with a dotted name.

        Parameters
        ----------
        target : str
        module : Module
        strict : bool
            Whether there must be a part of that name already.

        Raises
        ------
        ValueError
            If the name is empty, or `module` is no Module.
        AttributeError
            If the part that it belongs to is absent, or is no Module; or the name, if `strict`.
        """
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        if not isinstance(module, Module):
            raise ValueError(f"set_submodule: `module` is not an nn.Module, but {type(module).__name__}")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}` (looking for {target!r})")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module (looking for {target!r})")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with a dotted name; AttributeError if there is none."""
        return self._get("_parameters", "nn.Parameter", target)

    def get_buffer(self, target: str) -> Tensor:
        """The buffer with a dotted name; AttributeError if there is none."""
        return self._get("_buffers", "buffer", target)

    def _get(self, kind: str, what: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}` (looking for {target!r})")
        if name not in module.__dict__[kind]:
            raise AttributeError(f"`{name}` is not an {what}")
        return module.__dict__[kind][name]

    named_modules = walking.named_modules
    _named_members = walking.named_members
    named_parameters = walking.named_parameters
    named_buffers = walking.named_buffers
    named_children = walking.named_children
    parameters = walking.parameters
    buffers = walking.buffers
    children = walking.children
    modules = walking.modules

    # --- changing all at once ---------------------------------------------------------------------------------------

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call a function with every part, and last with the module; returns the module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Module:
        """Let the module and all its parts behave as in training, or not; returns the module."""
        if not isinstance(mode, bool):
            raise ValueError(f"training mode is expected to be boolean, not {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Module:
        """`train` (False): behave as in evaluation."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Let all parameters ask for gradients, or stop asking; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or overwrite them with 0."""
        for parameter in self.parameters():
            if parameter._grad is None:
                continue
            if set_to_none:
                parameter._grad = None
            else:
                with no_grad():
                    parameter._grad = parameter._grad.detach().zero_()

    # --- how it prints ----------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses when the module prints; subclasses say their arguments."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        parts = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        return self._layout(extra, parts)

    def _layout(self, extra: str, parts: list[str]) -> str:
        if not parts and "\n" not in extra:
            return f"{self._get_name()}({extra})"
        lines = (extra.split("\n") if extra else []) + parts
        return f"{self._get_name()}(\n  " + "\n  ".join(lines) + "\n)"

    # --- converting, saving, loading, hooks: in their own files -----------------------------------------------------

    _apply = conversion.apply_to_tensors
    to = conversion.to
    to_empty = conversion.to_empty
    share_memory = conversion.share_memory
    cpu = conversion.to_cpu
    cuda = conversion.to_cuda
    type = conversion.to_type
    float = conversion.to_float
    double = conversion.to_double
    half = conversion.to_half
    bfloat16 = conversion.to_bfloat16

    state_dict = state.state_dict
    load_state_dict = state.load_state_dict
    _save_to_state_dict = state.save_to_state_dict
    _load_from_state_dict = state.load_from_state_dict
    get_extra_state = state.get_extra_state
    set_extra_state = state.set_extra_state

    register_forward_pre_hook = hooks.register_forward_pre_hook
    register_forward_hook = hooks.register_forward_hook
    register_full_backward_pre_hook = hooks.register_full_backward_pre_hook
    register_full_backward_hook = hooks.register_full_backward_hook
    register_backward_hook = hooks.register_backward_hook
    _register_state_dict_hook = hooks.register_state_dict_hook
    _register_load_state_dict_pre_hook = hooks.register_load_hook_of_old
    register_state_dict_pre_hook = hooks.register_state_dict_pre_hook
    register_state_dict_post_hook = hooks.register_state_dict_post_hook
    register_load_state_dict_pre_hook = hooks.register_load_state_dict_pre_hook
    register_load_state_dict_post_hook = hooks.register_load_state_dict_post_hook


def _kind_of(value: Any) -> str | None:
    """The dictionary that a value belongs to by its type."""
    if isinstance(value, Parameter):
        return "_parameters"
    if isinstance(value, Module):
        return "_modules"
    return "_buffers" if isinstance(value, Buffer) else None
