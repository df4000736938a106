"""Hooks of modules: functions that are called before or after forward, around backward, and when state is saved or loaded.

A module without hooks has none of this: it gets a `CallHooks` or a `StateHooks` when the first hook is registered.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..autograd.function import Function
from ..autograd.grad_mode import is_grad_enabled
from ..autograd.graph import RemovableHandle
from ..autograd.variable import Tensor, share_version
from ..backend.dtypes import DIFFERENTIABLE
from ..ops.creation import zeros

if TYPE_CHECKING:
    from .module import Module

__all__ = [
    "CallHooks", "StateHooks", "call", "register_module_forward_hook", "register_module_forward_pre_hook",
    "register_module_full_backward_hook", "register_module_full_backward_pre_hook",
]  # fmt: skip


class CallHooks:
    """The hooks around a module's call, in the order in which they run.

    Attributes
    ----------
    before : OrderedDict of (hook, with_kwargs)
    after : OrderedDict of (hook, with_kwargs, always_call)
    backward_before, backward_after : OrderedDict of (hook,)
    """

    def __init__(self) -> None:
        self.before: OrderedDict = OrderedDict()
        self.after: OrderedDict = OrderedDict()
        self.backward_before: OrderedDict = OrderedDict()
        self.backward_after: OrderedDict = OrderedDict()


class StateHooks:
    """The hooks around saving and loading, in the order in which they run."""

    def __init__(self) -> None:
        self.before_save: OrderedDict = OrderedDict()
        self.after_save: OrderedDict = OrderedDict()
        self.before_load: OrderedDict = OrderedDict()
        self.after_load: OrderedDict = OrderedDict()


#: the hooks of all modules; while there are any, it is the class's `_hooks`, which modules without hooks of their own find
FOR_ALL = CallHooks()


def call(module: Module, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a module's forward with the hooks around it: those of all modules first."""
    hooks = module._hooks
    assert hooks is not None
    if hooks is not FOR_ALL and any(vars(FOR_ALL).values()):
        hooks = _both(FOR_ALL, hooks)
    for hook, with_kwargs in tuple(hooks.before.values()):
        args, kwargs = _before(module, hook, with_kwargs, args, kwargs)
    boundary = None
    if (hooks.backward_before or hooks.backward_after) and is_grad_enabled():
        boundary = Boundary(module, hooks)
        args = boundary.enter(args)
    done: set[int] = set()
    try:
        result = module.forward(*args, **kwargs)
        for number, (hook, with_kwargs, _) in tuple(hooks.after.items()):
            done.add(number)
            changed = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            if changed is not None:
                result = changed
    except Exception:
        _after_failure(module, hooks, done, args, kwargs)
        raise
    return result if boundary is None else boundary.leave(result)


def _both(first: CallHooks, second: CallHooks) -> CallHooks:
    together = CallHooks()
    for kind, entries in vars(together).items():
        entries.update(getattr(first, kind))
        entries.update(getattr(second, kind))
    return together


def _before(module: Module, hook: Callable, with_kwargs: bool, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    changed = hook(module, args, kwargs) if with_kwargs else hook(module, args)
    if changed is None:
        return args, kwargs
    if not with_kwargs:
        return (changed if isinstance(changed, tuple) else (changed,)), kwargs
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise RuntimeError(f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}.")
    return changed


def _after_failure(module: Module, hooks: CallHooks, done: set[int], args: tuple, kwargs: dict) -> None:
    """Run those hooks that want to be called in any case and have not been."""
    for number, (hook, with_kwargs, always_call) in tuple(hooks.after.items()):
        if always_call and number not in done:
            try:
                _ = hook(module, args, kwargs, None) if with_kwargs else hook(module, args, None)
            except Exception as error:
                # the first error is the one that the caller must see
                warnings.warn(
                    "forward hook with always_call=True raised an exception that was silenced as another error was raised in "
                    f"forward: {error}",
                    stacklevel=4,
                )


class _Identity(Function):
    """A place in the graph where hooks see several gradients at once."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return gradients


class Boundary:
    """Both ends of one call of a module in the graph: where gradients of its outputs come in, and those of its inputs leave.

    Only tensors that are positional arguments, or the results themselves, are seen, as in PyTorch.
    """

    def __init__(self, module: Module, hooks: CallHooks):
        self.module = module
        self.before = [hook for (hook,) in hooks.backward_before.values()]
        self.after = [hook for (hook,) in hooks.backward_after.values()]
        self.inputs: list[Any] = []
        self.has_differentiable_input = False
        self.grad_output: tuple = ()

    def enter(self, args: tuple) -> tuple:
        """The arguments, after a node that has the gradients of all of them."""
        self.inputs = _constants(args)
        changed, node, places = _through_identity(args)
        if node is not None:
            self.has_differentiable_input = True

            def inputs_done(gradients: Sequence[Any], _: Any) -> Sequence[Any] | None:
                replaced = self._run_after(_spread(gradients, places, self.inputs))
                return None if replaced is None else [replaced[i] for i in places]

            node.register_hook(inputs_done)
        return changed

    def leave(self, result: Any) -> Any:
        """The result, before a node that has the gradients of all of it."""
        results = result if isinstance(result, tuple) else (result,)
        changed, node, places = _through_identity(results)
        if node is None:
            return result
        constants = _constants(results)

        def outputs_come(gradients: Sequence[Any]) -> Sequence[Any] | None:
            self.grad_output = _spread(gradients, places, constants)
            for hook in self.before:
                replaced = hook(self.module, self.grad_output)
                if replaced is not None:
                    self.grad_output = self._as_many(replaced, len(constants), "pre")
            if not self.has_differentiable_input and self._run_after((None,) * len(self.inputs)) is not None:
                raise RuntimeError(
                    "backward hook for Modules where no input requires gradient should always return None, but that of "
                    f"{type(self.module).__name__} returned a gradient"
                )
            return [self.grad_output[i] for i in places] if self.before else None

        node.register_prehook(outputs_come)
        return changed if isinstance(result, tuple) else changed[0]

    def _run_after(self, grad_input: tuple) -> tuple | None:
        """What the hooks make of the gradients of the inputs; None if they leave them."""
        found = None
        for hook in self.after:
            replaced = hook(self.module, grad_input, self.grad_output)
            if replaced is not None:
                found = grad_input = self._as_many(replaced, len(self.inputs), "")
        return found

    def _as_many(self, replaced: Any, count: int, kind: str) -> tuple:
        replaced = tuple(replaced) if isinstance(replaced, (tuple, list)) else (replaced,)
        if len(replaced) != count:
            raise RuntimeError(
                f"Backward {kind}{'-' if kind else ''}hook of {type(self.module).__name__} returned an invalid number of gradients, got "
                f"{len(replaced)}, but expected {count}"
            )
        return replaced


def _through_identity(values: tuple) -> tuple[tuple, Any, list[int]]:
    """Values with those that require a gradient passed through one node; the node; and which those are."""
    places = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v._node is not None]
    if not places:
        return values, None, places
    changed = list(values)
    results = _Identity.apply(*(values[i] for i in places))
    for i, result in zip(places, results):
        # both are on the same memory, so a change in place through one must be noticed by what saved the other
        share_version(values[i], result)
        changed[i] = result
    return tuple(changed), results[0].grad_fn, places


def _constants(values: tuple) -> list[Any]:
    """For each value that is a tensor but requires no gradient, what makes the zeros that hooks see for it; else None."""
    return [
        partial(zeros, v.shape, dtype=v.dtype, device=v.device)
        if isinstance(v, Tensor) and v._node is None and v._array.dtype in DIFFERENTIABLE
        else None
        for v in values
    ]


def _spread(gradients: Sequence[Any], places: list[int], constants: list[Any]) -> tuple:
    """The gradients in their places among all values."""
    full = [None if make is None else make() for make in constants]
    for i, gradient in zip(places, gradients):
        full[i] = gradient
    return tuple(full)


# --- registering: methods of Module -----------------------------------------------------------------------------------


def _around_call(module: Module) -> CallHooks:
    if module._hooks is None or module._hooks is FOR_ALL:
        module._hooks = CallHooks()
    return module._hooks


def _around_state(module: Module) -> StateHooks:
    if module._state_hooks is None:
        module._state_hooks = StateHooks()
    return module._state_hooks


def register_forward_pre_hook(
    self: Module, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args)`` before each forward; what it returns, if not None, replaces the arguments.

    Parameters
    ----------
    hook : callable
    prepend : bool
        Whether it runs before those registered already.
    with_kwargs : bool
        Whether it is ``hook(module, args, kwargs)``, and returns None or both.
    """
    return RemovableHandle.of(_around_call(self).before, (hook, with_kwargs), prepend)


def register_forward_hook(
    self: Module, hook: Callable, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after each forward; what it returns, if not None, replaces the output.

    Parameters
    ----------
    hook : callable
    prepend : bool
        Whether it runs before those registered already.
    with_kwargs : bool
        Whether it is ``hook(module, args, kwargs, output)``.
    always_call : bool
        Whether it is also called, with None as the output, where forward raises.
    """
    return RemovableHandle.of(_around_call(self).after, (hook, with_kwargs, always_call), prepend)


def register_full_backward_pre_hook(self: Module, hook: Callable, prepend: bool = False) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` when the gradients of the module's results have arrived.

    `grad_output` is a tuple, with None for what is no tensor and zeros for what requires no gradient. What the hook
    returns, if not None, replaces it.
    """
    return RemovableHandle.of(_around_call(self).backward_before, (hook,), prepend)


def register_full_backward_hook(self: Module, hook: Callable, prepend: bool = False) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)`` when the gradients of the module's inputs have been computed.

    Both are tuples, with None for what is no tensor and zeros for what requires no gradient; inputs are the positional
    arguments. What the hook returns, if not None, replaces `grad_input`.
    """
    return RemovableHandle.of(_around_call(self).backward_after, (hook,), prepend)


def register_backward_hook(self: Module, hook: Callable) -> RemovableHandle:
    """`register_full_backward_hook` under its name of old."""
    return register_full_backward_hook(self, hook)


def register_state_dict_pre_hook(self: Module, hook: Callable) -> RemovableHandle:
    """Call ``hook(module, prefix, keep_vars)`` before each `state_dict`."""
    return RemovableHandle.of(_around_state(self).before_save, (hook,))


def register_state_dict_post_hook(self: Module, hook: Callable) -> RemovableHandle:
    """Call ``hook(module, state_dict, prefix, local_metadata)`` after each `state_dict`; it may change it in place."""
    return RemovableHandle.of(_around_state(self).after_save, (hook,))


def register_load_state_dict_pre_hook(self: Module, hook: Callable) -> RemovableHandle:
    """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`` before
    each module's part of `load_state_dict`; it may change them in place.
    """
    return RemovableHandle.of(_around_state(self).before_load, (hook,))


def register_load_state_dict_post_hook(self: Module, hook: Callable) -> RemovableHandle:
    """Call ``hook(module, incompatible_keys)`` after each module's part of `load_state_dict`; it may change the lists
    ``incompatible_keys.missing_keys`` and ``.unexpected_keys`` in place.
    """
    return RemovableHandle.of(_around_state(self).after_load, (hook,))


def register_state_dict_hook(self: Module, hook: Callable) -> RemovableHandle:
    """`register_state_dict_post_hook`, under the name that libraries use; what the hook returns, if not None, replaces the dict."""
    return RemovableHandle.of(_around_state(self).after_save, (hook,))


def register_load_hook_of_old(self: Module, hook: Callable, with_module: bool = False) -> RemovableHandle:
    """`register_load_state_dict_pre_hook` for hooks that do not take the module, under the name that libraries use."""
    return RemovableHandle.of(_around_state(self).before_load, (hook if with_module else _without_module(hook),))


def _without_module(hook: Callable) -> Callable:
    return lambda module, *args: hook(*args)


# --- hooks of all modules ------------------------------------------------------------------------------------------------


class _GlobalHandle:
    """Takes a hook of all modules away again; a call is as fast as before when the last is gone."""

    def __init__(self, handle: RemovableHandle):
        self.handle = handle
        _switch()

    def remove(self) -> None:
        """Forget the hook."""
        self.handle.remove()
        _switch()

    def __enter__(self) -> _GlobalHandle:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()


def _switch() -> None:
    from .module import Module

    Module._hooks = FOR_ALL if any(vars(FOR_ALL).values()) else None


def register_module_forward_pre_hook(hook: Callable) -> _GlobalHandle:
    """`Module.register_forward_pre_hook` for all modules; as ``torch.nn.modules.module.register_module_forward_pre_hook``."""
    return _GlobalHandle(RemovableHandle.of(FOR_ALL.before, (hook, False)))


def register_module_forward_hook(hook: Callable, *, with_kwargs: bool = False, always_call: bool = False) -> _GlobalHandle:
    """`Module.register_forward_hook` for all modules; as ``torch.nn.modules.module.register_module_forward_hook``."""
    return _GlobalHandle(RemovableHandle.of(FOR_ALL.after, (hook, with_kwargs, always_call)))


def register_module_full_backward_pre_hook(hook: Callable) -> _GlobalHandle:
    """`Module.register_full_backward_pre_hook` for all modules; as PyTorch's function of that name."""
    return _GlobalHandle(RemovableHandle.of(FOR_ALL.backward_before, (hook,)))


def register_module_full_backward_hook(hook: Callable) -> _GlobalHandle:
    """`Module.register_full_backward_hook` for all modules; as PyTorch's function of that name."""
    return _GlobalHandle(RemovableHandle.of(FOR_ALL.backward_after, (hook,)))
