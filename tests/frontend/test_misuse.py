"""What users of other libraries try: each mistake has one error, on the user's line, that ends with what to do."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])
ROWS = np.eye(3, dtype=np.float32)[Y]


def classifier(loss="sparse_categorical_crossentropy", **compiled):
    model = Sequential([Input((4,)), layers.Dense(3, activation="softmax", name="scores")])
    model.compile("sgd", loss, backend="reference", **compiled)
    return model


def sequences(*shape):
    return Input(shape or (5, 8))


def attend(**arguments):
    x = sequences()
    return layers.MultiHeadAttention(2, 4)(x, x, **arguments)


class NoCall(Model):
    """A model without its one method."""


def doubled():
    x = gx.placeholder("x", ("n",))
    return gx.compile({"y": x * 2.0}, inputs=[x], backend="reference")


def check(run, error, says, remedy):
    with pytest.raises(error, match=says) as caught:
        run()
    text = str(caught.value)
    first, *_, last = text.splitlines()
    assert len(first) < 160, "the first line says what is wrong"
    assert "test_misuse.py:" in text, text
    assert last.startswith("to do: "), text
    assert re.search(remedy, last), text


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: layers.Conv2D(4, 3.5), gx.AxisError, "kernel_size is 3.5", "whole number"),
        (lambda: layers.MaxPooling2D((2, "2")), gx.AxisError, "pool_size", "whole number"),
        (lambda: layers.Dropout("0.5"), gx.AxisError, "rate of Dropout is '0.5'", "from 0 to 1"),
        (lambda: layers.LSTM(4, dropout="x"), gx.AxisError, "dropout of LSTM is 'x'", "from 0 to 1"),
        (lambda: layers.LayerNormalization(epsilon=-1), gx.AxisError, "epsilon of LayerNormalization is -1", "0.001"),
        (lambda: layers.BatchNormalization(epsilon="x"), gx.AxisError, "epsilon of BatchNormalization", "0.001"),
        (lambda: layers.BatchNormalization(momentum="x"), gx.AxisError, "momentum is 'x'", "0.9"),
        (lambda: layers.RandomRotation("x"), gx.AxisError, "factor is 'x'", "give a number"),
        (lambda: layers.Reshape(4), gx.AxisError, "target_shape of Reshape is 4", r"target_shape=\[4\]"),
        (lambda: layers.Lambda("relu"), gx.GraphError, "Lambda takes a function, not 'relu'", "Activation"),
        (lambda: layers.Dense(3, activation=3), gx.GraphError, "3 is not an activation", "'relu'"),
        (lambda: layers.Dense(3, activation=layers.ReLU), gx.GraphError, "ReLU.*is not an activation", r"ReLU\(\)"),
        (
            lambda: layers.Dense(3, kernel_initializer=np.zeros((4, 3))),
            gx.GraphError,
            r"an array of float64 \(4, 3\) is not an initializer",
            r"Constant\(values\)",
        ),
        (lambda: layers.MultiHeadAttention(2, 4, rotary="yes"), gx.AxisError, "rotary of Multi.* is 'yes'", "True"),
        (
            lambda: layers.MultiHeadAttention(3, 3, rotary=True)(*[Input((5, 9))] * 2),
            gx.ShapeError,
            "even",
            "even size",
        ),
        (lambda: layers.RotaryEmbedding(max_wavelength="x"), gx.AxisError, "max_wavelength of Rotary", "a number"),
        (lambda: gx.set_seed("abc"), gx.AxisError, "a seed is a whole number, not 'abc'", r"set_seed\(0\)"),
        (lambda: gx.set_seed(1.5), gx.AxisError, "a seed is a whole number, not 1.5", r"set_seed\(0\)"),
        (lambda: layers.Dense(3)(sequences(), sequences()), gx.DTypeError, "too many positional", r"layer\(inputs\)"),
        (lambda: layers.Dense(3)(x=sequences()), gx.DTypeError, "missing a required argument: 'inputs'", "inputs"),
        (lambda: layers.Dense(3)(sequences(), maks=1), gx.DTypeError, "unexpected keyword argument 'maks'", "inputs"),
        (
            lambda: layers.MultiHeadAttention(2, 4)(sequences()),
            gx.DTypeError,
            "'multi_head_attention.*missing a required argument: 'value'",
            r"layer\(query, value, key=...",
        ),
        (lambda: layers.Dense(3)([Input((4,)), Input((4,))]), gx.ShapeError, "takes one tensor", "Concatenate"),
        (
            lambda: attend(attention_mask=np.ones((4, 5), bool)),
            gx.ShapeError,
            r"mask bool\[1, 1, 4, 5\] does not fit scores",
            "queries, keys",
        ),
        (
            lambda: attend(attention_mask=np.where(np.tri(5) > 0, 0, -np.inf)),
            gx.DTypeError,
            "holds float64 other than 0 and 1",
            "mask == 0",
        ),
        (
            lambda: layers.LSTM(3)(sequences(), mask=Input((4,), dtype="bool")),
            gx.ShapeError,
            r"layer 'lstm.*the mask is bool\[batch, 4\], the sequences are f32\[batch, 5, 8\]",
            "where a step counts",
        ),
        (lambda: layers.GRU(3)(sequences(), mask=np.ones(5, bool)), gx.ShapeError, r"mask is bool\[5\]", "batch, time"),
        (lambda: Sequential([Input((5, 3)), layers.LSTM(4), layers.LSTM(4)]), gx.ShapeError, "2 axes", "return_seq"),
        (lambda: Sequential([Input((4,)), "relu"]), gx.GraphError, "'relu' is not a layer", r"Activation\('relu'\)"),
        (lambda: Model(Input((4,)), X), gx.GraphError, r"output an array of float32 \(6, 4\)", "what layers return"),
        (lambda: Model(X, layers.Dense(2)(Input((4,)))), gx.GraphError, "an array.*is not an input", "gx.Input"),
        (
            lambda: classifier().get_layer(index="scores"),
            gx.NameClashError,
            "no layer 'scores'",
            "its layers are scores",
        ),
    ],
)
def test_what_is_wrong_with_a_layer_is_told_where_it_is_written(run, error, says, remedy):
    check(run, error, says, remedy)


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: classifier(metrics=["categorical_accuracy"]).fit(X, Y), gx.ShapeError, "no one-hot rows", "sparse_"),
        (
            lambda: classifier("categorical_crossentropy", metrics=["sparse_categorical_accuracy"]).fit(X, ROWS),
            gx.ShapeError,
            "no class numbers",
            "without 'sparse'",
        ),
        (
            lambda: classifier(metrics=[lambda t, p: "3"]).fit(X, Y),
            gx.DTypeError,
            "metric '<lambda>' returned '3'",
            "node",
        ),
        (lambda: classifier(lambda t, p: None).fit(X, ROWS), gx.DTypeError, "loss '<lambda>' returned None", "node"),
        (lambda: classifier(lambda t, p: np.mean(t - p)).fit(X, ROWS), gx.DTypeError, "np.mean computes", "gx.mean"),
        (lambda: classifier(loss_weights=["a"]).fit(X, Y), gx.GraphError, "a factor of a loss is a number", "0.5"),
        (lambda: fit(NoCall()), gx.GraphError, "NoCall does not define call", "define call"),
    ],
)
def test_what_is_wrong_with_a_training_is_told(run, error, says, remedy):
    check(run, error, says, remedy)


def fit(model):
    model.compile("sgd", "mse", backend="reference")
    model.fit(X, ROWS, verbose=0)


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: layers.Dense(), gx.DTypeError, "Dense cannot.*required argument: 'units'", r"Dense\(units, ...\)"),
        (lambda: layers.Conv2D(8), gx.DTypeError, "Conv2D cannot.*'kernel_size'", r"Conv2D\(filters, kernel_size"),
        (
            lambda: gx.losses.SparseCategoricalCrossentropy(from_logit=True),
            gx.DTypeError,
            "unexpected keyword argument 'from_logit'",
            "did you mean 'from_logits'",
        ),
        (lambda: gx.metrics.Accuracy().update_state([0, 1], [0, 1]), gx.DTypeError, r"not with \[0, 1\]", "evaluate"),
        (lambda: gx.optimizers.AdamW(weight_decay="x"), gx.AxisError, "weight_decay is 'x'", "0.004"),
        (lambda: gx.optimizers.Adam(beta_1="x"), gx.AxisError, "beta_1 of Adam is 'x'", "0.9"),
        (
            lambda: gx.callbacks.EarlyStopping(patience="5"),
            gx.AxisError,
            "patience of EarlyStopping is '5'",
            "a number",
        ),
        (
            lambda: gx.callbacks.LearningRateScheduler(0.1),
            gx.AxisError,
            "schedule of LearningRateScheduler is 0.1",
            "a function",
        ),
        (lambda: classifier().fit(X, Y, epochs=-1), gx.AxisError, "epochs of fit is -1", "from 0 on"),
        (
            lambda: classifier().fit(X, Y, initial_epoch="2"),
            gx.AxisError,
            "initial_epoch of fit is '2'",
            "from 0 on",
        ),
        (
            lambda: classifier().fit(X, Y, steps_per_epoch=0),
            gx.AxisError,
            "steps_per_epoch of fit is 0",
            "positive whole",
        ),
        (
            lambda: classifier().fit(X, Y, steps_per_epoch=2.5),
            gx.AxisError,
            "steps_per_epoch of fit is 2.5",
            "positive",
        ),
        (
            lambda: classifier().predict(X, steps=0),
            gx.AxisError,
            "steps of predict is 0",
            "positive",
        ),
        (
            lambda: classifier().fit(X, Y, validation_split="0.1"),
            gx.AxisError,
            "validation_split of fit is '0.1'",
            "below 1",
        ),
        (lambda: classifier().fit(None, Y), gx.DTypeError, "input 'input_layer.*is None", "give data"),
        (lambda: classifier().fit(lambda: iter([(X, Y)])), gx.DTypeError, "is <function", "call the function"),
        (lambda: classifier().set_weights(None), gx.ShapeError, "has 2 weights, none were given", "one array for each"),
        (lambda: Sequential([layers.Dense(3)]).build(4), gx.ShapeError, "a shape is a tuple", r"build\(\(None, 4\)\)"),
        (lambda: classifier(precision="fp8"), gx.AxisError, "no precision is called 'fp8'", "mixed_bfloat16"),
        (lambda: gx.data.pad_sequences([[1, 2], ["a"]]), gx.DTypeError, "sequence 1 holds <U1", "WordTokenizer"),
        (lambda: gx.data.pad_sequences(5), gx.AxisError, "sequences is 5", "lists of numbers"),
        (lambda: gx.data.pad_sequences([[1]], maxlen=-1), gx.AxisError, "maxlen of pad_sequences is -1", "from 0 on"),
        (lambda: gx.data.WordTokenizer().fit([1, 2]), gx.DTypeError, "fit takes texts, not 1", "list of texts"),
        (lambda: gx.stack(3), gx.DTypeError, "stack: int is not a list", r"stack\(\[x, y\]\)"),
        (lambda: gx.zeros((3,)) + "a", gx.DTypeError, "str is not a node", "a gx function returned"),
        (lambda: gx.cond(True, gx.zeros(()), gx.zeros(())), gx.GraphError, "a branch is Node", "gx.where"),
        (lambda: gx.placeholder("class", (3,)), gx.NameClashError, "'class' cannot be a name", "identifier"),
        (lambda: Input((3,), name="lambda"), gx.NameClashError, "'lambda' cannot be a name", "identifier"),
        (
            lambda: gx.onnx.export(classifier(), "m.onnx"),
            gx.ExportError,
            "Sequential is neither",
            r"model.export\(path",
        ),
        (lambda: classifier().export("m.onnx", opset="21"), gx.AxisError, "opset of export is '21'", "a whole number"),
    ],
)
def test_what_is_wrong_with_an_argument_is_told(run, error, says, remedy):
    check(run, error, says, remedy)


class MakesInCall(Model):
    """Makes a layer whenever it is called, as no weights can be kept."""

    def call(self, x):
        return layers.Dense(3)(x)


class PositionalName(layers.Layer):
    """Gives the name of a weight where its shape stands."""

    def build(self, input_shape):
        self.add_weight("scale", (4,))


def set_lr():
    classifier().optimizer.lr = 0.1


def sparse_table():
    x = Input((5,), dtype="int32")
    model = Model(x, layers.Dense(1)(layers.Flatten()(layers.Embedding(9, 4, sparse=True)(x))))
    model.compile(gx.optimizers.Muon(), "mse", backend="reference")


@pytest.mark.parametrize(
    ("run", "error", "says", "remedy"),
    [
        (lambda: classifier().fit(X, Y, batchsize=3), gx.DTypeError, "fit does not take.*'batchsize'", "'batch_size'"),
        (lambda: classifier().evaluate(X, Y, step=3), gx.DTypeError, "evaluate does not.*'step'", "mean 'steps'"),
        (lambda: classifier().predict(x=X, y=Y), gx.DTypeError, "predict does not take.*'y'", r"help\(predict\)"),
        (
            lambda: classifier().predict(),
            gx.DTypeError,
            "predict does not.*missing a required argument: 'x'",
            "predict",
        ),
        (lambda: classifier(optimiser="sgd"), gx.DTypeError, "compile does not take.*'optimiser'", "'optimizer'"),
        (
            lambda: classifier(jit_compile=True),
            gx.DTypeError,
            "compile does not.*'jit_compile'",
            "leave jit_compile out",
        ),
        (lambda: gx.load_model(None), gx.AxisError, "path of load_model is None", "a text or a path"),
        (lambda: classifier().save(3), gx.AxisError, "path of save is 3", "a text or a path"),
        (lambda: Input((3,), batch_size=0), gx.AxisError, "batch_size of Input is 0", "positive whole"),
        (lambda: Input((3,), batch_shape=(None, 3)), gx.ShapeError, "has both batch_shape and", "batch_shape alone"),
        (lambda: Input(batch_shape=(0, 3)), gx.ShapeError, r"batch_shape of Input is \(0, 3\)", "or with None"),
        (lambda: gx.optimizers.Adam(epsilon=-1e-7), gx.AxisError, "epsilon of Adam is -1e-07", "at least 0"),
        (lambda: gx.losses.Huber(-1), gx.AxisError, "delta of Huber is -1", "a positive number, such as 1.0"),
        (
            lambda: gx.losses.BinaryCrossentropy(label_smoothing=2),
            gx.AxisError,
            "label_smoothing of BinaryCrossentropy is 2",
            "from 0 to 1",
        ),
        (lambda: gx.initializers.RandomUniform(1, 0), gx.AxisError, "minval 1 is above maxval 0", "exchange"),
        (lambda: gx.optimizers.SGD(math.inf), gx.AxisError, "a learning rate is a number.*inf", "0.001"),
        (lambda: gx.callbacks.EarlyStopping(patients=3), gx.DTypeError, "unexpected.*'patients'", "mean 'patience'"),
        (set_lr, gx.GraphError, "SGD has no attribute 'lr'", "optimizer.learning_rate"),
        (sparse_table, gx.GraphError, "whole parameters; weight_decay shrinks every row", "sparse=False"),
        (lambda: fit(MakesInCall()), gx.GraphError, "is called by '.*', which does not hold it", "self.dense"),
        (lambda: PositionalName()(Input((4,))), gx.ShapeError, "the shape 'scale'", r"add_weight\(shape=..., name="),
        (lambda: classifier(lambda p: p), gx.DTypeError, "not called with targets and predictions", "y_true, y_pred"),
        (lambda: layers.Concatenate()(Input((4,)), Input((4,))), gx.DTypeError, "too many", r"layer\(\[a, b\]\)"),
        (lambda: layers.Conv2D(8, 3)(Input((28, 28))), gx.ShapeError, "takes 4 axes", r"Input\(\(28, 28, 1\)\)"),
        (
            lambda: Sequential([Input((4,)), Input((4,))]),
            gx.GraphError,
            "first, and once",
            "several inputs need gx.Model",
        ),
        (lambda: classifier().fit(X, Y, callbacks=[print]), gx.GraphError, "is not a callback", "LambdaCallback"),
        (lambda: classifier().predict(X[0]), gx.ShapeError, r"the data has shape \(4,\)", r"one sample: x\[None\]"),
        (lambda: classifier().fit(X, list("abcabc")), gx.DTypeError, "holds <U1", "np.unique"),
        (lambda: classifier().get_layer("score"), gx.NameClashError, "no layer 'score'", "did you mean 'scores'"),
        (
            lambda: classifier(metrics=[gx.metrics.Precision()]).fit(X, Y),
            gx.ShapeError,
            r"targets have shape \(batch,\)",
            "one-hot rows",
        ),
        (
            lambda: layers.Bidirectional(layers.LSTM(2), backward_layer=3),
            gx.GraphError,
            "recurrent layer, not 3",
            "LSTM",
        ),
        (lambda: layers.StackedRNNCells([3]), gx.GraphError, "3 is not a cell", "state_size"),
    ],
)
def test_what_newcomers_try_is_told(run, error, says, remedy):
    check(run, error, says, remedy)


def test_a_loss_that_is_no_number_is_told_of_once_with_its_cause():
    spoilt = X.copy()
    spoilt[2, 1] = np.nan
    for x, cause in ((spoilt, "the data holds NaN"), (X * 1e20, "lower the learning rate")):
        model = Sequential([Input((4,)), layers.Dense(3)])
        model.compile("sgd", "mse", backend="reference")
        with pytest.warns(UserWarning, match=f"the loss is (nan|inf) in epoch 1: {cause}") as caught:
            model.fit(x, ROWS, epochs=2, verbose=0)
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_one_class_is_told_of():
    model = Sequential([Input((4,)), layers.Dense(1, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy", backend="reference")
    with pytest.warns(UserWarning, match=r"of one class is always 0: for yes or no.*binary_crossentropy"):
        model.evaluate(X, ROWS[:, :1], verbose=0)


def test_what_is_watched_is_suggested():
    stopping = gx.callbacks.EarlyStopping("val_accurcy", mode="max")
    with pytest.warns(UserWarning, match=r"the logs do not hold: loss, val_loss, val_accuracy; did you mean 'val_acc"):
        stopping.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0, "val_accuracy": 0.5})


def test_programs_have_names():
    with pytest.raises(KeyError, match="no program of a model: there are train, evaluate, predict"):
        classifier().programs["training"]
    assert "training" not in classifier().programs


def test_a_generator_that_ends_early_is_told_of_on_the_users_line():
    def batches():
        for _ in range(3):
            yield X, Y

    with pytest.warns(UserWarning, match=r"ran out before epoch 3 of 4.*begins anew") as caught:
        history = classifier().fit(batches(), steps_per_epoch=2, epochs=4, verbose=0)
    assert caught[0].filename == __file__
    assert len(history.history["loss"]) == 2


def test_names_that_are_not_there_are_suggested():
    with pytest.raises(AttributeError, match="no name 'softmx'") as caught:
        gx.softmx  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("softmx", gx)


HDF5, ZIP = b"\x89HDF\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(64)


@pytest.mark.parametrize(
    ("content", "says", "remedy"),
    [
        (HDF5, "is an HDF5 file, as Keras writes", r"set_weights\(arrays\)"),
        (ZIP, "is a zip file, as PyTorch and Keras write", r"set_weights\(arrays\)"),
        (b"", "cannot be read", "a copy that is whole"),
        (None, "is a folder, not a file of weights", "gx.load_model"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, says, remedy):
    path = tmp_path if content is None else tmp_path / "weights"
    if content is not None:
        path.write_bytes(content)
    check(lambda: classifier().load_weights(path), gx.FileError, says, remedy)


def test_a_file_is_no_saved_model(tmp_path):
    (tmp_path / "model.txt").write_text("a model")
    check(
        lambda: gx.load_model(tmp_path / "model.txt"),
        gx.FileError,
        "is a file, and a saved model is a folder",
        "folder",
    )


class Unknown(layers.Layer):
    """Known to nobody who reads a file."""

    def call(self, x):
        return x


def test_a_file_that_names_an_unknown_class_is_told_on_the_users_line(tmp_path):
    Sequential([Input((4,)), Unknown()]).save(tmp_path / "model")
    check(lambda: gx.load_model(tmp_path / "model"), gx.FileError, "names 'Unknown'", "custom_objects={'Unknown'")


def test_numbers_of_numpy_count_where_numbers_do():
    classes = Y.max() + 1
    model = Sequential([Input((np.int64(4),)), layers.Dense(classes), layers.Dropout(np.float32(0.5))])
    assert model.layers[0].units == 3
    assert type(model.layers[0].units) is int
    assert layers.Conv2D(classes, np.int64(3)).kernel_size == (3, 3)
    assert layers.Embedding(classes, classes).output_dim == 3
    assert layers.Conv2D(2, np.array([3, 2])).kernel_size == layers.Conv2D(2, range(3, 1, -1)).kernel_size == (3, 2)
    assert layers.MultiHeadAttention(2, 4, output_shape=classes, attention_axes=np.int32(1)).target_shape == (3,)
    assert layers.ZeroPadding2D(classes).padding == ((3, 3), (3, 3))
    assert layers.RandomContrast(np.float32(0.5)).factor == (-0.5, 0.5)


def test_patience_may_be_a_part_of_the_epochs():
    assert gx.callbacks.EarlyStopping(patience=0.1 * 25).patience == 2.5
    assert gx.callbacks.ReduceLROnPlateau(patience=np.inf).patience == np.inf


class Asking(layers.Layer):
    """Takes what the place of a layer says without defaults, as layers written for Keras do."""

    supports_masking = True

    def call(self, inputs, training, mask):
        self.masked = mask is not None
        return self.when_training(inputs * 2.0, inputs)


@pytest.mark.parametrize("masked", [True, False])
def test_a_call_may_ask_for_training_and_masks_without_defaults(masked):
    asking = Asking()
    before = [layers.Masking()] if masked else []
    model = Sequential([Input((5, 3)), *before, asking, layers.GlobalAveragePooling1D()])
    x = np.ones((2, 5, 3), np.float32)
    np.testing.assert_allclose(model.predict(x), np.ones((2, 3)))
    assert asking.masked is masked
    model.compile(loss="mae", backend="reference")
    assert model.train_on_batch(x, np.zeros((2, 3), np.float32)) == 2.0


def test_muon_takes_one_pattern_and_refuses_a_decay_that_is_no_number():
    kernel = gx.parameter("dense/kernel", np.zeros((3, 4), np.float32))
    assert gx.optimizers.Muon(exclude_layers="logits").slot_names(kernel) == ["momentum"]
    assert gx.optimizers.Muon(exclude_layers="dense").slot_names(kernel) == ["momentum", "velocity"]
    check(lambda: gx.optimizers.Muon(adam_weight_decay=-1), gx.AxisError, "adam_weight_decay of Muon is -1", "or None")


@pytest.mark.parametrize("mask", [np.tri(5, dtype=bool), np.tri(5), np.tri(5, dtype=np.int64)])
def test_masks_of_numpy_are_masks(mask):
    gx.set_seed(3)
    x = gx.placeholder("x", ("batch", 5, 8))
    layer = layers.MultiHeadAttention(2, 4)
    outputs = {"mask": layer(x, x, attention_mask=mask), "causal": layer(x, x, use_causal_mask=True)}
    found = gx.compile(outputs, inputs=[x], backend="reference")(
        x=np.random.default_rng(0).standard_normal((2, 5, 8), np.float32)
    )
    np.testing.assert_allclose(found["mask"], found["causal"], rtol=1e-5, atol=1e-6)


def test_a_mask_of_numpy_leaves_steps_of_a_recurrent_layer_out():
    x = gx.placeholder("x", ("batch", 5, 8))
    layer = layers.GRU(3)
    counts = np.array([[1, 1, 1, 0, 0]], bool)
    outputs = {"mask": layer(x, mask=counts), "short": layer(x[:, :3])}
    found = gx.compile(outputs, inputs=[x], backend="reference")(
        x=np.random.default_rng(0).standard_normal((2, 5, 8), np.float32)
    )
    np.testing.assert_allclose(found["mask"], found["short"], rtol=1e-5, atol=1e-6)
