"""The three programs of a model: one step of training, of evaluation, of prediction. Built when first asked for."""

from __future__ import annotations

import functools
import operator
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import graphc as gx
from graphc.errors import GraphError
from graphc.frontend import nest, tracing
from graphc.frontend.config import user_line
from graphc.frontend.data.arrays import Slot
from graphc.frontend.data.weights import weights_type
from graphc.frontend.objective import Objective, settle
from graphc.frontend.tracing import Rng, Trace
from graphc.ir import location
from graphc.ir.node import Node, Parameter
from graphc.ir.types import TensorType, as_dtype

if TYPE_CHECKING:
    from graphc.frontend.training import Trainer

KINDS = ("train", "evaluate", "predict")


@dataclass(frozen=True)
class Forward:
    """A model's graph from fresh placeholders.

    Attributes:
        inputs: the placeholders, one for each input.
        outputs: the nodes of the outputs, flat.
        structure: the outputs as the model returns them.
        updates: state changes that layers declared, for training.
        always: those among them that evaluation and prediction make, too.
        losses: what layers added to the loss.
    """

    inputs: list[Node]
    outputs: list[Node]
    structure: Any
    updates: dict[Parameter, Node]
    always: dict[Parameter, Node]
    losses: list[Node]


def trace_model(model: Trainer, rng: Rng) -> Forward:
    """Run the model's layers on fresh placeholders."""
    inputs: list[Node] = []
    for layer in model.input_layers:
        with location.at(layer.loc):
            inputs.append(gx.placeholder(layer.name, layer.type.shape, layer.type.dtype))
    with tracing.tracing(Trace(lambda: rng)) as trace:
        trace.model = model
        structure = model.run_layers(inputs)
    outputs = [leaf for leaf in nest.leaves(structure) if isinstance(leaf, Node)]
    always = dict(trace.updates[key] for key in trace.always)
    return Forward(inputs, outputs, structure, dict(trace.updates.values()), always, trace.losses)


class Programs(Mapping[str, Any]):
    """``model.programs``: ``train``, ``evaluate`` and ``predict``, each compiled when first asked for.

    Sizes of batches are symbolic: one program serves every size.
    """

    def __init__(self, model: Trainer) -> None:
        self._model = model
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}
        self._forward: Forward | None = None
        self._stale = False
        self._objective: Objective | None = None
        self._inputs: list[Slot] | None = None
        self._names: list[str] | None = None
        self._trained: tuple[tuple[int, ...], tuple[bool, ...]] | None = None
        self._version = -1

    def __getitem__(self, kind: str) -> Any:
        if kind not in KINDS:
            raise KeyError(f"{kind!r} is no program of a model: there are {', '.join(KINDS)}")
        with self._lock:
            self._refresh()
            if kind not in self._made:
                self._made[kind] = self._make(kind)
            return self._made[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(KINDS)

    def __len__(self) -> int:
        return len(KINDS)

    def __repr__(self) -> str:
        return f"<programs of {self._model.name!r}; compiled: {', '.join(self._made) or 'none'}>"

    def training_step(self, checked: bool = False, norms: bool = False) -> Any:
        """The training program, or a version of it that callbacks ask for.

        Args:
            checked: refuse a step that would make NaN or infinity, as ``compile(check_finite=True)`` does.
            norms: a further output ``gradient_norms``: for each layer with trained weights the norm of its gradient.
        """
        words = [word for word, wanted in (("checked", checked), ("norms", norms)) if wanted]
        if not words:
            return self["train"]
        with self._lock:
            self._refresh()
            key = " ".join(("train", *words))
            if key not in self._made:
                self._made[key] = self._make("train", checked, norms)
            return self._made[key]

    def weighted(self, kind: str, weights: tuple[TensorType, ...], checked: bool = False, norms: bool = False) -> Any:
        """The program of training or evaluation that takes weights of these types behind the targets."""
        with self._lock:
            self._refresh()
            key = " ".join((kind, *(word for word, on in (("checked", checked), ("norms", norms)) if on)))
            key = " ".join((key, "weighted", *map(str, weights)))
            if key not in self._made:
                self._made[key] = self._make(kind, checked, norms, weights)
            return self._made[key]

    def gather(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """The program that takes rows by their numbers out of an array with samples of a shape and a type."""
        with self._lock:
            self._refresh()
            key = f"predict rows {shape} {dtype}"
            if key not in self._made:
                array = gx.placeholder("array", ("samples", *shape), str(as_dtype(dtype)))
                rows = gx.placeholder("rows", ("count",), "int64")
                compiled = self._model.compiled
                backend = "auto" if compiled is None else compiled.backend
                self._made[key] = gx.compile({"rows": gx.take(array, rows, axis=0)}, [array, rows], backend=backend)
            return self._made[key]

    def settled(self, targets: bool) -> bool:
        """Are the types of all inputs (and targets) known, so that no data is needed to find them out?"""
        return self._forward is not None and (self._objective is not None or not targets)

    def trained_layers(self) -> dict[str, list[int]]:
        """Which of the trainable weights belong to which layer: indices by the layer's path, in the model's order."""
        paths = {id(weight): path for path, weight in self._model.named_weights().items()}
        found: dict[str, list[int]] = {}
        for index, weight in enumerate(self._model.trainable_weights):
            found.setdefault(paths[id(weight)].rpartition("/")[0], []).append(index)
        return found

    def clear(self) -> None:
        """Forget all programs: the model has changed."""
        with self._lock:
            self._made.clear()
            self._forward = None
            self._objective = None
            self._inputs = None
            self._names = None

    def forward(self) -> Forward:
        """The model's graph, traced once, and again when other layers are trained than before."""
        with self._lock:
            self._refresh()
            if self._forward is None or self._stale:
                self._forward = trace_model(self._model, self._model.rng)
                self._stale = False
                self._trained = self._what_is_trained()  # the layers may have been built just now
            return self._forward

    def objective(self, y: Sequence[Any] | None = None) -> Objective:
        """Losses and metrics; ``y`` helps where only the data shows the type of the targets."""
        with self._lock:
            if self._objective is None:
                compiled = self._model.compiled
                if compiled is None:
                    raise GraphError(
                        f"model {self._model.name!r} has not been compiled",
                        at=user_line(),
                        remedy="call model.compile(optimizer=..., loss=...) first",
                    )
                types = [node.type for node in self.forward().outputs]
                self._objective = settle(compiled, self._model.output_names, types, y)
            return self._objective

    def target_outputs(self) -> list[TensorType]:
        """The types of the outputs that have targets."""
        outputs, targets = self.forward().outputs, self.objective().targets
        return [node.type for node, slot in zip(outputs, targets, strict=True) if slot is not None]

    def input_slots(self) -> list[Slot]:
        """What the model's inputs look like."""
        if self._inputs is None:
            self._inputs = [Slot(layer.name, "input", layer.type) for layer in self._model.input_layers]
        return self._inputs

    def output_names(self) -> list[str]:
        """The names of the model's outputs."""
        if self._names is None:
            self._names = self._model.find_output_names()
        return self._names

    def _refresh(self) -> None:
        """Drop what depends on which layers are trained, if that has changed: all but the program that predicts.

        Layers look at it, too: frozen batch normalization computes something else, without updates.
        """
        if self._version != tracing.version():
            self._version = tracing.version()
            trained = self._what_is_trained()
            if trained != self._trained:
                self._stale = self._forward is not None
                self._trained = trained
                for key in [key for key in self._made if not key.startswith("predict")]:
                    del self._made[key]

    def _what_is_trained(self) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        layers = tuple(layer.trainable for layer in self._model.walk())
        return tuple(id(weight) for weight in self._model.trainable_weights), layers

    def _make(
        self, kind: str, checked: bool = False, norms: bool = False, weights_types: tuple[TensorType, ...] = ()
    ) -> Any:
        forward = self.forward()
        compiled = self._model.compiled
        if kind == "predict":
            outputs = dict(zip(self._model.output_names, forward.outputs, strict=True))
            backend = "auto" if compiled is None else compiled.backend
            check = compiled is not None and compiled.check_finite
            precision = None if compiled is None else compiled.precision
            return gx.compile(
                outputs,
                forward.inputs,
                updates=forward.always,
                backend=backend,
                check_finite=check,
                precision=precision,
            )
        objective = self.objective()
        compiled = self._model.compiled
        assert compiled is not None  # objective() raised otherwise
        targets = self._targets(objective, forward)
        penalties = [*self._model.penalties(), *forward.losses]
        factors = self._factors(objective, weights_types, {node.name for node in (*forward.inputs, *targets)})
        results, updates = objective.build(forward.outputs, targets, penalties, factors)
        updates.update(forward.always)
        if kind == "train":
            if not penalties and not any(objective.losses):
                raise GraphError(
                    f"model {self._model.name!r} has no loss",
                    at=str(compiled.loc) if compiled.loc else user_line(),
                    remedy="say what to minimize: model.compile(optimizer, loss='mse')",
                )
            with location.at(compiled.loc):
                weights = self._trained_weights()
                compiled.optimizer.check(self._model.weights)
                gradients = compiled.optimizer.gradients(results["loss"], weights)
                constraints, sparse = self._model.constraints(), self._model.sparse_weights()
                updates.update(compiled.optimizer.updates(weights, gradients, constraints, sparse))
                if norms:
                    results = {**results, "gradient_norms": self._norms(gradients)}
            updates.update(compiled.optimizer.guard(forward.updates, gradients))
        inputs = [*forward.inputs, *targets, *factors]
        return gx.compile(
            results,
            inputs,
            updates=updates,
            backend=compiled.backend,
            training=kind == "train",
            check_finite=compiled.check_finite or checked,
            memory_budget=compiled.memory_budget if kind == "train" else None,
            precision=compiled.precision,
        )

    def _trained_weights(self) -> list[Parameter]:
        """What the training program changes; where there is nothing, that is said."""
        model = self._model
        weights = model.trainable_weights
        if not weights and model.weights:
            why = "model.trainable is False" if not model.trainable else "every layer is frozen"
            warnings.warn(
                f"model {model.name!r} has no weights to train: {why}; let layers train by model.unfreeze('name', ...)",
                stacklevel=2,
            )
        return weights

    def _norms(self, gradients: Sequence[Node]) -> Node:
        squares = [gx.sum(gx.square(gx.cast(gradient, "float64"))) for gradient in gradients]
        layers = self.trained_layers().values()
        sums = [functools.reduce(operator.add, (squares[index] for index in indices)) for indices in layers]
        return gx.concatenate([gx.reshape(gx.sqrt(value), (1,)) for value in sums])

    def _targets(self, objective: Objective, forward: Forward) -> list[Node]:
        taken = {node.name for node in forward.inputs}
        slots = objective.target_slots
        made: list[Node] = []
        for slot in slots:
            name = "target" if len(self._model.output_names) == 1 else f"target_{_identifier(slot.name)}"
            while name in taken:
                name += "_"
            taken.add(name)
            with location.at(objective.loc):
                made.append(gx.placeholder(name, slot.type.shape, slot.type.dtype))
        return made

    def _factors(self, objective: Objective, types: tuple[TensorType, ...], taken: set[str | None]) -> list[Node]:
        """Placeholders of the samples' weights, one for each target, or none."""
        made: list[Node] = []
        for slot, type in zip(objective.target_slots, types, strict=False):
            name = "sample_weight" if len(types) == 1 else f"sample_weight_{_identifier(slot.name)}"
            while name in taken:
                name += "_"
            taken.add(name)
            with location.at(objective.loc):
                made.append(gx.placeholder(name, type.shape, type.dtype))
        return made


class Step:
    """A step of training or evaluation: its program, which is another one if batches bring weights.

    Args:
        programs: the model's.
        kind: ``train`` or ``evaluate``.
        checked: refuse a step that would make NaN or infinity.
        norms: see :meth:`Programs.training_step`.
    """

    def __init__(self, programs: Programs, kind: str, checked: bool = False, norms: bool = False) -> None:
        self._programs, self._kind, self._checked, self._norms = programs, kind, checked, norms
        self._plain: Any = None
        self._count = len(programs.input_slots()) + len(programs.objective().target_slots)
        self._weighted: dict[tuple[TensorType, ...], Any] = {}

    def program(self, arrays: Sequence[Any]) -> Any:
        """The program that takes these arrays: inputs, targets, and weights if there are any."""
        if len(arrays) > self._count:
            return self._with_weights(arrays[self._count :])
        if self._plain is None:
            train = self._kind == "train"
            programs = self._programs
            self._plain = programs.training_step(self._checked, self._norms) if train else programs[self._kind]
        return self._plain

    def _with_weights(self, weights: Sequence[Any]) -> Any:
        outputs = self._programs.target_outputs()
        types = tuple(weights_type(array.shape, output) for array, output in zip(weights, outputs, strict=True))
        found = self._weighted.get(types)
        if found is None:
            found = self._programs.weighted(self._kind, types, self._checked, self._norms)
            self._weighted[types] = found
        return found


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
