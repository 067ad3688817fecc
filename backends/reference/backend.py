"""Executes a graph with each op's own ``reference``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphc.backend import Failure
from graphc.errors import BackendError
from graphc.ir.dims import Dim, Size, evaluate
from graphc.ir.node import Input, Node, Parameter
from graphc.ir.sweep import Part
from graphc.ir.types import TupleType
from graphc.lower.checks import find_checks
from graphc.ops.bodies import CheckFault
from graphc.ops.checked import Checked
from graphc.ops.halves import reference_of

if TYPE_CHECKING:
    from graphc.ir.graph import Graph
    from graphc.ir.op import Op
    from graphc.lower.plan import Plan

Array = NDArray[np.generic]


@dataclass(frozen=True)
class ReferenceBackend:
    """NumPy, node by node."""

    name: str = "reference"
    priority: int = 0
    lowers: bool = False

    def available(self) -> str | None:
        """Always None: NumPy is there."""
        return None

    def takes(self, op: object) -> bool:
        """Every op with a reference, composites included."""
        return getattr(op, "no_reference", None) is None

    def compile(self, plan: Plan) -> ReferenceExecutable:
        """Nothing is compiled.

        Raises:
            BackendError: an op that an earlier pass should have removed.
        """
        for node in plan.graph.nodes:
            if not self.takes(node.op) and not isinstance(node, Parameter) and not isinstance(node.op, Input):
                reason = node.op.no_reference
                raise BackendError(
                    f"reference cannot compute {node!r}: {reason.value if reason else ''}",
                    at=node.user_line,
                    remedy="compile the graph with gx.compile, which runs all passes",
                )
        return ReferenceExecutable(plan.graph)


@dataclass(frozen=True, eq=False)
class ReferenceExecutable:
    """A graph ready to be run."""

    graph: Graph

    def bind(self, dims: Mapping[str, int]) -> BoundGraph:
        """The ops with their symbolic sizes as numbers."""

        def bind(size: Size) -> Size:
            return evaluate(size, dims) if isinstance(size, Dim) else size

        return BoundGraph(self.graph, tuple(node.op.with_sizes(bind) for node in self.graph.nodes))

    def source(self) -> str:
        """There is no generated source."""
        return ""


@dataclass(frozen=True, eq=False)
class BoundGraph:
    """A graph for one combination of sizes; ``ops`` are those of ``graph.nodes`` with sizes as numbers."""

    graph: Graph
    ops: tuple[Op, ...]

    @cached_property
    def _check_numbers(self) -> dict[int, int]:
        return {id(check.node): number for number, check in enumerate(find_checks(self.graph))}

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> Failure | None:
        """Run one step: read ``inputs``, fill ``outputs``, commit the updates. After a Failure no state has changed."""
        values = {id(node): array for node, array in zip(self.graph.inputs, inputs, strict=True)}
        values |= {id(parameter): parameter.buffer for parameter in self.graph.parameters}
        with np.errstate(all="ignore"):
            for node, op in zip(self.graph.nodes, self.ops, strict=True):
                if id(node) in values:
                    continue
                operands = [values[id(arg)] for arg in node.args]
                if isinstance(op, Checked):
                    detail = op.fault(*operands)
                    if detail is not None:
                        return Failure(self._check_numbers[id(node)], detail)
                try:
                    values[id(node)] = _computed(node, op, operands)
                except CheckFault as fault:
                    return Failure(self._check_numbers[id(fault.node)], fault.detail)
        for (_, node), out in zip(self.graph.outputs, outputs, strict=True):
            np.copyto(out, values[id(node)], casting="no")
        # Every new value is copied before the first is written: it may be a view of another parameter.
        new = [np.array(values[id(node)]) for _, node in self.graph.updates]
        for (parameter, _), value in zip(self.graph.updates, new, strict=True):
            np.copyto(parameter.buffer, value, casting="no")
        return None


def _computed(node: Node, op: Op, operands: list[Any]) -> Array:
    """An array of exactly the element type that was inferred: NumPy's scalars become arrays."""
    if isinstance(node.type, TupleType) or isinstance(op, Part):
        found: Any = op.reference(*operands)  # several arrays, or one of them
        return found
    result = reference_of(op, operands, node.dtype)
    if result.dtype != node.dtype.numpy:
        raise BackendError(
            f"the reference of {node!r} gives {result.dtype}", remedy="this is a defect of graphc: please report it"
        )
    return result
