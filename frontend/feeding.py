"""From what a user hands to ``fit`` to batches that the model's programs take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import GraphError, ShapeError
from graphc.frontend import seeds
from graphc.frontend.config import user_line
from graphc.frontend.data.arrays import Slot, check_lengths, distribute, ready, to_array
from graphc.frontend.data.batches import ArrayBatches, Batches, IterableBatches, is_batch_source, split_item
from graphc.frontend.data.weights import class_weights, sample_weights
from graphc.frontend.layers.base import Layer
from graphc.frontend.programs import Programs
from graphc.frontend.tracing import Rng
from graphc.ir.node import Node

if TYPE_CHECKING:
    from graphc.frontend.layers.core import InputLayer

Array = NDArray[Any]
Weights = tuple[Any, Any]
"""What the user said of samples' weights and of classes'."""


class Feeding(Layer):
    """The part of :class:`~graphc.frontend.model.Model` that knows how data becomes its inputs and targets.

    Attributes:
        programs: ``train``, ``evaluate`` and ``predict``, compiled when first asked for.
        rng: the state of the model's random numbers.
    """

    programs: Programs
    rng: Rng

    # What Model provides.

    @property
    def input_layers(self) -> list[InputLayer]:
        """The layers of the inputs, in order."""
        raise NotImplementedError(f"{type(self).__name__} does not define input_layers")

    def find_output_names(self) -> list[str]:
        """A name for each output, in order."""
        raise NotImplementedError(f"{type(self).__name__} does not define find_output_names")

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, in order: those of the layers that give them."""
        return self.programs.output_names()

    def run_layers(self, inputs: Sequence[Node]) -> Any:
        """The outputs' nodes for these input nodes."""
        raise NotImplementedError(f"{type(self).__name__} does not define run_layers")

    def build_for_data(self, x: Any) -> None:
        """Find out the inputs' shapes from data, if they are not known."""
        raise NotImplementedError(f"{type(self).__name__} does not define build_for_data")

    # From data to batches.

    def _batches(
        self,
        x: Any,
        y: Any,
        batch_size: int | None,
        steps: int | None,
        shuffle: bool,
        targets: bool = True,
        peek: bool = False,
        weights: Weights = (None, None),
    ) -> Batches:
        if is_batch_source(x):
            if y is not None:
                raise GraphError(
                    "x yields batches, so y must be left out", at=user_line(), remedy="let x yield pairs (x, y)"
                )
            if weights[0] is not None:
                raise GraphError(
                    "x yields batches, so sample_weight must be left out",
                    at=user_line(),
                    remedy="let x yield triples (x, y, sample_weight)",
                )

            def adapt(item: Any) -> list[Array]:
                inputs, wanted, given = split_item(item, targets)
                return self._adapt(inputs, wanted, targets, (given, weights[1]))

            order = self._permutation if shuffle else None
            source = IterableBatches(x, adapt, steps, order)
            if peek and not self.programs.settled(targets):
                adapt(source.first())
            return source
        arrays = self._adapt(x, y, targets, weights)
        order = self._permutation if shuffle else None
        if batch_size is None:
            fixed = self.programs.input_slots()[0].type.shape[0]
            batch_size = fixed if isinstance(fixed, int) else 32
        return ArrayBatches(arrays, batch_size, order, steps)

    def _permutation(self, epoch: int, count: int) -> NDArray[np.intp]:
        return seeds.generator("shuffle", int(self.rng.seed.value), epoch).permutation(count)

    def _adapt(self, x: Any, y: Any, targets: bool = True, weights: Weights = (None, None)) -> list[Array]:
        """Checked arrays in the order of a program's inputs: inputs, targets, and weights if there are any."""
        self.build_for_data(x)
        slots = self.programs.input_slots()
        if targets:
            wanted = self._target_slots(y)
            if not unweighed(weights):
                return self._weighed(x, y, slots, wanted, weights)
            if len(slots) == 1 and len(wanted) == 1 and ready(x, slots[0]) and ready(y, wanted[0]):
                if len(x) != len(y):
                    check_lengths([x, y], [*slots, *wanted])
                return [x, y]
            arrays = _arrays(x, slots, "input")
            arrays += self._targets(y, wanted)
            slots = [*slots, *wanted]
        else:
            arrays = _arrays(x, slots, "input")
        check_lengths(arrays, slots)
        return arrays

    def _weighed(self, x: Any, y: Any, slots: Sequence[Slot], wanted: Sequence[Slot], weights: Weights) -> list[Array]:
        given, classes = weights
        if given is not None and classes is not None:
            raise GraphError(
                "there are both sample_weight and class_weight", at=user_line(), remedy="multiply them: give one array"
            )
        targets = self._targets(y, wanted)
        if classes is not None:
            given = class_weights(targets, classes)
        outputs = self.programs.target_outputs()
        factors = sample_weights(given, wanted, outputs, self.output_names)
        arrays = [*_arrays(x, slots, "input"), *targets, *factors]
        extra = [Slot(slot.name, "sample_weight of", output) for slot, output in zip(wanted, outputs, strict=True)]
        check_lengths(arrays, [*slots, *wanted, *extra])
        return arrays

    def _target_slots(self, y: Any) -> list[Slot]:
        names = self.output_names
        spread = distribute(y, names, "output") if y is not None and len(names) > 1 else [y] * len(names)
        return self.programs.objective(None if y is None else spread).target_slots

    def _targets(self, y: Any, wanted: Sequence[Slot]) -> list[Array]:
        if not wanted:
            return []
        if y is None:
            raise GraphError(
                f"the loss needs targets for {', '.join(repr(slot.name) for slot in wanted)}, y is missing",
                at=user_line(),
                remedy="call fit(x, y), or give an iterable of pairs (x, y)",
            )
        names = self.output_names
        if len(names) == len(wanted):
            return _arrays(y, wanted, "output")
        table = dict(zip(names, distribute(y, names, "output"), strict=True))
        return [to_array(table[slot.name], slot) for slot in wanted]

    def _split(self, x: Any, y: Any, weights: Any, part: float) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
        if is_batch_source(x):
            raise GraphError(
                "validation_split needs arrays, x yields batches", at=user_line(), remedy="give validation_data"
            )
        arrays = self._adapt(x, y, weights=(weights, None))
        count = arrays[0].shape[0]
        cut = int(count * (1.0 - part))
        if cut in (0, count):
            raise ShapeError(
                f"validation_split={part} of {count} samples leaves none to {'train on' if cut == 0 else 'evaluate'}",
                at=user_line(),
                remedy="give more samples or another part",
            )
        inputs = len(self.input_layers)

        slots = self.programs.objective().target_slots

        def take(rows: slice) -> tuple[Any, Any, Any]:
            chosen = [array[rows] for array in arrays]
            xs, ys, factors = chosen[:inputs], chosen[inputs : inputs + len(slots)], chosen[inputs + len(slots) :]
            named = {slot.name: array for slot, array in zip(slots, ys, strict=True)}
            filled = [named.get(name, np.zeros(len(xs[0]), np.float32)) for name in self.output_names]
            weighed = {slot.name: array for slot, array in zip(slots, factors, strict=False)} or None
            return xs if len(xs) > 1 else xs[0], (filled if len(filled) > 1 else filled[0]) if ys else None, weighed

        return take(slice(0, cut)), take(slice(cut, None))


def unweighed(weights: Weights) -> bool:
    """Did the user say nothing of weights?"""
    return weights[0] is None and weights[1] is None


def _arrays(value: Any, slots: Sequence[Slot], what: str) -> list[Array]:
    items = distribute(value, [slot.name for slot in slots], what)
    return [to_array(item, slot) for item, slot in zip(items, slots, strict=True)]
