"""Transfer learning: frozen layers, new heads, weights by name, learning rates of groups."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from tests.frontend.running import f32

rng = np.random.default_rng(0)
X, LABELS = f32(rng, 12, 8, 8, 2), rng.integers(0, 3, 12)


def network(classes=3, **first):
    return Sequential([
        Input((8, 8, 2)),
        layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2", name="conv_1", **first),
        layers.BatchNormalization(name="norm"),
        layers.Conv2D(5, 3, activation="relu", name="conv_2"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(6, activation="relu", name="hidden"),
        layers.Dense(classes, activation="softmax", name="head"),
    ])  # fmt: skip


def compiled(model, optimizer=None):
    model.compile(optimizer or gx.optimizers.SGD(0.1), "sparse_categorical_crossentropy", backend="reference")
    return model


def trained(model):
    return sorted({weight.label.rpartition("/")[0] for weight in model.trainable_weights})


def test_layers_are_frozen_by_object_name_pattern_and_place():
    model = network()
    assert model.freeze("conv_*", model.get_layer("norm")) == ["conv_1", "conv_2", "norm"]
    assert trained(model) == ["head", "hidden"]
    assert model.unfreeze("conv_2") == ["conv_2"]
    assert trained(model) == ["conv_2", "head", "hidden"]
    assert model.freeze(all_but_last=2) == ["conv_1", "norm", "conv_2"]
    assert trained(model) == ["head", "hidden"]
    model.freeze()
    assert not model.trainable
    assert trained(model) == []
    model.freeze(all_but_last=1)
    assert trained(model) == ["head"]
    model.unfreeze()
    assert trained(model) == ["conv_1", "conv_2", "head", "hidden", "norm"]


def test_patterns_reach_into_models_within():
    base = Sequential([Input((4,)), layers.Dense(3, name="one"), layers.Dense(3, name="two")], name="base")
    x = Input((4,))
    model = Model(x, layers.Dense(2, name="one")(base(x)))
    model.freeze("base")
    assert trained(model) == ["one"]
    model.unfreeze("base/t*")
    assert trained(model) == ["base/two", "one"]
    assert model.freeze("one") == ["base/one", "one"]
    assert trained(model) == ["base/two"]
    model.unfreeze("base")
    assert base.trainable


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        (lambda m: m.freeze("conv1_*"), gx.NameClashError, "no layer 'conv1_\\*'.*\n.*to do: .*conv_1, norm"),
        (lambda m: m.unfreeze("conv_3"), gx.NameClashError, "did you mean 'conv_2' or 'conv_1'"),
        (lambda m: m.freeze(layers.Dense(2)), gx.NameClashError, "no layer 'dense'"),
        (lambda m: m.freeze(all_but_last=6), gx.AxisError, "has 5 layers with weights"),
    ],
)
def test_layers_that_are_not_there(wrong, error, says):
    model = network()
    with pytest.raises(error, match="(?s)" + says):
        wrong(model)
    assert len(trained(model)) == 5


def test_frozen_weights_have_no_gradients_slots_or_statistics():
    """One dense layer is trained: no convolution stands in the backward pass, no batch is measured."""
    model = compiled(network(), gx.optimizers.Adam(0.01))
    whole = model.programs["train"].graph
    model.freeze(all_but_last=1)
    part = model.programs["train"].graph
    kinds = [[node.op.name for node in graph.nodes if "conv" in node.op.name] for graph in (whole, part)]
    assert len(kinds[0]) > len(kinds[1]) == 2
    changed = [{param.label for param, _ in graph.updates} for graph in (whole, part)]
    assert "norm/moving_mean" in changed[0]
    assert {label.split("/")[0] for label in changed[1] - {"adam/iterations"}} <= {"head", "adam"}
    assert len(part.nodes) < len(whole.nodes) / 2
    other = compiled(network(), gx.optimizers.Adam(0.01))
    other.freeze(all_but_last=1)
    other.fit(X, LABELS, verbose=0)
    slots = [key for key in other.optimizer.variables(other.named_weights()) if "/" in key]
    assert slots == ["head/kernel/momentum", "head/kernel/velocity", "head/bias/momentum", "head/bias/velocity"]


def test_trainable_takes_effect_after_compile_in_batch_normalization_too():
    model = compiled(network())
    model.train_on_batch(X, LABELS)
    norm = model.get_layer("norm")
    before = norm.get_weights()
    norm.trainable = False
    model.train_on_batch(X, LABELS)
    for old, new in zip(before, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    norm.trainable = True
    model.train_on_batch(X, LABELS)
    assert not any(np.array_equal(old, new) for old, new in zip(before, norm.get_weights(), strict=True))


def test_normalization_without_weights_to_train_is_frozen_too():
    model = Sequential([Input((3,)), layers.BatchNormalization(center=False, scale=False), layers.Dense(1)])
    model.compile("sgd", "mse", backend="reference")
    x = f32(rng, 6, 3)
    model.train_on_batch(x, x[:, :1])
    mean = model.layers[0].moving_mean.value
    model.layers[0].trainable = False
    model.train_on_batch(x, x[:, :1])
    np.testing.assert_array_equal(model.layers[0].moving_mean.value, mean)


def test_frozen_weights_have_no_penalty():
    model = compiled(network())
    kernel = model.get_weights()[0]
    whole = model.evaluate(X, LABELS, verbose=0)
    model.freeze("conv_1")
    assert whole - model.evaluate(X, LABELS, verbose=0) == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-4)


def test_a_model_that_trains_nothing_says_so():
    model = compiled(network())
    model.trainable = False
    model.get_layer("head").trainable = True  # as in Keras: the model itself says that it is not trained
    assert model.trainable_weights == []
    with pytest.warns(
        UserWarning, match="no weights to train: model.trainable is False; let layers train by model.unfreeze"
    ):
        model.train_on_batch(X, LABELS)
    model.unfreeze("head")
    assert trained(model) == ["head"]
    model.train_on_batch(X, LABELS)


@pytest.mark.parametrize("way", ["functional", "sequential", "nested"])
def test_a_new_head_is_trained_on_a_frozen_base(way):
    base = compiled(network())
    base.fit(X, LABELS, epochs=2, verbose=0)
    if way == "functional":
        cut = base.get_layer("hidden").output
        model = Model(base.inputs, layers.Dense(4, activation="softmax", name="new")(cut))
    elif way == "sequential":
        model = Sequential([Input((8, 8, 2)), *base.layers[:-1], layers.Dense(4, activation="softmax", name="new")])
    else:
        body = Model(base.input, base.get_layer("hidden").output, name="body")
        model = Sequential([Input((8, 8, 2)), body, layers.Dense(4, activation="softmax", name="new")])
    features = Model(base.input, base.get_layer("hidden").output).predict(X, verbose=0)
    old = base.get_weights()
    model.freeze(all_but_last=1)
    assert trained(model) == ["new"]
    compiled(model).fit(X, LABELS, epochs=2, verbose=0)
    for before, after in zip(old, base.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    kernel, bias = model.get_layer("new").get_weights()
    logits = features @ kernel + bias
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict(X, verbose=0), wanted, rtol=1e-4, atol=1e-6)
    model.unfreeze()
    compiled(model).fit(X, LABELS, verbose=0)
    assert not np.array_equal(old[0], base.get_weights()[0])


# Weights by name.


def test_weights_are_loaded_by_name_with_a_report(tmp_path):
    path = tmp_path / "w.safetensors"
    source = network()
    source.save_weights(path)
    report = source.load_weights(path)
    assert (len(report.matched), report.differing, report.missing, report.unused) == (12, {}, (), ())
    other = network(classes=5)
    with pytest.raises(gx.FileError, match=r"lacks 'head/kernel' of shape \(6, 5\), it holds one of shape \(6, 3\)"):
        other.load_weights(path, by_name=True)
    with pytest.raises(gx.FileError, match="skip_mismatch=True"):
        other.load_weights(path)
    head = other.get_layer("head").get_weights()
    report = other.load_weights(path, by_name=True, skip_mismatch=True)
    assert len(report.matched) == 10
    assert report.differing == {"head/kernel": ((6, 3), (6, 5)), "head/bias": ((3,), (5,))}
    assert "10 weights loaded\nnot loaded: head/kernel: (6, 3) in the file, (6, 5) here" in str(report)
    for a, b in zip(source.get_weights()[:-2], other.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(head, other.get_layer("head").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_layer_is_loaded_as_a_whole_or_not(tmp_path):
    path = tmp_path / "w.safetensors"
    Sequential([Input((3,)), layers.Dense(4, name="d")]).save_weights(path)
    wider = Sequential([Input((5,)), layers.Dense(4, name="d")])
    bias = f32(rng, 4)
    wider.layers[0].bias.value = bias
    report = wider.load_weights(path, skip_mismatch=True)
    assert report.differing == {"d/kernel": ((3, 4), (5, 4)), "d/bias": ((4,), (4,))}
    assert report.matched == ()
    np.testing.assert_array_equal(wider.layers[0].bias.value, bias)


def test_layers_of_a_model_within_are_found_by_name(tmp_path):
    path = tmp_path / "w.safetensors"
    source = Sequential([Input((3,)), layers.Dense(3, name="a"), layers.Dense(3, name="b"), layers.Dense(2, name="x")])
    source.save_weights(path)
    base = Sequential([Input((3,)), layers.Dense(3, name="a"), layers.Dense(3, name="b")], name="base")
    model = Sequential([Input((3,)), base, layers.Dense(2, name="y")])
    report = model.load_weights(path, by_name=True)
    assert report.matched == ("base/a/kernel", "base/a/bias", "base/b/kernel", "base/b/bias")
    assert report.missing == ("y/kernel", "y/bias")
    assert report.unused == ("x/bias", "x/kernel")
    np.testing.assert_array_equal(base.get_weights()[2], source.get_weights()[2])
    with pytest.raises(gx.FileError, match="lacks 'base/a/kernel' of shape"):
        model.load_weights(path)
    twice = [Sequential([Input((3,)), layers.Dense(3, name="a")], name=name) for name in ("first", "second")]
    report = Sequential([Input((3,)), *twice]).load_weights(path, by_name=True)
    assert report.matched == ()  # two layers are called so: it is not known which is meant


# Groups.


def chain():
    gx.set_seed(3)
    model = Sequential([
        Input((3,)), layers.Dense(4, "tanh", name="base_1"), layers.Dense(4, "tanh", name="base_2"),
        layers.Dense(2, name="head"),
    ])  # fmt: skip
    return model


def fitted(optimizer, epochs=3):
    model = chain()
    model.compile(optimizer, "mse", backend="reference")
    x = np.sin(np.arange(30, dtype=np.float32)).reshape(10, 3)
    model.fit(x, x[:, :2] ** 2, epochs=epochs, batch_size=5, shuffle=False, verbose=0)
    return model


def test_a_factor_of_the_rate_is_what_it_says():
    """One step from the same gradients: each group moves by its part of the step."""
    start = chain().get_weights()
    plain = [b - a for a, b in zip(start, one_step(gx.optimizers.Adam(0.01)), strict=True)]
    groups = {"base_1": 0.1, "base*": 0.5}
    parts = [
        b - a for a, b in zip(start, one_step(gx.optimizers.Grouped(gx.optimizers.Adam(0.01), groups)), strict=True)
    ]
    for factor, whole, part in zip([0.1, 0.1, 0.5, 0.5, 1, 1], plain, parts, strict=True):
        np.testing.assert_allclose(part, factor * whole, rtol=1e-4, atol=1e-7)


def one_step(optimizer):
    model = chain()
    model.compile(optimizer, "mse", backend="reference")
    model.train_on_batch(np.ones((2, 3), np.float32), np.ones((2, 2), np.float32))
    return model.get_weights()


def test_an_optimizer_of_its_own_is_what_it_is_alone():
    """The head by SGD, the rest by Adam: each as where the other group is frozen, as far as one step goes."""
    both = one_step(gx.optimizers.Grouped(gx.optimizers.Adam(0.01, weight_decay=0.1), {"head": gx.optimizers.SGD(0.3)}))
    for place, alone in (
        (slice(0, 4), gx.optimizers.Adam(0.01, weight_decay=0.1)),
        (slice(4, 6), gx.optimizers.SGD(0.3)),
    ):
        for a, b in zip(both[place], one_step(alone)[place], strict=True):
            np.testing.assert_array_equal(a, b)


def test_groups_without_effect_have_none():
    for optimizer in (
        gx.optimizers.Nadam(0.01),
        gx.optimizers.AdamW(0.01, global_clipnorm=0.1),
        gx.optimizers.Ftrl(0.1),
    ):
        same = fitted(gx.optimizers.Grouped(type(optimizer)(**optimizer.get_config()), {"base*": 1.0}))
        for a, b in zip(fitted(optimizer).get_weights(), same.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_groups_are_updated_by_one_kernel():
    counts = []
    for optimizer in (
        gx.optimizers.Adam(0.01),
        gx.optimizers.Grouped(gx.optimizers.Adam(0.01), {"base_1": 0.1, "base_2": 0.2}),
    ):
        model = chain()
        model.compile(optimizer, "mse", backend="numba")
        plan = model.programs["train"].text("plan")
        last = plan[plan.index("commit:") :]
        counts.append(
            (len(re.findall(r"^launch \d+: \w+$", plan, re.M)), last.count("\n  subtract_multiply_sqrt_divide"))
        )
    assert counts[0] == counts[1]
    assert counts[0][1] == 6


def test_training_in_groups_goes_on_from_files(tmp_path):
    def optimizer():
        return gx.optimizers.Grouped(gx.optimizers.Adam(0.01), {"base_1": 0.1, "head": gx.optimizers.Nadam(0.02)})

    model = fitted(optimizer())
    model.save(tmp_path / "m")
    again = gx.load_model(tmp_path / "m")
    assert type(again.optimizer) is gx.optimizers.Grouped
    x = np.ones((4, 3), np.float32)
    for _ in range(2):
        assert model.train_on_batch(x, x[:, :2]) == again.train_on_batch(x, x[:, :2])
    assert int(again.optimizer.iterations.value) == 8
    again.optimizer.learning_rate = 0.001
    assert again.optimizer.groups["head"].learning_rate == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: gx.optimizers.Grouped(gx.optimizers.SGD(), {"a": 0.0}), "multiplied by 0.0.*\n.*freeze"),
        (lambda: gx.optimizers.Grouped(gx.optimizers.Grouped(gx.optimizers.SGD(), {}), {}), "groups within groups"),
        (lambda: one_step(gx.optimizers.Grouped(gx.optimizers.SGD(), {"bass*": 0.1})), "no layer with weights is called 'bass"),
    ],
)  # fmt: skip
def test_groups_that_make_no_sense(make, says):
    with pytest.raises(gx.GraphcError, match="(?s)" + says):
        make()


def test_first_values_are_drawn_when_they_are_asked_for():
    """A kernel of 400 GB is declared, loaded over elsewhere or never used; one that is read is what it always was."""
    wide = Sequential([Input((10**6,)), layers.Dense(10**5)])
    assert wide.count_params() == 10**11 + 10**5
    gx.set_seed(1)
    late = Sequential([Input((3,)), layers.Dense(2)])
    gx.set_seed(2)
    other = Sequential([Input((3,)), layers.Dense(2)])
    gx.set_seed(1)
    early = Sequential([Input((3,)), layers.Dense(2)]).get_weights()[0]
    np.testing.assert_array_equal(late.get_weights()[0], early)
    assert not np.array_equal(other.get_weights()[0], early)
