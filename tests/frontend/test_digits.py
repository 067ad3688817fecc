from __future__ import annotations

import numpy as np

from graphc.frontend.data.digits import load_digits


def test_digits_are_the_published_ones():
    images, labels = load_digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 16)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.sum() == 561718


def test_the_first_digit_is_a_zero_with_a_hole():
    images, labels = load_digits()
    assert labels[0] == 0
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert images[0, 3:5, 3:5].sum() == 0
    assert images[0, 3:5, 1].min() > 0


def test_each_call_hands_out_arrays_of_its_own():
    images, _ = load_digits()
    images[:] = 0
    assert load_digits()[0].any()
