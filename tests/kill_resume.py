"""kill -9 at random moments of a checkpointed ``fit``: every resume must end bit-equal to the uninterrupted run.

``python -m tests.kill_resume 100`` kills 100 times and prints what happened. A training is killed, started again,
killed again, until it ends or the kills are used up; then the next training begins.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import graphc as gx
from graphc import Sequential, layers

KINDS = ("arrays", "generator", "dataset")
ROOT = Path(__file__).resolve().parents[1]


class Noisy(gx.data.PyDataset):
    """Batches by number."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.x[index * 20 : index * 20 + 20], self.y[index * 20 : index * 20 + 20]


class Counter(gx.callbacks.Callback):
    """A callback of the user's own, with state that each step changes."""

    def __init__(self) -> None:
        self.total = 0.0
        self.trail: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.total = self.total * 0.5 + (logs or {})["loss"]
        if batch == 3:
            self.trail.append(self.total)


def train(folder: Path, kind: str, backend: str, pause: float, backup: bool = True) -> None:
    """The training that is killed: dropout, Adam with averages, metrics, validation, callbacks with state, log files."""
    gx.set_seed(5)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 6)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64)
    model = Sequential([layers.Dense(16, "relu"), layers.Dropout(0.3), layers.Dense(8, "tanh"), layers.Dense(2)])
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = gx.optimizers.Adam(0.02, clipnorm=1.0, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, loss, metrics=["accuracy"], backend=backend)
    model.build((None, 6))
    began: list[float] = []

    def begin(logs: object) -> None:
        began.append(time.perf_counter())
        (folder / "begun").write_text(str(os.getpid()))

    counter = Counter()
    stopping = gx.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True)
    callbacks = [
        *([gx.callbacks.BackupAndRestore(folder / "backup", save_freq=3, delete_checkpoint=False)] if backup else []),
        stopping,
        gx.callbacks.LambdaCallback(on_train_begin=begin, on_train_batch_end=lambda batch, logs: time.sleep(pause)),
        gx.callbacks.ModelCheckpoint(folder / "best", monitor="val_accuracy", save_best_only=True),
        gx.callbacks.ReduceLROnPlateau("loss", factor=0.7, patience=1, min_delta=0.02),
        gx.callbacks.CSVLogger(folder / "log.csv"),
        gx.callbacks.JSONLinesLogger(folder / "log.jsonl"),
        counter,
    ]

    def endless():
        number = 0
        while True:
            rows = np.random.default_rng(number).permutation(240)[:20]
            number += 1
            yield x[rows], y[rows]

    data = {"arrays": (x, y), "generator": (endless(),), "dataset": (Noisy(x, y),)}[kind]
    steps = 12 if kind == "generator" else None
    history = model.fit(
        *data, batch_size=20 if kind == "arrays" else None, epochs=8, steps_per_epoch=steps, verbose=0,
        validation_data=(x[:60], y[:60]), callbacks=callbacks,
    )  # fmt: skip
    seconds = time.perf_counter() - began[0]
    found = hashlib.sha256()
    state = gx.saving.find_state(model)
    for name in sorted(state):
        found.update(name.encode() + state[name].value.tobytes())
    found.update(json.dumps([history.history, history.epoch, counter.total, counter.trail]).encode())
    found.update(json.dumps([stopping.best, stopping.best_epoch, stopping.stopped_epoch]).encode())
    best = gx.load_model(folder / "best")
    found.update(b"".join(array.tobytes() for array in best.get_weights()))
    for name in ("log.csv", "log.jsonl"):
        found.update((folder / name).read_bytes())
    (folder / "result").write_text(f"{found.hexdigest()} {seconds}")


def start(folder: Path, kind: str, backend: str, pause: float, backup: bool = True) -> subprocess.Popen[bytes]:
    """The training in a process of its own."""
    command = [sys.executable, "-m", "tests.kill_resume", "--train", str(folder), kind, backend, str(pause)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, *([] if backup else ["--plain"])], cwd=ROOT, env=environment)


def finish(folder: Path, kind: str, backend: str, pause: float = 0.0, backup: bool = True) -> tuple[str, float]:
    """Let the training run to its end: the digest of all that it left, and how long it took once its programs were compiled."""
    code = start(folder, kind, backend, pause, backup).wait()
    if code:
        raise SystemExit(f"the training ended with {code}")
    digest, seconds = (folder / "result").read_text().split()
    return digest, float(seconds)


def kill(process: subprocess.Popen[bytes], folder: Path, delay: float) -> bool:
    """Kill a training so long after its first step began; whether it had not ended before."""
    begun = folder / "begun"
    while process.poll() is None and (not begun.exists() or begun.read_text() != str(process.pid)):
        time.sleep(0.001)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def kill_often(kills: int, seed: int, kinds: tuple[str, ...] = KINDS, backend: str = "numba") -> dict[str, int]:
    """Kill so many trainings at random moments and let each go on.

    Returns:
        How many kills hit, how many of them before the first backup, how many trainings ended, how many of these
        differ from the uninterrupted one.
    """
    draw = random.Random(seed)
    tally = {"kills": 0, "before the first backup": 0, "trainings": 0, "differing": 0}
    pause = 0.003
    with tempfile.TemporaryDirectory() as root:
        expected: dict[str, tuple[str, float]] = {}
        for kind in kinds:
            folder = Path(root, f"{kind}-whole")
            folder.mkdir()
            expected[kind] = finish(folder, kind, backend, pause, backup=False)
        number = 0
        while tally["kills"] < kills:
            kind = kinds[number % len(kinds)]
            folder = Path(root, str(number))
            folder.mkdir()
            number += 1
            digest, seconds = expected[kind]
            for _ in range(draw.randint(1, 6)):
                if tally["kills"] == kills:
                    break
                process = start(folder, kind, backend, pause)
                if kill(process, folder, draw.uniform(0.0, 1.0) * seconds):
                    tally["kills"] += 1
                    tally["before the first backup"] += not (folder / "backup" / "training.safetensors").exists()
            tally["trainings"] += 1
            tally["differing"] += finish(folder, kind, backend, 0.0)[0] != digest
    return tally


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.train:
        folder, kind, backend, pause = given.train
        train(Path(folder), kind, backend, float(pause), not given.plain)
        return
    tally = kill_often(given.kills, given.seed)
    print(", ".join(f"{count} {what}" for what, count in tally.items()))
    if tally["differing"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
