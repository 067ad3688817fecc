"""The base of callbacks, with Keras 3's hooks; the list that calls them; the two that every fit may have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from graphc.errors import AxisError, GraphError, NonFiniteError
from graphc.frontend.checked import hold_annotations
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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hold_annotations(cls)

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
    remedy = "derive it from gx.callbacks.Callback"
    if isinstance(value, type):
        remedy = f"give an object: {value.__name__}(...)"
    elif callable(value):
        remedy = "write gx.callbacks.LambdaCallback(on_epoch_end=function)"
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
        self._epochs: dict[str, list[int]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for key, value in (logs or {}).items():
            self.history.setdefault(key, []).append(value)
            self._epochs.setdefault(key, []).append(epoch)

    def plot(self, path: str | Path | None = None, keys: Sequence[str] | None = None, log: bool = False) -> Any:
        """Draw results over the epochs; needs the extra ``plot``.

        Args:
            path: where to write the picture; the suffix says its format.
            keys: which results; default the loss and what belongs to it.
            log: a logarithmic vertical axis.

        Returns:
            A Matplotlib figure.

        Raises:
            AxisError: there is no such result.
            BackendError: Matplotlib is not installed.
        """
        from graphc.frontend.plotting import draw_lines

        chosen = [key for key in self.history if key in ("loss", "val_loss")] if keys is None else list(keys)
        for key in chosen:
            if key not in self.history:
                known = ", ".join(self.history) or "none"
                raise AxisError(f"there is no result {key!r}", at=user_line(), remedy=f"there are: {known}")
        lines = {key: self.history[key] for key in chosen}
        y = "loss" if keys is None else ", ".join(chosen)
        return draw_lines(lines, path, x="epoch", y=y, log=log, places=self._epochs)


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
