"""Positions: sines and cosines, learned vectors, rotation, biases by distance."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from tests.frontend.running import evaluate, f32, run_layer

rng = np.random.default_rng(0)


def encoding(length, size, **said):
    (found,) = evaluate([layers.sinusoidal_encoding(length, size, **said)], [])
    return found


def formula(length, size, base=10_000.0):
    positions, pairs = np.arange(length)[:, None], np.arange(size) // 2
    angles = positions / base ** (2 * pairs / size)
    return np.where(np.arange(size) % 2 == 0, np.sin(angles), np.cos(angles))


@pytest.mark.parametrize(
    ("length", "size", "base"), [(1, 2, 1e4), (50, 8, 1e4), (7, 5, 1e4), (4096, 512, 1e4), (9, 4, 100.0)]
)
def test_sines_and_cosines_are_those_of_the_formula(length, size, base):
    np.testing.assert_allclose(encoding(length, size, base=base), formula(length, size, base), rtol=0, atol=1e-7)


def test_known_values():
    found = encoding(4, 4)
    np.testing.assert_allclose(found[0], [0, 1, 0, 1])
    np.testing.assert_allclose(found[1], [0.841471, 0.540302, 0.0099998, 0.99995], atol=1e-6)
    np.testing.assert_allclose(found[3], [0.141120, -0.989992, 0.0299955, 0.99955], atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 40])
def test_a_later_position_is_a_linear_function_of_an_earlier_one(k):
    """Each pair of a sine and a cosine turns by ``k`` times its frequency, wherever it stands."""
    pe = encoding(100, 16, dtype="float64")
    matrix = np.zeros((16, 16))
    for pair, angle in enumerate(k / 10_000 ** (np.arange(8) / 8)):
        at = slice(2 * pair, 2 * pair + 2)
        matrix[at, at] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    np.testing.assert_allclose(pe[:-k] @ matrix, pe[k:], atol=1e-12)


def test_no_two_positions_are_alike_and_near_ones_are_more_alike():
    pe = encoding(200, 32).astype(np.float64)
    products = pe @ pe.T
    assert np.all(products[~np.eye(200, dtype=bool)] < 16 - 1e-3)
    np.testing.assert_allclose(np.diag(products), 16, rtol=1e-6)
    assert products[100, 101] > products[100, 103] > products[100, 110]


def test_the_layer_gives_what_the_function_gives_for_any_length():
    layer = layers.SinePositionEncoding()
    x = gx.placeholder("x", ("batch", "time", 6))
    program = gx.compile({"y": layer(x), "later": layer(x, start_index=3)}, inputs=[x], backend="reference")
    for length in (1, 9):
        found = program(x=f32(rng, 2, length, 6))
        np.testing.assert_allclose(found["y"], np.broadcast_to(formula(length, 6), (2, length, 6)), atol=1e-7)
        np.testing.assert_allclose(found["later"][0], formula(length + 3, 6)[3:], atol=1e-7)


def test_learned_positions_are_rows_of_a_table():
    layer, x = layers.PositionEmbedding(5), gx.placeholder("x", ("batch", "time", 3))
    program = gx.compile({"y": layer(x)}, inputs=[x], backend="reference")
    (table,) = layer.get_weights()
    assert table.shape == (5, 3)
    np.testing.assert_array_equal(program(x=f32(rng, 2, 4, 3))["y"], np.broadcast_to(table[:4], (2, 4, 3)))
    np.testing.assert_array_equal(run_layer(layer, f32(rng, 2, 3, 3), start_index=2)[1], table[2:])
    with pytest.raises(gx.IndexRangeError, match="5"):
        program(x=f32(rng, 2, 6, 3))
    with pytest.raises(gx.ShapeError, match="knows 5 positions, its input goes to 6") as caught:
        layer(gx.placeholder("x", (2, 6, 3)))
    assert "make the table longer" in str(caught.value)


def test_positions_of_ids_are_refused():
    with pytest.raises(gx.ShapeError, match="behind the embedding"):
        layers.SinePositionEncoding()(gx.placeholder("ids", ("batch", "time"), "int64"))


def turned(x, **said):
    node = gx.placeholder("x", x.shape, x.dtype)
    (found,) = evaluate([layers.rotate(node, **said)], [(node, x)])
    return found


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_multiplication_by_a_complex_number(interleaved):
    x = rng.standard_normal((2, 5, 6))
    pairs = x.reshape(2, 5, 3, 2) if interleaved else np.stack([x[..., :3], x[..., 3:]], -1)
    angles = np.arange(5)[:, None] / 10_000 ** (2 * np.arange(3) / 6)
    z = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
    wanted = np.stack([z.real, z.imag], -1)
    wanted = wanted.reshape(2, 5, 6) if interleaved else np.concatenate([wanted[..., 0], wanted[..., 1]], -1)
    np.testing.assert_allclose(turned(x, interleaved=interleaved), wanted, atol=1e-12)


def test_products_of_rotated_vectors_depend_on_the_distance_alone():
    q, k = (np.broadcast_to(rng.standard_normal(8), (20, 8)) for _ in range(2))
    products = turned(np.array(q)) @ turned(np.array(k)).T
    for distance in (0, 1, 7):
        np.testing.assert_allclose(np.diagonal(products, distance), products[0, distance], rtol=1e-10)
    assert not np.allclose(products[0, 0], products[0, 7])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_agrees_with_onnxruntime(interleaved):
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    x = f32(rng, 2, 3, 5, 8)
    angles = np.arange(5)[:, None] / 10_000 ** (2 * np.arange(4) / 8)
    caches = [np.broadcast_to(table, (2, 5, 4)).astype(np.float32) for table in (np.cos(angles), np.sin(angles))]
    h = onnx.helper
    node = h.make_node("RotaryEmbedding", ["x", "cos", "sin"], ["y"], interleaved=int(interleaved))
    values = [h.make_tensor_value_info(name, 1, None) for name in ("x", "cos", "sin", "y")]
    graph = h.make_graph([node], "g", values[:3], values[3:])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 23)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, dict(zip(("x", "cos", "sin"), (x, *caches), strict=True)))
    np.testing.assert_allclose(turned(x, interleaved=interleaved), wanted, atol=2e-6)


def test_the_rotary_layer_turns_along_its_axes():
    x = f32(rng, 2, 5, 3, 4)
    wanted = np.swapaxes(turned(np.swapaxes(x, 1, 2)), 1, 2)
    np.testing.assert_allclose(run_layer(layers.RotaryEmbedding(), x), wanted, atol=1e-6)
    np.testing.assert_array_equal(run_layer(layers.RotaryEmbedding(), x)[:, 0], x[:, 0])
    same = np.repeat(x[:, :1], 5, axis=1)
    far, near = (run_layer(layers.RotaryEmbedding(scaling_factor=by), same) for by in (2.0, 1.0))
    np.testing.assert_allclose(far[:, 4], near[:, 2], atol=1e-6)
    np.testing.assert_allclose(run_layer(layers.RotaryEmbedding(), same, start_index=2)[:, 0], near[:, 2], atol=1e-6)


def test_part_of_the_values_can_stay_as_they_are():
    x = rng.standard_normal((5, 8))
    found = turned(x, features=4)
    np.testing.assert_array_equal(found[:, 4:], x[:, 4:])
    np.testing.assert_allclose(found[:, :4], turned(x[:, :4]))
    with pytest.raises(gx.ShapeError, match="even number of values, not 3"):
        layers.rotate(gx.placeholder("x", ("time", 3)))


@pytest.mark.parametrize(
    ("bidirectional", "known"),
    [
        (True, {0: 0, -1: 1, -7: 7, -8: 8, -11: 8, -12: 9, -16: 10, -64: 14, -1000: 15, 1: 17, 8: 24, 16: 26, 127: 31}),
        (False, {0: 0, 3: 0, -1: 1, -15: 15, -16: 16, -32: 21, -64: 26, -127: 31, -4000: 31}),
    ],
)
def test_ranges_of_distances(bidirectional, known):
    """Of T5: a number for each near distance, for farther ones ranges that grow with them."""
    layer = layers.RelativePositionBias(2, bidirectional=bidirectional)
    distance = gx.placeholder("d", ("n",), "int32")
    (found,) = evaluate([layer.bucket(distance)], [(distance, np.array(list(known), np.int32))])
    assert dict(zip(known, found.tolist(), strict=True)) == known


def test_a_bias_by_distance_is_the_same_along_diagonals():
    layer = layers.RelativePositionBias(2)
    found = run_layer(layer, f32(rng, 1, 6, 4))
    assert found.shape == (2, 6, 6)
    for distance in range(-5, 6):
        assert len(np.unique(np.diagonal(found[0], distance))) == 1
    assert len(np.unique(found[0])) == 11
    with pytest.raises(gx.AxisError, match="cannot reach"):
        layers.RelativePositionBias(2, num_buckets=2)
