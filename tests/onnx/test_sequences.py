"""Sequence models in files: training with any batch and time, and decoders that look at a memory."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graphc as gx
from graphc import layers
from graphc.backends.onnx.export import build_model

VOCABULARY, UNITS, END = 6, 4, 3


def kinds(model):
    return [node.op_type for node in model.graph.node]


def session_of(model):
    options = ort.SessionOptions()
    options.log_severity_level = 3  # that initializers which are inputs stay variable is meant
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("given", ["lengths", "mask"])
def test_a_classifier_trains_in_onnxruntime_for_fifty_steps(given):
    """Batch and time are others in every step; the file feeds its own state back, and follows the native program."""
    gx.set_seed(0)
    x, y = gx.placeholder("x", ("batch", "time", 3)), gx.placeholder("y", ("batch",), "int64")
    by = gx.placeholder("by", ("batch",), "int64")
    first = layers.Masking()(x) if given == "mask" else x
    recurrent, head = layers.LSTM(5), layers.Dense(2)
    logits = head(recurrent(first, **({"lengths": by} if given == "lengths" else {})))
    loss = gx.mean(gx.sparse_softmax_cross_entropy(y, logits)) + 0.0 * gx.mean(gx.cast(by, "float32"))
    weights = [*recurrent.weights, *head.weights]
    updates = gx.optimizers.Adam(0.1).updates(weights, gx.grad(loss, weights))
    program = gx.compile({"loss": loss}, inputs=[x, y, by], updates=updates, backend="numba", training=True)
    model = build_model(program)
    onnx.checker.check_model(model.model, full_check=True)
    assert kinds(model.model).count("Scan") == 2
    session = session_of(model.model)
    random = np.random.default_rng(1)
    state, losses = {}, []
    for _ in range(50):
        batch, time = random.integers(1, 17), random.integers(1, 9)
        lengths = random.integers(1, time + 1, batch)
        values = random.standard_normal((batch, time, 3)).astype(np.float32)
        labels = (values[:, 0, 0] > 0).astype(np.int64)
        values[np.arange(time) >= lengths[:, None]] = 0
        feeds = {"x": values, "y": labels, "by": lengths}
        found = dict(zip([o.name for o in session.get_outputs()], session.run(None, {**feeds, **state}), strict=True))
        state = {entry.before: found[entry.after] for entry in model.states}
        wanted = program(**feeds)["loss"]
        np.testing.assert_allclose(found["loss"], wanted, atol=1e-3)
        losses.append(float(wanted))
    for entry in model.states:
        np.testing.assert_allclose(state[entry.before], entry.parameter.value, atol=1e-3)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


CELLS = {
    "bahdanau": lambda: layers.BahdanauCell(layers.GRUCell(UNITS)),
    "luong dot": lambda: layers.LuongCell(layers.LSTMCell(UNITS), "dot"),
    "luong general": lambda: layers.LuongCell(layers.GRUCell(UNITS), "general"),
    "luong concat": lambda: layers.LuongCell(layers.GRUCell(UNITS), "concat"),
    "luong fed": lambda: layers.LuongCell(layers.LSTMCell(UNITS), "general", input_feeding=True),
}


class Translator:
    """An encoder, and a decoder that looks at what it made, for teacher forcing and for writing."""

    def __init__(self, name):
        gx.set_seed(1)
        self.embedding = layers.Embedding(VOCABULARY, UNITS, mask_zero=True)
        self.encoder = layers.GRU(UNITS, return_sequences=True)
        self.cell = CELLS[name]()
        self.readout = layers.Dense(VOCABULARY, kernel_initializer=gx.initializers.RandomNormal(0, 2.0))
        self.source = gx.placeholder("source", ("batch", "steps"), "int64")
        self.memory = self.encoder(self.embedding(self.source))

    def taught(self):
        targets = gx.placeholder("targets", ("batch", "time"), "int64")
        decoded = layers.RNN(self.cell, return_sequences=True)(self.embedding(targets), constants=self.memory)
        return targets, self.readout(decoded)

    def written(self, most):
        batch = self.source.shape[0]
        state = self.cell.get_initial_state(batch)

        def step(tokens, state, memory):
            output, state = self.cell(gx.take(self.embedding.embeddings, tokens, axis=0), state, constants=memory)
            likely = gx.constant(np.float32([0, 0, 0, 2, 0, 0]))
            return self.readout(output * 4.0) + likely, state

        start = gx.full((batch,), 1, "int64")
        return gx.generation.greedy(step, state, start, most, end=END, constants=self.memory)

    @property
    def weights(self):
        parts = (self.embedding, self.encoder, self.cell, self.readout)
        return [weight for part in parts for weight in part.trainable_weights]


@pytest.mark.parametrize("name", ["bahdanau", "luong general", "luong fed"])
def test_a_decoder_that_is_taught_is_a_scan(tmp_path, name):
    """One for the encoder and one for the decoder, and each of them backwards; batch and both times vary."""
    model = Translator(name)
    targets, logits = model.taught()
    loss = gx.mean(gx.sparse_softmax_cross_entropy(targets, logits))
    updates = {w: w - 0.1 * g for w, g in zip(model.weights, gx.grad(loss, model.weights), strict=True)}
    program = gx.compile({"loss": loss}, inputs=[model.source, targets], updates=updates, backend="reference")
    assert kinds(build_model(program).model).count("Scan") == 4
    random = np.random.default_rng(0)
    batches = [
        {"source": random.integers(0, VOCABULARY, (b, s)), "targets": random.integers(0, VOCABULARY, (b, t))}
        for b, s, t in ((2, 4, 3), (3, 1, 5), (1, 6, 2))
    ]
    path = gx.onnx.export(program, tmp_path / "taught.onnx")
    report = gx.onnx.verify(path, program, steps=4, inputs=batches)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", CELLS)
def test_a_decoder_that_writes_is_a_loop_that_ends_early(name):
    """The file makes as many steps as its longest row, whatever it is allowed, and writes what the program writes."""
    model = Translator(name)
    out = model.written(40)
    program = gx.compile(out._asdict(), inputs=[model.source], backend="reference")
    made = build_model(program).model
    onnx.checker.check_model(made, full_check=True)
    (loop,) = (node for node in made.graph.node if node.op_type == "Loop")
    tokens = next(name for name in loop.output if "result" in name)  # of as many steps as ran
    made.graph.output.append(onnx.helper.make_tensor_value_info(tokens, onnx.TensorProto.INT64, None))
    session = session_of(made)
    random = np.random.default_rng(0)
    ended = set()
    for batch, time in ((1, 3), (2, 5), (4, 2), (1, 7)):
        source = random.integers(1, VOCABULARY, (batch, time))
        *found, steps = session.run(None, {"source": source})
        for value, wanted in zip(found, program(source=source).values(), strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
        assert len(steps) == found[1].max()
        ended.add(len(steps))
    assert min(ended) < 40
