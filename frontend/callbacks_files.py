"""Callbacks that keep models: the best or every one, and a backup from which a killed training goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from graphc.errors import AxisError
from graphc.frontend.backup import read_backup, write_backup
from graphc.frontend.callbacks_base import Callback, Logs
from graphc.frontend.callbacks_stop import Monitor
from graphc.frontend.checked import Count, Extended
from graphc.frontend.config import user_line
from graphc.frontend.files import remove_leftovers

if TYPE_CHECKING:
    from graphc.frontend.model import Model


def _check_frequency(save_freq: Any) -> None:
    if isinstance(save_freq, str) and save_freq != "epoch":
        raise AxisError(
            f"save_freq is 'epoch' or a number of batches, not {save_freq!r}", at=user_line(), remedy="try 'epoch'"
        )


class ModelCheckpoint(Monitor):
    """Save the model, after each epoch or every so many batches, or only when it is the best so far.

    A model is saved whole or not at all, whenever the process is killed.

    Args:
        filepath: a folder (``model.save``), or a file with ``save_weights_only`` (``model.save_weights``). It may hold
            fields: ``"models/{epoch:02d}-{val_loss:.2f}"``; ``epoch`` and ``batch`` are counted from 1.
        monitor: which result says what is best.
        verbose: 1 to say it when something is saved.
        save_best_only: keep what is saved unless the result is better.
        save_weights_only: without layers, optimizer and random numbers.
        mode: ``min``, ``max``, or ``auto``: by what is monitored.
        save_freq: ``"epoch"``, or a number of batches.
        initial_value_threshold: results that are not better than this are not saved.

    Raises:
        AxisError: ``save_freq`` or ``mode`` is none, or ``filepath`` names a field that the logs do not hold.

    Source:
        ``keras.callbacks.ModelCheckpoint``.
    """

    what = "the model checkpoint"

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int | bool = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | Count = "epoch",
        initial_value_threshold: Extended | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        _check_frequency(save_freq)
        self.filepath = str(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self.waited = 0
        if save_freq != "epoch":
            self.on_train_batch_end = self._after_batch

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save(epoch, None, logs)

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self.waited += 1
        if self.waited >= cast("int", self.save_freq):
            self.waited = 0
            running = self.model.running
            self._save(0 if running is None else running.position.epoch, batch, logs)

    def _save(self, epoch: int, batch: int | None, logs: Logs | None) -> None:
        if self.save_best_only:
            current = self.find(logs)
            if current is None or not self.better(current, self.best):
                return
            self.best = current
        path = self._path(epoch, batch, logs)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saving to {path}")
        model = cast("Model", self.model)
        if self.save_weights_only:
            model.save_weights(path)
        else:
            model.save(path)

    def _path(self, epoch: int, batch: int | None, logs: Logs | None) -> str:
        fields: dict[str, Any] = {**(logs or {}), "epoch": epoch + 1}
        if batch is not None:
            fields["batch"] = batch + 1
        try:
            return self.filepath.format(**fields)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise AxisError(
                f"the path {self.filepath!r} does not fit what is known: {error}",
                at=user_line(),
                remedy=f"use the fields {', '.join(fields)}",
            ) from None


class BackupAndRestore(Callback):
    """Let a training that is killed at any moment go on where it was, bit for bit.

    Run the same program again: ``fit`` finds the backup and continues. Weights, the optimizer's state, the bits of
    dropout, the order of samples, metrics, the history and the states of all callbacks (see
    :meth:`Callback.get_state`) are those of a training that was never interrupted. Batches from an iterable are asked
    for again from its beginning, and those that were used are passed over; so it must yield them in the same order.

    Args:
        backup_dir: a folder of this training alone.
        save_freq: ``"epoch"``, or a number of batches.
        double_checkpoint: with a number of batches, back up at the end of each epoch as well.
        delete_checkpoint: remove the backup when training has ended.

    Raises:
        AxisError: ``save_freq`` is neither.
        FileError: the backup cannot be read or written, or belongs to another training.

    Source:
        ``keras.callbacks.BackupAndRestore``, which keeps the model alone.
    """

    runs_last = True

    def __init__(
        self,
        backup_dir: str | Path,
        save_freq: str | Count = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        _check_frequency(save_freq)
        self.backup_dir = Path(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self.waited = 0
        self._companions: Sequence[Callback] = ()
        if save_freq != "epoch":
            self.on_train_batch_end = self._after_batch

    @property
    def path(self) -> Path:
        """The file of the backup."""
        return self.backup_dir / "training.safetensors"

    def set_companions(self, callbacks: Sequence[Callback]) -> None:
        self._companions = callbacks

    def get_state(self) -> dict[str, Any]:
        return {"waited": self.waited}

    def on_train_begin(self, logs: Any = None) -> None:
        self.waited = 0
        remove_leftovers(self.path)
        read_backup(self.path, cast("Model", self.model), self._companions)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch" or self.double_checkpoint:
            self._write()

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self.waited += 1
        if self.waited >= cast("int", self.save_freq):
            self.waited = 0
            self._write()

    def _write(self) -> None:
        write_backup(self.path, cast("Model", self.model), self._companions)

    def on_train_end(self, logs: Any = None) -> None:
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something else
                self.backup_dir.rmdir()
