"""The base of optimizers: gradients in, next values of all state out."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

import graphc as gx
from graphc.errors import AxisError, GraphError
from graphc.frontend.arguments import is_number
from graphc.frontend.checked import Bound, Count, NonNegative, Part, Positive
from graphc.frontend.config import Configurable, suggestion, user_line
from graphc.frontend.optimizers.gradients import clipping
from graphc.frontend.optimizers.sparse import sparse_rows
from graphc.frontend.schedules.base import evaluate
from graphc.ir.node import Node, Parameter
from graphc.ir.types import DType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Rate = float | Callable[[Node], Node]
Slots = Mapping[str, Node]
Scalars = Mapping[str, Node]

_ACCUMULATOR = "gradient_accumulator"
_AVERAGE = "average"


class Options(TypedDict, total=False):
    """The arguments that all optimizers take by keyword; see :class:`Optimizer`."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class Optimizer(Configurable):
    """Base of optimizers. A subclass says which slots a parameter has and how one step changes it.

    ``rule`` is written once for any parameter; what does not depend on the parameter is computed in ``scalars``, so
    that a compiler can make one kernel for all of them. The learning rate and the number of steps taken are state:
    changing them compiles nothing. Floats of 16 bits are updated in float32, and their slots are float32.

    A step does this in order: gradients are accumulated and clipped; weights decay; the rule; constraints; the moving
    average.

    Args:
        learning_rate: a number, a schedule (``gx.optimizers.schedules``), or a function from the number of steps taken
            (a float64 node) to a node.
        weight_decay: before each step weights shrink by this part times the learning rate.
        clipnorm: the largest norm of each gradient.
        clipvalue: the largest size of each element of a gradient.
        global_clipnorm: the largest norm of all gradients together.
        use_ema: keep a moving average of each weight. ``fit`` leaves it in the weights at its end, and
            :meth:`averaged` puts it there for a while.
        ema_momentum: the part of the average that stays in a step.
        ema_overwrite_frequency: replace the weights by their average after every so many steps.
        loss_scale_factor: the loss is multiplied by it and the gradients divided by it, which keeps small gradients
            from vanishing in float16. A power of two rounds nothing.
        gradient_accumulation_steps: change weights at every so many-th batch only, by the mean of the gradients
            since the last change; between these all state but the sums of gradients stays as it is.
        name: for texts and files.

    Raises:
        AxisError: an argument is out of its range, or unknown.
    """

    slots: tuple[str, ...] = ()
    """State of each parameter: arrays of its shape, zeros at first."""
    state: tuple[tuple[str, float], ...] = ()
    """State that all parameters share: float64 numbers by name, with their first values."""
    by_element: bool = False
    """Whether ``rule`` computes each element from the same element of its operands, and so serves a few rows of a table
    as well."""

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: NonNegative | None = None,
        clipnorm: Bound | None = None,
        clipvalue: Bound | None = None,
        global_clipnorm: Bound | None = None,
        use_ema: bool = False,
        ema_momentum: Part = 0.99,
        ema_overwrite_frequency: Count | None = None,
        loss_scale_factor: Positive | None = None,
        gradient_accumulation_steps: Count | None = None,
        name: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise _unknown_argument(type(self), next(iter(unknown)))
        self.name = name or type(self).__name__.lower()
        self.weight_decay = weight_decay
        self.clipping = clipping(clipnorm, clipvalue, global_clipnorm)
        self.use_ema = use_ema
        self.ema_momentum = float(ema_momentum)
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        if gradient_accumulation_steps == 1:
            raise AxisError(
                "gradient_accumulation_steps is 1: each batch changes the weights",
                at=user_line(),
                remedy="leave it out",
            )
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.iterations = Parameter(f"{self.name}/iterations", np.array(0, np.int64), trainable=False)
        """How many batches there have been, those included whose gradients were only accumulated."""
        self.averages_in_weights = False
        """Whether weights and moving averages are exchanged, see :meth:`swap_averages`."""
        self._schedule = learning_rate if callable(learning_rate) else None
        first = 0.0 if callable(learning_rate) else _checked_rate(learning_rate)
        self._rate = Parameter(f"{self.name}/learning_rate", np.array(first, np.float64), trainable=False)
        self._shared = {
            key: Parameter(f"{self.name}/{key}", np.array(value, np.float64), trainable=False)
            for key, value in self.state
        }
        self.factors: Callable[[Parameter], float] | None = None
        """What :meth:`factor_for` asks; :class:`~graphc.optimizers.Grouped` sets it."""
        self._slots: dict[int, dict[str, Parameter]] = {}
        self._built_for: list[Parameter] = []
        self._spared: list[Parameter] = []
        self._spared_labels: list[str] = []
        self._spared_names: list[str] = []

    # What a subclass defines.

    def rule(self, p: Node, g: Node, slots: Slots, s: Scalars) -> tuple[Node, dict[str, Node]]:
        """The next value of one parameter and of its slots.

        Args:
            p: the parameter, weight decay already applied.
            g: its gradient, clipped.
            slots: its slots by name.
            s: what :meth:`scalars` returned, in the parameter's element type.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define rule")

    def scalars(self, rate: Node, step: Node) -> dict[str, Node]:
        """What is the same for all parameters, in double precision. A name of :attr:`state` gives its next value.

        Args:
            rate: the learning rate.
            step: the number of this step, 1 at the first; with accumulation, that of this change of the weights.
        """
        return {"rate": rate}

    def first_values(self, parameter: Parameter) -> dict[str, Array]:
        """The slots of a parameter before the first step: zeros of its shape, unless a subclass says otherwise."""
        return {slot: zeros_for(parameter) for slot in self.slots}

    def decay_of(self, parameter: Parameter) -> float | None:
        """The weight decay of this parameter, unless it is spared; None for none."""
        return self.weight_decay

    def factor_for(self, parameter: Parameter) -> float:
        """The learning rate of this parameter in relation to that of the others."""
        return 1.0 if self.factors is None else self.factors(parameter)

    # What a user asks.

    @property
    def learning_rate(self) -> float:
        """The current learning rate. Setting it takes effect at the next step and compiles nothing."""
        if self._schedule is not None:
            return evaluate(self._schedule, int(self.iterations.value))
        return float(self._rate.value)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self._schedule is not None:
            raise GraphError(
                "the learning rate follows a schedule", at=user_line(), remedy="compile with a number to set it by hand"
            )
        self._rate.value = np.float64(_checked_rate(value))

    @property
    def lr(self) -> float:
        """What other libraries call the learning rate: there is none of this name, and setting it says so."""
        raise AttributeError("an optimizer has learning_rate, not lr")

    @lr.setter
    def lr(self, value: Any) -> None:
        raise GraphError(
            f"{type(self).__name__} has no attribute 'lr'", at=user_line(), remedy="write optimizer.learning_rate = ..."
        )

    @property
    def follows_schedule(self) -> bool:
        """Whether the learning rate is a function of the number of steps taken, which cannot be set by hand."""
        return self._schedule is not None

    def shared_state(self, key: str) -> Parameter:
        """A piece of :attr:`state`."""
        return self._shared[key]

    def exclude_from_weight_decay(
        self, var_list: Sequence[Parameter] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spare weights from ``weight_decay``. Call it before training begins; a later call replaces this one.

        Args:
            var_list: these weights.
            var_names: those whose path (``dense/bias``) holds one of these regular expressions.

        Raises:
            GraphError: the optimizer is in use already.
        """
        if self._built_for:
            raise GraphError(
                "weights are excluded from decay before the optimizer is first used",
                at=user_line(),
                remedy="call exclude_from_weight_decay before fit, and before save",
            )
        self._spared, self._spared_labels = list(var_list or ()), []
        self._spared_names = list(var_names or ())

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Within the block the weights are their moving averages: ``with optimizer.averaged(): model.evaluate(x, y)``.

        Raises:
            GraphError: the optimizer was made without ``use_ema=True``.
        """
        if self.averages_in_weights:
            yield
            return
        self.swap_averages()
        try:
            yield
        finally:
            self.swap_averages()

    def swap_averages(self) -> None:
        """Exchange the weights and their moving averages; before the first step there is nothing to exchange.

        Raises:
            GraphError: the optimizer was made without ``use_ema=True``.
        """
        if not self.use_ema:
            raise GraphError(
                f"{type(self).__name__} keeps no moving averages", at=user_line(), remedy="make it with use_ema=True"
            )
        self.averages_in_weights = not self.averages_in_weights
        if self._has_averages():
            for parameter in self._built_for:
                average = self._slots[id(parameter)][_AVERAGE]
                value = parameter.value
                self._leave(parameter, average.array)
                self._leave(average, value)

    def finalize_variable_values(self, var_list: Sequence[Parameter]) -> None:
        """Replace these weights by their moving averages, if there are any. ``fit`` does it at its end."""
        if not self.use_ema or not self._has_averages():
            return
        for parameter in var_list:
            average = self._slots[id(parameter)][_AVERAGE]
            old, new = (average, parameter) if self.averages_in_weights else (parameter, average)
            self._leave(old, new.array)
        self.averages_in_weights = False

    def _has_averages(self) -> bool:
        return int(self.iterations.value) >= (self.gradient_accumulation_steps or 1)

    def _leave(self, parameter: Parameter, value: Array) -> None:
        np.copyto(parameter.array, value, casting="same_kind")

    # What programs ask.

    def check(self, weights: Sequence[Parameter]) -> None:
        """Refuse to train a model with these weights, if what the optimizer was told does not fit them."""

    def needs_all_rows(self, parameter: Parameter) -> Iterator[tuple[str, str]]:
        """Why a step must walk all of a table although a batch reads few of its rows, and what to do, if so."""
        name = type(self).__name__
        if not self.by_element:
            yield f"{name} looks at whole parameters", "train it with SGD, Adagrad or Adam"
        if self._decay(parameter) is not None:
            yield "weight_decay shrinks every row", 'call exclude_from_weight_decay(var_names=["embeddings"])'
        if self.use_ema:
            yield "use_ema averages every row", "leave use_ema out"
        if self.gradient_accumulation_steps is not None:
            yield "gradients are accumulated for every row", "leave gradient_accumulation_steps out"

    def gradients(self, loss: Node, parameters: Sequence[Parameter]) -> list[Node]:
        """The gradients of a loss, by way of its multiple where there is a ``loss_scale_factor``."""
        if self.loss_scale_factor is None:
            return list(gx.grad(loss, parameters))
        scaled = gx.grad(loss * self.loss_scale_factor, parameters)
        return [gx.cast(g, _wide(p)) / self.loss_scale_factor for p, g in zip(parameters, scaled, strict=True)]

    def guard(self, updates: Mapping[Parameter, Node], gradients: Sequence[Node]) -> Mapping[Parameter, Node]:
        """What becomes of a step's other changes of state, such as moving statistics: they are made, as a rule."""
        return updates

    def build(self, parameters: Sequence[Parameter]) -> None:
        """Make the slots of parameters that have none yet."""
        for parameter in parameters:
            if id(parameter) not in self._slots:
                self._built_for.append(parameter)
                self._slots[id(parameter)] = {
                    slot: Parameter(f"{self.name}/{parameter.label}/{slot}", value, trainable=False)
                    for slot, value in self._all_first_values(parameter).items()
                }

    def slot_names(self, parameter: Parameter) -> list[str]:
        """The names of a parameter's slots."""
        return list(self._all_first_values(parameter))

    def _all_first_values(self, parameter: Parameter) -> dict[str, Array]:
        found = self.first_values(parameter)
        if self.gradient_accumulation_steps is not None:
            found[_ACCUMULATOR] = zeros_for(parameter)
        if self.use_ema:
            found[_AVERAGE] = zeros_for(parameter)
        return found

    def updates(
        self,
        parameters: Sequence[Parameter],
        gradients: Sequence[Node],
        constraints: Mapping[Parameter, Callable[[Node], Node]] | None = None,
        sparse: Collection[Parameter] = (),
    ) -> dict[Parameter, Node]:
        """The next values of the parameters, their slots and the counter, for ``gx.compile(updates=...)``.

        Args:
            parameters: what the step changes.
            gradients: one for each parameter, such as :meth:`gradients` returns.
            constraints: functions that some parameters' new values go through.
            sparse: tables that are read by indices, of which only the rows that occur change, and their slots.

        Raises:
            GraphError: a step must walk all of a sparse table, and why.

        >>> import graphc as gx, numpy as np
        >>> w = gx.parameter("w", np.ones(3, np.float32))
        >>> new = gx.optimizers.SGD(0.1).updates([w], gx.grad(gx.sum(w * w), [w]))
        >>> [p.label for p in new]
        ['w', 'sgd/iterations']
        """
        self.build(parameters)
        every = self.gradient_accumulation_steps
        count: Node = self.iterations
        rate: Node = self._rate
        if self._schedule is not None:
            rate = gx.cast(self._schedule(gx.cast(count, DType.float64)), DType.float64)
        due = None
        if every is not None:
            due = gx.equal(gx.remainder(count + 1, every), 0)
            count = gx.floor_divide(count, every)
        step = gx.cast(count, DType.float64) + 1.0

        def settle(old: Node, new: Node) -> Node:
            """The next value of state that changes with the weights only."""
            new = gx.cast(new, old.dtype)
            return new if due is None else gx.where(due, new, old)

        found: dict[Parameter, Node] = {}
        scalars = self.scalars(rate, step)
        rates = {1.0: (rate, scalars)}
        for key, shared in self._shared.items():
            found[shared] = settle(shared, scalars[key])
        rows = sparse_rows(self, parameters, gradients, constraints, sparse)
        given = [rows[p].sums if p in rows else g for p, g in zip(parameters, gradients, strict=True)]
        wide = [gx.cast(g, _wide(p)) for p, g in zip(parameters, given, strict=True)]
        ready = self.clipping.apply(self._accumulate(parameters, wide, due, found))
        for parameter, gradient in zip(parameters, ready, strict=True):
            dtype = _wide(parameter)
            slots = self._slots[id(parameter)]
            touched = rows.get(parameter)
            old: Slots = slots
            start: Node = parameter
            if touched is not None:
                start, gradient = touched.of(parameter), touched.gradient(gradient)
                old = {key: touched.of(slot) for key, slot in slots.items()}
            start = gx.cast(start, dtype)
            factor = self.factor_for(parameter)
            if factor not in rates:
                rates[factor] = rate * factor, self.scalars(rate * factor, step)
            its_rate, its_scalars = rates[factor]
            if (decay := self._decay(parameter)) is not None:
                start = start - start * gx.cast(its_rate * decay, dtype)
            s = {key: gx.cast(value, dtype) for key, value in its_scalars.items()}
            value, changed = self.rule(start, gradient, old, s)
            if touched is not None:
                found[parameter] = touched.put(parameter, value)
                found.update((slots[key], touched.put(slots[key], new)) for key, new in changed.items())
                continue
            if constraints is not None and parameter in constraints:
                value = constraints[parameter](value)
            if self.use_ema:
                value, changed[_AVERAGE] = self._average(value, slots[_AVERAGE], step)
            found[parameter] = settle(parameter, value)
            found.update((slots[key], settle(slots[key], new)) for key, new in changed.items())
        found[self.iterations] = self.iterations + 1
        return found

    def _accumulate(
        self, parameters: Sequence[Parameter], gradients: Sequence[Node], due: Node | None, found: dict[Parameter, Node]
    ) -> list[Node]:
        """The gradients that the rule gets; what is kept of them until the next batch is put into ``found``."""
        every = self.gradient_accumulation_steps
        if due is None or every is None:
            return list(gradients)
        totals: list[Node] = []
        for parameter, gradient in zip(parameters, gradients, strict=True):
            kept = self._slots[id(parameter)][_ACCUMULATOR]
            totals.append(kept + gradient)
            found[kept] = gx.where(due, gx.zeros_like(kept), totals[-1])
        return [total / every for total in totals]

    def _average(self, value: Node, average: Node, step: Node) -> tuple[Node, Node]:
        """The weight after this step, and its average; the first average is the weight itself."""
        kept = gx.where(gx.equal(step, 1.0), 0.0, gx.constant(self.ema_momentum, DType.float64))
        new = average * gx.cast(kept, value.dtype) + value * gx.cast(1.0 - kept, value.dtype)
        if self.ema_overwrite_frequency is None:
            return value, new
        return gx.where(gx.equal(gx.remainder(step, float(self.ema_overwrite_frequency)), 0.0), new, value), new

    def _decay(self, parameter: Parameter) -> float | None:
        spared = (
            parameter.label in self._spared_labels
            or any(parameter is one for one in self._spared)
            or any(re.search(name, parameter.label) for name in self._spared_names)
        )
        return None if spared else self.decay_of(parameter)

    # Files.

    def variables(self, names: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """All state by name: the counter, the learning rate, what is shared, and the slots of these parameters.

        Args:
            names: parameters by name; those without slots are passed over.
        """
        found = {"iterations": self.iterations, "learning_rate": self._rate, **self._shared}
        for name, parameter in names.items():
            slots = self._slots.get(id(parameter), {})
            found.update((f"{name}/{slot}", value) for slot, value in slots.items())
        return found

    def get_setup(self) -> dict[str, Any]:
        labels = [*(parameter.label for parameter in self._spared), *self._spared_labels]
        return {"spared": labels, "spared_names": self._spared_names} if labels or self._spared_names else {}

    def apply_setup(self, setup: dict[str, Any]) -> None:
        self._spared_labels, self._spared_names = list(setup["spared"]), list(setup["spared_names"])


def zeros_for(parameter: Parameter) -> Array:
    """Zeros of a parameter's shape, in the type that its slots have."""
    return np.zeros(cast("tuple[int, ...]", parameter.shape), _wide(parameter).numpy)


def _wide(parameter: Parameter) -> DType:
    """The type in which a parameter is updated: floats of 16 bits would lose most small steps."""
    return DType.float32 if parameter.dtype.is_float and parameter.dtype.itemsize < 4 else parameter.dtype


def _checked_rate(value: Any) -> float:
    if not is_number(value, 0) or value == math.inf:
        raise AxisError(
            f"a learning rate is a number of at least 0, not {value!r}", at=user_line(), remedy="start with 0.001"
        )
    return float(cast("float", value))


_FORMER = {"lr": "write learning_rate=", "decay": "give a schedule: gx.optimizers.schedules.InverseTimeDecay(...)"}


def _unknown_argument(cls: type[Optimizer], name: str) -> AxisError:
    known = {key for key in cls.__init__.__annotations__ if key not in ("return", "options")} | set(
        Options.__annotations__
    )
    remedy = _FORMER.get(name) or f"{suggestion(name, known)}see help(gx.optimizers.{cls.__name__})"
    return AxisError(f"{cls.__name__} has no argument {name!r}", at=user_line(), remedy=remedy)
