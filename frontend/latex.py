r"""A model as equations: one line for each call of a layer, in LaTeX.

Samples are rows, as in the kernels' layout: a dense layer is :math:`x W + b`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import GraphError
from graphc.frontend import nest
from graphc.frontend.config import user_line
from graphc.frontend.layers.expression import Expression
from graphc.frontend.tracing import Symbol
from graphc.ir.node import Constant, Node, Parameter

if TYPE_CHECKING:
    from graphc.frontend.layers.base import Layer
    from graphc.frontend.model import Model
    from graphc.frontend.tracing import Call

_SPECIAL = {
    "\\": r"\backslash ", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\wedge ", "~": r"\sim ",
}  # fmt: skip
_GREEK = {"kernel": "W", "bias": "b", "gamma": r"\gamma", "beta": r"\beta", "embeddings": "E", "recurrent_kernel": "U",
          "moving_mean": r"\mu", "moving_variance": r"\sigma^{2}", "alpha": r"\alpha"}  # fmt: skip
_FUNCTIONS = {"sigmoid": r"\sigma", "tanh": r"\tanh", "exp": r"\exp", "log": r"\log", "maximum": r"\max",
              "minimum": r"\min", "sin": r"\sin", "cos": r"\cos"}  # fmt: skip
Weights = Mapping[str, str]


def write_latex(model: Model, document: bool) -> str:
    """The equations of a model that was declared by symbols; see ``Model.latex``."""
    calls = model.call_order
    if calls is None:
        raise GraphError(
            f"model {model.name!r} has no equations: it was not declared by symbols, or its inputs are not known yet",
            at=user_line(),
            remedy="declare it with Input and layers, or call model.build((None, ...)) first",
        )
    return _Writer(model, calls).text(document)


class _Writer:
    def __init__(self, model: Model, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._names: dict[int, str] = {}
        self._weights: dict[int, dict[str, str]] = {}
        self._sizes: list[str] = []
        self._inputs = model.inputs
        outputs = {id(symbol): None for symbol in model.outputs}
        for number, symbol in enumerate(self._inputs, 1):
            self._names[id(symbol)] = "x" if len(self._inputs) == 1 else f"x_{{{number}}}"
        hidden = 0
        for call in calls:
            for symbol in _symbols(call.outputs):
                if id(symbol) in outputs:
                    place = list(outputs).index(id(symbol)) + 1
                    self._names[id(symbol)] = r"\hat{y}" if len(outputs) == 1 else rf"\hat{{y}}_{{{place}}}"
                else:
                    hidden += 1
                    self._names[id(symbol)] = f"h_{{{hidden}}}"

    def text(self, document: bool) -> str:
        lines = [
            f"{', '.join(self._names[id(symbol)] for symbol in _symbols(call.outputs))} &= {self._value(call)}"
            for call in self._calls
        ]
        sizes = [rf"{self._names[id(symbol)]} \in {_space(symbol.shape[1:])}" for symbol in self._inputs]
        lines += [rf"&\quad {line}" for line in (*sizes, *self._sizes)]
        body = " \\\\\n".join(f"  {line}" for line in lines)
        equations = f"\\begin{{align*}}\n{body}\n\\end{{align*}}"
        if not document:
            return equations
        head = "\\documentclass{article}\n\\usepackage{amsmath,amssymb}\n\\allowdisplaybreaks"
        return f"{head}\n\\begin{{document}}\n{equations}\n\\end{{document}}\n"

    def _value(self, call: Call) -> str:
        arguments = [
            self._names[id(leaf)] if isinstance(leaf, Symbol) else "c"
            for leaf in nest.leaves((call.args, call.kwargs))
            if isinstance(leaf, Node)
        ]
        layer = call.layer
        weights = self._names_of_weights(layer)
        own: Callable[..., str] | None = getattr(layer, "to_latex", None)
        if own is not None:
            return own(arguments, weights)
        if isinstance(layer, Expression):
            return _expression(layer, arguments)
        for cls in type(layer).__mro__:
            write = _WRITERS.get(cls.__name__) if cls.__module__.startswith("graphc.") else None
            if write is not None:
                return write(layer, arguments, weights)
        named = not type(layer).__module__.startswith("graphc.") or bool(layer.sublayers)
        name = layer.name if named else type(layer).__name__
        return _apply(name, ", ".join(arguments))

    def _names_of_weights(self, layer: Layer) -> dict[str, str]:
        """A letter for each weight of a layer, by the weight's name; the number is that of the layer."""
        if not layer.named_weights() or isinstance(layer, Expression):
            return {}
        if id(layer) not in self._weights:
            number = len(self._weights) + 1
            found: dict[str, str] = {}
            for path, weight in layer.named_weights().items():
                name = path.rpartition("/")[2]
                letter = _GREEK.get(name, rf"\mathrm{{{escaped(name)}}}")
                taken = letter in found.values()
                found[name if not taken else path] = letter
                if "/" not in path:
                    self._sizes.append(rf"{_numbered(letter, number)} \in {_space(weight.shape)}")
            self._weights[id(layer)] = {name: _numbered(letter, number) for name, letter in found.items()}
        return self._weights[id(layer)]


def _numbered(letter: str, number: int) -> str:
    base, power, exponent = letter.partition("^")
    return f"{base}_{{{number}}}{power}{exponent}"


def _symbols(structure: Any) -> list[Symbol]:
    return [leaf for leaf in nest.leaves(structure) if isinstance(leaf, Symbol)]


def _space(shape: Sequence[Any]) -> str:
    sizes = r" \times ".join(str(size) if isinstance(size, int) else escaped(str(size)) for size in shape)
    return rf"\mathbb{{R}}^{{{sizes}}}" if sizes else r"\mathbb{R}"


def escaped(text: str) -> str:
    r"""A name that LaTeX shows as it is within ``\mathrm``.

    >>> escaped("a_b")
    'a\\_b'
    """
    return "".join(
        _SPECIAL.get(letter, letter if letter.isascii() and letter.isprintable() else "?") for letter in text
    )


def _apply(name: str, argument: str) -> str:
    function = _FUNCTIONS.get(name) or rf"\operatorname{{{escaped(name)}}}"
    return rf"{function}\left({argument}\right)"


def _activated(layer: Any, value: str) -> str:
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", None) or type(function).__name__
    if function is None or name == "linear":
        return value
    return _apply("activation" if name == "<lambda>" else name, value)


def _dense(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    bias = f" + {weights['bias']}" if "bias" in weights else ""
    return _activated(layer, f"{arguments[0]} {weights['kernel']}{bias}")


def _conv(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    bias = f" + {weights['bias']}" if "bias" in weights else ""
    return _activated(layer, f"{arguments[0]} * {weights['kernel']}{bias}")


def _dropout(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    return rf"\operatorname{{dropout}}_{{{layer.rate:g}}}\left({arguments[0]}\right)"


def _joined(sign: str) -> Callable[..., str]:
    def write(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
        return f" {sign} ".join(arguments)

    return write


def _average(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    return rf"\frac{{1}}{{{len(arguments)}}} \left({' + '.join(arguments)}\right)"


def _concatenate(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    joined = r",\, ".join(arguments)
    return rf"\left[{joined}\right]"


def _called(name: str) -> Callable[..., str]:
    def write(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
        return _apply(name, ", ".join(arguments))

    return write


def _activation(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    return _activated(layer, arguments[0])


def _embedding(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    return rf"{weights['embeddings']}\left[{arguments[0]}\right]"


def _batch_norm(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    return _normalized(arguments[0], weights["moving_mean"], weights["moving_variance"], weights)


def _layer_norm(layer: Any, arguments: Sequence[str], weights: Weights) -> str:
    x = arguments[0]
    return _normalized(x, rf"\mu\left({x}\right)", rf"\sigma^{{2}}\left({x}\right)", weights)


def _normalized(x: str, mean: str, variance: str, weights: Weights) -> str:
    value = rf"\frac{{{x} - {mean}}}{{\sqrt{{{variance} + \epsilon}}}}"
    scaled = rf"{weights['gamma']} \odot {value}" if "gamma" in weights else value
    return f"{scaled} + {weights['beta']}" if "beta" in weights else scaled


_WRITERS: dict[str, Callable[..., str]] = {
    "Dense": _dense, "Activation": _activation, "ReLU": _called("relu"), "Sigmoid": _called("sigmoid"),
    "Tanh": _called("tanh"), "Softmax": _called("softmax"), "Dropout": _dropout, "Identity": _joined(","),
    "Flatten": _called("vec"), "Add": _joined("+"), "Subtract": _joined("-"), "Multiply": _joined(r"\odot"),
    "Average": _average, "Maximum": _called("maximum"), "Minimum": _called("minimum"), "Concatenate": _concatenate,
    "Embedding": _embedding, "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm,
    "Conv1D": _conv, "Conv2D": _conv, "Conv3D": _conv,
}  # fmt: skip

_INFIX = {"add": "+", "subtract": "-", "multiply": r"\odot"}


def _expression(layer: Expression, arguments: Sequence[str]) -> str:
    """Operators between symbols, by the graph that they built."""
    names = {id(leaf): name for leaf, name in zip(layer.leaves, arguments, strict=True)}

    def write(node: Node, within: bool) -> str:
        if id(node) in names:
            return names[id(node)]
        if isinstance(node, Parameter):
            return rf"\mathrm{{{escaped(node.label)}}}"
        if isinstance(node.op, Constant):
            array = node.op.array
            return f"{array.item():g}" if array.size == 1 and array.dtype.kind in "iuf" else "C"
        parts = [write(arg, True) for arg in node.args]
        if node.op.name in _INFIX:
            value = f" {_INFIX[node.op.name]} ".join(parts)
            return rf"\left({value}\right)" if within else value
        if node.op.name == "divide":
            return rf"\frac{{{parts[0]}}}{{{parts[1]}}}"
        if node.op.name == "matmul":
            return " ".join(parts)
        if node.op.name in ("broadcast_to", "cast", "reshape") and len(parts) == 1:
            return parts[0]
        return _apply(node.op.name, ", ".join(parts))

    return write(layer.output_node, False)
