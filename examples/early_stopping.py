"""Early stopping: training goes on down, validation turns up, and the best weights come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from graphc import Input, Sequential, layers


def main(out: Path) -> None:
    """Overfit a few noisy samples of a sine."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-3, 3, (60, 1)).astype(np.float32)
    y = (np.sin(x) + rng.normal(0, 0.4, x.shape)).astype(np.float32)
    gx.set_seed(0)
    model = Sequential([Input((1,)), layers.Dense(64, "tanh"), layers.Dense(64, "tanh"), layers.Dense(1)])
    model.compile(gx.optimizers.Adam(0.01), "mse")
    stop = gx.callbacks.EarlyStopping("val_loss", patience=40, restore_best_weights=True)
    history = model.fit(
        x[:30], y[:30], batch_size=30, epochs=600, validation_data=(x[30:], y[30:]), callbacks=[stop], verbose=0
    )
    losses = history.history
    print(f"best epoch {stop.best_epoch + 1}, stopped after epoch {stop.stopped_epoch + 1} of 600")
    print(f"validation at the best epoch {min(losses['val_loss']):.3f}, at the last {losses['val_loss'][-1]:.3f}")
    restored = model.evaluate(x[30:], y[30:], batch_size=30, verbose=0)
    print(f"validation with the weights that came back {restored:.3f}")
    print("training loss went on down:", losses["loss"][-1] < losses["loss"][stop.best_epoch])

    def paint(axes: Any) -> None:
        axes.plot(losses["loss"], label="training")
        axes.plot(losses["val_loss"], label="validation")
        axes.axvline(stop.best_epoch, color="k", ls=":", label="best")
        axes.set(xlabel="epoch", ylabel="loss", ylim=(0, 0.8))
        axes.legend()

    draw(out / "early_stopping.svg", paint)
    check(model.programs["predict"], out / "early_stopping.onnx")


if __name__ == "__main__":
    run(main, __doc__)
