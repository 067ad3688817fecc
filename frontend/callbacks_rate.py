"""Callbacks that act on the optimizer: its learning rate between epochs, and the averages that it keeps of weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from graphc.errors import AxisError
from graphc.frontend.arguments import is_number
from graphc.frontend.callbacks_base import Callback, Logs
from graphc.frontend.callbacks_stop import Monitor
from graphc.frontend.checked import LessThanAll, Limit, NonNegative
from graphc.frontend.config import user_line


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of every epoch. For a rate by steps give the optimizer a schedule.

    Args:
        schedule: a function of the epoch, from 0, and the current rate, or of the epoch alone; it returns a number.
        verbose: 1 to print the rate.

    Raises:
        AxisError: the function returned something else.
        GraphError: the optimizer follows a schedule of its own.

    >>> import graphc as gx
    >>> halving = gx.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch else rate)
    """

    def __init__(self, schedule: Callable[..., float], verbose: int | bool = 0) -> None:
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        optimizer = self.model.optimizer
        both = _takes_two(self.schedule)
        rate: Any = self.schedule(epoch, optimizer.learning_rate) if both else self.schedule(epoch)
        if not is_number(rate):
            raise AxisError(
                f"the schedule returned {rate!r} for epoch {epoch}", at=user_line(), remedy="return a number"
            )
        optimizer.learning_rate = cast("float", rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: LearningRateScheduler setting learning rate to {optimizer.learning_rate}.")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    return True


class ReduceLROnPlateau(Monitor):
    """Lower the learning rate when a result no longer gets better.

    Args:
        monitor: a key of the logs.
        factor: by which the rate is multiplied, below 1.
        patience: how many epochs without a better result are borne.
        verbose: 1 to say it when it happens.
        mode: ``min``, ``max``, or ``auto``: by what is monitored.
        min_delta: by how much a result must be better to count.
        cooldown: how many epochs after a reduction are not counted.
        min_lr: the smallest rate.

    Raises:
        AxisError: ``factor`` is not below 1.
        GraphError: the optimizer follows a schedule.

    >>> import graphc as gx
    >>> gx.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=2).in_cooldown()
    False
    """

    what = "the reduction of the learning rate"

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: LessThanAll = 0.1,
        patience: Limit = 10,
        verbose: int | bool = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: Limit = 0,
        min_lr: NonNegative = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 <= factor < 1:
            raise AxisError(f"factor is from 0 to below 1, not {factor!r}", at=user_line(), remedy="common is 0.1")
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self._forget()

    def _forget(self) -> None:
        self.wait = 0
        self.cooldown_counter = 0
        self.best: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._forget()

    def in_cooldown(self) -> bool:
        """Is the last reduction so near that nothing is counted yet?"""
        return self.cooldown_counter > 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        current = self.find(logs)
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate
        if current is None:
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self.better(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience and self._reduce(epoch):
                self.cooldown_counter = self.cooldown
                self.wait = 0

    def _reduce(self, epoch: int) -> bool:
        optimizer = self.model.optimizer
        before = optimizer.learning_rate
        if before <= self.min_lr:
            return False
        optimizer.learning_rate = max(before * self.factor, self.min_lr)
        if self.verbose:
            print(f"Epoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {optimizer.learning_rate}.")
        return True


class SwapEMAWeights(Callback):
    """Evaluate and predict with the moving averages of the weights, and train on with the weights themselves.

    Args:
        swap_on_epoch: keep the averages in the model from the end of an epoch to the beginning of the next, too, so
            that callbacks behind this one, such as ``ModelCheckpoint``, write them.

    Raises:
        GraphError: the optimizer was made without ``use_ema=True``.

    >>> import graphc as gx
    >>> callbacks = [gx.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        self.swap_on_epoch = swap_on_epoch
        self.swapped = False

    def _put(self, averages: bool) -> None:
        """Let the model hold the averages, or its weights."""
        optimizer = self.model.optimizer
        if averages is not optimizer.averages_in_weights:
            optimizer.swap_averages()
        self.swapped = averages

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.model.optimizer.averages_in_weights = self.swapped

    def on_train_begin(self, logs: Any = None) -> None:
        self._put(False)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._put(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.swap_on_epoch:
            self._put(True)

    def on_train_end(self, logs: Any = None) -> None:
        self.swapped = False  # fit leaves the averages in the weights for good

    def on_test_begin(self, logs: Any = None) -> None:
        self._put(True)

    def on_test_end(self, logs: Any = None) -> None:
        self._put(False)

    def on_predict_begin(self, logs: Any = None) -> None:
        self._put(True)

    def on_predict_end(self, logs: Any = None) -> None:
        self._put(False)
