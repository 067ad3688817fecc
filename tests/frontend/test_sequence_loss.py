"""CTC in training: labels without alignment, time of any length, masks, weights."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers, losses

rng = np.random.default_rng(8)


class Trimmed(layers.Layer):
    """Time steps of zeros at the end do not count."""

    supports_masking = True

    def call(self, x):
        return x * 1.0

    def compute_mask(self, inputs, previous_mask):
        return gx.any(gx.not_equal(inputs, 0.0), axis=-1)


def reader(masked=False):
    inputs = gx.Input((None, 4))
    model = gx.Model(inputs, layers.Dense(4)(Trimmed()(inputs) if masked else inputs))
    model.compile(gx.optimizers.Adam(0.05), "ctc", backend="reference")
    return model


def test_a_model_learns_to_read_without_alignments():
    gx.set_seed(1)
    labels = np.array([[1, 2, 0], [3, 0, 0], [2, 2, 1], [1, 3, 2]])
    said = [[0, 1, 1, 0, 2, 2, 0], [3, 3, 3, 3, 0, 0, 0], [2, 2, 0, 2, 2, 1, 1], [1, 1, 3, 3, 3, 2, 0]]
    x = np.eye(4, dtype=np.float32)[np.array(said)] + 0.1 * rng.standard_normal((4, 7, 4)).astype(np.float32)
    model = reader()
    history = model.fit(x, labels, epochs=120, verbose=0).history["loss"]
    assert history[-1] < 0.05 * history[0]
    (best,) = (model.predict(x, verbose=0).argmax(-1)[:1],)
    read = [c for i, c in enumerate(best[0]) if c and (i == 0 or best[0][i - 1] != c)]
    assert read == [1, 2]


def test_masks_are_lengths_and_weights_are_of_rows():
    x, labels = rng.standard_normal((3, 6, 4)).astype(np.float32), np.array([[1, 2], [3, 0], [2, 2]])
    steps = [6, 3, 5]
    short = np.array([[t < n for t in range(6)] for n in steps])[..., None] * x
    model = reader(masked=True)
    z = model.predict(short, verbose=0)
    weight = np.array([0.5, 2.0, 1.0])
    y, logits = gx.placeholder("y", (3, 2), "int64"), gx.placeholder("z", (3, 6, 4))
    rows = gx.ctc_loss(y, logits, input_lengths=gx.constant(np.array(steps)))
    (expected,) = gx.compile({"l": rows}, [y, logits], backend="reference").call([labels, z])
    assert model.test_on_batch(short, labels) == pytest.approx(expected.mean(), rel=1e-5)
    assert model.test_on_batch(short, labels, weight) == pytest.approx((expected * weight).mean(), rel=1e-5)
    assert losses.CTC(blank=3).blank == 3
