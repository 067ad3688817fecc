"""Callbacks that write down results: as CSV, as lines of JSON; and the norms of gradients."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from graphc.errors import AxisError, FileError
from graphc.frontend.callbacks_base import Callback, Logs
from graphc.frontend.config import user_line


class _LinesFile:
    """A file to which lines are added; each is handed to the system at once, so that it survives a kill -9.

    Args:
        path: the file.
        append: whether to keep what it holds.
    """

    def __init__(self, path: Path, append: bool) -> None:
        self._path = path
        self._append = append
        self._begun = False
        self.end: int | None = None
        """How long the file is; None if it is not begun. A resumed training sets it to go on there: what was written
        after the last backup is written again."""

    def begin(self) -> bool:
        """Make the file ready for the first line, once; whether it is empty.

        Raises:
            FileError: it cannot be written.
        """
        if not self._begun:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with open(self._path, "ab") as file:
                    if self.end is not None:
                        file.truncate(min(self.end, file.tell()))
                    elif not self._append:
                        file.truncate(0)
                    _end_line(self._path, file)
                    self.end = file.seek(0, io.SEEK_END)
            except OSError as error:
                raise FileError(
                    f"{self._path} cannot be written: {error.strerror or error}",
                    at=user_line(),
                    remedy="choose a file that can be written",
                ) from error
            self._begun = True
        return self.end == 0

    def add(self, line: str) -> None:
        """Write one line."""
        self.begin()
        with open(self._path, "ab") as file:
            file.write(line.encode() + b"\n")
            self.end = file.tell()


def _end_line(path: Path, file: BinaryIO) -> None:
    """End a line that a killed process left unfinished."""
    with open(path, "rb") as reader:
        if reader.seek(0, io.SEEK_END):
            reader.seek(-1, io.SEEK_END)
            if reader.read(1) != b"\n":
                file.write(b"\n")
                file.flush()


class _LinesLogger(Callback):
    """Base of what writes a line for each epoch."""

    def __init__(self, filename: str | Path, append: bool) -> None:
        self.filename = Path(filename)
        self.append = append
        self._lines = _LinesFile(self.filename, append)

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "end": self._lines.end}

    def set_state(self, state: dict[str, Any]) -> None:
        self._lines.end = state.pop("end")
        super().set_state(state)

    def on_train_begin(self, logs: Any = None) -> None:
        self._lines = _LinesFile(self.filename, self.append)

    def on_train_end(self, logs: Any = None) -> None:
        self._lines.begin()  # an empty file says that there was no epoch


class CSVLogger(_LinesLogger):
    """A row of results for each epoch, in a CSV file. Each row is on its way to the disk before the next epoch begins.

    The columns are ``epoch``, counted from 0, and the keys of the first epoch's logs in alphabetical order; a result
    that an epoch does not have is ``NA``. Numbers are written with all their digits. After a resumed training
    (:class:`BackupAndRestore`) each epoch still has one row.

    Args:
        filename: the file.
        separator: one character.
        append: keep what the file holds.

    Raises:
        AxisError: the separator is not one character.
        FileError: the file cannot be written.

    Source:
        RFC 4180; ``keras.callbacks.CSVLogger``.
    """

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False) -> None:
        super().__init__(filename, append)
        if len(separator) != 1 or separator in '"\r\n':
            raise AxisError(
                f"a separator is one character, not {separator!r}", at=user_line(), remedy="try ',' or '\\t'"
            )
        self.separator = separator
        self.keys: list[str] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self.keys = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        found = dict(logs or {})
        if self.keys is None:
            self.keys = sorted(found)
            running = self.model.running
            if running is not None and running.validation is not None:  # it may come only every other epoch
                self.keys += [f"val_{key}" for key in self.keys if not key.startswith("val_")]
                self.keys = list(dict.fromkeys(self.keys))
            if self._lines.begin():
                self._lines.add(self._row(["epoch", *self.keys]))
        self._lines.add(self._row([epoch, *(_plain(found.get(key, "NA")) for key in self.keys)]))

    def _row(self, cells: list[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator, lineterminator="").writerow(cells)
        return text.getvalue()


def _plain(value: Any) -> Any:
    """A result as numbers and lists of them: some metrics have several values."""
    return cast("Any", value).tolist() if isinstance(value, np.ndarray | np.generic) else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class JSONLinesLogger(_LinesLogger):
    """A line of JSON for each epoch: ``{"epoch": 0, "loss": 0.5}``. What is not finite is null.

    After a resumed training (:class:`BackupAndRestore`) each epoch still has one line.

    Args:
        filename: the file.
        append: keep what the file holds.

    Raises:
        FileError: the file cannot be written.

    Source:
        https://jsonlines.org.
    """

    def __init__(self, filename: str | Path, append: bool = False) -> None:
        super().__init__(filename, append)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        found = {key: _without_nan(_plain(value)) for key, value in (logs or {}).items()}
        self._lines.add(json.dumps({"epoch": epoch, **found}, allow_nan=False))


class GradientNorms(Callback):
    """Keep the norm of each layer's gradient at each step, before anything is clipped.

    The norms come out of the training step itself; nothing is computed twice.

    Attributes:
        norms: for each layer with trained weights, by its path, a list with one number for each step.

    Raises:
        None.

    Source:
        Pascanu et al. 2013, On the difficulty of training recurrent neural networks, section 2.

    >>> import graphc as gx, numpy as np
    >>> model = gx.Sequential([gx.Input((2,)), gx.layers.Dense(3, name="first"), gx.layers.Dense(1, name="last")])
    >>> model.compile("sgd", "mse", backend="reference")
    >>> watch = GradientNorms()
    >>> history = model.fit(np.ones((64, 2)), np.ones(64), callbacks=[watch], verbose=0)
    >>> {name: len(norms) for name, norms in watch.norms.items()}
    {'first': 2, 'last': 2}
    """

    watches_gradients = True

    def __init__(self) -> None:
        self.norms: dict[str, list[float]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self.norms = {name: [] for name in self.model.programs.trained_layers()}

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        running = self.model.running
        if running is not None and running.loop.extra:
            for norms, value in zip(self.norms.values(), running.loop.extra[0].tolist(), strict=True):
                norms.append(value)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the norms over the steps; needs the extra ``plot``.

        Args:
            path: where to write the picture; the suffix says its format.

        Returns:
            A Matplotlib figure.
        """
        from graphc.frontend.plotting import draw_lines

        return draw_lines(self.norms, path, x="step", y="norm of the gradient", log=True)
