"""A file's graph written anew, node by node: names that stand for others, constants that are made, shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference


@dataclass
class Rewriting:
    """A model, and what was written of it.

    Attributes:
        nodes: what was written.
        tensors: constants that were made.
        same: values that are another one.
        shapes: of values, with None for sizes that are not known.
    """

    model: ModelProto
    nodes: list[NodeProto] = field(default_factory=list[NodeProto])
    tensors: list[TensorProto] = field(default_factory=list[TensorProto])
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

    def is_constant(self, name: str) -> bool:
        """Is a value known now, and no default of an input?"""
        return name in self.constants and name not in self.inputs

    def store(self, like: str, array: NDArray[Any]) -> str:
        """A constant made of another one."""
        made = numpy_helper.from_array(np.ascontiguousarray(array), self.fresh(like))
        made.doc_string = self.constants[like].doc_string
        self.tensors.append(made)
        self.constants[made.name] = made
        self.shapes[made.name] = tuple(made.dims)
        return made.name

    def constant(self, array: NDArray[Any]) -> str:
        """A new constant."""
        self.tensors.append(numpy_helper.from_array(array, self.fresh("constant")))
        return self.tensors[-1].name

    def is_result(self, name: str) -> bool:
        """Is it one of the model's outputs?"""
        return any(value.name == name for value in self.model.graph.output)

    def write(self, node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Write a node with other inputs and outputs."""
        made = self.copy(node, inputs, outputs)
        for attribute in made.attribute:
            if attribute.type == AttributeProto.GRAPH:
                rename(attribute.g.node, self.same)
        self.nodes.append(made)

    def copy(self, node: NodeProto, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
        """A node with other inputs and outputs, not written yet."""
        made = NodeProto()
        made.CopyFrom(node)
        for field_name, names in (("input", inputs), ("output", outputs)):
            made.ClearField(field_name)
            getattr(made, field_name).extend(names)
        return made

    def name(self, name: str) -> str:
        """The value that stands for this one now."""
        while name in self.same:
            name = self.same[name]
        return name

    def fresh(self, name: str) -> str:
        """A name for a value like this one."""
        self.count += 1
        return f"{name}/channels_first_{self.count}"

    def needed(self, results: Iterable[str]) -> list[NodeProto]:
        """The nodes that the results need, in order."""
        wanted = set(results)
        found: list[NodeProto] = []
        for node in reversed(self.nodes):
            if any(name in wanted for name in node.output):
                wanted.update(read_by(node))
                found.append(node)
        return found[::-1]


def attribute_of(node: NodeProto, name: str) -> Any:
    """The value of an attribute, or None."""
    return next((helper.get_attribute_value(one) for one in node.attribute if one.name == name), None)


def read_by(node: NodeProto) -> set[str]:
    """What a node reads, and the graphs inside it."""
    found = set(node.input)
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                found |= read_by(inner)
            found |= {value.name for value in attribute.g.output}
    return found


def rename(nodes: Iterable[NodeProto], names: Mapping[str, str]) -> None:
    """Let nodes, and the graphs inside them, read other values."""
    for node in nodes:
        for position, name in enumerate(node.input):
            while name in names:
                name = names[name]
            node.input[position] = name
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                rename(attribute.g.node, names)
