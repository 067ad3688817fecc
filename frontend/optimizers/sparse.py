"""Steps of tables of which a batch reads few rows: the rule of an optimizer at these rows, and at no other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import graphc as gx
from graphc.errors import GraphError
from graphc.frontend.config import user_line
from graphc.ir.node import Node, Parameter

if TYPE_CHECKING:
    from graphc.frontend.optimizers.base import Optimizer


@dataclass(frozen=True)
class Rows:
    """The rows of a table that a step reads.

    A row that is read several times has several places. What is computed for them is the same, and so is what they
    write.

    Attributes:
        places: which rows, one after another.
        sums: the gradient of each of them, once.
        group: which row of the sums belongs to each place.
    """

    places: Node
    sums: Node
    group: Node

    def of(self, table: Node) -> Node:
        """A table's rows at the places."""
        return gx.take(table, self.places, axis=0)

    def gradient(self, sums: Node) -> Node:
        """The gradient at the places, from that of each row."""
        return gx.take(sums, self.group, axis=0)

    def put(self, table: Node, rows: Node) -> Node:
        """The table with these rows at the places."""
        return gx.update_rows(table, gx.cast(rows, table.dtype), self.places)


def sparse_rows(
    optimizer: Optimizer,
    parameters: Sequence[Parameter],
    gradients: Sequence[Node],
    constraints: Mapping[Parameter, Callable[[Node], Node]] | None,
    sparse: Collection[Parameter],
) -> dict[Parameter, Rows]:
    """The rows of those parameters that are sparse.

    Raises:
        GraphError: the step has to walk the whole table, and why.
    """
    chosen = {id(table) for table in sparse}
    found: dict[Parameter, Rows] = {}
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if id(parameter) not in chosen:
            continue
        refuse_sparse(optimizer, [parameter])
        if constraints is not None and parameter in constraints:
            raise _refused(parameter, "its constraint changes every row", "leave embeddings_constraint out")
        try:
            found[parameter] = Rows(*gx.scattered_rows(gradient))
        except GraphError as error:
            raise _refused(
                parameter, "its gradient is dense", "read it by its layer alone, not by a product such as tied logits"
            ) from error
    return found


def refuse_sparse(optimizer: Optimizer, tables: Sequence[Parameter]) -> None:
    """Refuse tables of which a step changes few rows, if the optimizer must walk all of them: with all its reasons.

    Raises:
        GraphError: why, and what to do.
    """
    for table in tables:
        reasons = list(optimizer.needs_all_rows(table))
        if reasons:
            raise _refused(table, "; ".join(why for why, _ in reasons), ", ".join(remedy for _, remedy in reasons))


def _refused(parameter: Parameter, why: str, remedy: str) -> GraphError:
    return GraphError(
        f"the rows of {parameter.label!r} cannot be updated alone: {why}",
        at=user_line(),
        remedy=f"{remedy}, or make its layer with sparse=False",
    )
