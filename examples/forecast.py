"""A time series, the weather in Seattle: tomorrow's temperature, and the week's, against "it stays as it is".

A GRU reads 30 days and says by how much each of the next 7 will be warmer than the last. ``--check`` trains longer.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gx
from examples.common import check, draw, run
from examples.corpora import weather
from graphc import Input, Sequential, layers

PAST, AHEAD = 30, 7


def series() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each day is known by, its highest temperature, and its number in the year."""
    days = weather()
    table = np.array([[float(day[key]) for key in ("temp_max", "temp_min", "precipitation", "wind")] for day in days])
    number = np.array([date.fromisoformat(day["date"].replace("/", "-")).timetuple().tm_yday for day in days])
    season = 2 * np.pi * number / 365.25
    known = np.column_stack([table[:, :2] / 10 - 1, np.sqrt(table[:, 2]) / 3, table[:, 3] / 3 - 1,
                             np.sin(season), np.cos(season)])  # fmt: skip
    return known.astype(np.float32), table[:, 0].astype(np.float32), number


def windows(known: np.ndarray, highest: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """For each day from first to before last: the 30 days up to it, and how much warmer the 7 behind it are."""
    ends = range(max(first, PAST - 1), last - AHEAD)
    x = np.stack([known[end - PAST + 1 : end + 1] for end in ends])
    return x, np.stack([highest[end + 1 : end + AHEAD + 1] - highest[end] for end in ends])


def forecaster(units: int) -> gx.Model:
    """30 days become a state, and the state 7 numbers."""
    model = Sequential([
        Input((PAST, 6)), layers.GRU(units), layers.Dropout(0.3), layers.Dense(AHEAD, kernel_initializer="zeros"),
    ])  # fmt: skip
    model.compile(gx.optimizers.AdamW(0.003, weight_decay=0.01, global_clipnorm=1.0), "mse")
    return model


def forecast(out: Path, name: str, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Train on two years, stop by the third, foresee the fourth. Returns errors by days ahead: ours, persistence's."""
    gx.set_seed(0)
    known, highest, number = series()
    split = len(known) - 365
    x, y = windows(known, highest, 0, split - 365)
    x_new, y_new = windows(known, highest, split, len(known))
    model = forecaster(units=16)
    stop = gx.callbacks.EarlyStopping(patience=8, restore_best_weights=True)
    losses = model.fit(
        x, y, 64, epochs, 0, callbacks=[stop], validation_data=windows(known, highest, split - 365, split)
    ).history["loss"]
    said = model.predict(x_new, verbose=0)
    error, stays = (np.sqrt(np.mean((guess - y_new) ** 2, axis=0)) for guess in (said, np.zeros_like(y_new)))
    by_day = np.array([highest[:split][np.abs(number[:split] - day) <= 3].mean() for day in number])
    ends = np.arange(split, len(known) - AHEAD)
    usual = np.stack([by_day[ends + step + 1] - highest[ends] for step in range(AHEAD)], axis=1)
    seasonal = np.sqrt(np.mean((usual - y_new) ** 2, axis=0))
    trained = f"{len(losses)} epochs, loss {losses[0]:.1f} to {losses[-1]:.1f}"
    print(f"{len(x)} windows, {model.count_params()} parameters, {trained}")
    for label, values in (("model", error), ("it stays", stays), ("usual for the day", seasonal)):
        print(f"  {label}: error {values[0]:.2f} degrees one day ahead, {values[-1]:.2f} a week ahead, "
              f"{np.sqrt(np.mean(values**2)):.2f} over all seven")  # fmt: skip
    print(f"tomorrow: {1 - error[0] / stays[0]:.0%} less error than it stays; "
          f"the week: {1 - np.sqrt(np.mean(error**2) / np.mean(stays**2)):.0%} less")  # fmt: skip

    def paint(axes: Any) -> None:
        shown = ends[100:190]
        axes[0].plot(shown + 1 - split, highest[shown + 1], color="black", label="was")
        axes[0].plot(shown + 1 - split, highest[shown] + said[100:190, 0], label="said the day before")
        for row in range(100, 190, 14):
            days = ends[row] + 1 - split + np.arange(AHEAD)
            axes[0].plot(days, highest[ends[row]] + said[row], color="tab:red", label="a week said" * (row == 100))
        axes[0].set(xlabel="day of the year", ylabel="highest temperature")
        axes[0].legend()
        for label, values in (("model", error), ("it stays", stays), ("usual for the day", seasonal)):
            axes[1].plot(range(1, AHEAD + 1), values, marker="o", label=label)
        axes[1].set(xlabel="days ahead", ylabel="error in degrees (root of the mean square)")
        axes[1].legend()

    draw(out / f"{name}.svg", paint, columns=2, width=6)
    check(model.programs["train"], out / f"{name}.onnx", steps=2)
    return error, stays


def main(out: Path) -> None:
    """Trained for a moment."""
    forecast(out, "forecast", epochs=12)


def train(out: Path) -> None:
    """Trained until the third year no longer gets better: better than persistence on each day of the fourth's weeks."""
    error, stays = forecast(out, "forecast-trained", epochs=100)
    if not (error < stays).all():
        raise SystemExit("persistence is not beaten")


if __name__ == "__main__":
    run(main, __doc__, train)
