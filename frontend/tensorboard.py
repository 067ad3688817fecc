"""Results for TensorBoard. Its event files are written here, so that nothing but TensorBoard itself needs installing.

An event file is a sequence of records (length, its check sum, data, its check sum), the data a protocol buffer
``Event``.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, FileError
from graphc.frontend.callbacks_base import Callback, Logs
from graphc.frontend.checked import Natural
from graphc.frontend.config import user_line


class EventWriter:
    """Writes one event file into a folder.

    Args:
        folder: where; the file gets a name of its own.
        step: what earlier files of this folder say of this step and later ones is void.

    Raises:
        FileError: the file cannot be written.
    """

    def __init__(self, folder: Path, step: int | None = None) -> None:
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / name
            self._path.touch()
        except OSError as error:
            raise FileError(
                f"{folder} cannot be written: {error.strerror or error}",
                at=user_line(),
                remedy="choose a folder that can be written",
            ) from error
        self._record(_event() + _text(3, "brain.Event:2"))
        if step is not None:
            self._record(_event(step) + _message(7, _varint(1, 1)))  # SessionLog START

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers by tag; results with several values are left out."""
        single = {tag: value for tag, value in values.items() if np.ndim(value) == 0}
        found = b"".join(_message(1, _text(1, tag) + _float(2, value)) for tag, value in single.items())
        self._record(_event(step) + _message(5, found))

    def histogram(self, step: int, tag: str, values: NDArray[Any], buckets: int = 30) -> None:
        """Write how the elements of an array are distributed."""
        flat = values.astype(np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        counts, edges = np.histogram(flat, buckets)
        sums = (flat.min(), flat.max(), flat.size, flat.sum(), np.square(flat).sum())
        body = b"".join(_double(number, float(value)) for number, value in enumerate(sums, 1))
        body += _message(6, edges[1:].astype("<f8").tobytes()) + _message(7, counts.astype("<f8").tobytes())
        self._record(_event(step) + _message(5, _message(1, _text(1, tag) + _message(5, body))))

    def _record(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        with open(self._path, "ab") as file:
            file.write(length + _masked(length) + data + _masked(data))


def _number(value: int) -> bytes:
    found = bytearray()
    value &= (1 << 64) - 1
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _varint(field: int, value: int) -> bytes:
    return _number(field << 3) + _number(value)


def _double(field: int, value: float) -> bytes:
    return _number(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _number(field << 3 | 5) + np.float32(value).tobytes()


def _message(field: int, data: bytes) -> bytes:
    return _number(field << 3 | 2) + _number(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _event(step: int = 0) -> bytes:
    return _double(1, time.time()) + _varint(2, step)


@cache
def _table() -> list[int]:
    """The table of CRC-32C, polynomial 0x1EDC6F41, reflected."""
    found: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


def _masked(data: bytes) -> bytes:
    """The check sum of a record: CRC-32C, turned and shifted, so that sums of data that holds sums stay good."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class TensorBoard(Callback):
    """Results as event files, which ``tensorboard --logdir logs`` shows (``pip install "graphc[tensorboard]"``).

    Results of epochs go to the folders ``train`` and ``validation`` under the tags ``epoch_loss`` and so on, as with
    Keras; those of batches to ``batches`` as ``batch_loss``.

    Args:
        log_dir: the folder.
        histogram_freq: after every so many epochs, histograms of the weights; 0 for none.
        update_freq: ``"epoch"``, ``"batch"``, or a number of batches.

    Raises:
        AxisError: ``update_freq`` is none of these.
        FileError: the folder cannot be written.

    Source:
        ``tensorflow/core/util/event.proto``, ``summary.proto``; ``keras.callbacks.TensorBoard``.
    """

    def __init__(
        self, log_dir: str | Path = "logs", histogram_freq: Natural = 0, update_freq: str | int = "epoch"
    ) -> None:
        every = {"epoch": 0, "batch": 1}.get(str(update_freq), update_freq)
        if not isinstance(every, int) or isinstance(every, bool) or every < 0:
            raise AxisError(
                f"update_freq is 'epoch', 'batch' or a number of batches, not {update_freq!r}",
                at=user_line(),
                remedy="try 'epoch'",
            )
        self.log_dir = Path(log_dir)
        self.histogram_freq = histogram_freq
        self.update_freq = update_freq
        self.steps = 0
        self._every = every
        self._writers: dict[str, EventWriter] = {}
        self._resumed_at: dict[str, int] = {}
        if every:
            self.on_train_batch_end = self._after_batch

    def on_train_begin(self, logs: Any = None) -> None:
        self.steps = 0
        self._resumed_at = {}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        running = self.model.running
        epoch = 0 if running is None else running.position.epoch
        self._resumed_at = {"train": epoch, "validation": epoch, "batches": self.steps}

    def _writer(self, name: str) -> EventWriter:
        if name not in self._writers:
            self._writers[name] = EventWriter(self.log_dir / name, self._resumed_at.get(name))
        return self._writers[name]

    def _after_batch(self, batch: int, logs: Logs | None = None) -> None:
        self.steps += 1
        if self.steps % self._every == 0:
            self._writer("batches").scalars(self.steps, {f"batch_{key}": value for key, value in (logs or {}).items()})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        parts: dict[str, dict[str, float]] = {"train": {}, "validation": {}}
        for key, value in (logs or {}).items():
            part = parts["validation" if key.startswith("val_") else "train"]
            part[f"epoch_{key.removeprefix('val_')}"] = value
        for name, values in parts.items():
            if values:
                self._writer(name).scalars(epoch, values)
        if self.histogram_freq and (epoch + 1) % self.histogram_freq == 0:
            for path, weight in self.model.named_weights().items():
                self._writer("train").histogram(epoch, path, weight.value)

    def on_train_end(self, logs: Any = None) -> None:
        self._writers = {}
