"""What a model is trained for: a loss and metrics for each output, settled once the outputs are known."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import graphc as gx
from graphc.backend import Backend
from graphc.errors import GraphError
from graphc.frontend import losses, metrics, nest, tracing
from graphc.frontend.arguments import is_number, shown
from graphc.frontend.config import user_line
from graphc.frontend.data.arrays import Slot, type_of_data
from graphc.frontend.losses import Loss
from graphc.frontend.losses.base import extended
from graphc.frontend.metrics import Metric
from graphc.frontend.metrics.names import BY_TARGETS
from graphc.frontend.optimizers import Optimizer
from graphc.ir import location
from graphc.ir.graph import substitute_nodes
from graphc.ir.location import Location
from graphc.ir.node import Node, Parameter
from graphc.ir.types import TensorType


@dataclass(frozen=True)
class Compiled:
    """What the user said in ``model.compile``."""

    optimizer: Optimizer
    loss: Any
    loss_weights: Any
    metrics: Any
    weighted_metrics: Any
    backend: str | Backend
    check_finite: bool
    loc: Location | None
    memory_budget: int | float | None = None
    precision: str | None = None


@dataclass
class Objective:
    """Losses, targets and metrics of a model's outputs.

    Attributes:
        names: the outputs' names.
        losses: for each output its loss or None.
        weights: factors of the losses.
        targets: for each output with a loss or metric the slot of its targets, else None.
        metrics: key in logs, number of the output, metric.
        weighted: the keys of the metrics that see weights of samples.
    """

    names: list[str]
    losses: list[Loss | None]
    weights: list[float]
    targets: list[Slot | None]
    metrics: list[tuple[str, int, Metric]]
    loc: Location | None
    weighted: frozenset[str] = frozenset()
    fields: list[str] = field(init=False)
    """The keys of logs, in the order of the programs' outputs."""

    warned: bool = field(init=False)
    """Whether the user has been told that logits meet a loss of probabilities."""

    def __post_init__(self) -> None:
        self.warned = False
        self.fields = ["loss"]
        if len(self.names) > 1:
            self.fields += [f"{name}_loss" for name, loss in zip(self.names, self.losses, strict=True) if loss]
        self.mean_fields = len(self.fields)
        self.fields += [key for key, _, _ in self.metrics]

    @property
    def target_slots(self) -> list[Slot]:
        """The slots of all targets that are needed."""
        return [slot for slot in self.targets if slot is not None]

    def reset(self) -> None:
        """Let the metrics forget all batches."""
        for _, _, metric in self.metrics:
            metric.reset_state()

    def states(self) -> list[Parameter]:
        """The state of all metrics."""
        return [variable for _, _, metric in self.metrics for variable in metric.variables]

    def _place(self, nodes: Sequence[Node]) -> list[Node | None]:
        """One for each output, from one for each target."""
        given = iter(nodes)
        return [None if slot is None else next(given) for slot in self.targets]

    def _warn_of_logits(self, name: str, loss: Loss, y_pred: Node) -> None:
        """A logarithm of what may be negative makes NaN; say why before it happens."""
        if getattr(loss, "from_logits", True) is False and not self.warned and _is_linear(y_pred):
            self.warned = True
            where = f" ({self.loc})" if self.loc else ""
            warnings.warn(
                f"{loss.name} takes probabilities, but the output {name!r} of a linear layer is logits: give the last "
                f"layer an activation (softmax, sigmoid), or the loss from_logits=True{where}",
                stacklevel=2,
            )

    def build(
        self, outputs: Sequence[Node], targets: Sequence[Node], penalties: Sequence[Node], factors: Sequence[Node] = ()
    ) -> tuple[dict[str, Node], dict[Parameter, Node]]:
        """Losses and results by key, and the next states of the metrics.

        Args:
            outputs: the model's outputs, masks beside them.
            targets: one node for each of :attr:`target_slots`.
            penalties: regularization terms.
            factors: weights of samples, one node for each of :attr:`target_slots`, or none at all.
        """
        placed = self._place(targets)
        weighed = self._place(factors) if factors else [None] * len(placed)
        parts: list[Node] = []
        single: dict[str, Node] = {}
        for name, loss, weight, y_pred, y_true, factor in zip(
            self.names, self.losses, self.weights, outputs, placed, weighed, strict=True
        ):
            if loss is None or y_true is None:
                continue
            self._warn_of_logits(name, loss, y_pred)
            with location.at(None if _is_users(loss) else self.loc):
                value = loss(y_true, y_pred, factor, _mask(y_pred))
                single[f"{name}_loss"] = value
                parts.append(value if weight == 1.0 else value * weight)
        with location.at(self.loc):
            total = _sum([*parts, *penalties], outputs)
        found = {"loss": total, **(single if len(self.names) > 1 else {})}
        updates: dict[Parameter, Node] = {}
        for key, number, metric in self.metrics:
            y_true = placed[number]
            with location.at(None if _is_users(metric) else self.loc):
                counted = _mask(outputs[number])
                if key in self.weighted:
                    counted = _joined(weighed[number], counted)
                changed = metric.update_state(y_true, outputs[number], counted)  # pyright: ignore[reportArgumentType]
                updates.update(changed)
                (found[key],) = substitute_nodes([metric.result()], {old: new for old, new in changed.items()})
        return found, updates


def _joined(weight: Node | None, mask: Node | None) -> Node | None:
    """Weights that are 0 where the mask says that a place does not count."""
    if weight is None or mask is None:
        return mask if weight is None else weight
    return extended(weight, mask) * gx.cast(extended(mask, weight), weight.dtype)


def _is_linear(node: Node) -> bool:
    """Is it a product or a product and a bias, which no probabilities are?"""
    while node.op.name == "reshape":
        node = node.args[0]
    return node.op.name == "matmul" or (
        node.op.name == "add" and any(_is_linear(arg) for arg in node.args if arg.op.name != "add")
    )


def _mask(node: Node) -> Node | None:
    return tracing.mask_of(node)


def _is_users(thing: Any) -> bool:
    function = getattr(thing, "fn", None)
    module = type(thing).__module__ if function is None else getattr(function, "__module__", "")
    return not str(module).startswith("graphc.")


def _sum(parts: Sequence[Node], outputs: Sequence[Node]) -> Node:
    if not parts:
        return gx.constant(0.0, outputs[0].dtype)
    total = parts[0]
    for part in parts[1:]:
        total = total + gx.cast(part, total.dtype)
    return total


def check_names(loss: Any, chosen: Any, weighted: Any = None) -> None:
    """Find misspelt names of losses and metrics, and functions that are none, while the line that holds them runs.

    Raises:
        GraphError: there is no such loss or metric.
        DTypeError: a function does not take targets and predictions.
    """
    for value in nest.leaves(loss):
        if isinstance(value, str) or inspect.isroutine(value):
            losses.get(value)
    for value in (*nest.leaves(chosen), *nest.leaves(weighted)):
        if inspect.isroutine(value) or (isinstance(value, str) and value.lower() not in BY_TARGETS):
            metrics.get(value)


def settle(
    compiled: Compiled, names: Sequence[str], outputs: Sequence[TensorType], y: Sequence[Any] | None
) -> Objective:
    """Losses, targets and metrics for outputs of these types.

    Args:
        compiled: what the user said.
        names: the outputs' names.
        outputs: the outputs' types.
        y: the user's targets for each output, where some have a type that only the data shows; else None.

    Raises:
        GraphError: losses or metrics for outputs that do not exist.
    """
    chosen: list[Loss | None] = [losses.get(value) for value in _spread(compiled.loss, names, "loss")]
    plain = _spread_lists(compiled.metrics, names)
    weighing = _spread_lists(compiled.weighted_metrics, names)
    raw = [[*first, *second] for first, second in zip(plain, weighing, strict=True)]
    weights = [_factor(w) for w in _spread(compiled.loss_weights, names, "loss_weights")]
    targets: list[Slot | None] = []
    found: list[tuple[str, int, Metric]] = []
    kinds: dict[int, tuple[TensorType | None, TensorType]] = {}
    for number, (name, loss, output) in enumerate(zip(names, chosen, outputs, strict=True)):
        type = None
        if loss is not None:
            type = loss.target_type(output)
        elif raw[number]:
            type = next((t for t in (_metric_target(m, output) for m in raw[number]) if t is not None), None)
        if type is None and (loss is not None or raw[number]):
            type = output if y is None else type_of_data(y[number], output.shape[0])
        targets.append(None if type is None else Slot(name, "target", type))
        kinds[number] = (type, output)
    weighted: list[str] = []
    for chosen_metrics, weighs in ((plain, False), (weighing, True)):
        for number, name in enumerate(names):
            for value in chosen_metrics[number]:
                metric = metrics.get(value, *kinds[number])
                metric.build(kinds[number][1])
                prefix = "" if len(names) == 1 else f"{name}_"
                taken = [key for key, _, _ in found]
                key = f"{prefix}{metric.name}"
                if weighs and key in taken:
                    key = f"{prefix}weighted_{metric.name}"
                found.append((_unique(key, taken), number, metric))
                weighted += [found[-1][0]] if weighs else []
    for key, _, metric in found:
        for variable in metric.variables:
            variable.label = f"metrics/{key}/{variable.label.rsplit('/', 1)[-1]}"
    return Objective(list(names), chosen, weights, targets, found, compiled.loc, frozenset(weighted))


def _factor(weight: Any) -> float:
    if weight is not None and not is_number(weight):
        raise GraphError(
            f"a factor of a loss is a number, not {shown(weight)}",
            at=user_line(),
            remedy="write loss_weights=[1.0, 0.5]",
        )
    return 1.0 if weight is None else float(weight)


def _metric_target(value: Any, output: TensorType) -> TensorType | None:
    if isinstance(value, str) and value.lower() in BY_TARGETS:
        return None
    return metrics.get(value).target_type(output)


def _unique(key: str, taken: Sequence[str]) -> str:
    name, count = key, 1
    while name in taken:
        name, count = f"{key}_{count}", count + 1
    return name


def _spread(value: Any, names: Sequence[str], what: str) -> list[Any]:
    """One item for each output, from one for all, a list, or a dict by name."""
    if isinstance(value, Mapping):
        table = cast("Mapping[str, Any]", value)
        unknown = [key for key in table if key not in names]
        if unknown:
            raise _unknown_output(what, unknown[0], names)
        return [table.get(name) for name in names]
    if isinstance(value, list | tuple):
        items = list(cast("Sequence[Any]", value))
        if len(items) != len(names):
            raise GraphError(
                f"{what} has {len(items)} entries, the model {len(names)} outputs ({', '.join(names)})",
                at=user_line(),
                remedy="give one entry for each output, in this order, or a dict by name",
            )
        return items
    return [value for _ in names]


def _spread_lists(value: Any, names: Sequence[str]) -> list[list[Any]]:
    """The metrics of each output."""
    if value is None:
        return [[] for _ in names]
    if isinstance(value, Mapping):
        per_output = _spread(value, names, "metrics")
    elif not isinstance(value, list | tuple):
        per_output = [[value] for _ in names]
    elif len(names) == 1:
        items = list(cast("Sequence[Any]", value))
        per_output = items if len(items) == 1 and isinstance(items[0], list) else [items]
    else:
        per_output = _spread(value, names, "metrics")
    return [
        [] if item is None else list(cast("list[Any]", item)) if isinstance(item, list | tuple) else [item]
        for item in per_output
    ]


def _unknown_output(what: str, key: str, names: Sequence[str]) -> GraphError:
    return GraphError(
        f"{what} names the output {key!r}, which the model does not have",
        at=user_line(),
        remedy=f"the outputs are {', '.join(map(repr, names))}",
    )
