"""Curves as pictures, through Matplotlib, which is an optional extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import AxisError, BackendError
from graphc.frontend.config import user_line


def new_figure(width: float = 6.4, height: float = 4.8) -> Any:
    """An empty figure that belongs to no window and to no global state.

    Raises:
        BackendError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendError(
            "drawing curves needs Matplotlib, which is not installed",
            at=user_line(),
            remedy='pip install "graphc[plot]"',
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def draw_lines(
    lines: Mapping[str, Sequence[float]],
    path: str | Path | None = None,
    *,
    x: str,
    y: str,
    log: bool = False,
    places: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
) -> Any:
    """A figure with a line for each list of numbers.

    Args:
        lines: numbers by the name that the legend shows.
        path: where to write the picture; the suffix says its format.
        x, y: what the axes show.
        log: a logarithmic vertical axis.
        places: where the numbers stand on the horizontal axis, for all lines or by name; default 0, 1, 2, ...

    Raises:
        AxisError: there is nothing to draw.
    """
    if not any(lines.values()):
        raise AxisError("there is nothing to draw", at=user_line(), remedy="train first")
    figure = new_figure()
    axes = figure.subplots()
    for name, values in lines.items():
        at = places.get(name) if isinstance(places, Mapping) else places
        where = np.arange(len(values)) if at is None else np.asarray(at)[: len(values)]
        axes.plot(where, values, label=escaped(name), marker="." if len(values) < 20 else None)
    axes.set(xlabel=escaped(x), ylabel=escaped(y))
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)
    return figure


def save(figure: Any, path: str | Path | None) -> None:
    """Write a figure, if a path is given."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def escaped(text: str) -> str:
    """A text that Matplotlib shows as it is: a dollar sign would begin a formula, a first ``_`` hide a line's name.

    >>> escaped("_loss").isidentifier(), escaped("loss")
    (False, 'loss')
    """
    found = text.replace("\\", "\\\\").replace("$", r"\$") if "$" in text else text
    return f"\u200b{found}" if found.startswith("_") else found
