"""Where transposes go: through slices, zeros around and sums to where they end, or into what reads either way."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

import graphc as gx
from graphc import Input, Model, layers
from graphc.backends.onnx.reshapes import blocks, moves_nothing, resolved

rng = np.random.default_rng(0)


def counted(model, tmp_path, training=False, **sizes):
    """The kinds of nodes in a model's file, which agrees with the program."""
    model.compile(gx.optimizers.Adam(0.01), "mse", backend="reference")
    path = tmp_path / "network.onnx"
    model.export(path, training=training)
    program = model.programs["train" if training else "predict"]
    report = gx.onnx.verify(path, program, steps=2 if training else 1, **sizes)
    assert report.ok, str(report)
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def image(*shape):
    return rng.standard_normal((2, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 7, 2), (None, None, 2)])
def test_an_image_in_and_an_image_out(tmp_path, shape):
    """Slices, zeros around, a branch, constants along channels and places."""
    x = Input(shape, name="x")
    h = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    h = layers.ZeroPadding2D(((1, 0), (0, 2)))(layers.Cropping2D(1)(h[:, ::2, 1:]))
    h = layers.Add()([layers.Conv2D(3, 1)(h), layers.DepthwiseConv2D(1)(layers.Conv2D(3, 1)(h))])
    model = Model(x, layers.BatchNormalization()(h) * np.float32([1, 2, 3]))
    for size in ((6, 7), (8, 9)):
        if shape[0] in (None, size[0]):
            kinds = counted(model, tmp_path, inputs={"x": image(*size, 2)})
            assert kinds["Transpose"] == 2


def test_two_convolutions_give_one_result(tmp_path):
    x = Input((5, 5, 2), name="x")
    model = Model(x, layers.Conv2D(3, 3)(x) + layers.Conv2D(3, 3)(x))
    assert counted(model, tmp_path)["Transpose"] == 2


def test_what_is_neither_image_nor_wanted_stays(tmp_path):
    """A mask of places, which is read as it comes and as it is."""
    x, mask = Input((4, 5, 2), name="x"), Input((4, 5, 2), name="mask")
    h = layers.Conv2D(2, 3, padding="same")(x) * mask
    model = Model([x, mask], [layers.Conv2D(2, 3)(h), h])
    data = {"x": image(4, 5, 2), "mask": image(4, 5, 2)}
    assert counted(model, tmp_path, inputs=data)["Transpose"] <= 4


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ((None, 4, 5, 3), (None, 4, 1, 5, 3), [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)), ((3,), (4,))]),
        ((None, 4, 2, 5, 3), (None, 8, 5, 3), [((0,), (0,)), ((1, 2), (1,)), ((3,), (2,)), ((4,), (3,))]),
        ((None, 6), (None, 2, 3), [((0,), (0,)), ((1,), (1, 2))]),
        ((4, None, 3), (None, 3), None),  # what is unknown behind may be four times what is unknown before
        ((2, 6), (4, 3), [((0, 1), (0, 1))]),
        ((1, 5, 1), (5,), [((0, 1, 2), (0,))]),
        ((None, 1, 1, 7), (None, 7), [((0, 1, 2), (0,)), ((3,), (1,))]),
        ((None, 1, 7), (None, 1, 7), [((0,), (0,)), ((1,), (1,)), ((2,), (2,))]),
        ((None, 4), (None, 2), None),
        ((2, 3), (2, 4), None),
        ((3,), (3, 2), None),
    ],
)
def test_which_axes_a_reshape_makes_of_which(before, after, wanted):
    assert blocks(before, after) == wanted


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ((None, 4, 3), (-1, 12), (None, 12)), ((2, 4, 3), (-1, 12), (2, 12)), ((None, 4), (0, 2, 2), (None, 2, 2)),
        ((None, None), (-1, 2), None), ((None, 0), (-1, 2), None), ((None, 4), (0, -1), None),
    ],
)  # fmt: skip
def test_what_a_reshape_makes_of_a_shape(before, after, wanted):
    assert resolved(before, after) == wanted


def test_axes_of_one_element_move_without_moving_anything():
    assert moves_nothing((None, 3, 1, 1), (0, 2, 3, 1))
    assert moves_nothing((1, 4, 1, 5), (1, 0, 2, 3))
    assert not moves_nothing((None, 3, 2, 1), (0, 2, 3, 1))
    assert not moves_nothing((None, None, 1), (0, 2, 1))
    assert not moves_nothing((2, 0, 1), (0, 2, 1))


STEPS = {
    "average pooling": (lambda x: layers.AveragePooling2D(2)(layers.Conv2D(3, 3, activation="tanh")(x)), (6, 6, 2), 1),
    "strides without a kernel": (lambda x: layers.Conv2D(3, 2)(layers.Conv2D(2, 1)(x)[:, ::2, 1::2]), (8, 8, 2), 2),
    "depthwise": (lambda x: layers.DepthwiseConv2D(3)(layers.Conv2D(3, 2)(x)), (6, 6, 2), 2),
    "one place is left": (lambda x: layers.Conv2D(3, 3)(x), (3, 3, 2), 1),
    "repeated": (lambda x: layers.UpSampling2D(2)(layers.Conv2D(2, 2)(x)), (4, 4, 2), 1),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_turn_images_and_kernels_alone(tmp_path, name):
    """At most the images, and for each kernel itself, its gradient, what it read and what came back."""
    build, shape, kernels = STEPS[name]
    x = Input(shape, name="x")
    y = layers.Conv2D(2, 1, activation="sigmoid")(build(x))
    model = Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    data = {"x": image(*shape), "target": image(2)}
    kinds = counted(model, tmp_path, training=True, inputs=data)
    assert kinds["Transpose"] <= 4 * (kernels + 1) + 1


def test_a_step_turns_each_kernel_and_its_gradient_once(tmp_path):
    """Adam reads the gradient twice, in the layout that its state has; products of matrices turn nothing."""
    x = Input((6, 6, 2), name="x")
    h = layers.Conv2D(3, 3, activation="relu", use_bias=False)(x)
    h = layers.Conv2D(3, 3, use_bias=False)(layers.BatchNormalization()(h))
    model = Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(h)))
    data = {"x": image(6, 6, 2), "target": image(2)}
    kinds = counted(model, tmp_path, training=True, inputs=data)
    # The image for the output; each kernel and its gradient; for each gradient what is read and what comes back, with
    # samples in the place of channels. What comes back from the mean over all places is only reshaped.
    assert kinds["Transpose"] == 1 + 2 * 2 + 2 * 2
    assert kinds["Gemm"] >= 2
