"""A generation as one file: prompts of any number and length, keys and values in a Loop that ends by itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphc as gx
from graphc.backends.onnx.runtime import open_session, run_session

LENGTH = 5
LIMITS = {"temperature": np.float32(1.2), "top_k": np.int64(9), "top_p": np.float32(0.9), "seed": np.uint32(4)}


def shaken(model):
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.value = weight.value + random.normal(0, 0.3, weight.value.shape).astype(np.float32)
    return model


def assert_same(program, path, feeds):
    """In onnxruntime the same tokens come out, and the same probabilities."""
    gx.onnx.export(program, path)
    model = onnx.load(str(path))
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    assert len(loops) == 1
    session = open_session(model, path)
    for feed in feeds:
        found, wanted = run_session(session, feed, ["tokens", "lengths", "log_probs"], path), program(**feed)
        for name, value in wanted.items():
            if name == "log_probs":
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(found[name], value)


def prompts(masked):
    random = np.random.default_rng(1)
    for batch, time in ((1, 1), (3, 4), (2, 9)):
        feed = {"prompt": random.integers(1, 23, (batch, time))}
        if masked:
            feed["mask"] = np.ones((batch, time), bool)
            feed["mask"][0, : time // 2] = False
        yield feed


@pytest.mark.parametrize(
    ("way", "masked", "positions"),
    [("greedy", True, "rotary"), ("greedy", False, "learned"), ("sample", False, "rotary"),
     ("beam_search", True, "relative")],
)  # fmt: skip
def test_a_decoder_that_stands_alone(tmp_path, way, masked, positions):
    model = shaken(
        gx.models.Gpt(23, 2, 16, 4, max_length=16, positions=positions, num_key_value_heads=2, activation="swiglu")
    )
    writer = model.writer(LENGTH, end=7, masked=masked, backend="reference")
    limits = LIMITS if way == "sample" else {}
    feeds = [{**feed, **{name: np.asarray(value) for name, value in limits.items()}} for feed in prompts(masked)]
    assert_same(writer.program(way, 3), tmp_path / "text.onnx", feeds)


def test_a_decoder_with_an_encoder(tmp_path):
    model = shaken(gx.models.Transformer(23, num_layers=1, d_model=8, num_heads=2, d_ff=12))
    program = model.writer(LENGTH, start=2, end=7, backend="reference").program("greedy")
    sources = np.random.default_rng(2).integers(1, 23, (3, 6))
    sources[1, 3:] = 0
    assert_same(program, tmp_path / "text.onnx", [{"source": sources}, {"source": sources[:1, :2]}])
