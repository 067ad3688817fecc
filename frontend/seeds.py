"""Where random numbers start: one seed, from which every weight, mask and permutation is derived by name.

Nothing draws from a shared generator, so the order in which things are built or run does not matter: the initial value
of a weight depends on the seed, on which model it belongs to, and on its path in that model; a dropout mask on the
model's seed, its step counter and the layer's path.
"""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np

from graphc.errors import AxisError
from graphc.frontend.arguments import is_whole
from graphc.ir.location import user_line


class _Source:
    def __init__(self) -> None:
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.era = 0
        self.models = 0


_source = _Source()


def set_seed(seed: int) -> None:
    """Make everything random that is built after this call reproducible.

    Call it before building the model: weights are drawn when a model is built, and a model keeps the seed of its
    dropout masks and of its shuffling from then on (``save`` and ``load`` keep them too).

    Args:
        seed: any whole number.

    Raises:
        AxisError: it is no whole number.

    >>> import graphc as gx
    >>> gx.set_seed(7)
    >>> first = gx.layers.Dense(2)(gx.placeholder("x", ("batch", 3))).args[0].args[1].value
    >>> gx.set_seed(7)
    >>> second = gx.layers.Dense(2)(gx.placeholder("x", ("batch", 3))).args[0].args[1].value
    >>> bool((first == second).all())
    True
    """
    if not is_whole(seed, -math.inf):
        raise AxisError(f"a seed is a whole number, not {seed!r}", at=user_line(), remedy="write gx.set_seed(0)")
    _source.seed = int(seed)
    _source.era += 1
    _source.models = 0


def era() -> int:
    """How many times the seed has been set; names and ordinals handed out in an earlier era are void."""
    return _source.era


def next_ordinal() -> int:
    """A number for a new model: two models built under one seed start from different weights."""
    _source.models += 1
    return _source.models


def derive(*names: object) -> int:
    """A 64-bit number that depends on the seed and on these names."""
    return _hash(repr((_source.seed, *names)), 8)


def stream_of(path: str) -> int:
    """A 32-bit number for a random stream's path. It does not depend on the seed: graph text holds it."""
    return _hash(path, 4)


def generator(*names: object) -> np.random.Generator:
    """A NumPy generator that depends on these names alone."""
    return np.random.Generator(np.random.PCG64(_hash(repr(names), 16)))


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")
