"""Every layer that Keras 3 has too: arguments, weights, outputs, and weights after twenty steps of training.

One model serves all rows of a class: each row is a branch of its own with a Dense layer before it, so that gradients
must pass the layer, too. Recurrent layers, those of Transformers, and convolutions with pooling and normalization have
files of their own: what is named there is not asked for here.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import graphc as gx
from tests.frontend.running import evaluate, f32
from tests.keras.oracle import (
    ABSENT,
    BATCH,
    ROWS,
    STEPS,
    arguments,
    distance,
    flat,
    layer_classes,
    of,
    parameter_counts,
    ported,
    positional,
    pour,
    resolve,
    same_default,
    same_logs,
    the,
)

pytestmark = [
    pytest.mark.keras,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning"),  # along an axis of size 1, on purpose
]


@dataclass(frozen=True)
class Row:
    """The shapes of a sample of each input (a name: a size that is symbolic), and the layer's arguments."""

    shapes: tuple[tuple[int | str, ...], ...]
    said: dict[str, Any]


def row(*shapes: tuple[int | str, ...], **said: Any) -> Row:
    return Row(shapes, said)


PAIRS = [
    row((5,), (5,)),
    row((3, 5), (3, 5)),
    row((2, 3, 1), (2, 3, 1)),
    row((3, 5), (1, 5)),
    row((3, 1), (3, 4)),
    row(("time", 5), ("time", 5)),
    row((5,), (3, 5)),
]
"""For layers that combine inputs, with sizes of 1 and axes that are repeated."""
TRIPLES = [*PAIRS, row((5,), (5,), (1,)), row((2, 3, 4), (3, 4), (4,), (1, 1))]
THROUGH = [row((5,)), row((1,)), row((3, 5)), row((2, 3, 4)), row(("time", 3))]
"""For layers that take values of any shape."""


def through(**said: Any) -> list[Row]:
    return [Row(one.shapes, said) for one in THROUGH]


NOT_COMPARED = {
    "get": "makes functions of names",
    "serialize": "makes names of functions",
    "deserialize": "makes functions of names",
    "threshold": "takes further arguments, which a layer's name for it cannot give",
    "sparsemax": "in Keras on JAX its weights do not sum to one; it has judges of its own in tests/ops",
}
ACTIVATIONS = sorted(name for name, value in vars(keras.activations).items() if callable(value))
ACTIVATIONS = [name for name in ACTIVATIONS if name not in NOT_COMPARED]
SEVERAL = of("constraints.MinMaxNorm", 0.4, 0.9, rate=0.5)
ROWS_OF: dict[str, list[Row]] = {
    "Dense": [
        row((5,), units=3),
        row((1,), units=1),
        row((3, 5), units=4, activation="relu"),
        row((2, 3, 4), units=5, activation="softmax"),
        row(("time", 3), units=2, activation="gelu", use_bias=False),
        row((3, 1, 2), units=3, use_bias=False, activity_regularizer="l2"),
        row((5,), units=4, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l1"),
        row((4,), units=3, kernel_regularizer=of("regularizers.L1L2", 0.02, l2=0.03), activation="tanh"),
        row((4,), units=3, kernel_regularizer=of("regularizers.OrthogonalRegularizer", 0.1, mode="columns")),
        row((5,), units=4, kernel_constraint="max_norm", bias_constraint="non_neg"),
        row((3, 5), units=2, kernel_constraint=of("constraints.UnitNorm", axis=1), bias_constraint=SEVERAL),
        row((5,), units=2, kernel_initializer="he_normal", bias_initializer=of("initializers.Constant", 0.3)),
    ],
    "PReLU": [
        *through(shared_axes=[1])[:4],
        row(("time", 3), shared_axes=(1,)),
        row((2, 3, 4), shared_axes=[1, 2], alpha_initializer=of("initializers.Constant", 0.25)),
        row((2, 3, 4), shared_axes=[3], alpha_regularizer="l2", alpha_constraint="non_neg"),
        row((3, 5), alpha_regularizer=of("regularizers.L1", 0.03), alpha_constraint=of("constraints.MaxNorm", 0.8)),
        row((2, 3, 1)),
        row((5,)),
    ],
    "Activation": [
        *(row((3, 4), activation=name) for name in ACTIVATIONS),
        *(row((5,), activation=name) for name in ("relu", "softmax", "gelu")),
        *(row((2, 3, 1), activation=name) for name in ("tanh", "softmax", "log_softmax")),
        row(("time", 3), activation=None),
        row((4,), activation=the("activations.elu")),
    ],
    "ReLU": [
        *through(),
        *through(negative_slope=0.2)[:3],
        row((3, 5), max_value=0.4),
        row((5,), max_value=0.5, negative_slope=0.1, threshold=0.2),
        row((2, 3, 4), threshold=0.3),
    ],
    "LeakyReLU": [*through(), row((3, 5), negative_slope=0.05), row((2, 3, 4), negative_slope=0.0)],
    "ELU": [*through(), row((3, 5), alpha=0.4)],
    "Softmax": [*through(), row((3, 5), axis=1), row((2, 3, 4), axis=2), row((2, 3, 4), axis=[1, 3])],
    "Identity": [*through(), row((3, 5), activity_regularizer="l2")],
    "Lambda": [
        *through(function=the("activations.tanh")),
        row((3, 5), function=the("activations.relu"), arguments={"negative_slope": 0.3, "threshold": 0.1}),
    ],
    "Flatten": [*through(), *through(data_format="channels_first")],
    "Reshape": [
        row((6,), target_shape=(3, 2)),
        row((6,), target_shape=(-1,)),
        row((3, 4), target_shape=(2, -1)),
        row((2, 3, 4), target_shape=(-1, 2, 1)),
        row((2, 3, 1), target_shape=(6,)),
        row(("time", 4), target_shape=(-1, 2)),
    ],
    "Permute": [
        row((5,), dims=(1,)),
        row((3, 5), dims=(2, 1)),
        row((2, 3, 4), dims=(3, 1, 2)),
        row((2, 1, 4), dims=[2, 3, 1]),
        row(("time", 3), dims=(2, 1)),
    ],
    "Add": TRIPLES,
    "Subtract": PAIRS,
    "Multiply": TRIPLES,
    "Average": TRIPLES,
    "Maximum": TRIPLES,
    "Minimum": TRIPLES,
    "Concatenate": [
        row((5,), (2,)),
        row((5,), (1,), (3,)),
        row((3, 5), (3, 1)),
        row((3, 5), (4, 5), axis=1),
        row((2, 3, 4), (2, 1, 4), axis=2),
        row((2, 3, 4), (2, 3, 2), axis=3),
        row((2, 3, 4), (1, 3, 4), axis=-3),
        row(("time", 5), ("time", 2)),
    ],
    "ActivityRegularization": [*through(l1=0.02), *through(l2=0.05), row((3, 5), l1=0.01, l2=0.02), row((5,))],
    "Dropout": through(rate=0.0),
    "GaussianDropout": through(rate=0.0),
    "GaussianNoise": through(stddev=0.0),
    "AlphaDropout": through(rate=0.0),
    "SpatialDropout1D": [row((3, 5), rate=0.0), row(("time", 2), rate=0.0)],
    "SpatialDropout2D": [row((2, 3, 4), rate=0.0), row((2, 3, 4), rate=0.0, data_format="channels_first")],
    "SpatialDropout3D": [row((2, 3, 1, 4), rate=0.0), row((2, 3, 1, 4), rate=0.0, data_format="channels_first")],
}
RANDOM: dict[str, list[Row]] = {
    "Dropout": [
        row((5,), rate=0.3), row((3, 5), rate=0.5, noise_shape=(None, 1, None)),
        row((2, 3, 4), rate=0.8, noise_shape=(None, 2, 1, 1)),
    ],
    "GaussianDropout": [row((5,), rate=0.3), row((2, 3, 4), rate=0.6)],
    "GaussianNoise": [row((5,), stddev=0.3), row((2, 3, 4), stddev=1.0)],
    "AlphaDropout": [row((5,), rate=0.3), row((3, 5), rate=0.6), row((3, 5), rate=0.4, noise_shape=(None, 3, 1))],
    "SpatialDropout1D": [row((3, 5), rate=0.4)],
    "SpatialDropout2D": [row((2, 3, 4), rate=0.4), row((4, 2, 3), rate=0.7, data_format="channels_first")],
    "SpatialDropout3D": [row((2, 3, 2, 4), rate=0.4), row((4, 2, 3, 2), rate=0.7, data_format="channels_first")],
}  # fmt: skip
"""What is drawn in training cannot be equal; inference is, and so is how the draws are distributed."""
OF_THEIR_OWN = {
    "Layer": "the base class, of which all others are made",
    "InputLayer": "at the beginning of every model here and in test_models.py",
}
FILES = ("test_recurrent.py", "test_transformer.py", "test_convolution.py", "test_augmentation.py")
CONVOLUTIONS = ("Conv", "DepthwiseConv", "SeparableConv")
OF_BASES = "what Keras hands on to a base class: the class says it"
EACH_AXIS = "a number stands for all axes"
OTHERWISE = {
    "InputLayer": {
        "shape": "without one a sample is a number",
        "dtype": "float32 is said, not looked up in a global setting",
        "sparse": "all tensors are dense",
        "ragged": "all tensors are dense",
        "optional": "every input is given",
        "input_tensor": "an input is a symbol of its own",
        "activity_regularizer": "there is nothing to learn from a penalty on data",
        "trainable": "it has no weights",
    },
    **{f"{kind}1D": {"rank": OF_BASES} for kind in CONVOLUTIONS},
    **{
        f"{kind}{rank}D": {"rank": OF_BASES, "strides": EACH_AXIS, "dilation_rate": EACH_AXIS}
        for kind in CONVOLUTIONS
        for rank in ((2,) if kind in ("DepthwiseConv", "SeparableConv") else (2, 3))
    },
    **{
        f"{kind}{rank}D{end}": {"rank": OF_BASES, "strides": EACH_AXIS, "dilation_rate": EACH_AXIS}
        for kind, end in (("Conv", "Transpose"),)
        for rank in (2, 3)
    },
    "Conv1DTranspose": {"rank": OF_BASES},
    **{
        f"{kind}Pooling{rank}D": {
            "pool_dimensions": OF_BASES,
            "pool_mode": OF_BASES,
            **({} if (kind, rank) == ("Max", 1) else {"pool_size": "2 for each axis, also where Keras has no default"}),
        }
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"Global{kind}Pooling{rank}D": {"pool_dimensions": OF_BASES}
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    "BatchNormalization": {
        "renorm": "the correction of Ioffe 2017 is no part of the library",
        "renorm_clipping": "the correction of Ioffe 2017 is no part of the library",
        "renorm_momentum": "the correction of Ioffe 2017 is no part of the library",
        "synchronized": "there is one device",
    },
    "Resizing": {
        "crop_to_aspect_ratio": "Cropping2D does it",
        "pad_to_aspect_ratio": "ZeroPadding2D does it",
        "fill_mode": "ZeroPadding2D fills with zeros",
        "fill_value": "ZeroPadding2D fills with zeros",
        "antialias": "images become smaller by pooling",
        "factor": "what Keras hands on to the base class and does not use",
        "bounding_box_format": "it takes images alone",
    },
    "AdditiveAttention": {"score_mode": "what Keras hands on to the base class and does not use"},
    **{
        name: {"bounding_box_format": "it takes images alone", **({"factor": OF_BASES} if drawn else {})}
        for name, drawn in (
            ("CenterCrop", True),
            ("RandomCrop", True),
            ("RandomFlip", True),
            ("RandomTranslation", True),
            ("RandomZoom", True),
            ("RandomRotation", False),
            ("RandomContrast", False),
            ("RandomBrightness", False),
        )
    },
    "Lambda": {
        "output_shape": "the shape is that of what the function returns",
        "mask": "a class with compute_mask says how it treats masks",
    },
}
"""Arguments that are missing or have another default, and why."""
NAMED = ("name", "dtype")
"""Which every layer here takes by name alone."""
NAMESAKES = sorted(layer_classes(gx).keys() & layer_classes(keras).keys())


def build(module, kind):
    """A model with one branch for each row, and the layers in question."""
    inputs, outputs, layers = [], [], []
    for number, said in enumerate(ROWS_OF[kind]):
        own = [module.Input(sizes(module, shape), name=f"x{number}_{i}") for i, shape in enumerate(said.shapes)]
        hidden = [
            module.layers.Dense(shape[-1], activation="tanh", name=f"dense{number}_{i}")(x)
            for i, (shape, x) in enumerate(zip(said.shapes, own, strict=True))
        ]
        layers.append(getattr(module.layers, kind)(name=f"row{number}", **resolve(module, said.said)))
        outputs.append(layers[-1](hidden if len(hidden) > 1 else hidden[0]))
        inputs += own
    return module.Model(inputs, outputs), layers


def sizes(module, shape, symbolic=None):
    """A shape as the library takes it: sizes that are open are equal here if they have the same name."""
    return shape if module is gx else tuple(symbolic if isinstance(size, str) else size for size in shape)


def samples(rng, rows):
    """Values for each input; symbolic sizes are 4."""
    return [f32(rng, ROWS, *sizes(keras, shape, 4)) for said in rows for shape in said.shapes]


def compile_both(theirs, ours, kind, count):
    adam = sorted(ROWS_OF).index(kind) % 2
    for module, model in ((keras, theirs), (gx, ours)):
        optimizers = module.optimizers
        optimizer = optimizers.Adam(0.01) if adam else optimizers.SGD(0.05, momentum=0.9)
        model.compile(optimizer, ["mse"] * count)


@pytest.mark.parametrize("kind", ROWS_OF)
def test_weights_outputs_and_twenty_steps(kind, record_property):
    rng = np.random.default_rng(len(kind))
    rows = ROWS_OF[kind]
    (theirs, their_layers), (ours, our_layers) = build(keras, kind), build(gx, kind)
    for a, b in zip(their_layers, our_layers, strict=True):
        assert [tuple(w.shape) for w in a.get_weights()] == [w.shape for w in b.get_weights()]
        assert [w.name for w in a.weights] == [w.label.rpartition("/")[2] for w in b.weights]
    pour(theirs, ours, seed=len(kind))
    x = samples(rng, rows)
    wanted = flat(theirs.predict(x, verbose=0))
    outputs = [distance(b, a) for a, b in zip(wanted, flat(ours.predict(x, verbose=0)), strict=True)]
    worst = max(outputs)
    nodes = [gx.placeholder(f"x{i}", ("batch", *value.shape[1:])) for i, value in enumerate(x)]
    trained = evaluate(flat_nodes(ours(nodes, training=True)), list(zip(nodes, x, strict=True)), training=True)
    in_training = max(distance(b, a) for a, b in zip(flat(theirs(x, training=True)), trained, strict=True))
    record_property("outputs", worst)
    record_property("training outputs", in_training)
    assert max(worst, in_training) < 2e-6, rows[int(np.argmax(outputs))]
    targets = [np.cos(np.arange(value.size)).reshape(value.shape).astype(np.float32) for value in wanted]
    compile_both(theirs, ours, kind, len(rows))
    before = ours.get_weights()
    logs = [
        model.fit(x, targets if len(targets) > 1 else targets[0], epochs=STEPS // 2, batch_size=BATCH, shuffle=False,
                  verbose=0).history
        for model in (theirs, ours)
    ]  # fmt: skip
    same_logs(logs[1], logs[0])
    found = {
        weight.path: distance(b, a, first)
        for weight, a, b, first in zip(theirs.weights, theirs.get_weights(), ours.get_weights(), before, strict=True)
    }
    record_property("weights", max(found.values()))
    assert max(found.values()) < 1e-5, max(found, key=found.__getitem__)
    assert parameter_counts(theirs)["Trainable"] == parameter_counts(ours)["Trainable"]


def flat_nodes(outputs):
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


@pytest.mark.parametrize("kind", RANDOM)
def test_what_is_random_in_training_has_the_same_distribution(kind):
    rng = np.random.default_rng(5)
    for said in RANDOM[kind]:
        (shape,) = said.shapes
        x = np.full((6000, *shape), 0.7, np.float32)
        theirs = getattr(keras.layers, kind)(seed=3, **said.said)
        ours = getattr(gx.layers, kind)(seed=3, **said.said)
        node = gx.placeholder("x", ("batch", *shape))
        real = f32(rng, 4, *shape)
        (still,) = evaluate([ours(node)], [(node, real)])
        np.testing.assert_array_equal(still, np.asarray(theirs(real, training=False)))
        (b,) = evaluate([ours(node, training=True)], [(node, x)], training=True, updates=ours.updates)
        a = np.asarray(theirs(x, training=True))
        together = [[bool(np.ptp(y, axis=axis).any()) for axis in range(y.ndim)] for y in (a, b)]
        assert together[0] == together[1]
        # As many draws as there are places that differ, and a little less than one in a million to be this far off.
        draws = 6000 * np.prod([size for size, differs in zip(shape, together[0][1:], strict=True) if differs])
        off = 5 * a.std() * np.sqrt(2 / draws)
        np.testing.assert_allclose(b.mean(), a.mean(), atol=off)
        fourth = np.sqrt(np.mean((a - a.mean()) ** 4))
        np.testing.assert_allclose(b.var(), a.var(), atol=5 * fourth * np.sqrt(2 / draws))
        values = [np.unique(y) for y in (a, b)]
        if len(values[0]) < 5:
            np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in ROWS_OF if len(ROWS_OF[kind][0].shapes) > 1])
def test_masks_of_several_inputs(kind):
    rng = np.random.default_rng(1)
    x, masks = [f32(rng, 4, 3, 2), f32(rng, 4, 3, 2)], [rng.random((4, 3)) < 0.5 for _ in range(2)]
    nodes = [gx.placeholder(f"x{i}", ("batch", 3, 2)) for i in range(2)]
    given = [gx.placeholder(f"m{i}", ("batch", 3), "bool") for i in range(2)]
    feeds = [*zip(nodes, x, strict=True), *zip(given, masks, strict=True)]
    for more in ({}, {"axis": 1}) if kind == "Concatenate" else ({},):
        theirs, ours = getattr(keras.layers, kind)(**more), getattr(gx.layers, kind)(**more)
        for present in ((0, 1), (0,), ()):
            wanted = theirs.compute_mask(
                [keras.ops.convert_to_tensor(one) for one in x], [masks[i] if i in present else None for i in range(2)]
            )
            found = ours.compute_mask(nodes, [given[i] if i in present else None for i in range(2)])
            assert (found is None) == (wanted is None)
            if found is not None:
                np.testing.assert_array_equal(evaluate([found], feeds)[0], np.asarray(wanted))


@pytest.mark.parametrize("kind", ROWS_OF)
def test_layers_from_the_configuration_of_keras(kind):
    """Every entry means the same here: our layer made of it writes the same, and has the same attributes."""
    for said in ROWS_OF[kind]:
        theirs = getattr(keras.layers, kind)(**resolve(keras, said.said))
        ours = getattr(gx.layers, kind)(**resolve(gx, said.said))
        assert ours.supports_masking == theirs.supports_masking
        config = {key: value for key, value in theirs.get_config().items() if key not in ("dtype", *ABSENT)}
        if kind in ("Activation", "Dense"):
            config["activation"] = gx.activations.get(config["activation"])
        if kind == "Lambda":
            config["function"] = getattr(gx.activations, config["function"]["config"])
        made = getattr(gx.layers, kind).from_config(ported(config))
        for key in config.keys() - {"name"}:
            assert same(getattr(made, key), getattr(ours, key)), key
        again = getattr(gx.layers, kind).from_config(ours.get_config())
        assert again.get_config() == ours.get_config()


def same(one, other):
    """Equal attributes of two layers: objects of the library by what made them; Keras keeps factors in float32."""
    if isinstance(one, list | tuple):
        return list(one) == list(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if hasattr(one, "get_config"):
        return type(one) is type(other) and same(arguments_of(one), arguments_of(other))
    return one == other or (isinstance(one, float) and np.float32(one) == np.float32(other))


def arguments_of(made):
    """All arguments that an object was made with, defaults included."""
    known = {key: value for key, value in arguments(type(made)).items() if key in vars(made)}
    return {**known, **made.get_config()}


@pytest.mark.parametrize("kind", NAMESAKES)
def test_arguments_and_their_defaults(kind):
    theirs, ours = arguments(layer_classes(keras)[kind]), arguments(layer_classes(gx)[kind])
    reasons = OTHERWISE.get(kind, {})
    for key, default in theirs.items():
        alike = key in ours and same_default(ours[key], default)
        assert alike != (key in reasons or key in ABSENT), key
    assert reasons.keys() <= theirs.keys()
    order = [key for key in positional(layer_classes(keras)[kind]) if key in ours and key not in (*reasons, *NAMED)]
    if kind != "Layer":  # whose arguments are given by name
        assert [key for key in positional(layer_classes(gx)[kind]) if key in order] == order


def test_sparsemax_is_still_another_function_in_keras():
    """Let it be compared as soon as it can be: the weights of these are 1/6, 1/6, 0 and 2/3."""
    weights = np.asarray(keras.activations.sparsemax(np.array([[0.5, 0.5, -0.5, 1.0]], np.float32)))
    assert abs(weights.sum() - 1) > 0.1


def named_in(path: Path) -> set[str]:
    """Layers that a file names: ``layers.LSTM``, or ``"LSTM"`` in a table."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def test_every_layer_that_keras_has_is_compared():
    paths = [Path(__file__).with_name(name) for name in FILES]
    elsewhere = {name for path in paths if path.exists() for name in named_in(path)}
    missing = [name for name in NAMESAKES if name not in {*ROWS_OF, *OF_THEIR_OWN} and name not in elsewhere]
    assert missing == []
    assert RANDOM.keys() <= ROWS_OF.keys()
    assert ROWS_OF.keys() <= set(NAMESAKES)
