"""Transposes moved towards the end of a file until they meet their inverses.

Images have their channels last in graphc and first in ONNX, so that each convolution stands between two transposes.
What computes each element on its own, or sums along axes, may as well do so before a transpose as behind it; that way
the transpose reaches the next convolution, and both go. Splitting and joining axes, as the gradients of strides and of
pooling do, may come before it, too. Constants are turned in the file, and so are the rows of a dense layer that reads a
flattened image. A transpose that moves axes of one element only is a reshape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from graphc.backends.onnx.reshapes import blocks, moves_nothing, resolved
from graphc.backends.onnx.rewriting import Rewriting, attribute_of, read_by

ELEMENTWISE = frozenset({
    "Abs", "Add", "And", "BitShift", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round",
    "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Tan", "Tanh", "Where", "Xor",
})  # fmt: skip
REDUCTIONS = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"})

ABSORBING = REDUCTIONS | {"Transpose", "Reshape", "MatMul"}
PASSING = ELEMENTWISE | {"Slice", "Pad", "Expand"}

IMAGES = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool"})

Perm = tuple[int, ...]


def move_transposes(model: ModelProto) -> None:
    """Rewrite the graph of a model that has images; inputs and outputs stay as they are."""
    if not any(node.op_type in IMAGES for node in model.graph.node):
        return
    work = _Moving(model)
    for node in list(model.graph.node):
        work.take(node)
    for value in model.graph.output:
        work.settle(value.name)
    nodes = work.needed(value.name for value in model.graph.output)
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in read_by(node)} | {value.name for value in model.graph.output}
    inputs = {value.name for value in model.graph.input}
    kept = [tensor for tensor in (*model.graph.initializer, *work.tensors) if tensor.name in read | inputs]
    known = [value for value in model.graph.value_info if value.name in made]
    for field_name, items in (("node", nodes), ("initializer", kept), ("value_info", known)):
        model.graph.ClearField(field_name)
        getattr(model.graph, field_name).extend(items)


@dataclass
class _Moving(Rewriting):
    """A graph that is written anew, node by node.

    Attributes:
        moved: values that are a transpose of another value; ``written`` says of which there is a node.
        folded: constants that are a transpose of a constant.
        turned: transposes of values that are none, each written once.
        expanded: of values that repeat another one, the node that makes them.
        flat: flattened images, with what they are a transpose of.
    """

    moved: dict[str, tuple[str, Perm]] = field(default_factory=dict[str, tuple[str, Perm]])
    written: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        super().__post_init__()
        self.folded: dict[tuple[str, Perm], str] = {}
        self.turned: dict[tuple[str, Perm], str] = {}
        self.expanded: dict[str, NodeProto] = {}
        self.wanted = self._find_wanted()
        self.flat: dict[str, tuple[str, Perm, tuple[int, ...], str]] = {}

    def _find_wanted(self) -> dict[str, bool]:
        """Values that are read, maybe by way of others, by what takes a transpose into itself: it may wait until there.

        What joins two transposes makes one of them, too.
        """
        turned: set[str] = set()
        joining: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type == "Transpose":
                turned.update(node.output)
            elif node.op_type in PASSING:
                large = {name for name in node.input if name and not self._is_small(name)}
                if large and large <= turned:
                    turned.update(node.output)
                    if len(large) > 1:
                        joining.update(large)
        found: dict[str, bool] = {}
        for node in reversed(self.model.graph.node):
            if node.op_type in ABSORBING:
                found.update((name, True) for name in node.input)
            elif node.op_type in PASSING:
                read = any(found.get(name) for name in node.output)
                found.update((name, True) for name in node.input if read or name in joining)
        return found

    def _is_small(self, name: str) -> bool:
        """Is it a constant, or has it one axis at most: so that it can be turned for nothing?"""
        shape = self.shapes.get(name)
        return self.is_constant(name) or (shape is not None and sum(size != 1 for size in shape) <= 1)

    def take(self, node: NodeProto) -> None:
        """Write a node, or put off a transpose."""
        if node.op_type == "Transpose" and self._transpose(node):
            return
        if node.op_type in ELEMENTWISE and self._elementwise(node):
            return
        if node.op_type in REDUCTIONS and self._reduction(node):
            return
        if node.op_type == "Reshape" and self._reshape(node):
            return
        if node.op_type == "MatMul" and (self._product(node) or self._turned_product(node)):
            return
        if node.op_type == "Slice" and self._slice(node):
            return
        if node.op_type == "Pad" and self._pad(node):
            return
        if node.op_type == "Expand":
            if self._expand(node):
                return
            self.expanded[node.output[0]] = node
        for name in read_by(node):
            self.settle(name)
        self.write(node, [self.name(name) for name in node.input], list(node.output))

    # the kinds of nodes

    def _transpose(self, node: NodeProto) -> bool:
        (x,), (y,) = node.input, node.output
        perm: Perm = tuple(attribute_of(node, "perm") or ())
        if not perm:
            return False
        x = self.name(x)
        if x in self.moved:
            x, before = self.moved[x]
            perm = tuple(before[axis] for axis in perm)
        if perm == tuple(range(len(perm))):
            self.same[y] = x
        elif self.is_constant(x):
            self.same[y] = self._fold(x, perm)
        else:
            self.moved[y] = (x, perm)
        return True

    def _fold(self, x: str, perm: Perm) -> str:
        if (x, perm) not in self.folded:
            self.folded[x, perm] = self.store(x, np.transpose(numpy_helper.to_array(self.constants[x]), perm))
        return self.folded[x, perm]

    def _elementwise(self, node: NodeProto) -> bool:
        names = [self.name(name) for name in node.input]
        perms = {self.moved[name][1] for name in names if name in self.moved}
        if len(perms) != 1 or len(node.output) != 1:
            return False
        (perm,) = perms
        operands: list[str] = []
        for name in names:
            found = self.moved[name][0] if name in self.moved else self._beside(name, perm)
            operands.append(found or "")
        others = [place for place, name in enumerate(operands) if not name]
        moved = len({name for name in names if name in self.moved})
        if len(others) > moved or (not self._may_wait(node) and (others or moved == 1)):
            return False
        for place in others:
            if len(self.shapes.get(names[place], ())) != len(perm):
                return False
        for place in others:  # the one turned here saves those behind it
            operands[place] = self._turned(names[place], _inverse(perm))
        self._write_before(node, operands, perm)
        return True

    def _turned(self, name: str, perm: Perm) -> str:
        """A transpose of a value that is none itself, written once."""
        if (name, perm) not in self.turned:
            made = self._expanded_otherwise(name, perm)
            if made is None:
                made = self.fresh(name)
                self._write_transpose(name, perm, made)
            self.shapes[made] = tuple(self.shapes[name][axis] for axis in perm)
            self.turned[name, perm] = made
        return self.turned[name, perm]

    def _expanded_otherwise(self, name: str, perm: Perm) -> str | None:
        """A transpose of a value that repeats one with a single axis: that one stands along another axis at once."""
        node = self.expanded.get(name)
        if node is None:
            return None
        source = self.name(node.input[0])
        small = self._beside(source, _inverse(perm))
        if small is None and len(self.shapes.get(source, ())) == len(perm) and moves_nothing(self.shapes[source], perm):
            small = self._turned(source, perm)
        if small is None:
            return None
        sizes, order = self.name(node.input[1]), np.array(perm, np.int64)
        if self.is_constant(sizes):
            turned = self.store(sizes, numpy_helper.to_array(self.constants[sizes])[order])
        else:
            self.tensors.append(numpy_helper.from_array(order, self.fresh("order")))
            turned = self.fresh(sizes)
            self.nodes.append(helper.make_node("Gather", [sizes, self.tensors[-1].name], [turned], name=turned, axis=0))
        made = self.fresh(name)
        self.write(node, [small, turned], [made])
        self.nodes[-1].name = made
        self.expanded[made] = self.nodes[-1]
        return made

    def _expand(self, node: NodeProto) -> bool:
        """To repeat a transpose is to transpose what is repeated."""
        x, sizes = (self.name(name) for name in node.input)
        if x not in self.moved or not self.is_constant(sizes) or not self._may_wait(node):
            return False
        source, perm = self.moved[x]
        given = numpy_helper.to_array(self.constants[sizes])
        if len(given) != len(perm):
            return False
        self._write_before(node, [source, self.store(sizes, given[list(_inverse(perm))])], perm)
        self.expanded[self.nodes[-1].output[0]] = self.nodes[-1]
        return True

    def _slice(self, node: NodeProto) -> bool:
        """A slice of a transpose is a transpose of a slice."""
        names = [self.name(name) for name in node.input]
        if names[0] not in self.moved or len(names) < 4 or not self._may_wait(node):
            return False
        source, perm = self.moved[names[0]]
        axes = numpy_helper.to_array(self.constants[names[3]]) if self.is_constant(names[3]) else None
        if axes is None:
            return False
        turned = self.store(names[3], np.array([perm[axis] for axis in axes], axes.dtype))
        self._write_before(node, [source, *names[1:3], turned, *names[4:]], perm)
        return True

    def _pad(self, node: NodeProto) -> bool:
        """Zeros around a transpose are zeros around what it is of."""
        names = [self.name(name) for name in node.input]
        if names[0] not in self.moved or len(names) > 3 or not self._may_wait(node):
            return False
        source, perm = self.moved[names[0]]
        if not self.is_constant(names[1]):
            return False
        order = list(_inverse(perm))
        pads = numpy_helper.to_array(self.constants[names[1]]).reshape(2, -1)[:, order]
        self._write_before(node, [source, self.store(names[1], pads.reshape(-1)), *names[2:]], perm)
        return True

    def _may_wait(self, node: NodeProto) -> bool:
        return bool(self.wanted.get(node.output[0]))

    def _reshape(self, node: NodeProto) -> bool:
        """A constant in another shape is a constant; a flattened image is noted for the product that reads it."""
        x, sizes = (self.name(name) for name in node.input)
        (y,) = node.output
        if not self.is_constant(sizes):
            return False
        wanted = numpy_helper.to_array(self.constants[sizes])
        if self.is_constant(x) and 0 not in wanted:
            self.same[y] = self.store(x, numpy_helper.to_array(self.constants[x]).reshape(wanted))
            return True
        if x in self.moved:
            source, perm = self.moved[x]
            shape = self.shapes.get(source)
            if shape is not None and None not in shape and sum(size != 1 for size in shape) <= 1 and 0 not in wanted:
                self.write(node, [source, sizes], [y])  # its elements are in one order only
                return True
            if self._split(node, x, wanted.tolist()):
                return True
            if len(wanted) != 2:
                return False
            inside = None if shape is None else shape[1:]
            if perm[0] == 0 and inside is not None and None not in inside:
                self.flat[y] = (source, perm, tuple(size or 0 for size in inside), sizes)
        return False

    def _split(self, node: NodeProto, x: str, wanted: Sequence[int]) -> bool:
        """Axes that are split or joined in a transpose are so in what it is of, if they lie there side by side."""
        source, perm = self.moved[x]
        shape = self.shapes.get(source)
        if shape is None or not self._may_wait(node):
            return False
        before = tuple(shape[axis] for axis in perm)
        after = resolved(before, wanted)
        found = None if after is None else blocks(before, after)
        if after is None or found is None:
            return False
        first = [next((perm[a] for a in axes if before[a] != 1), perm[axes[0]]) for axes, _ in found]
        arranged = [found[place] for place in sorted(range(len(found)), key=first.__getitem__)]
        order = tuple(perm[axis] for axes, _ in arranged for axis in axes)
        if order != tuple(sorted(order)):
            reordered = self._turned(source, order) if moves_nothing(shape, order) else None
            source = reordered or self._expanded_otherwise(source, order) or ""
        if not source:
            return False
        axes = [axis for _, made in arranged for axis in made]
        sizes = [-1 if after[axis] is None else after[axis] for axis in axes]
        self._write_before(
            node, [source, self.constant(np.array(sizes, np.int64))], tuple(map(axes.index, range(len(axes))))
        )
        self.shapes[node.output[0]] = after
        self.shapes[self.nodes[-1].output[0]] = tuple(after[axis] for axis in axes)
        return True

    def _product(self, node: NodeProto) -> bool:
        a, b = (self.name(name) for name in node.input)
        if a not in self.flat or not self.is_constant(b) or len(self.shapes[b]) != 2:
            return False
        source, perm, inside, sizes = self.flat[a]
        weights = numpy_helper.to_array(self.constants[b])
        order = [axis - 1 for axis in perm[1:]]
        apart = weights.reshape(*(inside[axis] for axis in order), weights.shape[1])
        back = np.transpose(apart, (*np.argsort(order), len(order)))
        flat = self.fresh(a)
        self.nodes.append(helper.make_node("Reshape", [source, sizes], [flat], name=flat))
        self.write(node, [flat, self.store(b, back.reshape(weights.shape))], list(node.output))
        return True

    def _turned_product(self, node: NodeProto) -> bool:
        """Gemm reads matrices either way."""
        names = [self.name(name) for name in node.input]
        turned = [name in self.moved and self.moved[name][1] == (1, 0) for name in names]
        if not any(turned) or any(len(self.shapes.get(name, ())) != 2 for name in names):
            return False
        if node.output[0] not in self.floats:
            return False  # onnxruntime has no Gemm for all types
        operands = [self.moved[name][0] if way else name for name, way in zip(names, turned, strict=True)]
        made = helper.make_node(
            "Gemm", operands, list(node.output), name=node.name, doc_string=node.doc_string,
            transA=int(turned[0]), transB=int(turned[1]),
        )  # fmt: skip
        self.nodes.append(made)
        return True

    def _beside(self, name: str, perm: Perm) -> str | None:
        """An operand that broadcasts, turned to stand before the transpose; None where that moves elements."""
        shape = self.shapes.get(name)
        if not name or shape == ():
            return name
        if shape is None or None in shape or len(shape) > len(perm):
            return None
        whole = (*(1,) * (len(perm) - len(shape)), *shape)
        if sum(size != 1 for size in whole) > 1:
            return self._fold(name, _inverse(perm)) if self._is_whole_constant(name, perm) else None
        turned = [0] * len(perm)
        for axis, source in enumerate(perm):
            turned[source] = whole[axis] or 0
        first = next((axis for axis, size in enumerate(turned) if size != 1), len(turned) - 1)
        small = turned[first:]
        if tuple(small) == shape:
            return name
        if self.is_constant(name):
            return self.store(name, numpy_helper.to_array(self.constants[name]).reshape(small))
        sizes = numpy_helper.from_array(np.array(small, np.int64), self.fresh("shape"))
        self.tensors.append(sizes)
        turned_name = self.fresh(name)
        self.nodes.append(helper.make_node("Reshape", [name, sizes.name], [turned_name], name=turned_name))
        self.shapes[turned_name] = tuple(small)
        return turned_name

    def _is_whole_constant(self, name: str, perm: Perm) -> bool:
        return self.is_constant(name) and len(self.shapes[name]) == len(perm)

    def _reduction(self, node: NodeProto) -> bool:
        x = self.name(node.input[0])
        if x not in self.moved or len(node.output) != 1:
            return False
        source, perm = self.moved[x]
        given = self._axes_of(node)
        if given is None:
            return False
        axes = sorted(perm[axis % len(perm)] for axis in given)
        keeps = attribute_of(node, "keepdims")
        keeps = True if keeps is None else bool(keeps)
        made = self.copy(node, [source, *node.input[1:]], list(node.output))
        if len(node.input) > 1:
            tensor = numpy_helper.from_array(np.array(axes, np.int64), self.fresh("axes"))
            self.tensors.append(tensor)
            made.input[1] = tensor.name
        else:
            for attribute in made.attribute:
                if attribute.name == "axes":
                    attribute.CopyFrom(helper.make_attribute("axes", axes))
        if keeps:
            rest = perm
        else:
            left = [axis for axis in perm if axis not in axes]
            rest = tuple(sorted(left).index(axis) for axis in left)
        if rest == tuple(range(len(rest))):
            self.nodes.append(made)
            return True
        self._put_off(made, node.output[0], rest)
        return True

    def _axes_of(self, node: NodeProto) -> list[int] | None:
        if len(node.input) > 1 and node.input[1]:
            tensor = self.constants.get(self.name(node.input[1]))
            return None if tensor is None else numpy_helper.to_array(tensor).tolist()
        return attribute_of(node, "axes")

    # writing

    def _write_before(self, node: NodeProto, operands: Sequence[str], perm: Perm) -> None:
        self._put_off(self.copy(node, operands, list(node.output)), node.output[0], perm)

    def _put_off(self, made: NodeProto, result: str, perm: Perm) -> None:
        """Write a node whose result is a transpose of what it gives now."""
        name = self.fresh(result)
        made.output[0] = name
        made.name = name
        self.nodes.append(made)
        if perm == tuple(range(len(perm))):
            self.same[result] = name
        else:
            self.moved[result] = (name, perm)
        if result in self.shapes and len(self.shapes[result]) == len(perm):
            shape = [self.shapes[result][axis] for axis in _inverse(perm)]
            self.shapes[name] = tuple(shape)

    def settle(self, name: str) -> None:
        """Write the transpose that gives this value, if it was put off; a result that is another value is a copy."""
        name = self.name(name) if not self.is_result(name) else name
        if name in self.moved and name not in self.written:
            source, perm = self.moved[name]
            self.written.add(name)
            if not self.is_result(name) and ((source, perm) in self.turned or source in self.expanded):
                self.same[name] = self._turned(source, perm)
                return
            self._write_transpose(source, perm, name)
            self.turned.setdefault((source, perm), name)
        elif name in self.same:
            source = self.same.pop(name)
            self.settle(source)
            self.nodes.append(helper.make_node("Identity", [self.name(source)], [name], name=name))

    def _write_transpose(self, source: str, perm: Perm, name: str) -> None:
        shape = self.shapes.get(source)
        if shape is None or len(shape) != len(perm) or not moves_nothing(shape, perm):
            self.nodes.append(helper.make_node("Transpose", [source], [name], name=name, perm=list(perm)))
            return
        sizes = self.constant(np.array([-1 if shape[axis] is None else shape[axis] for axis in perm], np.int64))
        self.nodes.append(helper.make_node("Reshape", [source, sizes], [name], name=name))


def _inverse(perm: Perm) -> Perm:
    return tuple(perm.index(axis) for axis in range(len(perm)))
