"""Tables of tokens and positions that a model begins with."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import layers
from tests.frontend.running import run_layer


@pytest.mark.parametrize("scale", [False, True])
def test_tokens_and_positions_are_added(scale):
    layer = layers.TokenAndPositionEmbedding(9, 6, 4, scale=scale)
    ids = np.random.default_rng(0).integers(0, 9, (2, 5))
    found = run_layer(layer, ids)
    tokens, positions = sorted(layer.get_weights(), key=len, reverse=True)
    assert (tokens.shape, positions.shape) == ((9, 4), (6, 4))
    np.testing.assert_allclose(found, tokens[ids] * (2 if scale else 1) + positions[:5], rtol=1e-6, atol=1e-7)
