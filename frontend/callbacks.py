"""Callbacks by their Keras 3 names and hooks: what happens beside training."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc.errors import AxisError, GraphError, NonFiniteError
from graphc.frontend.config import user_line

if TYPE_CHECKING:
    from graphc.frontend.training import Trainer

Logs = Mapping[str, float]


class Callback:
    """Base of callbacks: override the hooks that are needed.

    Attributes:
        model: the model that is trained.
        params: ``epochs``, ``steps`` (batches of an epoch, or None) and ``verbose``.
    """

    model: Trainer
    params: dict[str, Any]
    runs_last = False
    """Whether its hooks are called after those of all others, wherever it stands in the list."""
    checks_finite = False
    """Whether a step that would make NaN or infinity is refused; then :meth:`on_non_finite` is called."""
    watches_gradients = False
    """Whether the training step also gives the norms of gradients, as ``model.running.loop.extra[0]``."""

    def set_model(self, model: Trainer) -> None:
        """Called once before anything else."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called once before anything else."""
        self.params = params

    def set_companions(self, callbacks: Sequence[Callback]) -> None:
        """Called once before anything else with all callbacks, in the order in which their hooks are called."""

    def get_state(self) -> dict[str, Any]:
        """What a backup keeps of this callback, so that resumed training goes on as if nothing had happened.

        By default the attributes that hold plain data (None, bools, numbers, strings, arrays, and lists, tuples and
        dicts of them), but not those named like arguments of the constructor, which are settings.
        """
        settings = inspect.signature(type(self).__init__).parameters
        found = {key: value for key, value in vars(self).items() if key not in settings and key != "params"}
        return {key: value for key, value in found.items() if _is_plain(value)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set again what :meth:`get_state` returned; called after ``on_train_begin``."""
        vars(self).update(state)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Before an epoch's first batch; an epoch that is resumed in its middle does not begin again."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After an epoch and its validation; logs hold all results."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Any = None) -> None:
        """After the last epoch."""

    def on_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Another name of ``on_train_batch_begin``."""

    def on_batch_end(self, batch: int, logs: Any = None) -> None:
        """Another name of ``on_train_batch_end``."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a step of training."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a step of training; logs hold the results of the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        """Before evaluation or validation."""

    def on_test_end(self, logs: Any = None) -> None:
        """After evaluation or validation."""

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch of evaluation."""

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch of evaluation."""

    def on_predict_begin(self, logs: Any = None) -> None:
        """Before prediction."""

    def on_predict_end(self, logs: Any = None) -> None:
        """After prediction."""

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Before a batch of prediction."""

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """After a batch of prediction."""

    def on_non_finite(self, error: NonFiniteError, program: Any, arrays: Sequence[Any], batch: int) -> bool:
        """A step was refused because it would have made NaN or infinity; no state has changed.

        Args:
            error: says which result it was.
            program: the training step.
            arrays: the batch, in the order of the program's inputs.
            batch: its number in the epoch.

        Returns:
            Whether the epoch shall just end; else the error is raised.
        """
        return False


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, cast("list[Any]", value)))
    if isinstance(value, dict):
        table = cast("dict[Any, Any]", value)
        return all(isinstance(key, str | int) for key in table) and all(map(_is_plain, table.values()))
    return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)


class CallbackList:
    """Calls the hooks of several callbacks, and knows which hooks nobody listens to."""

    def __init__(self, callbacks: Iterable[Callback], model: Trainer, params: dict[str, Any]) -> None:
        given = list(callbacks)
        for callback in given:
            if not isinstance(callback, Callback):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise _not_a_callback(callback)
        self.callbacks = sorted(given, key=lambda callback: callback.runs_last)
        self.checks_finite = any(callback.checks_finite for callback in given)
        self.watches_gradients = any(callback.watches_gradients for callback in given)
        for callback in self.callbacks:
            callback.set_companions(self.callbacks)
            callback.set_model(model)
            callback.set_params(params)

    def listens(self, hook: str) -> bool:
        """Does any callback override this hook, or its other name?"""
        names = (hook, hook.replace("on_train_batch", "on_batch"))
        return any(
            name in vars(callback) or getattr(type(callback), name, None) is not getattr(Callback, name, None)
            for callback in self.callbacks
            for name in names
        )

    def call(self, hook: str, *position: int, logs: Any = None) -> None:
        """Call one hook of each callback, in order, with the epoch or batch if it has one, and with logs."""
        for callback in self.callbacks:
            getattr(callback, hook)(*position, {} if logs is None else logs)

    def bear(self, error: NonFiniteError, program: Any, arrays: Sequence[Any], batch: int) -> bool:
        """Does any callback take it on itself that a step was refused?"""
        return any([callback.on_non_finite(error, program, arrays, batch) for callback in self.callbacks])


def _not_a_callback(value: Any) -> GraphError:
    remedy = (
        f"give an object: {value.__name__}(...)" if isinstance(value, type) else "derive it from gx.callbacks.Callback"
    )
    return GraphError(f"{value!r} is not a callback", at=user_line(), remedy=remedy)


class History(Callback):
    """What ``fit`` returns.

    Attributes:
        history: for each key of the logs its value after every epoch.
        epoch: the numbers of the epochs.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for key, value in (logs or {}).items():
            self.history.setdefault(key, []).append(value)


class LambdaCallback(Callback):
    """Functions as hooks.

    Args:
        hooks: functions by the name of the hook, such as ``on_epoch_end=lambda epoch, logs: print(logs)``.
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if not hasattr(Callback, name) or not name.startswith("on_"):
                raise AxisError(f"callbacks have no hook {name!r}", at=user_line(), remedy="see gx.callbacks.Callback")
            if function is not None:
                setattr(self, name, function)


class EarlyStopping(Callback):
    """Stop when a result no longer gets better.

    Args:
        monitor: a key of the logs.
        min_delta: by how much a result must be better to count.
        patience: how many epochs without a better one are borne.
        verbose: 1 to say it when it happens.
        mode: ``min``, ``max``, or ``auto``: by what is monitored.
        baseline: results that are not better than this count as no better.
        restore_best_weights: give the model the weights of its best epoch at the end.
        start_from_epoch: epochs before this one are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise AxisError(f"no mode is called {mode!r}", at=user_line(), remedy="use auto, min or max")
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self._forget()

    def _forget(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: list[Any] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._forget()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        current = (logs or {}).get(self.monitor)
        if current is None:
            warnings.warn(
                f"early stopping watches {self.monitor!r}, which the logs do not hold: {', '.join(logs or {})}",
                stacklevel=2,
            )
            return
        if epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._keep(epoch)
        self.wait += 1
        if self._better(current, self.best):
            self.best = current
            self._keep(epoch)
            if self.baseline is None or self._better(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of epoch {self.best_epoch + 1}, the best one")
            self.model.set_weights(self.best_weights)

    def _keep(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            self.best_weights = self.model.get_weights()

    def _better(self, current: float, than: float | None) -> bool:
        if than is None:
            return not math.isnan(current)
        if self._maximize():
            return current - self.min_delta > than
        return current + self.min_delta < than

    def _maximize(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            return False
        direction = self.model.direction_of(name)
        if direction is None:
            raise AxisError(
                f"whether more of {self.monitor!r} is better is not known",
                at=user_line(),
                remedy="say mode='min' or mode='max'",
            )
        return direction == "up"
