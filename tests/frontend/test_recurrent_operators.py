"""Recurrent layers against the operators RNN, LSTM and GRU of ONNX as onnxruntime has them."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from tests.frontend.running import f32

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

# our blocks of columns in ONNX's order
ORDERS = {"SimpleRNN": [0], "LSTM": [0, 3, 1, 2], "GRU": [0, 1, 2], "GRU before": [0, 1, 2]}
OPERATORS = {"SimpleRNN": "RNN", "LSTM": "LSTM", "GRU": "GRU", "GRU before": "GRU"}


def onnx_weights(kind, weights, units):
    """W, R and B of one direction."""
    kernel, recurrent, bias = weights
    order = ORDERS[kind]

    def rows(matrix):
        blocks = [matrix[..., k * units : (k + 1) * units] for k in order]
        return np.concatenate(blocks, -1)

    second = rows(bias[1]) if bias.ndim == 2 else np.zeros_like(rows(bias))
    first = rows(bias[0] if bias.ndim == 2 else bias)
    return rows(kernel).T, rows(recurrent).T, np.concatenate([first, second])


def run_operator(kind, directions, way, x, lengths, units):
    """Y and the last states, batch first."""
    made = [onnx_weights(kind, weights, units) for weights in directions]
    w, r, b = (np.stack([one[i] for one in made]).astype(np.float32) for i in range(3))
    states = ["h", "c"][: 1 + (kind == "LSTM")]
    extra = {"linear_before_reset": int(kind == "GRU")} if OPERATORS[kind] == "GRU" else {}
    node = onnx.helper.make_node(
        OPERATORS[kind], ["x", "w", "r", "b", "n"], ["y", *states], hidden_size=units, direction=way, **extra
    )
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in (("w", w), ("r", r), ("b", b))]
    float_, int_ = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
    graph = onnx.helper.make_graph(
        [node], "g",
        [onnx.helper.make_tensor_value_info("x", float_, [None, None, x.shape[-1]]),
         onnx.helper.make_tensor_value_info("n", int_, [None])],
        [onnx.helper.make_tensor_value_info(name, float_, None) for name in ("y", *states)], constants,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    y, *last = session.run(None, {"x": x.transpose(1, 0, 2), "n": lengths.astype(np.int32)})
    y = y.transpose(2, 0, 1, 3).reshape(len(x), x.shape[1], -1)
    return y, [state[d] for d in range(len(directions)) for state in last]


@pytest.mark.parametrize("way", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", OPERATORS)
def test_values_are_those_of_the_operator(kind, way):
    """Also for rows of different lengths, whose padded outputs are zeros there."""
    rng = np.random.default_rng(len(kind))
    units, x, lengths = 5, f32(rng, 4, 6, 3), np.array([6, 2, 4, 1])
    said = {"reset_after": kind == "GRU"} if OPERATORS[kind] == "GRU" else {}
    make = getattr(layers, kind.split()[0])
    layer = make(units, return_sequences=True, return_state=True, go_backwards=way == "reverse",
                 zero_output_for_mask=True, **said)  # fmt: skip
    if way == "bidirectional":
        layer = layers.Bidirectional(layer)
    node, n = gx.placeholder("x", ("batch", "time", 3)), gx.placeholder("n", ("batch",), "int64")
    y, *last = layer(node, lengths=n)
    layer.set_weights([w + 0.3 * f32(rng, *w.shape) for w in layer.get_weights()])
    program = gx.compile({"y": y, **{f"s{i}": s for i, s in enumerate(last)}}, inputs=[node, n])
    for counted in (lengths, np.full(4, 6)):
        found = list(program(x=x, n=counted).values())
        weights = layer.get_weights()
        directions = [weights[i : i + 3] for i in range(0, len(weights), 3)]
        wanted, states = run_operator(kind, directions, way, x, counted, units)
        wanted = wanted[:, ::-1] if way == "reverse" else wanted
        np.testing.assert_allclose(found[0], wanted, rtol=1e-5, atol=1e-6)
        for a, b in zip(found[1:], states, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
