"""The operations of graphc. Importing this package fills the op registry and Python's operators on nodes.

Each module of this folder but ``base`` and ``halves`` holds one family: the op classes, and beneath each the function
that builds it.
The modules are found on disk, and a function that a family's ``__all__`` names is offered as ``graphc.ops.add`` and
``gx.add``: a new op, or a whole family, touches one file. ``random`` is offered as a module, too.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from graphc.ops import random as random

families = tuple(
    importlib.import_module(f"{__name__}.{module.name}")
    for module in pkgutil.iter_modules(__path__)
    if module.name not in ("base", "halves")
)
"""The modules that hold ops."""

functions: dict[str, Callable[..., Any]] = {
    name: value
    for family in families
    for name in family.__all__
    if isinstance(value := getattr(family, name), FunctionType)
}
"""What users call, by name."""

__all__ = [*sorted(functions), "random"]  # pyright: ignore[reportUnsupportedDunderAll]

globals().update(functions)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
