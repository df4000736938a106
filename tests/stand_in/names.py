"""What CuPy has, as `record` has written it down: names, arguments, types."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

__all__ = ["NAMES", "Arguments"]

NAMES: dict[str, Any] = json.loads(Path(__file__).with_name("cupy_names.json").read_text())


class Arguments:
    """A recorded signature."""

    def __init__(self, name: str, recorded: list[list[Any]]):
        self.name = name
        kinds = inspect._ParameterKind.__members__
        self.signature = inspect.Signature(
            [inspect.Parameter(n, kinds[kind], default=None if default else inspect.Parameter.empty) for n, kind, default in recorded]
        )

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
