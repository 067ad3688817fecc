"""Transposes moved towards the end of a file until they meet their inverses.

Images have their channels last in graphc and first in ONNX, so that each convolution stands between two transposes.
What computes each element on its own, or sums along axes, may as well do so before a transpose as behind it; that way
the transpose reaches the next convolution, and both go. Constants are turned in the file, and so are the rows of a
dense layer that reads a flattened image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

ELEMENTWISE = frozenset({
    "Abs", "Add", "And", "BitShift", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Reciprocal", "Relu", "Round",
    "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Tan", "Tanh", "Where", "Xor",
})  # fmt: skip
REDUCTIONS = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"})

ABSORBING = REDUCTIONS | {"Transpose", "Reshape", "MatMul"}
PASSING = ELEMENTWISE | {"Slice", "Pad"}

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
    read = {name for node in nodes for name in _read_by(node)} | {value.name for value in model.graph.output}
    inputs = {value.name for value in model.graph.input}
    kept = [tensor for tensor in (*model.graph.initializer, *work.tensors) if tensor.name in read | inputs]
    known = [value for value in model.graph.value_info if value.name in made]
    for field_name, items in (("node", nodes), ("initializer", kept), ("value_info", known)):
        model.graph.ClearField(field_name)
        getattr(model.graph, field_name).extend(items)


@dataclass
class _Moving:
    """A graph that is written anew, node by node.

    Attributes:
        nodes: what was written.
        moved: values that are a transpose of another value; ``written`` says of which there is a node.
        same: values that are another one.
    """

    model: ModelProto
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    tensors: list[TensorProto] = field(default_factory=list[TensorProto])
    moved: dict[str, tuple[str, Perm]] = field(default_factory=dict[str, tuple[str, Perm]])
    written: set[str] = field(default_factory=set[str])
    same: dict[str, str] = field(default_factory=dict[str, str])
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict[str, tuple[int | None, ...]])
    count: int = 0

    def __post_init__(self) -> None:
        graph = shape_inference.infer_shapes(self.model).graph
        self.floats: set[str] = set()
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            if kind.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
                self.floats.add(value.name)
            if kind.HasField("shape"):
                self.shapes[value.name] = tuple(
                    dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim
                )
        self.constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
        self.inputs = {value.name for value in self.model.graph.input}  # whose initializers are only defaults
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
        return self._is_constant(name) or (shape is not None and sum(size != 1 for size in shape) <= 1)

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
            self.expanded[node.output[0]] = node
        for name in _read_by(node):
            self.settle(name)
        self._write(node, [self._name(name) for name in node.input], list(node.output))

    # the kinds of nodes

    def _transpose(self, node: NodeProto) -> bool:
        (x,), (y,) = node.input, node.output
        perm: Perm = tuple(_attribute(node, "perm") or ())
        if not perm:
            return False
        x = self._name(x)
        if x in self.moved:
            x, before = self.moved[x]
            perm = tuple(before[axis] for axis in perm)
        if perm == tuple(range(len(perm))):
            self.same[y] = x
        elif self._is_constant(x):
            self.same[y] = self._fold(x, perm)
        else:
            self.moved[y] = (x, perm)
        return True

    def _fold(self, x: str, perm: Perm) -> str:
        if (x, perm) not in self.folded:
            self.folded[x, perm] = self._store(x, np.transpose(numpy_helper.to_array(self.constants[x]), perm))
        return self.folded[x, perm]

    def _elementwise(self, node: NodeProto) -> bool:
        names = [self._name(name) for name in node.input]
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
                made = self._fresh(name)
                self.nodes.append(helper.make_node("Transpose", [name], [made], name=made, perm=list(perm)))
            self.shapes[made] = tuple(self.shapes[name][axis] for axis in perm)
            self.turned[name, perm] = made
        return self.turned[name, perm]

    def _expanded_otherwise(self, name: str, perm: Perm) -> str | None:
        """A transpose of a value that repeats one with a single axis: that one stands along another axis at once."""
        node = self.expanded.get(name)
        small = None if node is None else self._beside(self._name(node.input[0]), _inverse(perm))
        if node is None or small is None:
            return None
        sizes, order = self._name(node.input[1]), np.array(perm, np.int64)
        if self._is_constant(sizes):
            turned = self._store(sizes, numpy_helper.to_array(self.constants[sizes])[order])
        else:
            self.tensors.append(numpy_helper.from_array(order, self._fresh("order")))
            turned = self._fresh(sizes)
            self.nodes.append(helper.make_node("Gather", [sizes, self.tensors[-1].name], [turned], name=turned, axis=0))
        made = self._fresh(name)
        self._write(node, [small, turned], [made])
        self.nodes[-1].name = made
        return made

    def _slice(self, node: NodeProto) -> bool:
        """A slice of a transpose is a transpose of a slice."""
        names = [self._name(name) for name in node.input]
        if names[0] not in self.moved or len(names) < 4 or not self._may_wait(node):
            return False
        source, perm = self.moved[names[0]]
        axes = numpy_helper.to_array(self.constants[names[3]]) if self._is_constant(names[3]) else None
        if axes is None:
            return False
        turned = self._store(names[3], np.array([perm[axis] for axis in axes], axes.dtype))
        self._write_before(node, [source, *names[1:3], turned, *names[4:]], perm)
        return True

    def _pad(self, node: NodeProto) -> bool:
        """Zeros around a transpose are zeros around what it is of."""
        names = [self._name(name) for name in node.input]
        if names[0] not in self.moved or len(names) > 3 or not self._may_wait(node):
            return False
        source, perm = self.moved[names[0]]
        if not self._is_constant(names[1]):
            return False
        order = list(_inverse(perm))
        pads = numpy_helper.to_array(self.constants[names[1]]).reshape(2, -1)[:, order]
        self._write_before(node, [source, self._store(names[1], pads.reshape(-1)), *names[2:]], perm)
        return True

    def _may_wait(self, node: NodeProto) -> bool:
        return bool(self.wanted.get(node.output[0]))

    def _reshape(self, node: NodeProto) -> bool:
        """A constant in another shape is a constant; a flattened image is noted for the product that reads it."""
        x, sizes = (self._name(name) for name in node.input)
        (y,) = node.output
        if not self._is_constant(sizes):
            return False
        wanted = numpy_helper.to_array(self.constants[sizes])
        if self._is_constant(x) and 0 not in wanted:
            self.same[y] = self._store(x, numpy_helper.to_array(self.constants[x]).reshape(wanted))
            return True
        if x in self.moved:
            source, perm = self.moved[x]
            shape = self.shapes.get(source)
            if shape is not None and None not in shape and sum(size != 1 for size in shape) <= 1 and 0 not in wanted:
                self._write(node, [source, sizes], [y])  # its elements are in one order only
                return True
            if len(wanted) != 2:
                return False
            inside = None if shape is None else shape[1:]
            if perm[0] == 0 and inside is not None and None not in inside:
                self.flat[y] = (source, perm, tuple(size or 0 for size in inside), sizes)
        return False

    def _product(self, node: NodeProto) -> bool:
        a, b = (self._name(name) for name in node.input)
        if a not in self.flat or not self._is_constant(b) or len(self.shapes[b]) != 2:
            return False
        source, perm, inside, sizes = self.flat[a]
        weights = numpy_helper.to_array(self.constants[b])
        order = [axis - 1 for axis in perm[1:]]
        apart = weights.reshape(*(inside[axis] for axis in order), weights.shape[1])
        back = np.transpose(apart, (*np.argsort(order), len(order)))
        flat = self._fresh(a)
        self.nodes.append(helper.make_node("Reshape", [source, sizes], [flat], name=flat))
        self._write(node, [flat, self._store(b, back.reshape(weights.shape))], list(node.output))
        return True

    def _turned_product(self, node: NodeProto) -> bool:
        """Gemm reads matrices either way."""
        names = [self._name(name) for name in node.input]
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

    def _is_constant(self, name: str) -> bool:
        return name in self.constants and name not in self.inputs

    def _store(self, like: str, array: NDArray[Any]) -> str:
        """A constant made of another one."""
        made = numpy_helper.from_array(np.ascontiguousarray(array), self._fresh(like))
        made.doc_string = self.constants[like].doc_string
        self.tensors.append(made)
        self.constants[made.name] = made
        self.shapes[made.name] = tuple(made.dims)
        return made.name

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
        if self._is_constant(name):
            return self._store(name, numpy_helper.to_array(self.constants[name]).reshape(small))
        sizes = numpy_helper.from_array(np.array(small, np.int64), self._fresh("shape"))
        self.tensors.append(sizes)
        turned_name = self._fresh(name)
        self.nodes.append(helper.make_node("Reshape", [name, sizes.name], [turned_name], name=turned_name))
        self.shapes[turned_name] = tuple(small)
        return turned_name

    def _is_whole_constant(self, name: str, perm: Perm) -> bool:
        return self._is_constant(name) and len(self.shapes[name]) == len(perm)

    def _reduction(self, node: NodeProto) -> bool:
        x = self._name(node.input[0])
        if x not in self.moved or len(node.output) != 1:
            return False
        source, perm = self.moved[x]
        given = self._axes_of(node)
        if given is None:
            return False
        axes = sorted(perm[axis % len(perm)] for axis in given)
        keeps = _attribute(node, "keepdims")
        keeps = True if keeps is None else bool(keeps)
        made = self._copy(node, [source, *node.input[1:]], list(node.output))
        if len(node.input) > 1:
            tensor = numpy_helper.from_array(np.array(axes, np.int64), self._fresh("axes"))
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
            tensor = self.constants.get(self._name(node.input[1]))
            return None if tensor is None else numpy_helper.to_array(tensor).tolist()
        return _attribute(node, "axes")

    # writing

    def _write_before(self, node: NodeProto, operands: Sequence[str], perm: Perm) -> None:
        self._put_off(self._copy(node, operands, list(node.output)), node.output[0], perm)

    def _put_off(self, made: NodeProto, result: str, perm: Perm) -> None:
        """Write a node whose result is a transpose of what it gives now."""
        name = self._fresh(result)
        made.output[0] = name
        made.name = name
        self.nodes.append(made)
        self.moved[result] = (name, perm)
        if result in self.shapes and len(self.shapes[result]) == len(perm):
            shape = [self.shapes[result][axis] for axis in _inverse(perm)]
            self.shapes[name] = tuple(shape)

    def settle(self, name: str) -> None:
        """Write the transpose that gives this value, if it was put off; a result that is another value is a copy."""
        name = self._name(name) if not self._is_result(name) else name
        if name in self.moved and name not in self.written:
            source, perm = self.moved[name]
            self.written.add(name)
            if not self._is_result(name) and ((source, perm) in self.turned or source in self.expanded):
                self.same[name] = self._turned(source, perm)
                return
            self.nodes.append(helper.make_node("Transpose", [source], [name], name=name, perm=list(perm)))
            self.turned.setdefault((source, perm), name)
        elif name in self.same:
            source = self.same.pop(name)
            self.settle(source)
            self.nodes.append(helper.make_node("Identity", [self._name(source)], [name], name=name))

    def _is_result(self, name: str) -> bool:
        return any(value.name == name for value in self.model.graph.output)

    def _write(self, node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        made = self._copy(node, inputs, outputs)
        for attribute in made.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _rename(attribute.g.node, self.same)
        self.nodes.append(made)

    def _copy(self, node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
        made = NodeProto()
        made.CopyFrom(node)
        for field_name, names in (("input", inputs), ("output", outputs)):
            made.ClearField(field_name)
            getattr(made, field_name).extend(names)
        return made

    def _name(self, name: str) -> str:
        while name in self.same:
            name = self.same[name]
        return name

    def _fresh(self, name: str) -> str:
        self.count += 1
        return f"{name}/channels_first_{self.count}"

    def needed(self, results: Iterable[str]) -> list[NodeProto]:
        """The nodes that the results need, in order."""
        wanted = set(results)
        found: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                wanted.update(_read_by(node))
                found.append(node)
        return found[::-1]


def _inverse(perm: Perm) -> Perm:
    return tuple(perm.index(axis) for axis in range(len(perm)))


def _attribute(node: NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def _read_by(node: NodeProto) -> set[str]:
    """What a node reads, and the graphs inside it."""
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                found |= _read_by(inner)
            found |= {value.name for value in attribute.g.output}
    return found


def _rename(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    for node in nodes:
        for position, name in enumerate(node.input):
            while name in names:
                name = names[name]
            node.input[position] = name
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _rename(attribute.g.node, names)
