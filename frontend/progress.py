"""What ``fit`` shows: a bar on a terminal, lines where they are asked for, nothing otherwise."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from graphc.errors import AxisError
from graphc.frontend.callbacks_base import Callback, Logs
from graphc.frontend.config import user_line


def verbosity(verbose: Any) -> int:
    """0 (quiet), 1 (a bar) or 2 (a line for each epoch) from what the user said; ``auto`` is a bar on a terminal."""
    if verbose == "auto":
        return 1 if sys.stderr is not None and sys.stderr.isatty() else 0
    if verbose in (0, 1, 2):
        return int(verbose)
    raise AxisError(f"verbose is 'auto', 0, 1 or 2, not {verbose!r}", at=user_line(), remedy="write verbose=0")


class _OneBar:
    """A bar of tqdm that writes results only when it is drawn."""

    def __init__(self, label: str, total: int | None, done: int = 0) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=total, initial=done, desc=label, unit="batch", file=sys.stderr)

    def advance(self, logs: Any) -> None:
        bar = self._bar
        if time.time() - bar.last_print_t >= bar.mininterval:
            bar.set_postfix_str(_shown(logs), refresh=False)
        bar.update(1)

    def close(self, logs: Any = None) -> None:
        if logs:
            self._bar.set_postfix_str(_shown(logs), refresh=False)
        self._bar.close()


class Progress(Callback):
    """Base of what shows progress; :meth:`close` is called however the work ends."""

    bar: _OneBar | None = None

    def close(self, logs: Any = None) -> None:
        """Finish the line."""
        if self.bar is not None:
            self.bar.close(logs)
            self.bar = None


class ProgressBar(Progress):
    """One bar for each epoch, with the results so far; ``fit(verbose=1)`` shows it."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._open(epoch, 0)

    def _open(self, epoch: int, done: int) -> _OneBar:
        self.bar = _OneBar(f"Epoch {epoch + 1}/{self.params['epochs']}", self.params["steps"], done)
        return self.bar

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.bar is None and self.model.running is not None:  # an epoch that is resumed in its middle
            self._open(self.model.running.position.epoch, batch)
        if self.bar is not None:
            self.bar.advance(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.close(logs)


class PassBar(Progress):
    """One bar for an evaluation or a prediction."""

    def on_test_begin(self, logs: Any = None) -> None:
        self.bar = _OneBar("Evaluate", self.params["steps"])

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.bar is not None:
            self.bar.advance(logs)

    def on_test_end(self, logs: Any = None) -> None:
        self.close(logs)

    def on_predict_begin(self, logs: Any = None) -> None:
        self.bar = _OneBar("Predict", self.params["steps"])

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.bar is not None:
            self.bar.advance(None)

    def on_predict_end(self, logs: Any = None) -> None:
        self.close()


class EpochLines(Progress):
    """One line for each epoch."""

    def on_train_begin(self, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self._start
        print(f"Epoch {epoch + 1}/{self.params['epochs']} - {seconds:.1f} s - {_shown(logs)}", flush=True)


def _shown(logs: Logs | None) -> str:
    return " - ".join(f"{key}: {_rounded(value)}" for key, value in (logs or {}).items())


def _rounded(value: Any) -> str:
    """A number, or the numbers of a metric that has several."""
    if not np.ndim(value):
        return f"{value:.4f}"
    return " ".join(np.array2string(np.asarray(value), precision=4, separator=", ").split())
