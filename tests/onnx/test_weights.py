"""Files that hold no parameters: all of them are inputs, and their values stand in a safetensors file beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import graphc as gx
from graphc import Input, Sequential, layers
from graphc.backends.onnx.runtime import read_model
from graphc.errors import FileError

rng = np.random.default_rng(3)
X = rng.standard_normal((12, 5, 3)).astype(np.float32)
Y = rng.standard_normal((12, 1)).astype(np.float32)


def network() -> Sequential:
    """With an operator whose weights are made of parameters, with frozen weights, and with random numbers."""
    gx.set_seed(0)
    frozen = layers.Dense(4, trainable=False, name="frozen")
    model = Sequential([Input((5, 3)), frozen, layers.LSTM(4), layers.Dropout(0.3), layers.Dense(1)])
    model.compile(gx.optimizers.Adam(1e-2), "mse", backend="reference")
    model.fit(X, Y, batch_size=6, epochs=1, verbose=0)
    return model


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    return dict(zip(names, session.run(None, {name: feeds[name] for name in wanted}), strict=True))


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "numpy") as file:
        return file.metadata()


def test_a_training_step_takes_all_its_parameters_and_goes_on(tmp_path):
    model = network()
    model.export(tmp_path / "step.onnx", training=True, weights=tmp_path / "step.safetensors")
    model.export(tmp_path / "held.onnx", training=True)
    step = read_model(tmp_path / "step.onnx")
    onnx.checker.check_model(step, full_check=True)
    weights, said = load_file(tmp_path / "step.safetensors"), metadata(tmp_path / "step.safetensors")
    inputs = {value.name for value in step.graph.input}
    assert inputs == {"input_layer", "target", *weights}
    assert inputs.isdisjoint(tensor.name for tensor in step.graph.initializer)
    assert {"state/frozen/kernel", "state/adam/learning_rate", "state/rng/step"} <= set(weights)
    assert said == {entry.key: entry.value for entry in step.metadata_props}
    assert set(json.loads(said["graphc.weights"])) == set(weights)
    pairs = json.loads(said["graphc.states"])
    assert "state/frozen/kernel" not in pairs
    held: dict[str, np.ndarray] = {}
    for rows in (slice(0, 6), slice(6, 12)):
        batch = {"input_layer": X[rows], "target": Y[rows]}
        results = run(tmp_path / "step.onnx", {**batch, **weights})
        session = onnxruntime.InferenceSession(tmp_path / "held.onnx", providers=["CPUExecutionProvider"])
        (expected, *states) = session.run(["loss", *pairs.values()], {**batch, **held})
        np.testing.assert_allclose(results["loss"], expected, 1e-5)
        weights |= {before: results[after] for before, after in pairs.items()}
        held = dict(zip(pairs, states, strict=True))


def test_a_prediction_takes_the_weights_of_the_training(tmp_path):
    model = network()
    model.export(tmp_path / "step.onnx", training=True, weights=tmp_path / "step.safetensors")
    model.export(tmp_path / "predict.onnx", weights=tmp_path / "predict.safetensors")
    for name in ("step", "predict"):
        weights = load_file(tmp_path / f"{name}.safetensors")
        (outputs,) = run(tmp_path / "predict.onnx", {"input_layer": X, **weights}).values()
        np.testing.assert_allclose(outputs, model.predict(X, verbose=0), 1e-5, 1e-6)
    assert set(load_file(tmp_path / "predict.safetensors")) == {f"state/{weight.label}" for weight in model.weights}
    weights["state/dense/bias"] = weights["state/dense/bias"] + 7
    (moved,) = run(tmp_path / "predict.onnx", {"input_layer": X, **weights}).values()
    np.testing.assert_allclose(moved, outputs + 7, 1e-5)


def test_verify_feeds_what_the_file_does_not_hold(tmp_path):
    model = network()
    for name, steps in (("train", 3), ("predict", 1)):
        path, program = tmp_path / f"{name}.onnx", model.programs[name]
        gx.onnx.export(program, path, weights=tmp_path / "weights.safetensors")
        report = gx.onnx.verify(path, program, steps=steps)
        assert report.ok, str(report)
    step = onnx.load(tmp_path / "train.onnx")
    next(node for node in step.graph.node if node.op_type == "Sqrt").op_type = "Exp"
    onnx.save(step, tmp_path / "train.onnx")
    report = gx.onnx.verify(tmp_path / "train.onnx", model.programs["train"])
    assert not report.ok
    assert report.divergence is not None
    assert report.divergence.value == "sqrt"


def test_weights_that_were_trained_elsewhere_come_back_by_name(tmp_path):
    model = network()
    model.export(tmp_path / "step.onnx", training=True, weights=tmp_path / "step.safetensors")
    trained = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in trained])
    report = model.load_weights(tmp_path / "step.safetensors", by_name=True)
    assert len(report.matched) == len(trained)
    for own, expected in zip(model.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "bool", "uint32"])
def test_parameters_of_every_type_are_written(tmp_path, dtype):
    w = gx.parameter("w", np.arange(3).astype(gx.placeholder("x", (), dtype).dtype.numpy))
    program = gx.compile({"y": gx.cast(w, "float32")}, inputs=[], backend="reference")
    gx.onnx.export(program, tmp_path / "w.onnx", weights=tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert file.get_slice("state/w").get_shape() == [3]
    assert gx.onnx.verify(tmp_path / "w.onnx", program).ok


def test_without_a_folder_for_the_weights_nothing_is_written(tmp_path):
    model = network()
    with pytest.raises(FileError, match="no folder") as caught:
        model.export(tmp_path / "step.onnx", weights=tmp_path / "missing" / "step.safetensors")
    assert "make it first" in str(caught.value)
    assert not (tmp_path / "step.onnx").exists()
