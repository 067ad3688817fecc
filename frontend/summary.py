"""``model.summary()``: a table of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graphc.frontend import nest
from graphc.frontend.tracing import Call, Symbol

if TYPE_CHECKING:
    from graphc.frontend.layers.base import Layer
    from graphc.frontend.model import Model
    from graphc.ir.node import Parameter


class Table:
    """The table of a model's layers.

    Args:
        model: the model.
        width: characters of a line.
        write: takes one line at a time.
        nested: whether layers of models within the model are shown below them.
        trainable: whether a column says which layers are trained.
    """

    def __init__(
        self, model: Model, width: int, write: Callable[[str], Any], nested: bool = False, trainable: bool = False
    ) -> None:
        self._model = model
        self._width = width
        self._write = write
        self._nested = nested
        calls = [model.calls_of(layer) for layer in model.layers]
        branched = any(len(_sources(made)) > 1 or len(made) > 1 for made in calls)
        columns = [("Layer (type)", 0.46), ("Output Shape", 0.34), ("Param #", 0.20)]
        if branched:
            columns = [("Layer (type)", 0.40), ("Output Shape", 0.28), ("Param #", 0.12), ("Connected to", 0.20)]
        if trainable:
            columns.append(("Trained", 0.11))
        whole = sum(share for _, share in columns)
        self._titles = [title for title, _ in columns]
        self._shares = [share / whole for _, share in columns]

    def write(self, layers: Iterable[Layer]) -> None:
        """Write the rows of these layers, then the sums over the whole model."""
        self._write(f'Model: "{self._model.name}"')
        self._write("=" * self._width)
        self._write(self._row(self._titles))
        self._write("-" * self._width)
        for layer in layers:
            self._write_layer(self._model, layer, 0)
        self._write("=" * self._width)
        model = self._model
        state = _optimizer_state(model)
        for title, weights in (
            ("Total params", [*model.weights, *state]),
            ("Trainable params", model.trainable_weights),
            ("Non-trainable params", model.non_trainable_weights),
            ("Optimizer params", state),
        ):
            if weights or title != "Optimizer params":
                elements = sum(weight.type.nbytes() // weight.dtype.itemsize for weight in weights)
                size = sum(weight.type.nbytes() for weight in weights)
                self._write(f"{title}: {elements:,} ({_bytes(size)})")
        self._write("-" * self._width)

    def _write_layer(self, model: Model, layer: Layer, depth: int) -> None:
        made = model.calls_of(layer)
        cells = {
            "Layer (type)": f"{'  ' * depth}{'└ ' if depth else ''}{layer.name} ({type(layer).__name__})",
            "Output Shape": _shape(made),
            "Param #": f"{layer.count_params():,}" if layer.built else "0 (unbuilt)",
            "Connected to": ", ".join(_sources(made)),
            "Trained": _trained(layer),
        }
        self._write(self._row([cells[title] for title in self._titles]))
        inner = _as_model(layer) if self._nested else None
        if inner is not None:
            for below in inner.layers:
                self._write_layer(inner, below, depth + 1)

    def _row(self, cells: Sequence[str]) -> str:
        text = ""
        end = 0.0
        for cell, share in zip(cells, self._shares, strict=True):
            end += share
            room = round(end * self._width) - len(text)
            text += (cell if len(cell) < room else cell[: max(room - 4, 1)] + "...").ljust(room)
        return text.rstrip()


def _as_model(layer: Layer) -> Model | None:
    from graphc.frontend.model import Model

    return layer if isinstance(layer, Model) else None


def _trained(layer: Layer) -> str:
    if not layer.weights:
        return "-"
    return "Y" if layer.trainable_weights else "N"


def _optimizer_state(model: Model) -> list[Parameter]:
    """The state of the optimizer, once it has any for this model's weights."""
    if model.compiled is None:
        return []
    found = model.optimizer.variables(model.named_weights())
    return list(found.values()) if len(found) > 2 or int(model.optimizer.iterations.value) else []


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
