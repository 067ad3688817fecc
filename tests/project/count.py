"""How much of each kind there is: ``python -m tests.project.count``."""

from __future__ import annotations

import importlib
import inspect

from graphc.frontend.config import Configurable
from graphc.ir.op import registry
from graphc.ops import functions

KINDS = (
    "layers", "losses", "metrics", "optimizers", "schedules", "initializers", "regularizers", "constraints", "callbacks",
)  # fmt: skip


def classes(kind: str) -> dict[str, type]:
    """The public classes of a part of the frontend, less what they are made of."""
    module = importlib.import_module(f"graphc.frontend.{kind}")
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    home = f"graphc.frontend.{kind}"
    found = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value)
        and (value.__module__ == home or value.__module__.startswith((home + ".", home + "_")))
    }


def counts() -> dict[str, int]:
    """By what it is."""
    found = {"op classes": len(registry), "public functions": len(functions)}
    return found | {kind: len(classes(kind)) for kind in KINDS}


def at_least() -> str:
    """The counts, rounded down to tens, or below twenty to fives, so that one more changes no document."""
    rounded = {what: number // 10 * 10 if number >= 20 else number // 5 * 5 for what, number in counts().items()}
    return "\n".join(f"{number:4} {what}" for what, number in rounded.items())


def configurable(kind: str) -> dict[str, type[Configurable]]:
    """Those that models are saved with."""
    return {name: value for name, value in classes(kind).items() if issubclass(value, Configurable)}


if __name__ == "__main__":
    for what, number in counts().items():
        print(f"{number:4} {what}")
