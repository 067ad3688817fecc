"""compile, fit, evaluate, predict and their versions for one batch: loops around one compiled step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from graphc.backend import Backend
from graphc.errors import GraphError, ShapeError
from graphc.frontend import nest, optimizers, seeds
from graphc.frontend.callbacks import Callback, CallbackList, History
from graphc.frontend.checked import Count, LessThanAll, Natural, checked
from graphc.frontend.config import user_line
from graphc.frontend.data.batches import ArrayBatches, Batches, as_triple
from graphc.frontend.data.resident import on_device
from graphc.frontend.feeding import Feeding, Weights, unweighed
from graphc.frontend.interrupt import Interruptible
from graphc.frontend.loop import Fit, Logs, Loop, Position, as_number
from graphc.frontend.objective import Compiled, Objective, check_names
from graphc.frontend.optimizers.sparse import refuse_sparse
from graphc.frontend.programs import Programs, Step
from graphc.frontend.progress import EpochLines, PassBar, Progress, ProgressBar, verbosity
from graphc.frontend.tracing import Rng
from graphc.ir import location
from graphc.ir.precision import find_precision
from graphc.ir.types import DType

Array = NDArray[Any]


class Trainer(Feeding):
    """The half of :class:`~graphc.frontend.model.Model` that trains, evaluates and predicts.

    Attributes:
        compiled: what ``compile`` was told, or None.
        stop_training: a callback sets it to end ``fit`` after the current step.
        history: what the last ``fit`` returned.
        running: the ``fit`` that is running, for callbacks; else None.
    """

    compiled: Compiled | None
    epochs_begun: int
    stop_training: bool
    history: History | None
    running: Fit | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls, *args, **kwargs)
        self._ordinal = seeds.next_ordinal()
        self.rng = Rng(seeds.derive("rng", self._ordinal))
        self.programs = Programs(self)
        self.compiled = None
        self.epochs_begun = 0
        self.stop_training = False
        self.history = None
        self.running = None
        return self

    # Compiling.

    @checked
    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        *,
        backend: str | Backend = "auto",
        check_finite: bool = False,
        memory_budget: int | float | None = None,
        precision: str | None = None,
    ) -> None:
        """Say what the model is trained for. Machine code is made when a program is first used.

        Args:
            optimizer: a name (``"adam"``) or an optimizer; default RMSprop.
            loss: a name, a loss or a function; for several outputs also a list, or a dict by the outputs' names.
            loss_weights: factors of the outputs' losses: a list or a dict.
            metrics: a list of names (``"accuracy"``), metrics or functions; for several outputs one list for each, or
                a dict. They do not see weights of samples.
            weighted_metrics: metrics, given likewise, that do.
            backend: ``"auto"``, ``"numba"``, ``"cupy"``, ``"reference"``, a plug-in's name or a backend.
            check_finite: refuse a step that would make NaN or infinity.
            memory_budget: the most bytes that a training step's intermediates may take, or as a float a part of what
                they take otherwise; see :func:`graphc.compile`.
            precision: ``"mixed_bfloat16"``, ``"mixed_float16"``, ``"tf32"`` or ``"float32"``, the default: what
                products are computed in, see :func:`graphc.compile`. Weights and their state stay float32. With
                ``"mixed_float16"`` the optimizer becomes a :class:`~graphc.optimizers.LossScaleOptimizer` around
                itself, if it is none and has no ``loss_scale_factor``.
        """
        check_names(loss, metrics, weighted_metrics)
        policy = find_precision(precision)
        chosen = optimizers.get(optimizer)
        if policy.factors is DType.float16 and chosen.loss_scale_factor is None:
            chosen = optimizers.LossScaleOptimizer.around(chosen)
        refuse_sparse(chosen, [weight for weight in self.sparse_weights() if weight.trainable])
        self.compiled = Compiled(
            chosen,
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            backend,
            check_finite,
            location.here(),
            memory_budget,
            policy.name,
        )
        self.programs.clear()

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer that the model was compiled with."""
        return self._compiled().optimizer

    @property
    def metrics_names(self) -> list[str]:
        """The keys of logs."""
        return list(self.programs.objective().fields)

    def direction_of(self, key: str) -> str | None:
        """Whether more of a result is better (``up``), less (``down``), or that is not known (None)."""
        found = {name: metric for name, _, metric in self.programs.objective().metrics}
        return found[key].direction if key in found else None

    def _compiled(self) -> Compiled:
        if self.compiled is None:
            raise GraphError(
                f"model {self.name!r} has not been compiled",
                at=user_line(),
                remedy="call model.compile(optimizer=..., loss=...) first",
            )
        return self.compiled

    # Loops.

    @checked
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: Count | None = None,
        epochs: Natural = 1,
        verbose: Any = "auto",
        callbacks: Callback | Iterable[Callback] | None = None,
        validation_split: LessThanAll = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: Natural = 0,
        steps_per_epoch: Count | None = None,
        validation_steps: Count | None = None,
        validation_batch_size: Count | None = None,
        validation_freq: Count | Sequence[Count] = 1,
    ) -> History:
        """Train.

        Ctrl-C raises KeyboardInterrupt after the step that is running: the model is intact and can go on, and
        ``model.history`` holds the epochs that were finished.

        Args:
            x: an array, a list of arrays or a dict by the inputs' names; or batches ``(x, y)``: an iterable, a
                generator, a ``gx.data.PyDataset`` or anything with ``__len__`` and ``__getitem__``.
            y: targets likewise; None if x yields batches.
            batch_size: samples of a step, default 32, or what ``Input(batch_size=...)`` says; 1 is stochastic gradient
                descent, the number of samples batch gradient descent.
            epochs: the number of the last epoch, counted from 1.
            verbose: 0 quiet, 1 a bar, 2 a line for each epoch; ``"auto"``: a bar on a terminal, else quiet.
            callbacks: see ``gx.callbacks``.
            validation_split: this part at the end of the arrays is not trained on but evaluated after each epoch.
            validation_data: what to evaluate on instead: ``(x, y)``, ``(x, y, sample_weight)`` or an
                iterable of batches.
            shuffle: another order in each epoch, from the model's seed: of the samples of arrays, of the batches of a
                ``PyDataset``; other batches come as they come.
            class_weight: a dict from class numbers to factors of the loss; other classes count once.
            sample_weight: factors of the loss, one for each sample or for each of its time steps: an array, or for
                several outputs a list or a dict of them. Batches bring theirs as a third item: ``(x, y, weights)``.
            initial_epoch: where to begin counting, to go on with earlier training.
            steps_per_epoch: batches of an epoch, where x does not end or shall not be used up.
            validation_steps: the most batches of an evaluation.
            validation_batch_size: default ``batch_size``.
            validation_freq: evaluate after every so many epochs, or after those that a list names, counted from 1.

        Raises:
            GraphcError: the data does not fit the model; the message says where.
        """
        self._compiled()
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = self._split(x, y, sample_weight, validation_split)
        weights = (sample_weight, class_weight)
        batches = self._batches(x, y, batch_size, steps_per_epoch, shuffle, peek=True, weights=weights)
        validation = None
        if validation_data is not None:
            size = validation_batch_size or batch_size
            val_x, val_y, val_weights = as_triple(validation_data)
            validation = self._batches(val_x, val_y, size, validation_steps, False, weights=(val_weights, None))
        objective = self.programs.objective()
        self.history = history = History()
        progress = (None, ProgressBar(), EpochLines())[verbosity(verbose)]
        listed = [*_as_list(callbacks), history, *([] if progress is None else [progress])]
        params = {"epochs": epochs, "steps": batches.count, "verbose": verbosity(verbose)}
        hooks = CallbackList(listed, self, params)
        step = Step(self.programs, "train", hooks.checks_finite, hooks.watches_gradients)
        if unweighed(weights):
            step.program(())  # what is wrong with the model shows before training begins
        self.stop_training = False
        try:
            with Interruptible() as interrupt:
                given, batches = batches, on_device(batches, step, self.programs.gather)
                if validation is not None and batches is not given:
                    validation = on_device(validation, Step(self.programs, "evaluate"), self.programs.gather)
                loop = Loop(step, batches, objective, hooks, "train", interrupt, lambda: self.stop_training)
                self.running = Fit(loop, validation, Position(initial_epoch))
                hooks.call("on_train_begin")
                self._run_epochs(self.running, epochs, validation_freq)
                self.optimizer.finalize_variable_values(self.trainable_weights)
                hooks.call("on_train_end", logs=self.running.position.logs)
        finally:
            self.running = None
            if isinstance(progress, Progress):
                progress.close()
        return history

    @checked
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: Count | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: Count | None = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics on some data.

        Args:
            x, y, batch_size, steps, sample_weight: as for ``fit``.
            verbose: 0 quiet, 1 a bar; ``"auto"``: a bar on a terminal, else quiet.
            callbacks: see ``gx.callbacks``.
            return_dict: return a dict by the keys of logs.

        Returns:
            The loss alone if there is nothing else, else a list in the order of ``metrics_names``, or a dict.
        """
        self._compiled()
        batches = self._batches(x, y, batch_size, steps, False, peek=True, weights=(sample_weight, None))
        hooks, bar = self._hooks(callbacks, verbose, batches)
        try:
            logs = self._evaluate(batches, self.programs.objective(), hooks, None)
        finally:
            bar.close()
        return logs if return_dict else _flat(logs)

    @checked
    def predict(
        self,
        x: Any,
        batch_size: Count | None = None,
        verbose: Any = "auto",
        steps: Count | None = None,
        callbacks: Callback | Iterable[Callback] | None = None,
    ) -> Any:
        """The outputs for some inputs, as the model returns them: an array, or a list or dict of arrays."""
        batches = self._batches(x, None, batch_size, steps, False, targets=False, peek=True)
        hooks, bar = self._hooks(callbacks, verbose, batches)
        program = self.programs["predict"]
        parts: list[Sequence[Array]] = []
        whole = self._whole_outputs(batches)
        loud = hooks.listens("on_predict_batch_begin") or hooks.listens("on_predict_batch_end")
        done = 0
        try:
            hooks.call("on_predict_begin")
            for number, arrays in enumerate(batches.epoch(0)):
                if loud:
                    hooks.call("on_predict_batch_begin", number)
                count = arrays[0].shape[0]
                out = None if whole is None else [array[done : done + count] for array in whole]
                results = program.call(arrays, out)
                done += count
                if whole is None:
                    parts.append(results)
                if loud:
                    hooks.call("on_predict_batch_end", number, logs={"outputs": list(results)})
            hooks.call("on_predict_end")
        finally:
            bar.close()
        if whole is None and not parts:
            raise ShapeError("there was no batch to predict", at=user_line(), remedy="give at least one sample")
        joined = whole or [_joined(arrays) for arrays in zip(*parts, strict=True)]
        return self._structured(joined)

    # One batch.

    @checked
    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step of training.

        Args:
            x, y, sample_weight, class_weight: as for ``fit``.
            return_dict: return a dict by the keys of logs.

        Returns:
            The loss (before the step) and the metrics of this batch alone: see :meth:`evaluate`.
        """
        return self._on_batch("train", x, y, (sample_weight, class_weight), return_dict)

    @checked
    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss and the metrics of one batch: see :meth:`evaluate`."""
        return self._on_batch("evaluate", x, y, (sample_weight, None), return_dict)

    @checked
    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        arrays = self._adapt(x, None, targets=False)
        return self._structured(self.programs["predict"].call(arrays))

    # How they work.

    def _run_epochs(self, fit: Fit, epochs: int, validation_freq: int | Sequence[int]) -> None:
        """Train from where ``fit`` stands to the end of so many epochs, evaluating after those that are due."""
        loop, position, hooks, objective = fit.loop, fit.position, fit.loop.hooks, fit.loop.objective
        warned = hooks.checks_finite or objective.warned
        while position.epoch < epochs and (position.step or not self.stop_training):
            epoch = position.epoch
            if not position.step:
                hooks.call("on_epoch_begin", epoch)
                objective.reset()
                position.begin(self.epochs_begun, objective.mean_fields)
                self.epochs_begun += 1
            logs = loop.run(position)
            if not logs:
                if not self.stop_training:
                    warnings.warn(
                        f"the batches ran out before epoch {epoch + 1} of {epochs}: training ends here. What is "
                        "iterated over once must yield those of all epochs; a list-like object or a gx.data.PyDataset "
                        "begins anew",
                        stacklevel=4,
                    )
                return
            if fit.validation is not None and _is_due(epoch + 1, validation_freq):
                found = self._evaluate(fit.validation, objective, hooks, loop.interrupt)
                logs.update((f"val_{key}", value) for key, value in found.items())
            if not math.isfinite(logs["loss"]) and not warned:
                warned = True
                warnings.warn(_not_finite(loop, epoch + 1, logs["loss"]), stacklevel=4)
            position.end(logs)
            hooks.call("on_epoch_end", epoch, logs=logs)

    def _on_batch(self, kind: str, x: Any, y: Any, weights: Weights, return_dict: bool) -> Any:
        self._compiled()
        arrays = self._adapt(x, y, weights=weights)
        program = self.programs[kind] if unweighed(weights) else Step(self.programs, kind).program(arrays)
        objective = self.programs.objective()
        if objective.metrics:
            objective.reset()
        results = program.call(arrays)
        logs = dict(zip(objective.fields, map(as_number, results), strict=True))
        return logs if return_dict else _flat(logs)

    def _evaluate(
        self, batches: Batches, objective: Objective, hooks: CallbackList, interrupt: Interruptible | None
    ) -> Logs:
        """Evaluate without disturbing the sums of a training epoch that may be under way."""
        step = Step(self.programs, "evaluate")
        states = objective.states()
        kept = [state.value for state in states]
        try:
            objective.reset()
            hooks.call("on_test_begin")
            position = Position()
            position.begin(0, objective.mean_fields)
            logs = Loop(step, batches, objective, hooks, "test", interrupt).run(position)
            hooks.call("on_test_end", logs=logs)
        finally:
            for state, value in zip(states, kept, strict=True):
                state.value = value
        if not logs:
            raise ShapeError("there was no batch to evaluate", at=user_line(), remedy="give at least one sample")
        return logs

    def _hooks(
        self, callbacks: Callback | Iterable[Callback] | None, verbose: Any, batches: Batches
    ) -> tuple[CallbackList, Progress]:
        bar = PassBar() if verbosity(verbose) == 1 else Progress()
        params = {"epochs": 1, "steps": batches.count, "verbose": verbosity(verbose)}
        return CallbackList([*_as_list(callbacks), bar], self, params), bar

    def _whole_outputs(self, batches: Batches) -> list[Array] | None:
        """Arrays for all samples at once, where their number and the outputs' sizes are known."""
        nodes = self.programs.forward().outputs
        if not isinstance(batches, ArrayBatches):
            return None
        batch = self.input_layers[0].type.shape[0]
        if not all(
            node.ndim > 0 and node.shape[0] == batch and all(isinstance(size, int) for size in node.shape[1:])
            for node in nodes
        ):
            return None
        count = batches.cuts[-1][1]
        return [np.empty((count, *cast("tuple[int, ...]", node.shape[1:])), node.dtype.numpy) for node in nodes]

    def _structured(self, arrays: Sequence[Array]) -> Any:
        return nest.pack(self.programs.forward().structure, arrays)


def _not_finite(loop: Loop, epoch: int, loss: float) -> str:
    arrays = loop.batches.arrays if isinstance(loop.batches, ArrayBatches) else []
    spoilt = any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays)
    why = "the data holds NaN or infinity" if spoilt else "lower the learning rate or clip gradients"
    return f"the loss is {loss} in epoch {epoch}: {why}; the callback TerminateOnNaN names the line where it begins"


def _is_due(epoch: int, every: int | Sequence[int]) -> bool:
    """Is this epoch, counted from 1, one of every so many, or one of those named?"""
    return epoch % every == 0 if isinstance(every, int) else epoch in every


def _as_list(callbacks: Any) -> list[Any]:
    return [] if callbacks is None else nest.leaves(callbacks)


def _joined(arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays) if arrays[0].ndim else np.stack(arrays)


def _flat(logs: Logs) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
