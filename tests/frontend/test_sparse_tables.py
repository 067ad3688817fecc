"""Tables of which a step changes the rows that occur: against dense steps, and against published rules row by row."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.errors import GraphError, IndexRangeError
from graphc.optimizers import SGD, Adafactor, Adagrad, Adam, AdamW, Grouped, Lamb
from tests.frontend import published

ROWS, WIDTH = 9, 3
LAZY = ("sgd", "momentum", "nesterov", "adam", "amsgrad", "adamax", "rmsprop centered", "adagrad", "adadelta", "ftrl")
EXACT = {
    "sgd": lambda: SGD(0.1),
    "adagrad": lambda: Adagrad(0.1),
    "clipped elements": lambda: SGD(0.1, clipvalue=0.05),
    "scaled loss": lambda: SGD(0.1, loss_scale_factor=64.0),
    "groups": lambda: Grouped(SGD(0.1), {"embedding*": 0.5}),
}


def indices(seed, *shape):
    """Some rows several times, and some not at all."""
    return np.random.default_rng(seed).integers(0, ROWS - 2, shape)


def table_step(optimizer, sparse=True, dtype="float32", backend="numba", uses=1, seed=0):
    """A step that pulls the rows that occur towards targets, its table, and the optimizer's state of it."""
    rng = np.random.default_rng(seed)
    table = gx.parameter("embedding/embeddings", rng.standard_normal((ROWS, WIDTH)).astype(dtype))
    ids = [gx.placeholder(f"ids{i}", ("batch", "time"), "int64") for i in range(uses)]
    goal = gx.placeholder("goal", ("batch", "time", WIDTH), dtype)
    loss = gx.sum(sum((gx.take(table, one) - goal) ** 2 for one in ids))
    updates = optimizer.updates([table], optimizer.gradients(loss, [table]), sparse=[table] if sparse else ())
    step = gx.compile({"loss": loss}, inputs=[*ids, goal], updates=updates, backend=backend)
    return step, table


def goals(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).standard_normal((*shape, WIDTH)).astype(dtype)


def run(optimizer, sparse, shapes=((2, 4), (2, 4), (0, 3), (1, 6)), uses=1):
    step, table = table_step(optimizer, sparse, uses=uses)
    for seed, shape in enumerate(shapes):
        step.call([*(indices(10 * seed + use, *shape) for use in range(uses)), goals(seed, *shape)])
    return table.value, {key: p.value for key, p in optimizer.variables({"table": table}).items()}


@pytest.mark.parametrize("uses", [1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_steps_that_leave_other_rows_alone_are_the_dense_ones_to_the_last_bit(name, uses):
    """Rows that occur several times, in one batch or by two readers, add up in the same order; a batch may be empty."""
    (found, state), (wanted, dense) = (run(EXACT[name](), sparse, uses=uses) for sparse in (True, False))
    np.testing.assert_array_equal(found, wanted)
    assert state.keys() == dense.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value, dense[key], err_msg=key)


@pytest.mark.parametrize("bound", [{"global_clipnorm": 0.3}, {"clipnorm": 0.3}, {"global_clipnorm": 1e6}])
def test_norms_count_each_row_once(bound):
    (found, _), (wanted, _) = (run(SGD(0.1, **bound), sparse) for sparse in (True, False))
    np.testing.assert_allclose(found, wanted, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("backend", ["reference", "numba"])
@pytest.mark.parametrize("name", LAZY)
def test_each_row_follows_the_published_rule_at_the_steps_at_which_it_occurs(name, backend):
    """The number of the step is that of all steps, as PyTorch's SparseAdam counts."""
    make, rule = published.RULES[name]
    step, table = table_step(make(), dtype="float64", backend=backend)
    wanted, states = table.value, [dict[str, object]() for _ in range(ROWS)]
    for t in range(1, 7):
        ids, goal = indices(t, 2, 3), goals(t, 2, 3, dtype="float64")
        step.call([ids, goal])
        gradient = np.zeros_like(wanted)
        np.add.at(gradient, ids, 2 * (wanted[ids] - goal))
        for row in np.unique(ids):
            wanted[row] = rule(states[row], wanted[row], gradient[row], t)
        np.testing.assert_allclose(table.value, wanted, rtol=1e-11, atol=1e-13)


def sparse_adam(table, m, v, ids, gradients, t, rate=0.01, betas=(0.9, 0.999), eps=1e-7):
    """PyTorch's ``torch.optim.SparseAdam``: the gradient is coalesced, and its values alone move anything."""
    rows, group = np.unique(ids.ravel(), return_inverse=True)
    values = np.zeros((len(rows), table.shape[1]))
    np.add.at(values, group.ravel(), gradients.reshape(ids.size, -1))
    m_update = (values - m[rows]) * (1 - betas[0])
    m[rows] += m_update
    v_update = (values**2 - v[rows]) * (1 - betas[1])
    v[rows] += v_update
    size = rate * np.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)
    table[rows] -= size * m[rows] / (np.sqrt(v[rows]) + eps)


def test_adam_of_a_sparse_table_is_sparse_adam():
    step, table = table_step(Adam(0.01), dtype="float64")
    wanted, m, v = table.value, np.zeros((ROWS, WIDTH)), np.zeros((ROWS, WIDTH))
    for t in range(1, 9):
        ids, goal = indices(t, 3, 2), goals(t, 3, 2, dtype="float64")
        step.call([ids, goal])
        sparse_adam(wanted, m, v, ids, 2 * (wanted[ids] - goal), t)
        np.testing.assert_allclose(table.value, wanted, rtol=1e-11, atol=1e-13)
    dense, _ = run(Adam(0.01), False)
    lazy, _ = run(Adam(0.01), True)
    assert np.abs(dense - lazy).max() > 1e-3  # momentum goes on moving rows of a dense step that do not occur


def test_an_index_outside_changes_no_state():
    optimizer = Adam(0.01)
    step, table = table_step(optimizer)
    step.call([indices(0, 2, 3), goals(0, 2, 3)])
    before = [p.value for p in (table, *optimizer.variables({"table": table}).values())]
    for wrong in (ROWS, -1):
        with pytest.raises(IndexRangeError, match=f"ids0.* {wrong} ") as caught:
            step.call([np.array([[1, wrong, 2]]), goals(0, 1, 3)])
        assert f"size {ROWS}" in str(caught.value)
    after = [p.value for p in (table, *optimizer.variables({"table": table}).values())]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def words(sparse, optimizer="adam", **said):
    gx.set_seed(4)
    model = gx.Sequential(
        [
            gx.Input((5,), dtype="int64"),
            gx.layers.Embedding(ROWS, WIDTH, mask_zero=True, sparse=sparse, **said),
            gx.layers.GlobalAveragePooling1D(),
            gx.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer, "binary_crossentropy", backend="numba")
    return model


def sentences(seed=0):
    ids = indices(seed, 12, 5)
    return ids, (ids.sum(axis=1) % 2).astype(np.float32)[:, None]


@pytest.mark.parametrize("optimizer", [SGD, Adagrad])
def test_models_train_alike_with_masks(optimizer):
    dense, sparse = (words(sparse, optimizer(0.5)) for sparse in (False, True))
    for model in (dense, sparse):
        model.fit(*sentences(), batch_size=5, epochs=3, verbose=0)
    for a, b in zip(dense.get_weights(), sparse.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)


def test_a_saved_model_goes_on_with_the_slots_that_a_dense_one_has(tmp_path):
    model = words(True)
    model.fit(*sentences(), batch_size=4, epochs=2, verbose=0)
    model.save(tmp_path / "model")
    loaded = gx.load_model(tmp_path / "model")
    assert loaded.layers[0].sparse
    names = {key: p.value.shape for key, p in loaded.optimizer.variables({"w": loaded.layers[0].embeddings}).items()}
    assert names["w/momentum"] == names["w/velocity"] == (ROWS, WIDTH)
    for one in (model, loaded):
        one.fit(*sentences(1), batch_size=4, epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_table_of_halves_is_updated_in_float32():
    optimizer = Adam(0.01)
    step, table = table_step(optimizer, dtype="float16")
    before = table.value
    ids, goal = np.array([[1, 4, 1]]), goals(0, 1, 3, dtype="float16")
    step.call([ids, goal])
    assert optimizer.variables({"t": table})["t/momentum"].dtype.value == "float32"
    assert table.value.dtype == np.float16
    assert set(np.flatnonzero((table.value != before).any(axis=1))) == {1, 4}


def test_a_training_step_in_onnxruntime_follows_ours(tmp_path):
    model = words(True)
    ids, y = sentences()
    model.train_on_batch(ids, y)
    path = tmp_path / "step.onnx"
    model.export(path, training=True)
    program = model.programs["train"]
    report = gx.onnx.verify(path, program, steps=6, inputs={program.input_names[0]: ids, "target": y})
    assert report.ok, str(report)
    assert max(found.error for found in report.states) < 1e-5


# what needs every row


REFUSED = {
    "weight_decay": lambda: AdamW(0.01),
    "use_ema": lambda: SGD(0.1, use_ema=True),
    "accumulated": lambda: SGD(0.1, gradient_accumulation_steps=2),
    "Lamb": lambda: Lamb(0.1),
    "Adafactor": lambda: Adafactor(0.1),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_concerns_every_row_is_refused(why):
    with pytest.raises(GraphError, match=f"embedding/embeddings(.|\n)*{why}(.|\n)*sparse=False"):
        table_step(REFUSED[why]())


def test_a_table_may_be_spared_from_decay():
    optimizer = AdamW(0.01, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    step, table = table_step(optimizer)
    step.call([indices(0, 2, 3), goals(0, 2, 3)])
    assert np.isfinite(table.value).all()


@pytest.mark.parametrize("said", [{"embeddings_regularizer": "l2"}, {"embeddings_constraint": "non_neg"}])
def test_penalties_and_bounds_of_a_sparse_table_are_refused(said):
    (name,) = said
    with pytest.raises(GraphError, match=f"{name}(.|\n)*every row"):
        gx.layers.Embedding(ROWS, WIDTH, sparse=True, **said)


def test_a_table_that_a_product_reads_is_refused():
    layer = gx.layers.ReversibleEmbedding(ROWS, WIDTH, sparse=True)
    logits = layer(layer(gx.placeholder("ids", ("batch", 4), "int64")), reverse=True)
    with pytest.raises(GraphError, match=r"gradient is dense(.|\n)*tied logits"):
        Adam().updates([layer.embeddings], gx.grad(gx.sum(logits), [layer.embeddings]), sparse=layer.sparse_weights())
