"""Runs a script that was written for PyTorch, as it is: what it imports as ``torch`` is disttorch.

    python -m disttorch.as_torch train.py --lr 3
    python -m disttorch.as_torch -m package.train --lr 3
    dlaunch -n 8 --as-torch train.py --lr 3

`install` puts a finder before Python's own: ``import torch.X`` gives ``disttorch.X``, the same module and the same classes, in
this process and in the worker processes it starts by multiprocessing. An installed PyTorch is neither imported nor changed.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from types import ModuleType
from typing import Any

__all__ = ["PYTORCH_VERSION", "install"]

#: The version whose documentation says what the names mean, and which scripts compare with.
PYTORCH_VERSION = "2.13.0"

#: The folder that worker processes, started afresh, find before an installed PyTorch: ``import torch`` there calls `install`.
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "path")

#: What a script finds under these names instead of disttorch's own.
VERSIONS: dict[str, dict[str, Any]] = {
    "torch": {"__version__": PYTORCH_VERSION},
    "torch.version": {"__version__": PYTORCH_VERSION, "cuda": None, "hip": None, "xpu": None, "git_version": None, "debug": False},
}

#: What to do where a module is not there and there is something to do.
ADVICE = {
    "torch.hub": "load a state_dict that was downloaded, with torch.load",
    "torchvision": "it is built for PyTorch itself; transforms and data sets without it read from NumPy arrays",
    "torchaudio": "it is built for PyTorch itself",
    "torchtext": "it is built for PyTorch itself",
}
WHERE = "docs/api-coverage.md of disttorch lists what is there"


def install() -> None:
    """Let ``import torch`` in this process, and in those that multiprocessing starts from it, mean disttorch.

    What is saved from then on is written in PyTorch's format, so that it can be loaded where PyTorch is, and types are printed as
    PyTorch's, ``torch.float32``, because scripts compare them.

    Raises
    ------
    RuntimeError
        If PyTorch has been imported before.
    """
    loaded = sys.modules.get("torch")
    if loaded is not None and not isinstance(loaded, _Face) and getattr(loaded, "__path__", None) != [os.path.join(PATH, "torch")]:
        raise RuntimeError(f"PyTorch itself is imported already, from {getattr(loaded, '__file__', None)}")
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        from ..backend.choices import CHOICES
        from ..serialization import set_default_format

        CHOICES.package = "torch"
        set_default_format("torch")
        sys.meta_path.insert(0, _Finder())
        sys.path.insert(1, PATH)  # behind the script's folder; multiprocessing passes it on to processes that it starts afresh


class _Face(ModuleType):
    """A module under another name, with some values of its own; everything else is read from and set on the module itself."""

    def __init__(self, name: str, module: ModuleType, own: dict[str, Any]):
        super().__init__(name, module.__doc__)
        self.__dict__.update(own, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ or (name.startswith("__") and name.endswith("__")):
            self.__dict__[name] = value
        elif not isinstance(value, _Face):  # the import system puts a submodule into its package: there it is the module itself
            setattr(self._module, name, value)
        else:
            self.__dict__[name] = value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(self._module)} - {"_module"})


_faces: dict[str, _Face] = {}


def _face(name: str, module: ModuleType) -> _Face:
    if name not in _faces:
        _faces[name] = _Face(name, module, {"__path__": [], **VERSIONS[name]})
        if name == "torch":
            _faces[name].__dict__["version"] = _face("torch.version", importlib.import_module("disttorch.version"))
    return _faces[name]


class _Finder:
    """Finds ``torch`` and its submodules in disttorch, and says of the others that they are not there."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        top = name.partition(".")[0]
        if top != "torch":
            if name in ADVICE and importlib.machinery.PathFinder.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}: {ADVICE[name]}", name=name)
            return None
        ours = "disttorch" + name[len("torch") :]
        try:
            module = importlib.import_module(ours)
        except ModuleNotFoundError as error:
            if error.name is None or not (ours == error.name or ours.startswith(error.name + ".")):
                raise
            advice = f" {ADVICE[name]};" if name in ADVICE else ""
            raise ModuleNotFoundError(
                f"No module named {name!r}: disttorch, which stands in for PyTorch here, does not have it;{advice} {WHERE}", name=name
            ) from None
        return importlib.machinery.ModuleSpec(name, _Loader(module), is_package=hasattr(module, "__path__"))


class _Loader(Loader):
    """Gives a module that is loaded already."""

    def __init__(self, module: ModuleType):
        self.module = module
        self.spec = module.__spec__

    def create_module(self, spec: Any) -> ModuleType:
        return _face(spec.name, self.module) if spec.name in VERSIONS else self.module

    def exec_module(self, module: ModuleType) -> None:
        if module is self.module:
            module.__spec__ = self.spec  # the import system has put its own there


def explain(error: BaseException) -> None:
    """Add to an error about a name that is absent where to look; Python's own text only says that it cannot be imported."""
    absent = isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError)
    if absent and (error.name or "").partition(".")[0] in ("torch", "disttorch"):  # type: ignore[attr-defined]
        error.add_note(f"disttorch, which stands in for PyTorch here, does not have it; {WHERE}")
