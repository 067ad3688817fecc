"""Luong's input feeding: against the steps written out by hand, and in every way of writing."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import layers
from graphc.errors import ShapeError
from graphc.generation import Decoder

UNITS, WORDS, END = 4, 7, 6


def fed(inner, score="general", units=5, **said):
    return layers.LuongCell(inner, score, units, input_feeding=True, **said)


INNER = {
    "gru": lambda: layers.GRUCell(UNITS, dtype="float64"),
    "lstm": lambda: layers.LSTMCell(UNITS, dtype="float64"),
    "stack": lambda: layers.StackedRNNCells(
        [layers.GRUCell(3, dtype="float64"), layers.LSTMCell(UNITS, dtype="float64")], dtype="float64"
    ),
}


def written_out(cell, x, memory, time):
    """The loop by hand: the cell within on [x_t; vector before], scores, softmax, tanh of a product; one by one."""
    batch = x.shape[0]
    *states, vector = cell.get_initial_state(batch)
    kernel, (readout,) = cell.attention.kernel, cell.readout.weights
    outputs = []
    for t in range(time):
        output, states = cell.cell(gx.concatenate([x[:, t], vector], axis=-1), states)
        scores = gx.sum(gx.expand_dims(output, 1) * (memory @ kernel), axis=-1)
        context = gx.sum(gx.expand_dims(gx.softmax(scores, axis=-1), 2) * memory, axis=1)
        vector = gx.tanh(gx.concatenate([context, output], axis=-1) @ readout)
        outputs.append(vector)
    return gx.stack(outputs, 1)


@pytest.mark.parametrize("name", INNER)
def test_values_and_gradients_are_those_of_the_steps(name):
    rng = np.random.default_rng(0)
    x, memory = gx.placeholder("x", (2, 4, 3), "float64"), gx.placeholder("memory", (2, 5, 6), "float64")
    cell = fed(INNER[name](), dtype="float64")
    looped = layers.RNN(cell, return_sequences=True)(x, constants=memory)
    assert looped.shape == (2, 4, 5)
    wanted = written_out(cell, x, memory, 4)
    feeds = {"x": rng.standard_normal(x.shape), "memory": rng.standard_normal(memory.shape)}
    sides = []
    for side, backend in ((looped, "numba"), (wanted, "reference")):
        loss = gx.sum(side * gx.cos(gx.cast(gx.iota(side.shape, 1), "float64")) + side**2)
        slopes = gx.grad(loss, [x, memory, *cell.weights])
        outputs = {"y": side, **{f"d{i}": slope for i, slope in enumerate(slopes)}}
        sides.append(gx.compile(outputs, [x, memory], backend=backend)(**feeds))
    for key, value in sides[1].items():
        np.testing.assert_allclose(sides[0][key], value, rtol=1e-9, atol=1e-11, err_msg=key)
        assert np.abs(value).max() > 0, key


def test_a_first_state_may_leave_the_vector_out():
    cell = fed(layers.GRUCell(UNITS))
    x, memory = gx.placeholder("x", ("batch", "time", 3)), gx.placeholder("memory", ("batch", "m", 6))
    state, vector = gx.placeholder("state", ("batch", UNITS)), gx.zeros((x.shape[0], 5))
    run = layers.RNN(cell, return_sequences=True, return_state=True)
    short = run(x, initial_state=[state], constants=memory)
    whole = run(x, initial_state=[state, vector], constants=memory)
    assert [node.shape[1:] for node in short] == [(x.shape[1], 5), (UNITS,), (5,)]
    outputs = {f"{side}{i}": node for side, found in (("a", short), ("b", whole)) for i, node in enumerate(found)}
    rng = np.random.default_rng(1)
    feeds = {n.name: rng.standard_normal(s).astype("f4") for n, s in ((x, (2, 3, 3)), (memory, (2, 4, 6)))}
    found = gx.compile(outputs, [x, memory, state], backend="reference")(**feeds, state=np.ones((2, UNITS), "f4"))
    for i in range(3):
        np.testing.assert_array_equal(found[f"a{i}"], found[f"b{i}"])
    np.testing.assert_array_equal(found["a0"][:, -1], found["a2"])  # the last vector is the last output
    with pytest.raises(ShapeError, match=r"has 2 states, 1 were given(.|\n)*attentional vector"):
        cell(x[:, 0], [state], constants=memory)
    with pytest.raises(ShapeError, match="has 2 states, initial_state has 3"):
        run(x, initial_state=[state, vector, vector], constants=memory)


class Speller:
    """A decoder with input feeding over a given memory, for teacher forcing and for writing."""

    def __init__(self, backend):
        gx.set_seed(5)
        self.embedding = layers.Embedding(WORDS, 3)
        self.cell = fed(layers.LSTMCell(UNITS))
        self.readout = layers.Dense(WORDS, kernel_initializer=gx.initializers.RandomNormal(0, 4.0))
        self.memory = gx.placeholder("memory", ("batch", "m", 6))
        targets = gx.placeholder("targets", ("batch", "time"), "int64")
        hidden = layers.RNN(self.cell, return_sequences=True)(self.embedding(targets), constants=self.memory)
        self.taught = gx.compile(
            {"log_p": gx.log_softmax(self.readout(hidden), axis=-1)}, [self.memory, targets], backend=backend
        )
        self.embedding.embeddings.value = self.embedding.embeddings.value * 40
        rows = self.memory.shape[0]
        start = gx.full((rows,), 1, "int64")
        self.decoder = Decoder(
            self.step, [self.memory], self.cell.get_initial_state(rows), start, 6, end=END, constants=self.memory,
            backend=backend,
        )  # fmt: skip

    def step(self, tokens, state, memory):
        output, state = self.cell(gx.take(self.embedding.embeddings, tokens, axis=0), state, constants=memory)
        return self.readout(output), state

    def log_probs(self, memory, tokens, lengths):
        """What teacher forcing says of sequences: no loop that writes has a part in it."""
        given = np.concatenate([np.ones((len(tokens), 1), np.int64), tokens[:, :-1]], axis=1)
        each = np.take_along_axis(self.taught(memory=memory, targets=given)["log_p"], tokens[..., None], -1)[..., 0]
        return np.where(np.arange(tokens.shape[1]) < lengths[:, None], each, 0).sum(axis=1)


MEMORY = np.random.default_rng(3).standard_normal((3, 5, 6)).astype(np.float32)


def test_native_code_writes_the_same():
    found, wanted = (Speller(backend).decoder.greedy({"memory": MEMORY}) for backend in ("numba", "reference"))
    np.testing.assert_array_equal(found.tokens, wanted.tokens)
    np.testing.assert_allclose(found.log_probs, wanted.log_probs, rtol=1e-4, atol=1e-4)


def test_every_way_of_writing_follows_what_was_taught():
    model, memory, feeds = Speller("reference"), MEMORY, {"memory": MEMORY}
    greedy = model.decoder.greedy(feeds)
    drawn = model.decoder.sample(feeds, temperature=0.8, seed=2)
    beams = model.decoder.beam_search(feeds, width=3)
    for made in (greedy, drawn):
        wanted = model.log_probs(memory, made.tokens, made.lengths)
        np.testing.assert_allclose(made.log_probs, wanted, rtol=1e-4, atol=1e-4)
    for place in range(3):
        wanted = model.log_probs(memory, np.ascontiguousarray(beams.tokens[:, place]), beams.lengths[:, place])
        np.testing.assert_allclose(beams.log_probs[:, place], wanted, rtol=1e-4, atol=1e-4)
    assert (beams.log_probs[:, 0] >= greedy.log_probs - 1e-4).all()
    assert len({tuple(row) for row in greedy.tokens}) > 1  # the memory matters
    streamed = [*model.decoder.stream(feeds)]
    np.testing.assert_array_equal(np.stack(streamed, 1), greedy.tokens[:, : len(streamed)])
    first = np.exp(model.taught(memory=memory, targets=np.ones((3, 1), np.int64))["log_p"][:, 0])
    np.testing.assert_array_equal(greedy.tokens[:, 0], first.argmax(axis=-1))


def test_a_model_learns_and_is_saved_with_it(tmp_path):
    gx.set_seed(2)
    source, given = gx.Input((4,), dtype="int64", name="source"), gx.Input((4,), dtype="int64", name="given")
    memory, state = layers.GRU(UNITS, return_sequences=True, return_state=True)(layers.Embedding(WORDS, 3)(source))
    vectors = layers.Embedding(WORDS, 3)(given)
    hidden = layers.RNN(fed(layers.GRUCell(UNITS)), return_sequences=True)(
        vectors, initial_state=[state], constants=memory
    )
    model = gx.Model([source, given], layers.Dense(WORDS)(hidden))
    model.compile(
        gx.optimizers.Adam(0.03), gx.losses.SparseCategoricalCrossentropy(from_logits=True), backend="reference"
    )
    x = np.random.default_rng(0).integers(0, WORDS, (32, 4))
    before = np.concatenate([np.zeros((32, 1), np.int64), x[:, :-1]], axis=1)
    losses = model.fit([x, before], x, epochs=15, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict([x, before], verbose=0), model.predict([x, before], verbose=0))
