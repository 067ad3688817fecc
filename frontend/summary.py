"""``model.summary()``: a table of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphc.frontend import nest
from graphc.frontend.tracing import Call, Symbol

if TYPE_CHECKING:
    from graphc.frontend.model import Model


def print_summary(model: Model, width: int, write: Callable[[str], Any]) -> None:
    """Write the table, one line at a time."""
    calls = {id(layer): model.calls_of(layer) for layer in model.layers}
    branched = any(len(_sources(made)) > 1 or len(made) > 1 for made in calls.values())
    shares = (0.40, 0.28, 0.12, 0.20) if branched else (0.46, 0.34, 0.20)
    titles = ("Layer (type)", "Output Shape", "Param #", "Connected to")[: len(shares)]
    write(f'Model: "{model.name}"')
    write("=" * width)
    write(_row(titles, shares, width))
    write("-" * width)
    for layer in model.layers:
        kind = f"{layer.name} ({type(layer).__name__})"
        count = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)"
        made = calls[id(layer)]
        cells = (kind, _shape(made), count, ", ".join(_sources(made)))[: len(shares)]
        write(_row(cells, shares, width))
    write("=" * width)
    for title, weights in (
        ("Total params", model.weights),
        ("Trainable params", model.trainable_weights),
        ("Non-trainable params", model.non_trainable_weights),
    ):
        elements = sum(weight.array.size for weight in weights)
        size = sum(weight.array.nbytes for weight in weights)
        write(f"{title}: {elements:,} ({_bytes(size)})")
    write("-" * width)


def _row(cells: tuple[str, ...], shares: tuple[float, ...], width: int) -> str:
    text = ""
    end = 0.0
    for cell, share in zip(cells, shares, strict=True):
        end += share
        room = round(end * width) - len(text)
        text += (cell if len(cell) < room else cell[: max(room - 4, 1)] + "...").ljust(room)
    return text.rstrip()


def _shape(calls: list[Call]) -> str:
    if not calls:
        return "?"
    shapes = [
        f"({', '.join(str(size) if isinstance(size, int) else 'None' for size in leaf.shape)})"
        for leaf in nest.leaves(calls[-1].outputs)
        if isinstance(leaf, Symbol)
    ]
    return ", ".join(shapes)


def _sources(calls: list[Call]) -> list[str]:
    found = [
        leaf.call.layer.name
        for call in calls
        for leaf in nest.leaves((call.args, call.kwargs))
        if isinstance(leaf, Symbol)
    ]
    return list(dict.fromkeys(found))


def _bytes(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1024 or unit == "GB":
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.2f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")
