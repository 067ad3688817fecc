"""Callbacks that end training: when results no longer get better, when they are no numbers any more."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from graphc.errors import AxisError, NonFiniteError
from graphc.frontend.arguments import suggestion
from graphc.frontend.callbacks_base import Callback, Logs
from graphc.frontend.checked import Extended, Limit, NonNegative
from graphc.frontend.config import user_line


class Monitor(Callback):
    """Base of callbacks that watch one result.

    Args:
        monitor: a key of the logs.
        mode: ``min``, ``max``, or ``auto``: by what is monitored.
        min_delta: by how much a result must be better to count.
    """

    what = "a callback"
    """How warnings call it."""

    def __init__(self, monitor: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise AxisError(f"no mode is called {mode!r}", at=user_line(), remedy="use auto, min or max")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)

    def find(self, logs: Logs | None) -> float | None:
        """The result that is watched; None, with a warning, if the logs do not hold it."""
        current = (logs or {}).get(self.monitor)
        if current is None:
            held = ", ".join(logs or {}) or "nothing"
            near = suggestion(self.monitor, logs or {}).rstrip()
            said = f"{self.what} watches {self.monitor!r}, which the logs do not hold: {held}"
            warnings.warn(f"{said}; {near}" if near else said, stacklevel=2)
        return current

    def better(self, current: float, than: float | None) -> bool:
        """Is a result better than an earlier one? NaN never is."""
        if than is None:
            return not math.isnan(current)
        if self.maximizes():
            return current - self.min_delta > than
        return current + self.min_delta < than

    def maximizes(self) -> bool:
        """Is more of what is watched better?"""
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


class EarlyStopping(Monitor):
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

    what = "early stopping"

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: Limit = 0,
        verbose: int | bool = 0,
        mode: str = "auto",
        baseline: Extended | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: NonNegative = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
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
        current = self.find(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self._keep(epoch)
        self.wait += 1
        if self.better(current, self.best):
            self.best = current
            self._keep(epoch)
            if self.baseline is None or self.better(current, self.baseline):
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


class TerminateOnNaN(Callback):
    """End training when a step would make NaN or infinity, and name the node and the line where it begins.

    Such a step is refused before it changes anything, so the model keeps its last finite weights. The batch is then
    computed again, node by node, to find the first value that is not finite.

    Attributes:
        error: what was found: its message names the node, its ``at`` the line; None if nothing happened.

    Raises:
        None; ``model.stop_training`` is set, and the message is a warning.

    Source:
        ``keras.callbacks.TerminateOnNaN``, which looks at the loss alone.
    """

    checks_finite = True

    def __init__(self) -> None:
        self.error: NonFiniteError | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.error = None

    def on_non_finite(self, error: NonFiniteError, program: Any, arrays: Sequence[Any], batch: int) -> bool:
        from graphc.report.non_finite import find_non_finite

        self.error = find_non_finite(program, arrays) or error
        epoch = 0 if self.model.running is None else self.model.running.position.epoch
        warnings.warn(f"training ends in epoch {epoch + 1}, batch {batch}: {self.error}", stacklevel=2)
        self.model.stop_training = True
        return True
