"""Attention and normalization against ONNX's own operators, as onnxruntime computes them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import graphc as gx
from graphc import layers

BATCH, WIDTH = 2, 8
CASES = {
    "plain": {},
    "causal": {"causal": True},
    "shared heads": {"memory_heads": 2},
    "one head of keys": {"memory_heads": 1, "causal": True},
    "mask": {"mask": "bool"},
    "mask added": {"mask": "float32"},
    "other length": {"memory": 5},
    "longer than a block": {"time": 131, "memory": 131, "causal": True},
    "one of each": {"time": 1, "memory": 1},
    "scale": {"scale": 0.3},
}


def by_operator(kind: str, arrays: dict[str, np.ndarray], **attributes: object) -> np.ndarray:
    """What onnxruntime makes of one node of opset 23."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in arrays.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * next(iter(arrays.values())).ndim)
    node = helper.make_node(kind, list(arrays), ["y"], **attributes)
    graph = helper.make_graph([node], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, arrays)[0]


@pytest.mark.parametrize("name", CASES)
def test_attention_is_onnxs(name):
    case = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    time, memory = case.get("time", 7), case.get("memory", 7)
    heads, memory_heads = 4, case.get("memory_heads", 4)
    shapes = {"q": (BATCH, heads, time, WIDTH)} | dict.fromkeys("kv", (BATCH, memory_heads, memory, WIDTH))
    arrays = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    if case.get("mask") == "bool":
        mask = rng.random((BATCH, 1, time, memory)) < 0.6
        mask[..., 0] = True  # ONNX leaves rows without any key open
        arrays["mask"] = mask
    elif case.get("mask"):
        arrays["mask"] = rng.standard_normal((time, memory)).astype(np.float32)
    leaves = {key: gx.placeholder(key, array.shape, str(array.dtype)) for key, array in arrays.items()}
    said = {key: case[key] for key in ("causal", "scale") if key in case}
    y = gx.scaled_dot_product_attention(*[leaves[key] for key in "qkv"], mask=leaves.get("mask"), **said)
    found = gx.compile({"y": y}, inputs=list(leaves.values()), backend="numba")(**arrays)["y"]
    more = {"is_causal": 1} if case.get("causal") else {}
    more |= {"scale": case["scale"]} if "scale" in case else {}
    np.testing.assert_allclose(found, by_operator("Attention", arrays, **more), rtol=2e-5, atol=2e-6)


def test_layer_normalization_is_onnxs():
    rng = np.random.default_rng(20)
    x = (rng.standard_normal((3, 5, 33)) * 4 + 7).astype(np.float32)
    scale, bias = (rng.standard_normal(33).astype(np.float32) for _ in range(2))
    layer = layers.LayerNormalization(epsilon=1e-5)
    node = gx.placeholder("x", x.shape)
    y = layer(node)
    layer.set_weights([scale, bias])
    found = gx.compile({"y": y}, inputs=[node], backend="numba")(x=x)["y"]
    wanted = by_operator("LayerNormalization", {"x": x, "scale": scale, "bias": bias}, epsilon=1e-5)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
