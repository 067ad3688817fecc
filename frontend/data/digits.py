"""Handwritten digits, bundled: 1,797 real images that need no download."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The test part of the UCI 8x8 digits: images and labels, in the published order.

    Shapes:
        images: uint8[1797, 8, 8], ink from 0 (none) to 16.
        labels: int64[1797], the digit from 0 to 9.

    Source:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
        1998, https://doi.org/10.24432/C50P49. Licensed under CC BY 4.0.

    >>> images, labels = load_digits()
    >>> images.shape, labels[:5].tolist()
    ((1797, 8, 8), [0, 1, 2, 3, 4])
    """
    from importlib.resources import files  # slow to import, and whoever trains on other data does not need it

    packed = files("graphc.frontend.data").joinpath("digits.csv.gz").read_bytes()
    text = gzip.decompress(packed).decode("ascii")
    table = np.fromstring(text.replace("\n", ","), dtype=np.int64, sep=",").reshape(-1, 65)
    return table[:, :64].astype(np.uint8).reshape(-1, 8, 8), table[:, 64].copy()
